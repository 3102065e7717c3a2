"""What one image and its mask hold, as numbers small enough to keep for each of many thousands."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flexunet_pl.common.errors import DataError
from flexunet_pl.common.processes import map_processes
from flexunet_pl.io.images import read_image, read_mode, resize_image
from flexunet_pl.io.mask_colors import UnknownColors
from flexunet_pl.io.masks import read_mask, resize_mask
from flexunet_pl.io.pairs import Pair, size_mismatch
from flexunet_pl.rgb_map import IGNORED, RgbMap
from flexunet_runtime.window import Window

# how a mask may have to be moved to lie on its image
MOVES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "mirrored left-right": lambda mask: mask[:, ::-1],
    "mirrored top-bottom": lambda mask: mask[::-1],
    "turned by 180 degrees": lambda mask: mask[::-1, ::-1],
    "turned by 90 degrees": lambda mask: np.rot90(mask),
    "turned by 270 degrees": lambda mask: np.rot90(mask, 3),
    "with rows and columns exchanged": lambda mask: mask.T,
    "with rows and columns exchanged, from the other corner": lambda mask: mask[::-1, ::-1].T,
}
_SAME_SIDES = 3  # moves that keep height and width; the others are possible in square images
GRID = 64  # cells along each side, in which edges and borders are compared
_FEW = 64  # pairs
_FEWEST = 32  # cells with a border, below which chance decides
_SIDE = 256  # px, side at which they are found
_THUMBNAIL = 32  # px


@dataclass(frozen=True)
class Scan:
    """What a pair holds; what could not be read is None or empty.

    Attributes:
        split: train, valid or test.
        pair: The files.
        errors: Why the image or the mask cannot be used.
        size: Height and width of the image.
        image_mode: Pillow's name of the image's mode.
        mask_mode: That of the mask.
        content_hash: SHA-256 of the decoded pixels, equal for files that differ in their encoding only; of the file
            itself where nothing was decoded.
        perceptual_hash: 64 bits, near for pictures that look alike.
        thumbnail: Grey, shape ``(32, 32)``, uint8.
        class_pixels: Pixels of each class.
        class_grey: Mean grey value of the image under each class, 0..255, 0 where the class is absent.
        off_map: Pixels of the mask whose colour is no colour of the map.
        far_colors: Colours far from every class with their pixels, the most frequent first.
        fit: How much stronger the image's edges are under the mask's borders than elsewhere; 1 is chance.
        moved_fit: The same for the mask moved in each of `MOVES`, 0 for those that its sides do not allow.
        edges: Strength of the image's edges on a grid, in 32nds of their mean, shape ``(64, 64)``, uint8.
        borders: Where on the grid the mask has borders, packed bits, shape ``(512,)``, uint8.
    """

    split: str
    pair: Pair
    errors: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    image_mode: str = ""
    mask_mode: str = ""
    content_hash: str = ""
    perceptual_hash: int | None = None
    thumbnail: NDArray[np.uint8] | None = field(default=None, repr=False)
    class_pixels: tuple[int, ...] = ()
    class_grey: tuple[float, ...] = ()
    off_map: int = 0
    far_colors: tuple[tuple[tuple[int, ...], int], ...] = ()
    fit: float | None = None
    moved_fit: tuple[float, ...] = ()
    edges: NDArray[np.uint8] | None = field(default=None, repr=False)
    borders: NDArray[np.uint8] | None = field(default=None, repr=False)


def scan_pairs(
    pairs: Iterable[tuple[str, Pair]],
    rgb_map: RgbMap,
    window: Window | None,
    workers: int | None = None,
    unknown: UnknownColors = "error",
) -> Iterator[Scan]:
    """Scan pairs, in their order.

    Args:
        pairs: Split and files.
        rgb_map: Classes and colours.
        window: Lowest and highest value of 16-bit and float images.
        workers: Processes; 0 scans in this one; by default as many as there are cores.
        unknown: What colours are in masks that are no class; see `read_mask`.

    Yields:
        One scan per pair.
    """
    scan = partial(scan_pair, rgb_map=rgb_map, window=window, unknown=unknown)
    yield from map_processes(scan, list(pairs), workers, chunk=8, few=_FEW)


def scan_pair(
    place: tuple[str, Pair], rgb_map: RgbMap, window: Window | None = None, unknown: UnknownColors = "error"
) -> Scan:
    """Read an image and its mask and measure them.

    Args:
        place: Split and files.
        rgb_map: Classes and colours.
        window: Lowest and highest value of 16-bit and float images.
        unknown: What colours are in masks that are no class; see `read_mask`.

    Returns:
        What was found; errors are in it.
    """
    split, pair = place
    errors: list[str] = []
    found: dict[str, Any] = {}
    image = index = None
    try:
        found["image_mode"] = read_mode(pair.image)
        image = read_image(pair.image, window=window)
        found |= _of_image(image)
    except DataError as error:
        errors.append(str(error))
    try:
        colors = _of_colors(pair.mask, rgb_map)
        found |= colors
        index = read_mask(pair.mask, rgb_map, unknown)
    except DataError as error:
        errors.append(str(error))
    if image is not None and index is not None and image.shape[:2] != index.shape:
        errors.append(size_mismatch(pair, image.shape, index.shape))
    elif image is not None and index is not None:
        found |= _of_classes(image, index, len(rgb_map))
    return Scan(split, pair, tuple(errors), **found)


def _of_image(image: NDArray[np.uint8]) -> dict[str, Any]:
    import imagehash

    grey = Image.fromarray(image).convert("L")
    bits = imagehash.phash(grey).hash.flatten()
    return {
        "size": image.shape[:2],
        "content_hash": hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest(),
        "perceptual_hash": int.from_bytes(np.packbits(bits).tobytes(), "big"),
        "thumbnail": np.asarray(grey.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)),
    }


def _of_colors(mask: Path, rgb_map: RgbMap) -> dict[str, Any]:
    if mask.suffix.lower() == ".npz":
        return {"mask_mode": "npz"}
    decoded = rgb_map.with_ignored.decode(read_image(mask))
    colors, counts = np.unique(decoded.far_colors, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:8]
    far = tuple((tuple(int(c) for c in colors[i]), int(counts[i])) for i in order)
    return {"mask_mode": read_mode(mask), "off_map": decoded.off_map, "far_colors": far}


def _of_classes(image: NDArray[np.uint8], index: NDArray[np.uint8], classes: int) -> dict[str, Any]:
    counts = np.bincount(index.ravel(), minlength=classes)[:classes]  # behind them, what does not count
    grey = image.mean(axis=2, dtype=np.float32)
    sums = np.bincount(index.ravel(), weights=grey.ravel(), minlength=classes)[:classes]
    return {
        "class_pixels": tuple(int(c) for c in counts),
        "class_grey": tuple(float(s / max(c, 1)) for s, c in zip(sums, counts, strict=True)),
        **measure_borders(image, index),
    }


def measure_borders(image: NDArray[np.uint8], index: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure how well a mask's borders lie on the image's edges, as it is, mirrored and turned.

    Args:
        image: Shape ``(H, W, C)``, uint8.
        index: Class indices, shape ``(H, W)``, uint8.

    Returns:
        ``fit``, ``moved_fit``, ``edges`` and ``borders`` of a `Scan`; nothing where the mask has too short a border
        to judge, or the image no edge.
    """
    grey = resize_image(image, (_SIDE, _SIDE)).mean(axis=2, dtype=np.float32)
    small = resize_mask(index, (_SIDE, _SIDE))
    strength = np.hypot(*np.gradient(grey))
    border = np.zeros((_SIDE, _SIDE), dtype=bool)
    counted = small != IGNORED  # where pixels that do not count begin there need be no edge
    border[:-1] |= (small[1:] != small[:-1]) & counted[1:] & counted[:-1]
    border[:, :-1] |= (small[:, 1:] != small[:, :-1]) & counted[:, 1:] & counted[:, :-1]
    # the strongest of each cell of a grid: a border that is off by a pixel is on the edge all the same
    cells = (GRID, _SIDE // GRID, GRID, _SIDE // GRID)
    edges = strength.reshape(cells).max(axis=(1, 3))
    on_border: NDArray[np.bool_] = np.asarray(border.reshape(cells).any(axis=(1, 3)))
    mean = float(edges.mean())
    if np.count_nonzero(on_border) < _FEWEST or not mean:
        return {}
    edges = np.minimum(edges / mean, 7.9)
    possible = len(MOVES) if index.shape[0] == index.shape[1] else _SAME_SIDES
    moved = [float(edges[move(on_border)].mean()) for move in list(MOVES.values())[:possible]]
    return {
        "fit": float(edges[on_border].mean()),
        "moved_fit": (*moved, *(0.0,) * (len(MOVES) - possible)),
        "edges": np.rint(edges * 32).astype(np.uint8),
        "borders": np.packbits(on_border),
    }
