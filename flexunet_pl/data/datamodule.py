"""SegmentationDataModule: train, valid and test folders as loaders."""

import os
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from rich.progress import track
from torch.utils.data import DataLoader

from flexunet_pl.common.console import say
from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.common.processes import end_with_parent
from flexunet_pl.data.batch import Batch, PredictBatch
from flexunet_pl.data.cache import Cache, DiskCache, RamCache, content_key
from flexunet_pl.data.dataset import SegmentationDataset, collate
from flexunet_pl.data.foreground import find_foreground
from flexunet_pl.data.predict import PredictDataset, collate_predict
from flexunet_pl.data.sampler import EpochSampler, SampleKey
from flexunet_pl.data.transforms import PRESETS, Transform
from flexunet_pl.io.cases import Case, SliceRules, count_slices, list_cases
from flexunet_pl.io.checksums import find_changes
from flexunet_pl.io.images import ImageReader
from flexunet_pl.io.pairs import Pair, check_pair, list_pairs
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.window import Window


class SegmentationDataModule(LightningDataModule):
    """Images and colour-coded masks from ``<root>/{train,valid,test}/{images,masks}``.

    Images are PNG, JPEG, TIFF or BMP; masks are the same, or one-hot ``.npz``; the two are paired by stem.

    Args:
        root: Folder that holds train, valid and test.
        rgb_map: Class names and colours; on the command line it comes from `model.rgb_map`.
        image_size: Height and width that images are resized to; on the command line from `model.image_size`.
        in_channels: 3 for R, G, B or 1 for grey; on the command line from `model.in_channels`.
        image_window: Lowest and highest value of 16-bit and float images; on the command line from
            `model.image_window`.
        batch_size: Images per step and process.
        num_workers: Processes that read images, besides each training process; by default half the cores, at most 4.
        start_method: How those processes start; the system's default where none is given.
        train_transform: Augmentation of the training images: an albumentations pipeline, or anything that is called
            with `image` and `mask` and returns both; `ct_light` and `ct_strong` are presets for CT slices, null means
            none.
        seed: Seed of the order and of the augmentation; by default that of `seed_everything`.
        predict_dir: What to predict: a folder, with all folders below it, of images (PNG, JPEG, TIFF, BMP) and volumes
            (NIfTI, MHA, NRRD, NPY, HDF5, DICOM series), or one file.
        volume: How volumes are cut into slices.
        cache: Where decoded images of training and validation are kept, a byte per value of image and mask at the
            network's size (1 MiB per image of 512x512): `ram` fills as the first epoch reads; `disk` is a file in
            `.flexunet_cache` below the root that is written once and used by every later run; `none`.
        foreground_share: Share of the training images drawn that are to show more than the background, for small
            lesions; where they do anyway, and with null, all are drawn alike.
        fold: Number of the fold to validate on, in a root made by ``flexunet split --folds``.
    """

    def __init__(
        self,
        root: Path | None = None,
        rgb_map: dict[str, list[int]] | str | None = None,
        image_size: tuple[int, int] = (512, 512),
        in_channels: Literal[1, 3] = 3,
        image_window: tuple[float, float] | None = None,
        batch_size: int = 2,
        num_workers: int | None = None,
        start_method: Literal["fork", "spawn", "forkserver"] | None = None,
        train_transform: Transform | Literal["ct_light", "ct_strong"] | None = "ct_light",
        seed: int | None = None,
        predict_dir: Path | None = None,
        volume: SliceRules = SliceRules(),  # noqa: B008 - it is frozen
        cache: Literal["none", "ram", "disk"] = "none",
        foreground_share: float | None = None,
        fold: int | None = None,
    ) -> None:
        super().__init__()
        self.root = root
        self.rgb_map = RgbMap.parse(rgb_map)
        self.reader = ImageReader(
            (image_size[0], image_size[1]), in_channels, Window.parse(image_window, "image_window")
        )
        if seed is None:
            seed = int(os.environ.get("PL_GLOBAL_SEED", "137"))  # where Lightning's seed_everything leaves it
        if seed < 0:
            raise UserError(f"data.seed ({seed}) must not be negative")
        if batch_size < 1 or (num_workers is not None and num_workers < 0):
            raise UserError(f"data.batch_size ({batch_size}) must be at least 1, data.num_workers ({num_workers}) 0")
        self.batch_size = batch_size
        self.num_workers = min(4, (os.cpu_count() or 1) // 2) if num_workers is None else num_workers
        self.start_method = start_method
        self.train_transform: Transform | None = (
            PRESETS[train_transform]() if isinstance(train_transform, str) else train_transform
        )
        self.seed = seed
        self.predict_dir = predict_dir
        if foreground_share is not None and not 0 < foreground_share <= 1:
            raise UserError(f"data.foreground_share ({foreground_share}) must be above 0 and at most 1")
        self.cache = cache
        self.foreground_share = foreground_share
        self.fold = fold
        self.pairs: dict[str, list[Pair]] = {}
        self.volume = volume
        self.tiled = False  # whether pictures to predict keep their size; `Inference` says it
        self.predict_cases: list[Case] = []
        self.predict_pictures: list[tuple[Case, int]] = []  # of this process: case, and number of the slice
        self.unusable: dict[str, str] = {}  # files of its part that cannot be predicted, and why

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a checkpoint says nothing of data, and Lightning would read it with pickle.

        Raises:
            UserError: Always.
        """
        raise UserError("a checkpoint holds no settings of data; make a SegmentationDataModule with its arguments")

    def setup(self, stage: str) -> None:
        """List the files of a stage, check their headers, and compare them with ``data.lock`` where there is one.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            UserError: If the folder of the stage was not given.
            DataError: If its files do not fit each other, or were changed.
        """
        for split in {"fit": ("train", "valid"), "validate": ("valid",), "test": ("test",)}.get(stage, ()):
            if split not in self.pairs:
                pairs = list_pairs(self.folder(split))
                for pair in pairs:
                    check_pair(pair)
                changes = find_changes(self.folder(split).parent, pairs)
                if changes:
                    rest = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
                    raise DataError(f"{changes[0]}{rest}; restore it, or write it anew with flexunet check --lock")
                self.pairs[split] = pairs
        if stage == "predict" and not self.predict_cases:
            if self.predict_dir is None:
                raise UserError("data.predict_dir is missing: name the folder of images to predict")
            self.predict_cases = list_cases(self.predict_dir)

    def folder(self, split: str) -> Path:
        """Return the folder of a split, which holds images/ and masks/.

        Args:
            split: Such as train, valid or test.

        Returns:
            The folder.

        Raises:
            UserError: If no root was given.
            DataError: If the root or the fold is missing.
        """
        if self.root is None:
            raise UserError("data.root is missing: name the folder that holds train, valid and test")
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; set `data.root` to the one that holds train, valid and test")
        if self.fold is None:
            return self.root / split
        folder = self.root / f"fold_{self.fold}"
        if not folder.is_dir():
            raise DataError(f"{folder}: no such fold; make folds with `flexunet split`, or leave data.fold out")
        return folder / split

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training images, shuffled and augmented."""
        rank, world_size = self._process()
        masks = [pair.mask for pair in self.pairs["train"]]
        foreground = find_foreground(masks, self.rgb_map) if self.foreground_share is not None else None
        if foreground is not None and not foreground.any() and not rank:
            say("note: data.foreground_share: no training mask shows more than the background; all are drawn alike")
        sampler = EpochSampler(
            len(masks),
            seed=self.seed,
            train=True,
            rank=rank,
            world_size=world_size,
            foreground=foreground,
            foreground_share=self.foreground_share or 0.0,
        )
        if self.trainer is not None:
            # Lightning starts the iterator before it tells the sampler the epoch: a resumed run would replay epoch 0
            epoch, batches = _position(self.trainer)
            sampler.resume(epoch, batches * self.batch_size)
        return self._loader(self._dataset("train", self.train_transform), sampler, collate)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation images, in order."""
        return self._eval_loader("valid")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test images, in order."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader[PredictBatch]:
        """Return the images and slices of `predict_dir`, in order; a process has whole volumes."""
        self.list_pictures()
        dataset = PredictDataset(self.predict_pictures, self.reader, self.volume, self.tiled)
        batch_size = 1 if self.tiled else self.batch_size  # where each may have its own size
        return self._loader(dataset, range(len(dataset)), collate_predict, batch_size)

    def list_pictures(self) -> None:
        """List the images and slices that are this process's part, unless it is done; note the volumes without any."""
        rank, world_size = self._process()
        if self.predict_pictures or self.unusable:
            return
        for case in self.predict_cases[rank::world_size]:
            try:
                self.predict_pictures += [(case, number) for number in range(count_slices(case, self.volume))]
            except DataError as error:
                self.unusable[str(case.path)] = str(error)

    def _dataset(self, split: str, transform: Transform | None = None) -> SegmentationDataset:
        dataset = SegmentationDataset(self.pairs[split], self.rgb_map, self.reader, transform, self.seed)
        if split != "test":  # which is read once
            dataset.cache = self._cache(split, dataset)
        return dataset

    def _cache(self, split: str, dataset: SegmentationDataset) -> Cache | None:
        shape = (*self.reader.size, self.reader.channels)
        if self.cache == "ram":
            return RamCache(len(dataset), shape)
        if self.cache == "none" or self.root is None:
            return None
        key = content_key([path for pair in dataset.pairs for path in pair], (self.reader, self.rgb_map))
        cache = DiskCache(self.root / ".flexunet_cache" / f"{split}-{key}.bin", len(dataset), shape)
        if not cache.is_complete():
            say(f"writing {cache.path}, {cache.size / 2**20:.0f} MiB; it may be deleted at any time")
            order = [SampleKey(0, i) for i in range(len(dataset))]
            plain = SegmentationDataset(dataset.pairs, self.rgb_map, self.reader)
            samples = (s for batch in track(self._loader(plain, order, list), "caching", transient=True) for s in batch)
            cache.fill((s["image"].numpy(), s["mask"].numpy()) for s in samples)
        return cache

    def _eval_loader(self, split: str) -> DataLoader[Batch]:
        rank, world_size = self._process()
        sampler = EpochSampler(len(self.pairs[split]), seed=self.seed, rank=rank, world_size=world_size)
        return self._loader(self._dataset(split), sampler, collate)

    def _process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _loader(self, dataset: Any, sampler: Any, collate_fn: Any, batch_size: int | None = None) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size if batch_size is None else batch_size,
            sampler=sampler,
            collate_fn=collate_fn,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            multiprocessing_context=self.start_method if self.num_workers > 0 else None,
            worker_init_fn=end_with_parent,  # each sample seeds the generators anew, so that workers need no seed
            pin_memory=torch.cuda.is_available(),
            # a generator of its own: the loader must not draw from the one that dropout uses
            generator=torch.Generator().manual_seed(self.seed),
        )


def _position(trainer: Any) -> tuple[int, int]:
    """Return the epoch that training is in or will begin with, and how many of its batches are done."""
    epochs, batches = trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop.batch_progress
    mid_epoch = epochs.started > epochs.processed and not batches.is_last_batch
    return epochs.processed, batches.current.processed if mid_epoch else 0
