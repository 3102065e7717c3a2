"""PredictionWriter: predicted masks as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from flexunet_pl.errors import UserError
from flexunet_pl.image_io import write_image, write_mask, written_in_place
from flexunet_pl.inference.overlays import draw_overlay


class PredictionWriter(BasePredictionWriter):
    """Writes one palette PNG per image, of the image's own size, under its stem.

    Args:
        output_dir: Folder for the masks; overlays and probabilities go to folders in it.
        overlay: Whether to write ``overlays/<stem>.png`` too.
        probabilities: Whether to write ``probabilities/<stem>.npz`` too (`probabilities`, float32, K x H x W).
        overwrite: Whether a folder that is not empty may be written to.
    """

    def __init__(
        self,
        output_dir: Path | None = None,
        overlay: bool = False,
        probabilities: bool = False,
        overwrite: bool = False,
    ) -> None:
        super().__init__(write_interval="batch")
        self.output_dir = output_dir
        self.overlay = overlay
        self.probabilities = probabilities
        self.overwrite = overwrite

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the output folder before any work.

        Raises:
            UserError: If there is none, it cannot be written to, holds the images, or is not empty.
        """
        if stage != "predict":
            return
        source = getattr(trainer.datamodule, "predict_dir", None)  # type: ignore[attr-defined]
        if self.output_dir is None:
            raise UserError("prediction.output_dir is missing: name the folder for the masks")
        folder = self.output_dir
        if source is not None and folder.resolve() == (source.parent if source.is_file() else source).resolve():
            raise UserError(f"{folder}: holds the images, which the masks would replace; name another output_dir")
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file; name a folder as prediction.output_dir")
        if folder.is_dir() and any(folder.iterdir()) and not self.overwrite:
            raise UserError(f"{folder}: is not empty; name another folder or give --prediction.overwrite true")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be made ({error.strerror}); name another prediction.output_dir"
            ) from error

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the files of a batch."""
        if self.output_dir is None:
            return
        task: Any = pl_module
        for path, mask, probabilities in prediction:
            stem, index = Path(path).stem, mask.numpy()
            write_mask(self.output_dir / f"{stem}.png", index, task.rgb_map)
            if self.overlay:
                picture = draw_overlay(task.reader.read(Path(path)), index, task.rgb_map)
                write_image(self.output_dir / "overlays" / f"{stem}.png", picture)
            if self.probabilities:
                folder = self.output_dir / "probabilities"
                folder.mkdir(exist_ok=True)
                with written_in_place(folder / f"{stem}.npz") as temporary, temporary.open("wb") as file:
                    np.savez_compressed(file, probabilities=probabilities.numpy())
