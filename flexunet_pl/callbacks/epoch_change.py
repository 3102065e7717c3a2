"""EpochChangeInference: what the network makes of a few images, after each epoch."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray

from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.data.predict import PredictDataset, collate_predict
from flexunet_pl.io.cases import Case
from flexunet_pl.io.film_strip import draw_strip, make_thumbnail
from flexunet_pl.io.images import write_image
from flexunet_pl.io.mask_colors import UnknownColors
from flexunet_pl.io.masks import read_mask, write_mask
from flexunet_pl.io.overlays import draw_overlay
from flexunet_pl.io.pairing import PairingRule
from flexunet_pl.io.pairs import IMAGE_SUFFIXES, MASK_SUFFIXES, list_files
from flexunet_pl.models.inference import Inference
from flexunet_pl.task import SegmentationTask


class EpochChangeInference(Callback):
    """Predicts the first images of a folder after each epoch.

    Writes ``epoch_change/Epoch_<n>_<stem>.png`` (palette masks of the image's own size) and ``film_strip.png`` (one
    row per image: image, mask if there is one, then one column per epoch) in the run's folder, and shows the overlays
    in TensorBoard.

    Args:
        images: Folder of images; by default ``mini_test/images`` of the data, or else ``valid/images``. Masks are
            looked for in ``masks`` beside it.
        num_images: How many, from the first by name; 0 turns the callback off.
        tiled: Whether images that are larger than the network's size are cut into overlapping tiles, as `predict` does
            with `inference.tiled`, rather than resized; where nothing is said, as the network is trained.

    Raises:
        UserError: If the number is negative.
    """

    def __init__(self, images: Path | None = None, num_images: int = 6, tiled: bool | None = None) -> None:
        if num_images < 0:
            raise UserError(f"epoch_change.num_images ({num_images}) must not be negative; 0 turns it off")
        self.images = images
        self.num_images = num_images
        self.inference = Inference(tiled=tiled)
        self._folder = Path()
        self._paths: list[Path] = []
        self._dataset: PredictDataset | None = None
        self._strip: list[list[NDArray[np.uint8]]] = []  # by column
        self._titles: list[str] = []
        self._unknown: UnknownColors = "error"
        self._pairing = PairingRule()
        self._still = 0  # the first columns, which do not depend on the epoch

    def check(self) -> None:
        """Look for the folder, before anything is made for a run.

        Raises:
            DataError: If it is missing or empty.
        """
        if self.images is None or not self.num_images:
            return
        if not self.images.is_dir():
            raise DataError(
                f"{self.images}: no such folder; set `epoch_change.images` to one that holds images, or to null for "
                "mini_test/images or valid/images of the data"
            )
        list_files(self.images)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the images before training starts."""
        if stage != "fit" or not self.num_images:
            return
        self.check()
        self._unknown = getattr(trainer.datamodule, "unknown_colors", "error")  # type: ignore[attr-defined]
        self._pairing = getattr(trainer.datamodule, "pairing", PairingRule())  # type: ignore[attr-defined]
        folder = self.images if self.images is not None else _default_images(trainer)
        self._folder = Path(trainer.log_dir or trainer.default_root_dir) / "epoch_change"
        if folder is not None and trainer.is_global_zero:
            self._paths = list_files(folder)[: self.num_images]
            task = _task(pl_module)
            self.inference = self.inference.as_trained(on_patches=task.patches)
            tiled = bool(self.inference.tiled)
            pictures = [(Case(path, path.stem), 0) for path in self._paths]
            self._dataset = PredictDataset(pictures, task.reader, tiled=tiled, at_own_size=tiled and task.patches)
            self._start_strip(self._paths, task)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the film strip of the run that is resumed, from the masks that it wrote."""
        if self._dataset is None:
            return
        for epoch in range(1, trainer.current_epoch + 1):
            masks = [self._mask_path(epoch, path) for path in self._paths]
            if all(mask.is_file() for mask in masks):
                self._add_column(_task(pl_module), epoch, [read_mask(m, _task(pl_module).rgb_map) for m in masks])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict the images and add them to the film strip."""
        if self._dataset is None:
            return
        task, epoch = _task(pl_module), trainer.current_epoch + 1
        masks = _predict(trainer, task, self._dataset, self.inference)
        for path, mask in zip(self._paths, masks, strict=True):
            write_mask(self._mask_path(epoch, path), mask, task.rgb_map)
        self._add_column(task, epoch, masks)
        write_image(self._folder / "film_strip.png", draw_strip(self._strip, self._titles))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                newest = draw_strip(
                    [*self._strip[: self._still], self._strip[-1]], [*self._titles[: self._still], self._titles[-1]]
                )
                logger.experiment.add_image("epoch_change", newest, global_step=trainer.global_step, dataformats="HWC")

    def _mask_path(self, epoch: int, image: Path) -> Path:
        return self._folder / f"Epoch_{epoch}_{image.stem}.png"

    def _add_column(self, task: SegmentationTask, epoch: int, masks: list[NDArray[np.uint8]]) -> None:
        images = [task.reader.alone.read(path) for path in self._paths]
        pairs = zip(images, masks, strict=True)
        self._strip.append([make_thumbnail(draw_overlay(image, mask, task.rgb_map)) for image, mask in pairs])
        self._titles.append(f"epoch {epoch}")

    def _start_strip(self, paths: list[Path], task: SegmentationTask) -> None:
        """Begin with the images, and with the masks that stand beside them."""
        images = [task.reader.alone.read(path) for path in paths]
        self._strip, self._titles = [[make_thumbnail(image) for image in images]], ["image"]
        masks = {self._pairing.key(path, "mask"): path for path in _files(paths[0].parent.parent / "masks")}
        found = [masks.get(self._pairing.key(path, "image")) for path in paths]
        if all(found):
            truth = [read_mask(path, task.rgb_map, self._unknown) for path in found if path is not None]
            pairs = zip(images, truth, strict=True)
            self._strip.append([make_thumbnail(draw_overlay(i, m, task.rgb_map)) for i, m in pairs])
            self._titles.append("truth")
        self._still = len(self._strip)


def _predict(
    trainer: Trainer, task: SegmentationTask, dataset: PredictDataset, inference: Inference
) -> list[NDArray[np.uint8]]:
    was_training = task.training
    task.eval()
    masks = []
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        for i in range(len(dataset)):  # one by one: the images need not fit the device together
            batch: Any = collate_predict([dataset[i]])
            if batch["problems"]:
                raise DataError(batch["problems"][0])
            batch = task.transfer_batch_to_device(batch, task.device, 0)
            masks += [prediction.answer.mask.numpy() for prediction in task.infer(batch, inference)]
    task.train(was_training)
    return masks


def _task(pl_module: LightningModule) -> SegmentationTask:
    if not isinstance(pl_module, SegmentationTask):
        raise TypeError(f"EpochChangeInference works on a SegmentationTask, not on {type(pl_module).__name__}")
    return pl_module


def _default_images(trainer: Trainer) -> Path | None:
    root = getattr(trainer.datamodule, "root", None)  # type: ignore[attr-defined]
    if root is None:
        return None
    return next((f for f in (root / "mini_test" / "images", root / "valid" / "images") if f.is_dir()), None)


def _files(folder: Path) -> list[Path]:
    try:
        return list_files(folder, MASK_SUFFIXES | IMAGE_SUFFIXES)
    except DataError:
        return []  # images without masks can be watched too
