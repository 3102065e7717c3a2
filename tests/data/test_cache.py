"""The cache in shared memory: the same samples, read once, one copy whatever the workers."""

import numpy as np
import pytest
import torch

from flexunet_pl.data.cache import RamCache
from flexunet_pl.data.datamodule import SegmentationDataModule
from flexunet_pl.data.dataset import SampleKey, SegmentationDataset
from flexunet_pl.errors import UserError
from flexunet_pl.image_io import ImageReader
from flexunet_pl.pairing import list_pairs
from flexunet_pl.prepare.phantom import PHANTOM_MAP


def _module(phantoms, **options):
    module = SegmentationDataModule(phantoms, PHANTOM_MAP.to_dict(), (32, 48), num_workers=0, **options)
    module.setup("fit")
    return module


def _epochs(module, count=2):
    loader = module.train_dataloader()
    batches = []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        batches += [(b["name"], b["image"].clone(), b["mask"].clone()) for b in loader]
    return batches


@pytest.mark.parametrize("workers", [{"num_workers": 0}, {"num_workers": 2, "start_method": "spawn"}])
def test_the_samples_are_those_without_a_cache(phantoms, workers):
    plain = SegmentationDataModule(phantoms, PHANTOM_MAP.to_dict(), (32, 48), num_workers=0)
    plain.setup("fit")
    cached = SegmentationDataModule(phantoms, PHANTOM_MAP.to_dict(), (32, 48), cache="ram", **workers)
    cached.setup("fit")
    for one, two in zip(_epochs(plain), _epochs(cached), strict=True):
        assert one[0] == two[0]
        assert torch.equal(one[1], two[1])
        assert torch.equal(one[2], two[2])


def test_files_are_read_once(phantoms, tmp_path, monkeypatch):
    pairs = list_pairs(phantoms / "train")
    dataset = SegmentationDataset(pairs, PHANTOM_MAP, ImageReader((32, 48)), cache=RamCache(len(pairs), (32, 48, 3)))
    first = dataset[SampleKey(0, 3)]
    monkeypatch.setattr("flexunet_pl.data.dataset.read_mask", lambda *_: pytest.fail("read again"))
    again = dataset[SampleKey(1, 3)]
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["mask"], again["mask"])
    with pytest.raises(pytest.fail.Exception):
        dataset[SampleKey(0, 4)]


def test_augmentation_does_not_reach_the_cache(phantoms):
    pairs = list_pairs(phantoms / "train")
    cache = RamCache(len(pairs), (32, 48, 3))

    def erase(*, image, mask):
        image = image.copy()
        image[:] = 0
        return {"image": image, "mask": mask}

    dataset = SegmentationDataset(pairs, PHANTOM_MAP, ImageReader((32, 48)), erase, cache=cache)
    assert not dataset[SampleKey(0, 0)]["image"].any()
    assert not dataset[SampleKey(1, 0)]["image"].any()
    assert cache.get(0)[0].any()


def test_its_memory_is_a_byte_per_value(phantoms):
    cache = RamCache(100, (512, 512, 3))
    assert cache.size == cache.images.nbytes + cache.masks.nbytes <= 100 * 1.05e6
    assert cache.images.is_shared()
    assert cache.get(7) is None
    cache.put(7, np.full((512, 512, 3), 9, np.uint8), np.ones((512, 512), np.uint8))
    image, mask = cache.get(7)
    assert (image == 9).all()
    assert (mask == 1).all()


def test_too_little_memory_is_said():
    with pytest.raises(UserError, match=r"data\.cache: ram needs .* GiB of shared memory"):
        RamCache(10**9, (512, 512, 3))
