"""TrainSamples: what the network is given to learn from, augmented as it is."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray

from flexunet_pl.data.batch import Batch
from flexunet_pl.io.images import resize_image, write_image
from flexunet_pl.io.overlays import draw_overlay, fit_size
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.masks import as_rgb

_SIDE = 192  # px, longer side of a picture
_COLUMNS = 4


class TrainSamples(Callback):
    """Draws the first samples of a training as the network gets them: augmented, at its size, with their masks.

    Writes ``train_samples.png`` in the run's folder, pairs of image and overlay, and shows it in TensorBoard.

    Args:
        num_images: How many.
    """

    def __init__(self, num_images: int = 8) -> None:
        self.num_images = num_images
        self._folder = Path()
        self._panels: list[NDArray[np.uint8]] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, unless the training goes on from a checkpoint."""
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)  # which all processes must ask for
        self._panels = [] if trainer.is_global_zero and not trainer.global_step else None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Take the samples of a batch, until there are enough of them."""
        if self._panels is None:
            return
        rgb_map: RgbMap = pl_module.rgb_map  # type: ignore[assignment]
        for image, mask in zip(batch["image"], batch["mask"], strict=True):
            picture = pl_module.reader.middle(image.permute(1, 2, 0).cpu().numpy())  # type: ignore[operator, union-attr]
            index = mask.cpu().numpy().astype(np.uint8)
            self._panels += [_fit(picture), _fit(draw_overlay(picture, index, rgb_map))]
        if len(self._panels) >= 2 * self.num_images:
            self._draw(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what there is, where the data set is smaller."""
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        if not self._panels:
            return
        panels = self._panels[: 2 * self.num_images]
        self._panels = None
        panels += [np.zeros_like(panels[0])] * (-len(panels) % _COLUMNS)
        rows = [np.hstack(panels[i : i + _COLUMNS]) for i in range(0, len(panels), _COLUMNS)]
        grid = np.vstack(rows)
        write_image(self._folder / "train_samples.png", grid)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("train_samples", grid, global_step=trainer.global_step, dataformats="HWC")


def _fit(picture: NDArray[np.uint8]) -> NDArray[Any]:
    size = fit_size(picture.shape, _SIDE)
    return as_rgb(resize_image(picture, size))
