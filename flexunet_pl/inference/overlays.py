"""Pictures of class indices on their image."""

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.rgb_map import RgbMap


def draw_overlay(
    image: NDArray[np.uint8], index: NDArray[np.uint8], rgb_map: RgbMap, opacity: float = 0.35
) -> NDArray[np.uint8]:
    """Tint each class but the background with its colour, and draw its border.

    Args:
        image: Shape ``(H, W, C)``, uint8, C of 1 or 3.
        index: Class index per pixel, shape ``(H, W)``, uint8.
        rgb_map: Colour of each class.
        opacity: Opacity of the tint; borders are opaque.

    Returns:
        Shape ``(H, W, 3)``, uint8, channels in R, G, B order.
    """
    picture = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32)
    colors = rgb_map.palette.astype(np.float32)[index]
    weight = np.where(index > 0, np.float32(opacity), np.float32(0))
    weight[_borders(index) & (index > 0)] = 1
    picture += (colors - picture) * weight[..., None]
    return np.rint(picture).astype(np.uint8)


def fit_size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Return the height and width of a picture whose longer side is scaled to a number of pixels.

    Args:
        shape: Height and width first.
        side: Pixels of the longer side.

    Returns:
        Height and width, at least 1 each.
    """
    scale = side / max(shape[:2])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _borders(index: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the pixels whose neighbour above, below, left or right is of another class."""
    padded = np.pad(index, 1, mode="edge")
    inner = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.asarray(np.logical_or.reduce([inner != other for other in neighbours]))
