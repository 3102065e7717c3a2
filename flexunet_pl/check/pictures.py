"""Pictures of a data set: how much there is of what, and what it looks like."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.check.findings import LookAlike
from flexunet_pl.check.scan import Scan
from flexunet_pl.common.errors import DataError
from flexunet_pl.common.files import written_in_place
from flexunet_pl.io.images import read_image, resize_image, write_image
from flexunet_pl.io.masks import read_mask, resize_mask
from flexunet_pl.io.overlays import draw_overlay, fit_size
from flexunet_pl.rgb_map import IGNORED, RgbMap
from flexunet_runtime.window import Window

_SIDE = 192  # px, longer side of a picture in the grid
_ROWS = 6


def draw_statistics(summary: dict[str, Any], rgb_map: RgbMap, path: Path) -> None:
    """Draw images per split, images per class and split, and pixels per class.

    Args:
        summary: Of the data set.
        rgb_map: Classes and colours.
        path: The PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    of_splits, of_images, of_pixels = figure.subplots(1, 3)
    splits = summary["splits"]
    of_splits.bar(list(splits), [split["pairs"] for split in splits.values()], color="0.5")
    of_splits.set(title="images per split", ylabel="images")
    foreground = rgb_map.names[1:]
    width = 0.8 / max(1, len(splits))
    for i, (name, split) in enumerate(splits.items()):
        at = np.arange(len(foreground)) + (i - (len(splits) - 1) / 2) * width
        of_images.bar(at, [split["images"][c] / max(1, split["pairs"]) for c in foreground], width, label=name)
    of_images.set(title="share of the images that show a class", ylim=(0, 1))
    of_images.set_xticks(range(len(foreground)), foreground, rotation=30, ha="right")
    of_images.legend()
    pixels = [sum(split["pixels"][name] for split in splits.values()) for name in rgb_map.names]
    shares = np.array(pixels) / max(1, sum(pixels))
    colors = [tuple(c / 255 for c in color) for color in rgb_map.colors]
    of_pixels.bar(rgb_map.names, shares, color=colors, edgecolor="0.4")
    of_pixels.set(title="share of the pixels", yscale="log" if shares.any() else "linear")
    of_pixels.tick_params(axis="x", rotation=30)
    with written_in_place(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def draw_samples(scans: Sequence[Scan], rgb_map: RgbMap, window: Window | None, path: Path) -> None:
    """Draw a grid of some pairs: image, mask and both together, evenly from all that can be read and show something.

    Args:
        scans: One per pair.
        rgb_map: Classes and colours.
        window: Lowest and highest value of 16-bit and float images.
        path: The PNG to write.
    """
    shown = [scan for scan in scans if not scan.errors and any(scan.class_pixels[1:])]
    chosen = [shown[i] for i in np.unique(np.linspace(0, len(shown) - 1, _ROWS).astype(int))] if shown else []
    rows = []
    for scan in chosen:
        try:
            image, index = read_image(scan.pair.image, window=window), read_mask(scan.pair.mask, rgb_map)
        except DataError:
            continue  # it was read a moment ago
        size = fit_size(index.shape, _SIDE)
        image, index = resize_image(image, size), resize_mask(index, size)
        panels = (
            image,
            rgb_map.paint(np.where(index == IGNORED, np.uint8(0), index)),
            draw_overlay(image, index, rgb_map),
        )
        rows.append(np.hstack([_padded(panel) for panel in panels]))
    if rows:
        write_image(path, np.vstack(rows))


def draw_look_alikes(look_alikes: Sequence[LookAlike], window: Window | None, path: Path) -> None:
    """Draw the pictures of different splits that look most alike, side by side; nothing where there are none.

    Args:
        look_alikes: The pairs, ranked.
        window: Lowest and highest value of 16-bit and float images.
        path: The PNG to write.
    """
    rows = []
    for pair in look_alikes[:_ROWS]:
        images = [read_image(scan.pair.image, window=window) for scan in (pair.one, pair.two)]
        panels = [resize_image(image, fit_size(image.shape[:2], _SIDE)) for image in images]
        rows.append(np.hstack([_padded(panel) for panel in panels]))
    if rows:
        write_image(path, np.vstack(rows))


def _padded(panel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    canvas = np.full((_SIDE + 4, _SIDE + 4, 3), 32, dtype=np.uint8)
    canvas[2 : 2 + panel.shape[0], 2 : 2 + panel.shape[1]] = panel
    return canvas
