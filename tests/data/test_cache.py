"""The caches: the same samples, read once, one copy whatever the workers; a file that is whole or not there."""

import pickle
import shutil
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.data.cache import DiskCache, RamCache
from flexunet_pl.data.datamodule import SegmentationDataModule
from flexunet_pl.data.dataset import SegmentationDataset
from flexunet_pl.data.sampler import SampleKey
from flexunet_pl.io.images import ImageReader
from flexunet_pl.io.pairs import list_pairs
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


@pytest.fixture
def root(tmp_path, phantoms):
    """A copy of the phantoms, to write to."""
    return shutil.copytree(phantoms, tmp_path / "data")


@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("workers", [{"num_workers": 0}, {"num_workers": 2, "start_method": "spawn"}])
def test_the_samples_are_those_without_a_cache(root, workers, cache):
    plain = SegmentationDataModule(root, PHANTOM_MAP.to_dict(), (32, 48), num_workers=0)
    plain.setup("fit")
    cached = SegmentationDataModule(root, PHANTOM_MAP.to_dict(), (32, 48), cache=cache, **workers)
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


def test_a_file_serves_every_later_run_until_a_file_or_a_setting_changes(root, monkeypatch):
    first = _epochs(_module(root, cache="disk"))
    (path,) = (root / ".flexunet_cache").glob("train-*.bin")
    assert path.stat().st_size == 12 * (32 * 48 * 4 + 4)  # and the check sum of each
    with monkeypatch.context() as patch:
        patch.setattr("flexunet_pl.data.dataset.read_mask", lambda *_: pytest.fail("read again"))
        again = _epochs(_module(root, cache="disk"))
    assert all(torch.equal(one[1], two[1]) for one, two in zip(first, again, strict=True))

    image = sorted((root / "train" / "images").iterdir())[0]
    image.write_bytes(sorted((root / "train" / "images").iterdir())[1].read_bytes())
    _module(root, cache="disk").train_dataloader()
    assert len(list(path.parent.glob("train-*.bin"))) == 2
    other = SegmentationDataModule(root, PHANTOM_MAP.to_dict(), (48, 32), num_workers=0, cache="disk")
    other.setup("fit")
    other.train_dataloader()
    assert len(list(path.parent.glob("train-*.bin"))) == 3


def test_a_damaged_file_is_named_not_trained_on(root):
    _epochs(_module(root, cache="disk"), count=1)
    (path,) = (root / ".flexunet_cache").glob("train-*.bin")
    content = bytearray(path.read_bytes())
    content[5 * 32 * 48 * 4] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged; remove it"):
        _epochs(_module(root, cache="disk"), count=1)


def _samples(count, size):
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 4, size, np.uint8)) for _ in range(count)]


def _fill(path):
    DiskCache(path, 40, (60, 70, 3)).fill(iter(_samples(40, (60, 70))))


@pytest.mark.slow
def test_two_processes_at_once_write_one_whole_file(tmp_path):
    path = tmp_path / "cache" / "train-x.bin"
    processes = [get_context("spawn").Process(target=_fill, args=(path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    cache = DiskCache(path, 40, (60, 70, 3))
    for i, (image, mask) in enumerate(_samples(40, (60, 70))):
        np.testing.assert_array_equal(cache.get(i)[0], image)
        np.testing.assert_array_equal(cache.get(i)[1], mask)
    assert {p.suffix for p in path.parent.iterdir()} == {".bin", ".lock"}


def test_a_file_that_was_not_finished_is_not_there_and_is_cleared_away(tmp_path):
    path = tmp_path / "cache" / "train-x.bin"
    cache = DiskCache(path, 3, (60, 70, 3))
    samples = iter(_samples(3, (60, 70)))

    def broken():
        yield next(samples)
        raise MemoryError

    with pytest.raises(MemoryError):
        cache.fill(broken())
    assert not cache.is_complete()
    (path.parent / f".{path.name}.123.tmp").write_bytes(b"left by a kill")
    cache.fill(iter(_samples(3, (60, 70))))
    assert cache.is_complete()
    assert {p.suffix for p in path.parent.iterdir()} == {".bin", ".lock"}


def test_a_worker_is_given_the_name_of_the_file_not_its_content(tmp_path):
    cache = DiskCache(tmp_path / "c" / "x.bin", 3, (60, 70, 3))
    cache.fill(iter(_samples(3, (60, 70))))
    image, _ = cache.get(1)
    assert len(pickle.dumps(cache)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).get(1)[0], image)  # noqa: S301 - our own


def test_a_folder_that_cannot_be_written_to_is_said(root):
    (root / ".flexunet_cache").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written to; set data\.cache to ram"):
        _module(root, cache="disk").train_dataloader()
