"""Measure one case: what was found of each class, what was missed, and what was invented."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import UserError
from flexunet_pl.metrics.counts import SCORES, score_counts, state_of
from flexunet_pl.rgb_map import IGNORED

Index = NDArray[np.uint8]

_NAN = float("nan")
_DISTANCES = ("hd95", "nsd")
MEASURED = (*SCORES, *_DISTANCES)


@dataclass(frozen=True)
class ClassScore:
    """What a prediction makes of one class in one case; values that are not defined are NaN.

    Attributes:
        case: Name of the case.
        group: What the case belongs to, such as its patient.
        label: Name of the class.
        state: See `state_of`.
        tp: True positive pixels.
        fp: False positive pixels.
        fn: False negative pixels.
        values: By name, those of `MEASURED`: the ratios of `SCORES`, where their whole is not 0; ``hd95``, the 95th
            percentile of the distances between the two borders, the larger of the two directions, or the diagonal of
            the image where the class is there and nothing is predicted; ``nsd``, the normalised surface distance: the
            share of both borders that lies within the tolerance of the other one, 0 where nothing is predicted.
        lesions: Connected parts of the class, corners touching.
        lesions_found: Those of them of which at least one pixel was predicted.
        false_lesions: Connected parts of the prediction that touch no pixel of the class.
    """

    case: str
    group: str
    label: str
    state: str
    tp: int
    fp: int
    fn: int
    values: dict[str, float]
    lesions: int
    lesions_found: int
    false_lesions: int


@dataclass(frozen=True)
class Surfaces:
    """How borders are compared.

    Attributes:
        spacing: Distance between rows and columns (and slices before them, in volumes), in the unit of the result.
        tolerance: Largest distance of two borders that counts as none, in the same unit.
    """

    spacing: tuple[float, ...] = (1.0, 1.0)
    tolerance: float = 2.0


def make_surfaces(spacing_mm: tuple[float, float] | None, tolerance: float) -> Surfaces:
    """Return how borders are compared, once the numbers are checked.

    Args:
        spacing_mm: Distance of rows and of columns, or None for pixels.
        tolerance: Largest distance that counts as none.

    Raises:
        UserError: If they are out of range.
    """
    spacing = spacing_mm or (1.0, 1.0)
    if not (all(0 < step < float("inf") for step in spacing) and 0 <= tolerance < float("inf")):
        raise UserError(f"spacing_mm ({spacing_mm}) must be above 0, tolerance ({tolerance}) at least 0")
    return Surfaces(spacing, tolerance)


def measure_case(
    case: str, group: str, predicted: Index, truth: Index, class_names: Sequence[str], surfaces: Surfaces | None
) -> list[ClassScore]:
    """Measure each class but the background.

    Args:
        case: Name of the case.
        group: What it belongs to.
        predicted: Class index per pixel, shape ``(H, W)`` or ``(D, H, W)``.
        truth: The same of the truth, and `IGNORED` where the prediction may be anything.
        class_names: Names in class order, the background first.
        surfaces: How borders are compared; None leaves their distances out.

    Returns:
        One score per class.
    """
    predicted = np.where(truth == IGNORED, truth, predicted)
    return [
        _measure_class(case, group, name, predicted == k, truth == k, surfaces)
        for k, name in enumerate(class_names[1:], start=1)
    ]


def _measure_class(
    case: str, group: str, label: str, predicted: NDArray[np.bool_], truth: NDArray[np.bool_], surfaces: Surfaces | None
) -> ClassScore:
    of_truth, of_prediction = (int(np.count_nonzero(m)) for m in (truth, predicted))
    tp = int(np.count_nonzero(truth & predicted))
    fp, fn = of_prediction - tp, of_truth - tp
    box = _bounding_box(truth | predicted) if tp + fp + fn else None
    distances: tuple[float, float] = (_NAN, _NAN)
    lesions = (0, 0, 0)
    if box is not None:
        lesions = _count_lesions(predicted[box], truth[box])
        if surfaces is not None and of_truth:
            distances = _compare_borders(predicted[box], truth[box], surfaces, truth.shape)
    values = {name: float(score_counts(name, tp, fp, fn)) for name in SCORES}
    values |= dict(zip(_DISTANCES, distances, strict=True))
    return ClassScore(case, group, label, state_of(tp, fp, fn), tp, fp, fn, values, *lesions)


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        others = tuple(i for i in range(mask.ndim) if i != axis)
        found = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def _count_lesions(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[int, int, int]:
    from scipy import ndimage

    touching = np.ones((3,) * truth.ndim)
    parts, count = ndimage.label(truth, touching)
    found = len(np.unique(parts[predicted & truth]))
    of_prediction, predicted_count = ndimage.label(predicted, touching)
    right = len(np.unique(of_prediction[predicted & truth]))
    return int(count), found, int(predicted_count) - right


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the elements with a neighbour outside; what touches the box has one there."""
    from scipy import ndimage

    border: NDArray[np.bool_] = mask ^ ndimage.binary_erosion(mask)
    return border


def _compare_borders(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], surfaces: Surfaces, shape: tuple[int, ...]
) -> tuple[float, float]:
    if not predicted.any():
        return float(np.linalg.norm(np.multiply(shape, surfaces.spacing))), 0.0
    from scipy.spatial import KDTree

    borders = [np.argwhere(_border(mask)) * np.asarray(surfaces.spacing) for mask in (predicted, truth)]
    distances = [KDTree(to, leafsize=32).query(border)[0] for border, to in (borders, borders[::-1])]
    hd95 = max(float(np.quantile(d, 0.95)) for d in distances)
    within = sum(int(np.count_nonzero(d <= surfaces.tolerance)) for d in distances)
    return hd95, within / sum(map(len, distances))
