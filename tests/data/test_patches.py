"""Patches: of one size, at native resolution, around foreground as often as asked; mixed boxes; what a cache keeps."""

import numpy as np
import pytest
import torch

from flexunet_pl import FlexUNet, SegmentationDataModule, SegmentationTask
from flexunet_pl.common.errors import UserError
from flexunet_pl.data.cache import RamCache
from flexunet_pl.data.cutmix import paste_box
from flexunet_pl.data.patches import PatchCutter
from flexunet_pl.data.sampler import SampleKey
from flexunet_pl.prepare.phantom import PHANTOM_MAP


def picture(height, width):
    index = np.arange(height * width, dtype=np.uint32).reshape(height, width)
    return np.stack([index % 251, index // 251 % 251, index % 7], axis=2).astype(np.uint8)


@pytest.mark.parametrize("size", [(100, 120), (30, 200), (20, 20)])
def test_a_patch_has_its_size_whatever_the_image_s(size):
    cutter = PatchCutter((32, 48), 0.5)
    image, mask = picture(*size), np.zeros(size, dtype=np.uint8)
    mask[-3:, -3:] = 1
    for seed in range(20):
        found = cutter.cut(image, mask, np.random.default_rng(seed))
        assert (found[0].shape, found[1].shape) == ((48, 72, 3), (48, 72))
        trimmed = cutter.trim(*found)
        assert (trimmed[0].shape, trimmed[1].shape) == ((32, 48, 3), (32, 48))


def test_pixels_are_those_of_the_image():
    image = picture(100, 120)
    mask = image[..., 2]
    patch, of_mask = PatchCutter((32, 32), 1.0).cut(image, mask, np.random.default_rng(3))
    assert np.array_equal(patch[..., 2], of_mask)
    windows = np.lib.stride_tricks.sliding_window_view(image, (48, 48, 3))[:, :, 0]
    assert (windows == patch).all(axis=(2, 3, 4)).any()


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 1.0, 1.0), (0.5, 0.45, 0.75), (0.0, 0.0, 0.25)])
def test_foreground_is_drawn_as_often_as_asked(share, least, most):
    mask = np.zeros((200, 200), dtype=np.uint8)
    mask[20:24, 170:174] = 2
    image = picture(200, 200)
    cutter = PatchCutter((40, 40), share)
    patches = [cutter.trim(*cutter.cut(image, mask, np.random.default_rng(seed)))[1] for seed in range(200)]
    assert least <= np.mean([patch.any() for patch in patches]) <= most


def test_each_class_is_drawn_as_often_as_the_others():
    mask = np.zeros((200, 200), dtype=np.uint8)
    mask[:100] = 1
    mask[190:192, 10:12] = 2
    cutter = PatchCutter((20, 20), 1.0)
    patches = [cutter.trim(*cutter.cut(picture(200, 200), mask, np.random.default_rng(s)))[1] for s in range(200)]
    assert 0.35 < np.mean([(patch == 2).any() for patch in patches]) < 0.65


def test_a_box_of_image_and_mask_is_another_s():
    one, two = np.zeros((40, 60, 3), dtype=np.uint8), np.full((40, 60, 3), 9, dtype=np.uint8)
    image, mask = paste_box(one, one[..., 0], (two, two[..., 0]), np.random.default_rng(1))
    assert np.array_equal(image[..., 0], mask)
    assert 0.25**2 <= (mask == 9).mean() <= 0.5**2
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert (mask[np.ix_(rows, columns)] == 9).all()
    assert not one.any()


def module(phantoms, **options):
    made = SegmentationDataModule(
        phantoms, PHANTOM_MAP.to_dict(), (32, 32), num_workers=0, train_transform=None, seed=1, **options
    )
    made.setup("fit")
    return made


def test_training_gives_patches_and_validation_whole_images(phantoms):
    data = module(phantoms, patches=True, cache="ram", foreground_share=1.0)
    batches = [list(data.train_dataloader()) for _ in range(2)]
    assert {tuple(batch["image"].shape) for batch in batches[0]} == {(2, 3, 32, 32)}
    assert all(batch["mask"].any() for batch in batches[0])
    for one, two in zip(*batches, strict=True):  # the cache gives what the files gave
        assert torch.equal(one["image"], two["image"])
    assert [tuple(batch["image"].shape) for batch in data.val_dataloader()] == [(1, 3, 64, 64)] * 3


def test_cutmix_is_decided_by_seed_and_key_alone(phantoms):
    mixed, plain = (module(phantoms, cutmix=share)._dataset("train") for share in (1.0, 0.0))
    key = SampleKey(2, 3)
    one, two = mixed[key], mixed[key]
    assert torch.equal(one["image"], two["image"])
    changed = (one["image"] != plain[key]["image"]).any(dim=2)
    assert 0.01 < changed.float().mean() <= 0.25
    assert not torch.equal(one["image"], mixed[SampleKey(3, 3)]["image"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patches": True, "cache": "disk"}, "disk keeps images of one size"),
        ({"cutmix": 1.5}, r"data\.cutmix \(1\.5\)"),
    ],
)
def test_settings_that_do_not_fit_are_said(phantoms, options, message):
    with pytest.raises(UserError, match=message):
        module(phantoms, **options)


def test_a_cache_keeps_images_of_several_sizes():
    cache = RamCache(2, (8, 10, 3))
    for index, size in enumerate([(8, 6), (5, 10)]):
        cache.put(index, picture(*size), np.full(size, index, dtype=np.uint8))
    for index, size in enumerate([(8, 6), (5, 10)]):
        image, mask = cache.get(index)
        assert np.array_equal(image, picture(*size))
        assert np.array_equal(mask, np.full(size, index))


def test_a_task_of_patches_validates_and_predicts_in_tiles():
    task = SegmentationTask(
        FlexUNet(3, 4, 2, (3, 3), 3), rgb_map=PHANTOM_MAP.to_dict(), image_size=(32, 32), patches=True
    ).eval()
    image = torch.randint(0, 256, (1, 3, 64, 48), dtype=torch.uint8)
    batch = {"image": image, "mask": torch.zeros(1, 64, 48, dtype=torch.uint8), "name": ["a"], "counted": 1}
    with torch.no_grad():
        assert task.test_step(batch, 0).shape == (1, 4, 64, 48)
        small = image[..., :20, :20]
        assert task.inference.logits(task, small, (32, 32)).shape == (1, 4, 20, 20)
    assert task.inference.tiled is True
    assert task.hparams["patches"] is True
