"""Batches: what the data hand to the task."""

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict):
    """Images and masks at the network's size.

    Attributes:
        image: Shape ``(N, C, H, W)``, uint8, channels last in memory.
        mask: Class indices, shape ``(N, H, W)``, uint8.
        name: Stem of each sample's files.
        counted: Number of samples, from the first, that enter the scores.
    """

    image: Tensor
    mask: Tensor
    name: list[str]
    counted: int


class PredictBatch(TypedDict):
    """Images to predict, at the network's size.

    Attributes:
        image: Shape ``(N, C, H, W)``, uint8, channels last in memory.
        path: File of each image.
        size: Height and width of each image in its file.
    """

    image: Tensor
    path: list[str]
    size: list[tuple[int, int]]
