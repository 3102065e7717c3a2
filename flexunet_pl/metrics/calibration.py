"""Calibration: whether a pixel that is predicted with 80 % is right in 80 % of the cases."""

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.rgb_map import IGNORED

_BINS = 15


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
    predicted, certainty = probabilities.argmax(axis=0), probabilities.max(axis=0)
    used = ((predicted > 0) | (truth > 0)) & (truth != IGNORED)
    count = np.count_nonzero(used)
    if not count:
        return float("nan")
    right, certain = (predicted == truth)[used], certainty[used].astype(np.float64)
    bins = np.minimum((certain * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, weights=right - certain, minlength=_BINS)
    return float(np.abs(gaps).sum() / count)
