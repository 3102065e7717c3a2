"""Sum up the scores of many cases, class by class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flexunet_pl.metrics.counts import score_counts
from flexunet_pl.metrics.intervals import bootstrap_mean
from flexunet_pl.metrics.per_case import MEASURED, ClassScore


@dataclass(frozen=True)
class Mean:
    """Mean and median over the cases that show a class, in which the value is defined.

    Attributes:
        mean: The mean.
        low: Lower end of its 95 % interval over groups.
        high: Upper end.
        median: The median, which has no interval.
        cases: Number of cases.
    """

    mean: float
    low: float
    high: float
    median: float
    cases: int


@dataclass(frozen=True)
class ClassSummary:
    """The scores of a class over all cases; values that are not defined are NaN.

    Attributes:
        label: Name of the class.
        present: Cases that show it.
        absent: Cases that do not.
        groups: Groups among those that show it.
        means: By name, of `MEASURED`, over the cases that show it.
        miss_rate: Share of the cases that show it in which nothing of it was found.
        false_alarm_rate: Share of the other cases in which some of it was predicted.
        dice_pooled: Dice over the pixels of all cases together.
        lesion_recall: Share of all lesions that were found.
        false_lesions: Invented lesions per case, over all cases.
    """

    label: str
    present: int
    absent: int
    groups: int
    means: dict[str, Mean]
    miss_rate: float
    false_alarm_rate: float
    dice_pooled: float
    lesion_recall: float
    false_lesions: float


def summarise_cases(scores: Sequence[ClassScore], seed: int = 137) -> list[ClassSummary]:
    """Sum up, class by class, in the order in which the classes first appear.

    A miss counts 0 in the means of Dice, IoU, recall and surface distance; precision is defined only where some was
    predicted.

    Args:
        scores: Of all cases and classes.
        seed: Seed of the intervals.

    Returns:
        One summary per class.
    """
    labels = dict.fromkeys(score.label for score in scores)
    return [_summarise_class(label, [s for s in scores if s.label == label], seed) for label in labels]


def _summarise_class(label: str, scores: list[ClassScore], seed: int) -> ClassSummary:
    shown = [score for score in scores if score.tp + score.fn]
    others = [score for score in scores if not score.tp + score.fn]
    tp, fp, fn = (sum(getattr(score, name) for score in scores) for name in ("tp", "fp", "fn"))
    return ClassSummary(
        label=label,
        present=len(shown),
        absent=len(others),
        groups=len({score.group for score in shown}),
        means={name: mean_of(shown, name, seed) for name in MEASURED},
        miss_rate=_share(shown, lambda s: s.state == "missed"),
        false_alarm_rate=_share(others, lambda s: s.state == "false alarm"),
        dice_pooled=float(score_counts("dice", tp, fp, fn)),
        lesion_recall=_divided(sum(s.lesions_found for s in scores), sum(s.lesions for s in scores)),
        false_lesions=_divided(sum(s.false_lesions for s in scores), len(scores)),
    )


def mean_of(scores: Sequence[ClassScore], name: str, seed: int = 137) -> Mean:
    """Return mean, interval and median of one of `MEASURED` over the scores in which it is defined.

    Args:
        scores: Those of one class.
        name: One of `MEASURED`.
        seed: Seed of the interval.
    """
    used = [(s.values[name], s.group) for s in scores if not np.isnan(s.values[name])]
    if not used:
        nan = float("nan")
        return Mean(nan, nan, nan, nan, 0)
    values, groups = zip(*used, strict=True)
    low, high = bootstrap_mean(values, groups, seed=seed)
    return Mean(float(np.mean(values)), low, high, float(np.median(values)), len(values))


def _share(scores: Sequence[ClassScore], holds: Callable[[ClassScore], bool]) -> float:
    return _divided(sum(holds(score) for score in scores), len(scores))


def _divided(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
