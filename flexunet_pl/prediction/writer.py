"""PredictionWriter: predicted masks as files."""

import errno
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from flexunet_pl.common.console import say
from flexunet_pl.common.distributed import gather
from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.io.cases import Case, SliceReader
from flexunet_pl.models.inference import Answer
from flexunet_pl.prediction.dicom_seg import require_highdicom
from flexunet_pl.prediction.outputs import VolumeResult, Wanted, colliding, write_image_result
from flexunet_pl.prediction.resume import PredictionRecord
from flexunet_pl.rgb_map import RgbMap


class PredictionWriter(BasePredictionWriter):
    """Writes one palette PNG per image, of the image's own size, under its stem, and one label volume per volume.

    A label volume is a NIfTI file that lies where the volume lies, or an array for an array. A folder that was
    begun with the same checkpoint and settings is gone on with: what is there is not predicted again.

    Args:
        output_dir: Folder for the masks; other files go to folders in it, those of a volume to one of its name.
        overlay: Whether to write pictures with the classes tinted and a legend, in ``overlays``.
        probabilities: Whether to write ``probabilities/<stem>.npz`` too (`probabilities`, float32, K x H x W).
        slices: Whether to write the slices of volumes and their masks as pictures, in ``slices`` and ``masks``.
        video: Whether to write the overlays of a volume as a film, ``overlays.gif`` or ``overlays.mp4``.
        dicom_seg: Whether to write a DICOM Segmentation object for each DICOM series.
        overwrite: Whether a folder that is not empty may be written to, and all of it predicted again.
    """

    def __init__(
        self,
        output_dir: Path | None = None,
        overlay: bool = False,
        probabilities: bool = False,
        slices: bool = False,
        video: Literal["none", "gif", "mp4"] = "none",
        dicom_seg: bool = False,
        overwrite: bool = False,
    ) -> None:
        super().__init__(write_interval="batch")
        self.output_dir = output_dir
        self.wanted = Wanted(overlay, probabilities, slices, video, dicom_seg)
        self.overwrite = overwrite
        self.failed: dict[str, str] = {}  # by path, why; those of all processes in the end
        self.skipped = 0  # cases that were there already
        self._cases: dict[str, Case] = {}
        self._slices: Counter[str] = Counter()
        self._volume: VolumeResult | None = None
        self._source: SliceReader | None = None
        self._record: PredictionRecord | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the output folder before any work, and leave out what is done.

        Raises:
            UserError: If there is none, it cannot be written to, holds the images, or is not empty.
        """
        if stage != "predict":
            return
        if self.output_dir is None:
            raise UserError("prediction.output_dir is missing: name the folder for the masks")
        if self.wanted.dicom_seg:
            require_highdicom()
        task: Any = pl_module
        folder, data = self.output_dir, trainer.datamodule  # type: ignore[attr-defined]
        _check_place(folder, data.predict_dir)
        twin = colliding(data.predict_cases)
        if twin is not None:
            raise UserError(f"{twin.path}: its folder has the name of one of our own; rename it, or predict it alone")
        settings = {
            "prediction": asdict(self.wanted),
            "inference": vars(task.inference),
            "volume": asdict(data.volume),
        }
        record = PredictionRecord(folder, trainer.ckpt_path, settings)
        if not self.overwrite and record.goes_on():
            todo = record.left(data.predict_cases)
            self.skipped = len(data.predict_cases) - len(todo)
            data.predict_cases = todo
        trainer.strategy.barrier()  # all have read what there is before it changes
        record.begin(trainer.global_rank, anew=self.overwrite)
        self._record = record
        self._cases = {str(case.path): case for case in data.predict_cases}
        data.list_pictures()
        self._slices = Counter(str(case.path) for case, _ in data.predict_pictures)
        self._source = SliceReader(task.reader, data.volume)
        for path, problem in data.unusable.items():
            self._fail(path, problem)

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
        """Write the files of what is complete.

        Raises:
            OSError: If the disk is full, or goes away.
        """
        if self.output_dir is None or self._source is None or self._record is None:
            return
        task: Any = pl_module
        for path, problem in zip(batch["unusable"], batch["problems"], strict=True):
            self._fail(path, problem)
        for path, _, answer in prediction:
            case = self._cases[path]
            try:
                if self._write(case, answer, self.output_dir, self._source, task.rgb_map):
                    self._record.add(case)
            except DataError as error:
                self._fail(path, str(error))
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                self._fail(path, f"{path}: its name is too long for a file of our own beside it; rename it")

    def _write(self, case: Case, answer: Answer, folder: Path, source: SliceReader, rgb_map: RgbMap) -> bool:
        """Write what is complete; tells whether the case is done with it."""
        if not case.is_volume:
            write_image_result(folder, case, answer, source, rgb_map, self.wanted)
            return True
        if self._volume is None or self._volume.case != case:
            self._volume = VolumeResult(folder, case, source, rgb_map, self.wanted)
        volume = self._volume
        volume.add(answer)
        if len(volume.masks) < self._slices[str(case.path)]:
            return False
        self._volume = None
        volume.finish()
        return True

    def gather_failures(self, trainer: Trainer) -> None:
        """Bring together what failed in all processes; a hook would not do: one that has nothing to do calls none.

        Args:
            trainer: The trainer.

        Raises:
            DataError: If nothing could be predicted.
        """
        self.failed = {path: why for part in gather(trainer, self.failed) for path, why in part.items()}
        if self.failed and not self.skipped and len(self.failed) == len(self._cases):
            raise DataError(next(iter(self.failed.values())))

    def _fail(self, path: str, problem: str) -> None:
        if path not in self.failed:
            self.failed[path] = problem
            say(f"failed: {problem}")


def _check_place(folder: Path, source: Path | None) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder as prediction.output_dir")
    if source is None:
        return
    images = (source.parent if source.is_file() else source).resolve()
    if folder.resolve() == images:
        raise UserError(f"{folder}: holds the images, which the masks would replace; name another output_dir")
    if source.is_dir() and images in folder.resolve().parents:
        raise UserError(f"{folder}: lies in the folder of the images, which is looked through; name one outside of it")
