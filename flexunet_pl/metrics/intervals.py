"""Intervals of means by bootstrap over groups: patients are independent of each other, their slices are not."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEW_GROUPS = 20  # below which an interval is too narrow more often than it says
_RESAMPLES = 4000
_BATCH = 200  # resamples at a time, which bounds the memory


def bootstrap_mean(
    values: Sequence[float], groups: Sequence[str], confidence: float = 0.95, seed: int = 137
) -> tuple[float, float]:
    """Compute the interval of the mean of cases, by the BCa bootstrap over their groups.

    Args:
        values: One number per case.
        groups: Group of each case; whole groups are drawn, and the mean is over the cases of those drawn.
        confidence: Share of such intervals that are to hold the true mean.
        seed: Seed of the draw. The order of the cases has no influence.

    Returns:
        Lower and upper end; NaN with fewer than two groups.

    >>> low, high = bootstrap_mean([0.9, 0.8, 0.4, 0.7], ["a", "a", "b", "c"])
    >>> 0.4 <= low < 0.7 < high <= 0.9
    True
    """
    from scipy.stats import bootstrap

    cases = sorted(zip(groups, map(float, values), strict=True))  # a sum of floats depends on their order
    names, of_case = np.unique([group for group, _ in cases], return_inverse=True)
    if len(names) < 2:
        return float("nan"), float("nan")
    sums = np.bincount(of_case, weights=[value for _, value in cases])
    counts = np.bincount(of_case).astype(np.float64)
    means = sums / counts
    if np.ptp(means) < 1e-12:  # all groups alike: nothing to draw
        return float(means[0]), float(means[0])
    with warnings.catch_warnings(action="ignore"):  # of a distribution with few values, which the percentiles survive
        result = bootstrap(
            (sums, counts),
            _mean_of_groups,
            paired=True,
            vectorized=True,
            n_resamples=_RESAMPLES,
            batch=_BATCH,
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _mean_of_groups(sums: NDArray[np.float64], counts: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = sums.sum(axis=axis) / counts.sum(axis=axis)
    return mean
