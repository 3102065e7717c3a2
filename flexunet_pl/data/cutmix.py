"""CutMix: a box of one sample in the place of another's."""

import numpy as np
from numpy.typing import NDArray

_SIDES = (0.25, 0.5)  # of the box, in sides of the image


def paste_box(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    other: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Replace a box of an image and its mask by what another sample shows there.

    Source: Yun et al. 2019, CutMix; French et al. 2020 for segmentation.

    Args:
        image: Shape ``(H, W, C)``, uint8.
        mask: Class indices, shape ``(H, W)``, uint8.
        other: Image and mask of the other sample, of the same shapes.
        rng: Decides where.

    Returns:
        New arrays.
    """
    at = []
    for length in mask.shape:
        side = max(1, round(rng.uniform(*_SIDES) * length))
        first = int(rng.integers(length - side + 1))
        at.append(slice(first, first + side))
    box = tuple(at)
    image, mask = image.copy(), mask.copy()
    image[box], mask[box] = other[0][box], other[1][box]
    return image, mask
