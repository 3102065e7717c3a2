"""How far a mask can be trusted: its expected Dice, and how much those who drew it agree."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_SEEN = 0.02  # probability below which a pixel of another class is no doubt: a picture is full of such

Sums = NDArray[np.float64]


class Confidence(NamedTuple):
    """Sums over the pixels of a picture, or of several that are one case.

    Attributes:
        inside: Of the probabilities of a class over the pixels that have it in the mask, shape ``(K,)``.
        predicted: Number of those pixels, shape ``(K,)``.
        expected: Of the probabilities over all pixels, shape ``(K,)``.
        highest: Highest probability of each class, shape ``(K,)``.
        common: Of each pair of opinions twice the number of pixels on which they agree, shape ``(P, K)``.
        either: Of each pair the pixels of both, shape ``(P, K)``.
    """

    inside: Sums
    predicted: Sums
    expected: Sums
    highest: Sums
    common: Sums
    either: Sums

    def joined(self, other: "Confidence") -> "Confidence":
        """Return the sums of both, for the next slice of a volume."""
        sums = [one + two for one, two in zip(self, other, strict=True)]
        return Confidence(*sums)._replace(highest=np.maximum(self.highest, other.highest))

    @property
    def expected_dice(self) -> Sums:
        """Dice to be expected of each class, shape ``(K,)``, 0..1; of one that is not predicted, that it is absent."""
        both: Sums = self.predicted + self.expected
        expected: Sums = np.where(self.predicted > 0, 2 * self.inside / np.maximum(both, 1e-12), 1 - self.highest)
        return expected

    @property
    def agreement(self) -> Sums:
        """Mean Dice of pairs of opinions on each class, shape ``(K,)``; NaN where there is one opinion."""
        if not len(self.common):
            return np.full(self.inside.shape, np.nan)
        agreement: Sums = np.where(self.either > 0, self.common / np.maximum(self.either, 1), 1.0).mean(axis=0)
        return agreement

    def trust(self, *, never_empty: bool) -> float:
        """Return how far the case can be trusted: the expected Dice of all foreground, times the agreement on it.

        Args:
            never_empty: Whether each case that the network was validated on shows foreground: then one in which none
                is predicted is not to be trusted.

        Returns:
            0..1.
        """
        inside, predicted, expected = (sums[1:].sum() for sums in (self.inside, self.predicted, self.expected))
        nothing = 0.0 if never_empty else 1 - self.highest[1:].max()
        dice = 2 * inside / (predicted + expected) if predicted else nothing
        common, either = self.common[:, 1:].sum(), self.either[:, 1:].sum()
        return float(dice * (common / either if either else 1.0))


def measure_confidence(
    probabilities: NDArray[np.float32], mask: NDArray[np.uint8], opinions: Sequence[NDArray[np.uint8]] = ()
) -> Confidence:
    """Measure how far a mask can be trusted.

    Args:
        probabilities: Shape ``(K, H, W)``.
        mask: Class index per pixel, shape ``(H, W)``.
        opinions: Masks of those whose mean the probabilities are, where there are several.

    Returns:
        Its sums.
    """
    classes = len(probabilities)
    own = np.take_along_axis(probabilities, mask[None].astype(np.intp), axis=0)[0]
    pairs = list(combinations(opinions, 2))
    sizes = {id(opinion): np.bincount(opinion.ravel(), minlength=classes) for opinion in opinions}
    common = [2 * np.bincount(one[one == two], minlength=classes) for one, two in pairs]
    either = [sizes[id(one)] + sizes[id(two)] for one, two in pairs]
    return Confidence(
        inside=np.bincount(mask.ravel(), weights=own.ravel(), minlength=classes).astype(np.float64),
        predicted=np.bincount(mask.ravel(), minlength=classes).astype(np.float64),
        expected=np.array([p[p >= _SEEN].sum(dtype=np.float64) for p in probabilities]),
        highest=probabilities.max(axis=(1, 2)).astype(np.float64),
        common=np.array(common, dtype=np.float64).reshape(-1, classes),
        either=np.array(either, dtype=np.float64).reshape(-1, classes),
    )
