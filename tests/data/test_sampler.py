"""Small lesions more often: exact shares, no process and no resume sees another order."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flexunet_pl.common.errors import UserError
from flexunet_pl.data.datamodule import SegmentationDataModule
from flexunet_pl.data.sampler import EpochSampler
from flexunet_pl.io.masks import read_mask, write_mask
from flexunet_pl.prepare.phantom import PHANTOM_MAP


def _sampler(shown, share, **options):
    return EpochSampler(len(shown), train=True, seed=3, foreground=np.array(shown), foreground_share=share, **options)


@given(st.lists(st.booleans(), min_size=4, max_size=60), st.sampled_from([0.3, 0.5, 0.9, 1.0]))
@settings(max_examples=100, deadline=None)
def test_the_share_is_met_and_each_is_drawn_as_often_as_the_others_but_for_one(shown, share):
    keys = list(_sampler(shown, share))
    counts = Counter(key.index for key in keys)
    drawn = [counts[i] for i in np.flatnonzero(shown)]
    assert len(keys) == len(shown)
    assert sum(drawn) == max(sum(shown), round(share * len(shown))) or not any(shown)
    assert not drawn or max(drawn) - min(drawn) <= 1
    assert all(counts[i] <= 1 for i in np.flatnonzero(~np.array(shown)))
    assert sorted((k.index, k.repeat) for k in keys) == sorted((i, r) for i, n in counts.items() for r in range(n))


def test_without_a_share_the_order_is_that_of_a_plain_shuffle():
    plain = EpochSampler(20, train=True, seed=3)
    assert list(_sampler([True] * 12 + [False] * 8, 0.5)) == list(plain)


@given(st.integers(1, 30), st.integers(1, 100), st.sampled_from([0.0, 0.4, 1.0]))
@settings(max_examples=100, deadline=None)
def test_an_epoch_has_the_length_asked_for(size, length, share):
    shown = [i % 3 == 0 for i in range(size)]
    keys = list(_sampler(shown, share, length=length))
    assert len(keys) == length
    for group in (True, False):
        drawn = [sum(key.index == i for key in keys) for i in range(size) if shown[i] is group]
        assert not drawn or share or max(drawn) - min(drawn) <= 1
    assert len({(key.index, key.repeat) for key in keys}) == length  # each is augmented anew


def test_a_length_is_of_training_alone():
    assert len(EpochSampler(7, length=20)) == 7


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_draw_of_one(world):
    shown = [i % 7 == 0 for i in range(50)]
    whole = list(_sampler(shown, 0.5))
    parts = [list(_sampler(shown, 0.5, rank=rank, world_size=world)) for rank in range(world)]
    length = len(whole) // world
    assert [len(part) for part in parts] == [length] * world
    assert [part[i] for i in range(length) for part in parts] == whole[: length * world]


def test_a_resumed_epoch_goes_on_where_it_stopped_and_empty_slices_take_turns():
    shown = [i < 3 for i in range(30)]
    whole, resumed = _sampler(shown, 0.5), _sampler(shown, 0.5)
    whole.set_epoch(4)
    resumed.resume(4, 11)
    assert list(resumed) == list(whole)[11:]
    empty = set()
    for epoch in range(12):
        whole.set_epoch(epoch)
        empty |= {key.index for key in whole} - {0, 1, 2}
    assert empty == set(range(3, 30))


def test_the_loader_draws_slices_with_foreground_more_often_and_augments_each_again(tmp_path, phantoms):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "images").symlink_to(phantoms / split / "images")
        _write_tracheas(phantoms / split / "masks", tmp_path / split / "masks")
    classes = {"background": [0, 0, 0], "trachea": [255, 0, 0]}
    options = {"rgb_map": classes, "num_workers": 0, "batch_size": 1, "seed": 138}
    module = SegmentationDataModule(tmp_path, image_size=(64, 64), foreground_share=1.0, **options)
    module.setup("fit")
    batches = list(module.train_dataloader())
    names = Counter(batch["name"][0] for batch in batches)
    assert len(batches) == 12
    assert len(names) == 8, "the slices in which the trachea is seen"
    name = names.most_common(1)[0][0]
    one, two = (batch["image"] for batch in batches if batch["name"][0] == name)
    assert not torch.equal(one, two)


def _write_tracheas(masks, target):
    for path in masks.iterdir():
        write_mask(target / path.name, (read_mask(path, PHANTOM_MAP) == 1).astype(np.uint8), PHANTOM_MAP)


def test_an_epoch_without_samples_is_said():
    with pytest.raises(UserError, match=r"data\.epoch_samples is 0; it must be at least 1"):
        SegmentationDataModule(rgb_map=PHANTOM_MAP.to_dict(), epoch_samples=0)


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_a_share_out_of_range_is_said(share):
    with pytest.raises(UserError, match="foreground_share"):
        SegmentationDataModule(rgb_map=PHANTOM_MAP.to_dict(), foreground_share=share)
