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
    """Pictures to predict: images, and slices of volumes.

    Attributes:
        image: Shape ``(N, C, H, W)``, uint8, channels last in memory; N may be 0.
        path: File of each picture.
        slice: Number of each slice, 0 for an image.
        size: Height and width of each picture in its file.
        unusable: Files that could not be read.
        problems: Why, for each of them.
    """

    image: Tensor
    path: list[str]
    slice: list[int]
    size: list[tuple[int, int]]
    unusable: list[str]
    problems: list[str]
