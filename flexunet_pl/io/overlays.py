"""Pictures of class indices on their image."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import flexunet_runtime.masks
from flexunet_pl.rgb_map import IGNORED, RgbMap


def draw_overlay(
    image: NDArray[np.uint8], index: NDArray[np.uint8], rgb_map: RgbMap, opacity: float = 0.35
) -> NDArray[np.uint8]:
    """Tint each class but the background with its colour, and draw its border.

    Args:
        image: Shape ``(H, W, C)``, uint8, C of 1 or 3.
        index: Class index per pixel, shape ``(H, W)``, uint8; what does not count is shown as background is.
        rgb_map: Colour of each class.
        opacity: Opacity of the tint; borders are opaque.

    Returns:
        Shape ``(H, W, 3)``, uint8, channels in R, G, B order.
    """
    index = np.where(index == IGNORED, np.uint8(0), index)
    return flexunet_runtime.masks.draw_overlay(image, index, rgb_map.colors, opacity)


def add_legend(picture: NDArray[np.uint8], rgb_map: RgbMap) -> NDArray[np.uint8]:
    """Put a line with the colour and the name of each class but the background below a picture.

    Args:
        picture: Shape ``(H, W, 3)``, uint8; it is left as it is.
        rgb_map: The classes.

    Returns:
        A taller picture of the same width, shape ``(H + n, W, 3)``, uint8.
    """
    height, width = picture.shape[:2]
    step = max(12, round(width / 32))  # the height of a line
    font = ImageFont.load_default(size=round(step * 0.7))
    lines: list[list[tuple[str, tuple[int, int, int]]]] = [[]]
    free = width
    for name, color in list(zip(rgb_map.names, rgb_map.colors, strict=True))[1:]:
        needed = round(font.getlength(name)) + 2 * step
        if needed > free and lines[-1]:
            lines.append([])
            free = width
        lines[-1].append((name, color))
        free -= needed
    canvas = Image.new("RGB", (width, height + step * len(lines)))
    canvas.paste(Image.fromarray(picture))
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        x, y = step // 4, height + number * step
        for name, color in line:
            draw.rectangle((x, y + step // 5, x + step // 2, y + step * 4 // 5), fill=color, outline="white")
            draw.text((x + step * 3 // 4, y + step / 2), name, fill="white", font=font, anchor="lm")
            x += round(font.getlength(name)) + 2 * step
    return np.asarray(canvas)


def fit_size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Return the height and width of a picture whose longer side is scaled to a number of pixels.

    Args:
        shape: Height and width first.
        side: Pixels of the longer side.

    Returns:
        Height and width, at least 1 each.

    >>> fit_size((512, 256, 3), 100)
    (100, 50)
    """
    scale = side / max(shape[:2])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
