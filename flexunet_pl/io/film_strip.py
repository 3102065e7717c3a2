"""The film strip: what a network makes of a few images, epoch by epoch, as one picture."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from flexunet_runtime.masks import as_rgb

_THUMBNAIL = 128  # px, longer side of a picture in the film strip
_HEADER = 16  # px, height of the line that names the columns


def make_thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink a picture for the strip.

    Args:
        picture: Shape ``(H, W, C)``, uint8.

    Returns:
        Its thumbnail in R, G, B, the longer side at most 128 px.
    """
    small = Image.fromarray(np.ascontiguousarray(as_rgb(picture)))
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small)


def draw_strip(columns: list[list[NDArray[np.uint8]]], titles: list[str]) -> NDArray[np.uint8]:
    """Lay thumbnails out, one column per list, with a title over each.

    Args:
        columns: Thumbnails by `make_thumbnail`, from the top down.
        titles: One per column.

    Returns:
        The strip, shape ``(H, W, 3)``, uint8.
    """
    rows = max(len(column) for column in columns)
    canvas = Image.new("RGB", (len(columns) * _THUMBNAIL, _HEADER + rows * _THUMBNAIL))
    draw = ImageDraw.Draw(canvas)
    for x, (column, title) in enumerate(zip(columns, titles, strict=True)):
        draw.text((x * _THUMBNAIL + 4, 2), title, fill="white")
        for y, thumbnail in enumerate(column):
            canvas.paste(Image.fromarray(thumbnail), (x * _THUMBNAIL, _HEADER + y * _THUMBNAIL))
    return np.asarray(canvas)


def cut_strip(strip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Leave of a film strip what stands still, and the first, the middle and the last epoch.

    Args:
        strip: A film strip, shape ``(H, W, 3)``, uint8.

    Returns:
        A strip of at most five columns.
    """
    columns = strip.reshape(len(strip), -1, _THUMBNAIL, 3).swapaxes(0, 1)
    still = min(2, len(columns) - 1)  # a first epoch is kept where there is no truth
    last = len(columns) - 1
    chosen = sorted({*range(still), still, (still + last) // 2, last})
    return np.concatenate([columns[i] for i in chosen], axis=1)
