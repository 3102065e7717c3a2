"""Scores of counted pixels, each written once: of a case, of an epoch, pooled over all cases.

A score that is added to `SCORES` is logged for each epoch and stands in every table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class CountScore:
    """A score that is a ratio of pixel counts.

    Attributes:
        label: What tables call it.
        ratio: Gives the part and the whole of true positives, false positives and false negatives.
    """

    label: str
    ratio: Callable[[Counts, Counts, Counts], tuple[Counts, Counts]]


SCORES = {
    "dice": CountScore("Dice", lambda tp, fp, fn: (2 * tp, 2 * tp + fp + fn)),
    "iou": CountScore("IoU", lambda tp, fp, fn: (tp, tp + fp + fn)),
    "precision": CountScore("precision", lambda tp, fp, fn: (tp, tp + fp)),
    "recall": CountScore("recall", lambda tp, fp, fn: (tp, tp + fn)),
}


def score_counts(name: str, tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> Any:
    """Compute a score of pixel counts.

    Args:
        name: One of `SCORES`.
        tp: True positives, a number or an array.
        fp: False positives, likewise.
        fn: False negatives, likewise.

    Returns:
        The score in 0..1, float64, of the shape of the counts; NaN where it is not defined.

    >>> float(score_counts("dice", 5, 5, 5))
    0.5
    >>> score_counts("precision", [5, 0], [5, 0], [0, 3]).tolist()  # nothing was predicted in the second case
    [0.5, nan]
    """
    part, whole = SCORES[name].ratio(*(np.asarray(count, dtype=np.float64) for count in (tp, fp, fn)))
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def state_of(tp: int, fp: int, fn: int) -> str:
    """Say what became of a class in a case.

    Args:
        tp: True positive pixels.
        fp: False positive pixels.
        fn: False negative pixels.

    Returns:
        ``present``: it is there and some of it was found; ``missed``: it is there and nothing of it was found;
        ``false alarm``: it is not there, and yet predicted; ``absent``: neither.

    >>> state_of(0, 12, 7)
    'missed'
    """
    if tp + fn:
        return "present" if tp else "missed"
    return "false alarm" if fp else "absent"
