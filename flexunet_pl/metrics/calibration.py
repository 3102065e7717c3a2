"""Calibration: whether a pixel that is predicted with 80 % is right in 80 % of the cases."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.rgb_map import IGNORED

_BINS = 15
_COLDEST, _HOTTEST = 0.2, 10.0  # temperatures that are looked for


def reliability(probabilities: NDArray[np.float32], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Count, by how certain a case's pixels are, how many are right: those that are or are predicted foreground.

    Args:
        probabilities: Shape ``(K, H, W)``.
        truth: Class index per pixel, shape ``(H, W)``; `IGNORED` where a pixel does not count.

    Returns:
        Shape ``(3, 15)``, by equal bins of certainty: sum of the certainty, pixels that are right, pixels.
    """
    predicted, certainty = probabilities.argmax(axis=0), probabilities.max(axis=0)
    used = ((predicted > 0) | (truth > 0)) & (truth != IGNORED)
    right, certain = (predicted == truth)[used], certainty[used].astype(np.float64)
    bins = np.minimum((certain * _BINS).astype(np.int64), _BINS - 1)
    return np.stack([np.bincount(bins, weights=weights, minlength=_BINS) for weights in (certain, right, None)])


def risk_curve(trust: Sequence[float], dice: Sequence[float]) -> NDArray[np.float64]:
    """Return the risk that is left where the least trusted cases are handed to a human.

    Args:
        trust: How far each case can be trusted.
        dice: Its Dice; cases where that is not defined are left out.

    Returns:
        Mean of 1 - Dice over the most trusted case, the two most trusted, and so on; its mean is the area under the
        risk-coverage curve (AURC).
    """
    pairs = sorted(((-t, d) for t, d in zip(trust, dice, strict=True) if np.isfinite(d)), key=lambda pair: pair[0])
    risks = 1 - np.array([d for _, d in pairs])
    curve: NDArray[np.float64] = np.cumsum(risks) / np.arange(1, len(risks) + 1)
    return curve


def calibration_error(probabilities: NDArray[np.float32], truth: NDArray[np.uint8]) -> float:
    """Compute the expected calibration error of a case, over the pixels that are or are predicted foreground.

    The background is left out where both agree on it: it is nearly all of an image, and nearly always certain.

    Args:
        probabilities: Shape ``(K, H, W)``.
        truth: Class index per pixel, shape ``(H, W)``; `IGNORED` where a pixel does not count.

    Returns:
        The mean difference of certainty and share of right pixels, over 15 equal bins of certainty, weighted by their
        pixels, in 0..1; NaN without such a pixel.
    """
    return error_of(reliability(probabilities, truth))


def error_of(counted: NDArray[np.float64]) -> float:
    """Return the calibration error of what `reliability` has counted; NaN where that is no pixel."""
    certain, right, pixels = counted
    return float(np.abs(right - certain).sum() / pixels.sum()) if pixels.any() else float("nan")


@dataclass(frozen=True)
class Calibration:
    """What a temperature does to the calibration error, on cases that it was not fitted on.

    Attributes:
        temperature: Fitted on all cases; 1 where it would help no others.
        before: Mean calibration error over cases as they are.
        after: The same with temperatures that were fitted on the cases of other groups.
    """

    temperature: float
    before: float
    after: float


def calibrate(
    probabilities: Sequence[NDArray[np.float32]], truths: Sequence[NDArray[np.uint8]], groups: Sequence[str]
) -> Calibration:
    """Fit the temperature by which probabilities are as often right as they say.

    Args:
        probabilities: Of some pixels of each case, shape ``(K, n)`` each.
        truths: Their classes, shape ``(n,)`` each.
        groups: What each case belongs to.

    Returns:
        The temperature; 1 where one that was fitted on half of the groups does not lower the error on the other half.
    """
    cases = [(p, t, group) for p, t, group in zip(probabilities, truths, groups, strict=True) if t.size]
    names = sorted({group for _, _, group in cases})
    if len(names) < 2:
        return Calibration(1.0, float("nan"), float("nan"))
    halves = [[case for case in cases if (names.index(case[2]) % 2 == 0) == even] for even in (True, False)]
    before, after = [], []
    for half, other in (halves, halves[::-1]):
        temperature = _fit_temperature(other)
        for p, t, _ in half:
            before.append(calibration_error(p[:, None], t[None]))
            after.append(calibration_error(_tempered(p, temperature)[:, None], t[None]))
    found = Calibration(_fit_temperature(cases), float(np.nanmean(before)), float(np.nanmean(after)))
    return found if found.after < found.before else replace(found, temperature=1.0)


def _tempered(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    raised = probabilities ** np.float32(1 / temperature)
    tempered: NDArray[np.float32] = raised / raised.sum(axis=0)
    return tempered


def _fit_temperature(cases: Sequence[tuple[NDArray[np.float32], NDArray[np.uint8], str]]) -> float:
    """Return the temperature of the lowest cross-entropy, each case counting alike."""
    from scipy.optimize import minimize_scalar

    logs = [np.log(np.maximum(p, np.float32(1e-30))) for p, _, _ in cases]
    truths = [t.astype(np.intp) for _, t, _ in cases]

    def cross_entropy(log_temperature: float) -> float:
        means = []
        for log, truth in zip(logs, truths, strict=True):
            scaled = log * np.float32(np.exp(-log_temperature))
            means.append((np.logaddexp.reduce(scaled, axis=0) - scaled[truth, np.arange(len(truth))]).mean())
        return float(np.mean(means))

    found = minimize_scalar(cross_entropy, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded")
    return float(np.exp(found.x))
