"""A map of classes from the colours that masks show, where none is given."""

from pathlib import Path

import numpy as np

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.images import read_image
from flexunet_pl.rgb_map import RgbMap

_MOST_INDICES = 20  # classes; grey values below are nearly black
_SAMPLED = 50  # masks from which a map is proposed


def propose_map(masks: list[Path]) -> RgbMap:
    """Propose a map from the colours of some masks: those with enough pixels that are not blends of others.

    Args:
        masks: The masks; some, evenly chosen, are read.

    Returns:
        The map, black first, with names made up.

    Raises:
        DataError: If no mask shows two colours.
    """
    counts: dict[tuple[int, ...], float] = {}
    for i in np.unique(np.linspace(0, len(masks) - 1, _SAMPLED).astype(int)):
        try:
            pixels = read_image(masks[i]).reshape(-1, 3)
        except DataError:
            continue  # which the scan will name
        colors, numbers = np.unique(pixels, axis=0, return_counts=True)
        for color, number in zip(colors.tolist(), numbers, strict=True):
            if number >= max(10, 2e-4 * len(pixels)):
                counts[tuple(color)] = counts.get(tuple(color), 0) + number / len(pixels)
    chosen: list[tuple[int, int, int]] = []
    for color in sorted(counts, key=lambda c: (-counts[c], c)):
        if all(np.linalg.norm(np.subtract(color, other)) > 60 for other in chosen):
            chosen.append((color[0], color[1], color[2]))
    if len(chosen) == 1 and max(map(max, counts)) < _MOST_INDICES and len(counts) > 1:
        raise DataError(
            f"{masks[0].parent}: the masks' values 0 to {max(map(max, counts))} look like class indices, not colours; "
            "save colours, or the indices as .npz"
        )
    if len(chosen) < 2:
        raise DataError(f"{masks[0].parent}: the masks show one colour alone; name the classes with --rgb-map")
    chosen.sort(key=lambda c: (sum(c) > 0, -counts[c]))
    names = ("background", *(f"class_{i}" for i in range(1, len(chosen))))
    return RgbMap(names, tuple(chosen))
