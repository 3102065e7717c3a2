"""Masks and overlays as PNG files: class indices with the colours of their classes."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flexunet_runtime.files import written_in_place

Colors = Sequence[tuple[int, int, int]]  # R, G, B of each class, in class order

_COMPRESSION = 1  # the default takes six times as long for a tenth less


def encode_mask(index: NDArray[np.uint8], colors: Colors) -> bytes:
    """Return class indices as a palette PNG.

    Args:
        index: Class index per pixel, shape ``(H, W)``, uint8.
        colors: Of the classes.

    Returns:
        Content of the file.
    """
    picture = Image.fromarray(index)  # one byte per pixel; with a palette put on it, the mode becomes P
    picture.putpalette([level for color in colors for level in color])
    return _encode(picture)


def encode_image(image: NDArray[np.uint8]) -> bytes:
    """Return an image as PNG.

    Args:
        image: Shape ``(H, W, 3)`` or ``(H, W)``, uint8.

    Returns:
        Content of the file.
    """
    return _encode(Image.fromarray(image))


def write_mask(path: Path, index: NDArray[np.uint8], colors: Colors) -> None:
    """Write class indices as a palette PNG, beside its name first and then moved into place.

    Args:
        path: The file, ending in ``.png``.
        index: Class index per pixel, shape ``(H, W)``, uint8.
        colors: Of the classes.

    Raises:
        OSError: If it cannot be written.
    """
    with written_in_place(path) as temporary:
        temporary.write_bytes(encode_mask(index, colors))


def draw_overlay(
    image: NDArray[np.uint8], index: NDArray[np.uint8], colors: Colors, opacity: float = 0.35
) -> NDArray[np.uint8]:
    """Tint each class but the background with its colour, and draw its border.

    Args:
        image: Shape ``(H, W, C)``, uint8.
        index: Class index per pixel, shape ``(H, W)``, uint8.
        colors: Of the classes.
        opacity: Opacity of the tint; borders are opaque.

    Returns:
        Shape ``(H, W, 3)``, uint8, channels in R, G, B order.
    """
    picture = as_rgb(image).astype(np.float32)
    tint = np.asarray(colors, np.float32)[index]
    weight = np.where(index > 0, np.float32(opacity), np.float32(0))
    weight[_borders(index) & (index > 0)] = 1
    picture += (tint - picture) * weight[..., None]
    return np.rint(picture).astype(np.uint8)


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what can be looked at of an image: of several bands the first three, of two the first, in grey.

    Args:
        image: Shape ``(H, W, C)``, uint8.

    Returns:
        Shape ``(H, W, 3)``, uint8; it may be a view.
    """
    seen = image if image.shape[2] == 3 else image[..., :3] if image.shape[2] > 3 else image[..., :1]
    return np.broadcast_to(seen, (*image.shape[:2], 3))


def _borders(index: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the pixels whose neighbour above, below, left or right is of another class."""
    padded = np.pad(index, 1, mode="edge")
    inner = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.asarray(np.logical_or.reduce([inner != other for other in neighbours]))


def _encode(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()
