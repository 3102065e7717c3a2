"""CaseScores: the tables of `flexunet test`, case by case."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from flexunet_pl.common.console import say
from flexunet_pl.common.distributed import gather
from flexunet_pl.common.errors import UserError
from flexunet_pl.common.files import written_in_place
from flexunet_pl.common.tensors import most_probable
from flexunet_pl.io.mask_colors import UnknownColors
from flexunet_pl.io.masks import read_mask, write_mask
from flexunet_pl.io.patient_ids import group_of, parse_group_regex
from flexunet_pl.metrics.calibration import error_of, reliability, risk_curve
from flexunet_pl.metrics.per_case import ClassScore, make_surfaces, measure_case
from flexunet_pl.metrics.summary import summarise_cases
from flexunet_pl.metrics.tables import print_summary, write_per_case, write_summary
from flexunet_pl.models.behind import with_temperature
from flexunet_pl.models.inference import Answer, by_member, class_probabilities, resize_logits
from flexunet_pl.prediction.confidence_table import ConfidenceTable
from flexunet_pl.rgb_map import IGNORED
from flexunet_pl.task import SegmentationTask
from flexunet_runtime.confidence import Confidence
from flexunet_runtime.postprocess import postprocess


@dataclass(frozen=True)
class _Case:
    """What was measured of a case."""

    name: str
    scores: list[ClassScore]
    entropy: float
    reliability: NDArray[np.float64]
    confidence: Confidence
    confusion: NDArray[np.int64]
    size: tuple[int, ...]


class CaseScores(Callback):
    """Measures every case of a test and writes ``per_case.csv``, ``summary.csv``, ``summary.json``, ``evaluation.csv``.

    Cases are measured at the size of their masks, as `flexunet score` does: a lesion that vanishes where the truth is
    shrunk would count as absent. A mean is over the cases that show the class, a miss counts 0, and its interval is
    drawn over patients. ``evaluation.csv`` has the two numbers of the reference, in its format, at the network's size.

    Args:
        group_regex: Regular expression that finds the patient in a file's name, such as ^([0-9]+)_; by default every
            picture is a patient of its own, which makes the intervals too narrow where it is not.
        spacing_mm: Distance of rows and of columns at the size of the masks; by default distances are in pixels.
        tolerance: Distance of two borders that counts as none in the normalised surface distance.
        surfaces: Whether to measure the distances of borders, which takes most of the time.
        masks: Whether to write the predicted masks too; `flexunet report` shows them.
        network_size: Whether to measure at the network's size instead, with the truth shrunk to it.
    """

    def __init__(
        self,
        group_regex: str | None = None,
        spacing_mm: tuple[float, float] | None = None,
        tolerance: float = 2.0,
        surfaces: bool = True,
        masks: bool = True,
        network_size: bool = False,
    ) -> None:
        self.regex = parse_group_regex(group_regex)
        compared = make_surfaces(spacing_mm, tolerance)
        self.surfaces = compared if surfaces else None
        self.unit = "px" if spacing_mm is None else "mm"
        self.masks = masks
        self.network_size = network_size
        self._truths: dict[str, Path] = {}  # file of each mask, by name
        self._unknown: UnknownColors = "error"
        self.cases: list[_Case] = []
        self._place: Path | None = None  # where the tables go

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier test."""
        self.cases = []
        folder = trainer.log_dir  # all processes must ask for it together
        self._place = Path(folder) if trainer.loggers and folder is not None else None
        data = getattr(trainer, "datamodule", None)
        self._truths = {pair.image.stem: pair.mask for pair in data.pairs.get("test", ())} if data is not None else {}
        self._unknown = getattr(data, "unknown_colors", "error")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure the cases of a batch."""
        task: Any = pl_module
        names = batch["name"][: len(outputs)]
        shrunk = batch["mask"][: len(outputs)].cpu().numpy()
        for name, logits, at_network in zip(names, outputs.cpu(), shrunk, strict=True):
            self.cases.append(self._measure(name, logits, at_network, task))

    def _measure(self, name: str, logits: Tensor, at_network: NDArray[np.uint8], task: SegmentationTask) -> _Case:
        mask, rgb_map, classes = at_network, task.rgb_map, len(task.rgb_map)
        if not self.network_size and name in self._truths:
            mask = read_mask(self._truths[name], rgb_map, self._unknown)
        resized = resize_logits(logits, mask.shape)
        p = class_probabilities(resized, classes)
        predicted = postprocess(most_probable(p).byte().numpy(), task.steps, rgb_map.names)
        told = with_temperature(p, task.temperature)
        scores = measure_case(name, self._group(name), predicted, mask, rgb_map.names, self.surfaces)
        confusion = _count_pairs(mask, predicted, classes)
        entropy = _cross_entropy(class_probabilities(logits, classes).numpy(), at_network)
        if self.masks and self._place is not None:
            write_mask(self._place / "masks" / f"{name}.png", predicted, rgb_map)
        opinions = most_probable(by_member(resized, classes)).byte() if len(resized) > classes else None
        confidence = Answer(torch.from_numpy(predicted), told, None, opinions).confidence()
        sure = reliability(told.numpy(), mask)
        return _Case(name, scores, entropy, sure, confidence, confusion, mask.shape)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the tables and print the summary."""
        cases = sorted((c for part in gather(trainer, self.cases) for c in part), key=lambda case: case.name)
        if trainer.is_global_zero:
            self._report(cases, float(trainer.callback_metrics["test/dice_coef_multiclass"]), pl_module)
        trainer.strategy.barrier()  # a process that ended now would take the others' connections with it

    def _report(self, cases: list[_Case], dice_coef_multiclass: float, pl_module: LightningModule) -> None:
        task: Any = pl_module
        scores = [score for case in cases for score in case.scores]
        summaries = summarise_cases(scores)
        reference = {
            "categorical_crossentropy": float(np.nanmean([case.entropy for case in cases])),
            "dice_coef_multiclass": dice_coef_multiclass,
        }
        errors = [error_of(case.reliability) for case in cases]
        calibration = [error for error in errors if np.isfinite(error)]
        error = float(np.mean(calibration)) if calibration else float("nan")
        trust = [case.confidence.trust(never_empty=task.never_empty) for case in cases]
        risk = risk_curve(trust, [_mean_dice(case.scores) for case in cases])
        aurc = float(risk.mean()) if len(risk) else float("nan")
        place, size = self._place, self._size_of(cases)
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
            write_per_case(place / "per_case.csv", scores)
            confusion = np.sum([case.confusion for case in cases], axis=0).tolist()
            facts = {"cases": len(cases), "unit": self.unit, "calibration_error": error, "confusion": confusion}
            facts["measured_at"] = size
            facts |= {"aurc": aurc, "risk": risk.tolist()}
            facts["reliability"] = np.sum([case.reliability for case in cases], axis=0).tolist()
            table = ConfidenceTable(place, task.rgb_map.names, 0, again=True)
            for case, value in zip(cases, trust, strict=True):
                table.add(case.name, case.confidence, value)
            table.finish(None)
            facts |= {"tolerance": self.surfaces.tolerance if self.surfaces is not None else None, **reference}
            write_summary(place, summaries, facts)
            with written_in_place(place / "evaluation.csv") as temporary, temporary.open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows((k, f"{v:.4f}") for k, v in reference.items())
            say(f"tables written to {place}")
        print_summary(summaries, f"test, {len(cases)} cases, measured at {size}", self.surfaces, self.unit)
        say(f"calibration error {error:.4f}, over the pixels of foreground; area under risk-coverage {aurc:.4f}")
        say(
            f"categorical_crossentropy {reference['categorical_crossentropy']:.4f}, dice_coef_multiclass "
            f"{dice_coef_multiclass:.4f} (the reference's; they count the background)"
        )

    def _size_of(self, cases: list[_Case]) -> str:
        if self.network_size:
            return "the network's size, {}x{} px".format(*cases[0].size)
        sizes = {case.size for case in cases}
        return "their own size, {}x{} px".format(*sizes.pop()) if len(sizes) == 1 else "their own sizes"

    def _group(self, name: str) -> str:
        group = group_of(Path(name), self.regex)
        if group is None and self.regex is not None:
            raise UserError(f"{name}: scores.group_regex finds no patient in this name; correct the expression")
        return name if group is None else group


def _mean_dice(scores: list[ClassScore]) -> float:
    """Return the mean over the classes that the case shows."""
    shown = [score.values["dice"] for score in scores if score.tp + score.fn]
    return float(np.mean(shown)) if shown else float("nan")


def _count_pairs(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count the pixels of each pair of true (row) and predicted class (column), of those that count."""
    cells = (truth.astype(np.int64) * classes + predicted)[truth != IGNORED]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def _cross_entropy(probabilities: NDArray[np.float32], mask: NDArray[np.uint8]) -> float:
    counted = mask != IGNORED
    if not counted.any():
        return float("nan")
    of_truth = np.take_along_axis(probabilities, np.where(counted, mask, 0)[None].astype(np.int64), axis=0)[0]
    return float(-np.log(of_truth[counted].astype(np.float64).clip(1e-7, 1)).mean())  # Keras clips there too
