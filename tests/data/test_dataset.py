import random
from collections import Counter

import albumentations
import numpy as np
import pytest
import torch
from albumentations.pytorch import ToTensorV2
from hypothesis import given, settings
from hypothesis import strategies as st

from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.data.dataset import SegmentationDataset, collate
from flexunet_pl.data.sampler import EpochSampler, SampleKey
from flexunet_pl.data.transforms import CTAugmentation
from flexunet_pl.io.images import ImageReader, read_image, resize_image, write_image
from flexunet_pl.io.masks import read_mask, resize_mask
from flexunet_pl.io.pairs import list_pairs
from flexunet_pl.prepare.phantom import PHANTOM_MAP


def dataset(phantoms, transform=None, size=(32, 48), **options):
    return SegmentationDataset(list_pairs(phantoms / "train"), PHANTOM_MAP, ImageReader(size), transform, **options)


def test_a_sample_is_the_resized_pair(phantoms):
    pair = list_pairs(phantoms / "train")[3]
    sample = dataset(phantoms)[SampleKey(0, 3)]
    assert np.array_equal(sample["image"], resize_image(read_image(pair.image), (32, 48)))
    assert np.array_equal(sample["mask"], resize_mask(read_mask(pair.mask, PHANTOM_MAP), (32, 48)))
    assert sample["name"] == pair.image.stem


def test_batches_are_bytes_with_the_channels_last_in_memory(phantoms):
    data = dataset(phantoms)
    batch = collate([data[SampleKey(0, 0)], data[SampleKey(0, 1)], data[SampleKey(0, 1, counted=False)]])
    assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
    assert batch["image"].shape == (3, 3, 32, 48)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert batch["counted"] == 2


def same(a, b):
    return torch.equal(a["image"], b["image"]) and torch.equal(a["mask"], b["mask"])


class Flipper:
    """A transform that knows nothing of seeds and draws from the global generators."""

    def __call__(self, *, image, mask):
        shift = random.randrange(1000) + np.random.randint(1000) + int(torch.randint(1000, ()))  # noqa: NPY002
        return {"image": np.roll(image, shift, axis=0), "mask": np.roll(mask, shift, axis=0)}


@pytest.mark.parametrize("transform", [CTAugmentation(p=1.0), Flipper()], ids=["albumentations", "any callable"])
def test_augmentation_depends_on_seed_epoch_and_sample_alone(phantoms, transform):
    data = dataset(phantoms, transform, seed=1)
    first = data[SampleKey(2, 3)]
    before = torch.get_rng_state(), random.getstate()
    data[SampleKey(0, 5)]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert same(data[SampleKey(2, 3)], first)
    assert not same(data[SampleKey(3, 3)], first)
    assert not same(dataset(phantoms, transform, seed=2)[SampleKey(2, 3)], first)


def test_the_default_augmentation_invents_no_class_and_does_not_mirror(phantoms):
    data = dataset(phantoms, CTAugmentation(p=1.0), size=(64, 64))
    for epoch in range(20):
        sample = data[SampleKey(epoch, 1)]
        assert set(np.unique(sample["mask"])) <= {0, 1, 2, 3}
    columns = np.arange(64)
    plain = dataset(phantoms, size=(64, 64))
    for i in range(12):  # the heart lies on the same side as without augmentation
        hearts = [np.asarray(d[SampleKey(1, i)]["mask"]) == 2 for d in (plain, data)]
        if hearts[0].sum() > 40:
            spine = [
                np.average(columns, weights=(np.asarray(d[SampleKey(1, i)]["mask"]) == 3).sum(0)) for d in (plain, data)
            ]
            offsets = [np.average(columns, weights=h.sum(0)) - s for h, s in zip(hearts, spine, strict=True)]
            assert np.sign(offsets[0]) == np.sign(offsets[1])


def test_a_transform_that_changes_the_size_is_refused(phantoms):
    data = dataset(phantoms, albumentations.Compose([albumentations.CenterCrop(8, 8)]))
    with pytest.raises(DataError, match=r"the transform made it \(8, 8\)"):
        data[SampleKey(0, 0)]


def test_a_mask_of_another_size_is_refused(tmp_path):
    write_image(tmp_path / "images" / "a.png", np.zeros((8, 9, 3), np.uint8))
    write_image(tmp_path / "masks" / "a.png", np.zeros((9, 8, 3), np.uint8))
    data = SegmentationDataset(list_pairs(tmp_path), PHANTOM_MAP, ImageReader((8, 8)))
    with pytest.raises(DataError, match=r"masks/a\.png: mask is 9x8 px .* its image is 8x9"):
        data[SampleKey(0, 0)]


sizes = st.integers(1, 40)
worlds = st.integers(1, 5)


@settings(max_examples=100, deadline=None)
@given(sizes, worlds, st.integers(0, 9))
def test_in_evaluation_every_sample_is_counted_once_and_all_processes_make_the_same_steps(size, world, epoch):
    samplers = [EpochSampler(size, rank=r, world_size=world) for r in range(world)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    keys = [list(sampler) for sampler in samplers]
    assert {len(k) for k in keys} == {len(samplers[0])}
    assert sorted(k.index for ks in keys for k in ks if k.counted) == list(range(size))
    for ks in keys:  # collate counts from the first
        assert sorted(ks, key=lambda k: not k.counted) == ks


@settings(max_examples=100, deadline=None)
@given(sizes, worlds, st.integers(0, 9))
def test_in_training_no_sample_is_drawn_twice_in_an_epoch(size, world, epoch):
    if size < world:
        with pytest.raises(DataError, match="cannot be shared"):
            EpochSampler(size, train=True, world_size=world)
        return
    samplers = [EpochSampler(size, train=True, seed=1, rank=r, world_size=world) for r in range(world)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    keys = [list(sampler) for sampler in samplers]
    assert {len(k) for k in keys} == {size // world} == {len(samplers[0])}
    assert max(Counter(k.index for ks in keys for k in ks).values()) == 1
    assert all(k.counted and k.epoch == epoch for ks in keys for k in ks)


def test_the_order_changes_with_the_epoch_and_not_with_the_run():
    def order(epoch):
        sampler = EpochSampler(50, train=True, seed=3)
        sampler.set_epoch(epoch)
        return [k.index for k in sampler]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_resumed_epoch_goes_on_behind_what_was_drawn():
    whole, resumed = (EpochSampler(10, train=True, seed=3) for _ in range(2))
    whole.set_epoch(2)
    resumed.resume(2, 4)
    assert list(resumed) == list(whole)[4:]
    assert len(resumed) == 10
    for sampler in (whole, resumed):
        sampler.set_epoch(3)
    assert list(resumed) == list(whole)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("step", ["Normalize", "ToFloat", "ToTensorV2"])
def test_a_transform_that_leaves_uint8_is_refused_by_the_name_of_its_step(phantoms, step):
    last = ToTensorV2() if step == "ToTensorV2" else getattr(albumentations, step)()
    transform = albumentations.Compose([albumentations.HorizontalFlip(), last])
    with pytest.raises(UserError, match=f"data.train_transform: {step} leaves image and mask as"):
        dataset(phantoms, transform)[SampleKey(0, 0)]
