"""SegmentationDataModule: train, valid and test folders as loaders."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from flexunet_pl.common.errors import UserError
from flexunet_pl.common.processes import count_cores
from flexunet_pl.data.augmentation import Transform, make_preset
from flexunet_pl.data.batch import Batch
from flexunet_pl.data.dataset import SegmentationDataset, collate
from flexunet_pl.data.foreground import find_foreground
from flexunet_pl.data.loaders import position_in_training
from flexunet_pl.data.open_cache import open_cache
from flexunet_pl.data.patches import PatchCutter
from flexunet_pl.data.predicting import PredictingDataModule
from flexunet_pl.data.sampler import EpochSampler
from flexunet_pl.data.splits import check_numbers, list_split, split_folder
from flexunet_pl.io.decisions import read_rejected, without_rejected
from flexunet_pl.io.images import ImageReader
from flexunet_pl.io.mask_colors import UnknownColors
from flexunet_pl.io.neighbours import check_numbered
from flexunet_pl.io.pairing import PairingRule
from flexunet_pl.io.pairs import Pair
from flexunet_pl.io.volume_slices import SliceRules
from flexunet_pl.models.inference import Inference
from flexunet_pl.prediction.plan import PredictionOutput
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.window import Window

_AROUND_FOREGROUND = 0.5  # share of patches, where none is given


class SegmentationDataModule(PredictingDataModule):
    """Images and colour-coded masks from ``<root>/{train,valid,test}/{images,masks}``.

    Images are PNG, JPEG, TIFF or BMP; masks are the same, or one-hot ``.npz``; the two are paired by stem.

    Args:
        root: Folder that holds train, valid and test.
        rgb_map: Class names and colours; on the command line it comes from `model.rgb_map`.
        image_size: Height and width that images are resized to; on the command line from `model.image_size`.
        in_channels: 3 for R, G, B, 1 for grey, else the bands of TIFF files; on the command line from
            `model.in_channels`.
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
            lesions; where they do anyway, and with null, all are drawn alike. Of patches, the share that lies around
            foreground, a half with null.
        epoch_samples: Images drawn in a training epoch, each as often as the others but for one; as many as there are
            where none is given. More make epochs, and with them validations, rarer where images are few.
        neighbours: How many slices before a slice, and behind it, are its further channels: those of a volume, or
            files whose names end in the slice's number; at the ends of a patient they are repeated. `model.in_channels`
            counts them: 3 for grey slices with 1.
        patches: Whether the network is given patches of `image_size` at the images' own resolution, rather than whole
            images resized to it; on the command line from `model.patches`.
        cutmix: Probability that a box of a training image, and of its mask, is that of another.
        fold: Number of the fold to validate on, in a root made by ``flexunet split --folds``.
        pairing: How the names of images and masks go together, such as {image: "(.+)", mask: "(.+)_mask"}; by stem
            where none is given.
        unknown_colors: What a region of a mask is whose colour is no class: `error`; `background`; or `nearest`, the
            class of the nearest colour, which then decides for every pixel of a smoothed border too, as in the
            original.
        decisions: File that the page of `flexunet review` saved: what was rejected there is left out of training and
            validation.
        inference: How the network will be applied to what is predicted.
        output: Where predictions go: what is there already is not predicted again.
    """

    def __init__(
        self,
        root: Path | None = None,
        rgb_map: dict[str, list[int]] | str | None = None,
        image_size: tuple[int, int] = (512, 512),
        in_channels: int = 3,
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
        epoch_samples: int | None = None,
        neighbours: int = 0,
        patches: bool = False,
        cutmix: float = 0.0,
        fold: int | None = None,
        unknown_colors: UnknownColors = "error",
        pairing: PairingRule = PairingRule(),  # noqa: B008 - it is frozen
        decisions: Path | None = None,
        inference: Inference | None = None,
        output: PredictionOutput | None = None,
    ) -> None:
        super().__init__()
        self.root = root
        self.rgb_map = RgbMap.parse(rgb_map)
        self.reader = ImageReader(
            (image_size[0], image_size[1]), in_channels, Window.parse(image_window, "image_window"), neighbours
        )
        if seed is None:
            seed = int(os.environ.get("PL_GLOBAL_SEED", "137"))  # where Lightning's seed_everything leaves it
        check_numbers(seed, batch_size, num_workers, foreground_share, epoch_samples)
        if not 0 <= cutmix <= 1:
            raise UserError(f"data.cutmix ({cutmix}) must be at least 0 and at most 1")
        if patches and cache == "disk":
            raise UserError("data.cache: disk keeps images of one size, and those of patches keep their own; use ram")
        self.batch_size = batch_size  # which `BatchSizeFinder` sets
        self.num_workers = min(4, count_cores() // 2) if num_workers is None else num_workers
        self.start_method = start_method
        self.train_transform = train_transform
        self.seed = seed
        self.predict_dir = predict_dir
        self.cache = cache
        self.foreground_share = foreground_share
        self.epoch_samples = epoch_samples
        self.fold = fold
        self.unknown_colors = unknown_colors
        self.pairing = pairing
        self.decisions = decisions
        self.pairs: dict[str, list[Pair]] = {}
        self.volume = volume
        self.patches = patches
        self.cutmix = cutmix
        self.inference = (inference if inference is not None else Inference()).as_trained(on_patches=patches)
        self.output = output

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
                pairs = list_split(self.folder(split), self.pairing, self.reader.slice_channels)
                if self.decisions is not None and split != "test":
                    pairs = without_rejected(pairs, read_rejected(self.decisions))
                self.pairs[split] = pairs
        if stage == "fit" and self.reader.neighbours:
            check_numbered([pair.image for pair in self.pairs["train"]])
        if stage == "predict":
            self._plan = self._plan_prediction()

    def folder(self, split: str) -> Path:
        """Return the folder of a split, which holds images/ and masks/; see `split_folder`."""
        return split_folder(self.root, split, self.fold)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training images, shuffled and augmented."""
        rank, world_size = self._process()
        sampler = EpochSampler(
            len(self.pairs["train"]),
            seed=self.seed,
            train=True,
            rank=rank,
            world_size=world_size,
            foreground=self._foreground(),
            foreground_share=self.foreground_share or 0.0,
            length=self.epoch_samples,
        )
        if self.trainer is not None:
            # Lightning starts the iterator before it tells the sampler the epoch: a resumed run would replay epoch 0
            epoch, batches = position_in_training(self.trainer)
            sampler.resume(epoch, batches * self.batch_size)
        return self._loaders.load(self._dataset("train"), sampler, collate)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation images, in order."""
        return self._eval_loader("valid")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test images, in order."""
        return self._eval_loader("test")

    def _foreground(self) -> NDArray[np.bool_] | None:
        """Tell which training images show foreground, where that is asked for."""
        masks = [pair.mask for pair in self.pairs["train"]]
        return find_foreground(masks, self.rgb_map, self.unknown_colors) if self.foreground_share is not None else None

    def _transform(self) -> Transform | None:
        named = self.train_transform
        return make_preset(named) if isinstance(named, str) else named

    def _dataset(self, split: str) -> SegmentationDataset:
        train = split == "train"
        share = self.foreground_share if self.foreground_share is not None else _AROUND_FOREGROUND
        dataset = SegmentationDataset(
            self.pairs[split],
            self.rgb_map,
            self.reader,
            self._transform() if train else None,
            self.seed,
            unknown=self.unknown_colors,
            at_own_size=self.patches,
            patches=PatchCutter(self.reader.size, share) if train and self.patches else None,
            cutmix=self.cutmix if train else 0.0,
        )
        if split != "test":  # which is read once
            dataset.cache = open_cache(self.cache, self.root, split, dataset, self._loaders)
        return dataset

    def _eval_loader(self, split: str) -> DataLoader[Batch]:
        rank, world_size = self._process()
        sampler = EpochSampler(len(self.pairs[split]), seed=self.seed, rank=rank, world_size=world_size)
        batch_size = 1 if self.patches else None  # where each may have its own size
        return self._loaders.load(self._dataset(split), sampler, collate, batch_size)
