"""Which images to label next: those from which a network would learn most."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_NOISE = 0.25  # of the logarithm of an entropy: images of the same kind change places


class Candidate(NamedTuple):
    """An image without a label.

    Attributes:
        entropy: Mean over pixels of how unsure each class but the background is, in bits, shape ``(K - 1,)``.
        shows: Whether anything but background is predicted.
    """

    entropy: NDArray[np.float64]
    shows: bool

    @classmethod
    def of(cls, probabilities: NDArray[np.float32], mask: NDArray[np.uint8]) -> "Candidate":
        """Measure an image by its probabilities, shape ``(K, H, W)``, and its mask, shape ``(H, W)``."""
        p = probabilities[1:].clip(1e-7, 1 - 1e-7)
        bits = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
        return cls(bits.mean(axis=(1, 2), dtype=np.float64), bool(mask.any()))


def order_by_entropy(candidates: Sequence[Candidate], seed: int) -> list[int]:
    """Order images by their entropy with noise, class by class in turn.

    Args:
        candidates: The images.
        seed: Seed of the noise.

    Returns:
        Their numbers, that to label first before the others.
    """
    rng = np.random.default_rng(seed)
    logs = np.log(np.array([candidate.entropy for candidate in candidates]) + 1e-12)
    noisy = logs + _NOISE * rng.gumbel(size=logs.shape)
    of_classes = [np.argsort(-column, kind="stable").tolist() for column in noisy.T]
    turns = (number for numbers in zip(*of_classes, strict=True) for number in numbers)
    return list(dict.fromkeys(turns))


def order_randomly(candidates: Sequence[Candidate], seed: int) -> list[int]:
    """Order images at random, those first in which something is found: what there is to beat.

    Args:
        candidates: The images.
        seed: Seed of the order.

    Returns:
        Their numbers.
    """
    order = np.random.default_rng(seed).permutation(len(candidates)).tolist()
    return sorted(order, key=lambda number: not candidates[number].shows)
