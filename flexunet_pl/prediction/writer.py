"""PredictionWriter: predicted masks as files."""

import errno
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from flexunet_pl.common.console import say
from flexunet_pl.common.distributed import gather
from flexunet_pl.common.errors import DataError
from flexunet_pl.io.cases import Case
from flexunet_pl.io.volume_slices import SliceReader
from flexunet_pl.models.inference import Answer
from flexunet_pl.prediction.confidence_table import ConfidenceTable, describe
from flexunet_pl.prediction.outputs import VolumeResult, write_image_result
from flexunet_pl.prediction.plan import PredictionOutput, PredictionPlan
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.confidence import Confidence


class PredictionWriter(BasePredictionWriter):
    """Writes the masks of what the data module plans to predict; see `PredictionOutput`.

    Args:
        output: What is written, and where; the same that the data module has.
    """

    def __init__(self, output: PredictionOutput) -> None:
        super().__init__(write_interval="batch")
        self.output = output
        self.failed: dict[str, str] = {}  # by path, why; those of all processes in the end
        self._plan: PredictionPlan | None = None
        self._cases: dict[str, Case] = {}
        self._source: SliceReader | None = None
        self._volume: VolumeResult | None = None
        self._trusted: ConfidenceTable | None = None
        self._names: tuple[str, ...] = ()
        self._never_empty = False

    @property
    def done_before(self) -> int:
        """Number of cases that were there already."""
        return self._plan.done if self._plan is not None else 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin the output folder, once all processes have read what it holds."""
        if stage != "predict":
            return
        task: Any = pl_module
        data = trainer.datamodule  # type: ignore[attr-defined]
        plan: PredictionPlan = data.plan
        trainer.strategy.barrier()
        if plan.record is not None:
            plan.record.begin(trainer.global_rank, again=self.output.overwrite)
            folder = plan.record.folder
            self._trusted = ConfidenceTable(
                folder, task.rgb_map.names, trainer.global_rank, again=self.output.overwrite
            )
        self._plan = plan
        self._cases = {str(case.path): case for case in plan.cases}
        self._source = SliceReader(task.reader.alone, data.volume)
        self._names, self._never_empty = task.rgb_map.names, task.never_empty
        for path, problem in plan.unusable.items():
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
        if self._plan is None or self._plan.record is None:
            return
        task: Any = pl_module
        for path, problem in zip(batch["unusable"], batch["problems"], strict=True):
            self._fail(path, problem)
        for path, _, answer in prediction:
            case = self._cases[path]
            try:
                if self._write(case, answer, task.rgb_map):
                    self._plan.record.add_case(case)
            except DataError as error:
                self._fail(path, str(error))
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                self._fail(path, f"{path}: its name is too long for a file of our own beside it; rename it")

    def _write(self, case: Case, answer: Answer, rgb_map: RgbMap) -> bool:
        """Write what is complete; tells whether the case is done with it."""
        folder, source = self.output.output_dir, self._source
        if folder is None or source is None or self._plan is None:
            return False
        confidence = answer.confidence()
        if not case.is_volume:
            write_image_result(folder, case, answer, source, rgb_map, self.output)
            self._trust(case, confidence)
            return True
        if self._volume is None or self._volume.case != case:
            self._volume = VolumeResult(folder, case, source, rgb_map, self.output)
        else:
            confidence = self._volume.confidence.joined(confidence)
        volume = self._volume
        volume.confidence = confidence
        volume.add(answer)
        if len(volume.masks) < self._plan.slices[str(case.path)]:
            return False
        self._volume = None
        below = self.output.flag_below
        flagged = below is not None and confidence.trust(never_empty=self._never_empty) < below
        volume.finish(describe(confidence, self._names) + ("; to be looked at" if flagged else ""))
        self._trust(case, confidence)
        return True

    def _trust(self, case: Case, confidence: Confidence) -> None:
        """Note how far a case can be trusted."""
        if self._trusted is not None:
            self._trusted.add(case.name, confidence, confidence.trust(never_empty=self._never_empty))

    def flagged(self) -> list[str]:
        """Finish ``confidence.csv``, once all processes have written; returns the cases that are flagged."""
        return self._trusted.finish(self.output.flag_below) if self._trusted is not None else []

    def gather_failures(self, trainer: Trainer) -> None:
        """Bring together what failed in all processes; a hook would not do: one that has nothing to do calls none.

        Args:
            trainer: The trainer.

        Raises:
            DataError: If nothing could be predicted.
        """
        self.failed = {path: why for part in gather(trainer, self.failed) for path, why in part.items()}
        if self.failed and not self.done_before and len(self.failed) == len(self._cases):
            raise DataError(next(iter(self.failed.values())))

    def _fail(self, path: str, problem: str) -> None:
        if path not in self.failed:
            self.failed[path] = problem
            say(f"failed: {problem}")
