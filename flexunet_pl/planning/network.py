"""The network of a plan, and the sizes of images that it may be given."""

from typing import Any

SIDES = (96, 128, 192, 256, 384, 512)  # px, of the longer side
BATCH = 4
FILTERS = 16
KERNEL = 7
_BRIDGE = 8  # px, about the side of the coarsest features: the whole image is within the reach of each
_FEWEST_LEVELS, _MOST_LEVELS = 4, 6


def levels_for(size: tuple[int, int]) -> int:
    """Return the depth at which the coarsest features of an image have some eight pixels a side.

    Args:
        size: Height and width of the network's images, px.

    >>> [levels_for((side, side)) for side in (96, 128, 256, 512)]
    [4, 5, 6, 6]
    """
    halvings = 0
    while min(size) // 2 ** (halvings + 1) >= _BRIDGE and all(side % 2 ** (halvings + 1) == 0 for side in size):
        halvings += 1
    return min(max(halvings + 1, _FEWEST_LEVELS), _MOST_LEVELS)


def network_arguments(levels: int, *, normalization: bool = False) -> dict[str, Any]:
    """Return the arguments of a plan's FlexUNet.

    Args:
        levels: Its depth.
        normalization: Whether it has batch norm.
    """
    return {
        "base_filters": FILTERS,
        "base_kernels": [KERNEL, KERNEL],
        "num_layers": levels,
        "dropout_rate": 0.0,
        "normalization": normalization,
    }


def size_within(native: tuple[int, int], side: int) -> tuple[int, int]:
    """Scale a size down so that its longer side is `side`, and round it to what the network can halve.

    Args:
        native: Height and width of the images, px.
        side: Longer side wanted, px.

    Returns:
        Height and width, multiples of ``2 ** (levels - 1)``.

    >>> size_within((512, 512), 256), size_within((600, 800), 256)
    ((256, 256), (192, 256))
    """
    factor = 2 ** (levels_for((side, side)) - 1)
    scale = side / max(native)
    height, width = (max(factor, round(length * scale / factor) * factor) for length in native)
    return height, width
