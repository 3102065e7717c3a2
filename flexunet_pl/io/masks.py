"""Masks: files to class indices and back."""

import math
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import flexunet_runtime.masks
from flexunet_pl.common.errors import DataError
from flexunet_pl.io.mask_colors import ColorIndex, UnknownColors, index_colors
from flexunet_pl.rgb_map import IGNORED, RgbMap
from flexunet_runtime.images import MAX_PIXELS, is_wide, open_image, without_alpha

_MOST_UNKNOWN = 0.05  # share of a mask's pixels; of 20 classes, smoothed, one in a hundred lies between three or more


def read_mask(path: Path, rgb_map: RgbMap, unknown: UnknownColors = "error") -> NDArray[np.uint8]:
    """Read a mask as class indices.

    A picture (RGB, palette, grey, 1-bit) is decoded by its colours; borders that were smoothed go to the classes on
    both sides of them (see `index_colors`). An ``.npz`` file holds one one-hot array of shape ``(H, W, K)`` or an index
    array of shape ``(H, W)``, named ``mask`` or alone in the file; there 255 is a pixel that does not count, as in VOC.

    Args:
        path: The file.
        rgb_map: Classes and their colours.
        unknown: What a region of a colour that is no class is: an error; the class of the nearest colour, as in the
            original, which then decides for every pixel; or background.

    Returns:
        Class index per pixel, shape ``(H, W)``, uint8; `IGNORED` where a pixel does not count.

    Raises:
        DataError: If the file is missing, damaged or of a kind that the policy refuses, or if a region has a colour
            that is no class.
    """
    if path.suffix.lower() == ".npz":
        return _read_npz_mask(path, rgb_map)
    with open_image(path) as image:
        if is_wide(image):
            raise DataError(f"{path}: a mask must have 8 bits per channel but has mode {image.mode}; save it as RGB")
        pixels = np.asarray(without_alpha(image, str(path)).convert("RGB"))
        lossy = image.format == "JPEG"
    index = _index_colors(path, pixels, rgb_map.with_ignored, unknown, lossy=lossy)
    if rgb_map.ignored is not None:
        index[index == len(rgb_map)] = IGNORED
    return index


def _index_colors(
    path: Path, pixels: NDArray[np.uint8], rgb_map: RgbMap, unknown: UnknownColors, *, lossy: bool
) -> NDArray[np.uint8]:
    if unknown == "nearest":
        return rgb_map.decode(pixels).index
    decoded = index_colors(pixels, rgb_map, lossy=lossy)
    if not decoded.off_map:
        return decoded.index
    _check_indices(path, pixels, rgb_map)
    if unknown == "background":
        decoded.index[decoded.unknown] = 0
    elif decoded.region is not None or decoded.unknown.mean() > _MOST_UNKNOWN:
        _refuse_colors(path, decoded, rgb_map)
    return decoded.index


def shows_foreground(index: NDArray[np.uint8]) -> bool:
    """Tell whether a mask shows more than the background and pixels that do not count.

    Args:
        index: Class index per pixel, shape ``(H, W)``, uint8.
    """
    return bool(((index > 0) & (index != IGNORED)).any())


def resize_mask(index: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize class indices by nearest neighbour, which invents no class.

    Args:
        index: Shape ``(H, W)``, uint8.
        size: Height and width wanted.

    Returns:
        Shape ``size``, uint8.
    """
    if index.shape == tuple(size):
        return index
    # the reference resizes the colours with a smoothing filter, which turns borders into other classes
    return np.asarray(Image.fromarray(index).resize((size[1], size[0]), Image.Resampling.NEAREST))


def write_mask(path: Path, index: NDArray[np.uint8], rgb_map: RgbMap) -> None:
    """Write class indices as a palette PNG whose colours are those of the classes.

    Args:
        path: The file, ending in ``.png``.
        index: Class index per pixel, shape ``(H, W)``, uint8; `IGNORED` where a pixel does not count.
        rgb_map: Colour of each class.

    Raises:
        DataError: If a pixel does not count, and the map has no colour for such.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ignored = index == IGNORED
    if ignored.any():
        if rgb_map.ignored is None:
            raise DataError(
                f"{path}: has pixels that do not count ({IGNORED}), and rgb_map no colour for them; name one, as in "
                "`ignore: [128, 128, 128]`"
            )
        index = np.where(ignored, np.uint8(len(rgb_map)), index)
    flexunet_runtime.masks.write_mask(path, index, rgb_map.with_ignored.colors)


def _refuse_colors(path: Path, decoded: ColorIndex, rgb_map: RgbMap) -> NoReturn:
    known = ", ".join(f"{n} {list(c)}" for n, c in zip(rgb_map.names, rgb_map.colors, strict=True))
    region = decoded.region
    if region is None:
        count = int(decoded.unknown.sum())
        raise DataError(
            f"{path}: {count} of {decoded.index.size} pixels have colours that are far from every class, which are "
            f"{known}; it is no mask of these classes"
        )
    raise DataError(
        f"{path}: {region.pixels} pixels of colour {list(region.color)}, such as row {region.row}, column "
        f"{region.column}, are no class of `rgb_map`, which has {known}; add the colour to it, or say what to do with "
        "such pixels: `unknown_colors: background` or `nearest`"
    )


def _check_indices(path: Path, pixels: NDArray[np.uint8], rgb_map: RgbMap) -> None:
    """Refuse grey values 1, 2, ... that are class indices: as colours they are all nearly black.

    Raises:
        DataError: If the mask looks like that.
    """
    grey = pixels[..., 0]
    if not (grey == pixels[..., 1]).all() or not (grey == pixels[..., 2]).all():
        return
    values = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
    levels = {r for r, g, b in rgb_map.colors if r == g == b}
    odd = [int(value) for value in values if value not in levels]
    classes = [int(value) for value in values if value != IGNORED]
    if odd and max(odd) < len(rgb_map) and classes and max(classes) < len(rgb_map):
        ignored = f", and {IGNORED} for pixels that do not count" if IGNORED in values else ""
        raise DataError(
            f"{path}: its values {', '.join(map(str, classes[:8]))} look like class indices, not colours{ignored}; "
            "save the colours of `rgb_map`, or the indices as .npz"
        )


def _read_npz_mask(path: Path, rgb_map: RgbMap) -> NDArray[np.uint8]:
    try:
        mask = _load_npz(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        raise DataError(f"{path}: no readable .npz mask ({error}); use numpy.savez_compressed(mask=...)") from error
    top = mask.max(initial=0) if mask.dtype.kind in "biuf" else None
    binary = top in {1, 255} and bool(((mask == 0) | (mask == top)).all())
    if mask.ndim == 3 and mask.shape[2] == len(rgb_map) and binary and (np.count_nonzero(mask, axis=2) == 1).all():
        return np.asarray(mask.argmax(axis=2), dtype=np.uint8)
    if mask.ndim == 3 and mask.shape[2] == 1 and len(rgb_map) == 2 and (binary or not mask.any()):
        return np.asarray(mask[..., 0] > 0, dtype=np.uint8)
    if mask.ndim == 2 and mask.size and top is not None and np.isin(mask, (*range(len(rgb_map)), IGNORED)).all():
        return np.asarray(mask, dtype=np.uint8)
    raise DataError(
        f"{path}: array of shape {mask.shape} and type {mask.dtype} is no mask; expected one-hot 0 and 1, "
        f"(H, W, {len(rgb_map)}), one channel per class of `rgb_map`, or indices (H, W) below {len(rgb_map)}, and "
        f"{IGNORED} for pixels that do not count"
    )


def _load_npz(path: Path) -> NDArray[Any]:
    """Read the array named ``mask``, or the only one, once its declared size is seen to be within bounds.

    Raises:
        ValueError: If there is no such array, or it is too large or holds anything but numbers.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        name = "mask.npy" if "mask.npy" in names else names[0] if len(names) == 1 else None
        if name is None:
            raise ValueError("no array named `mask`")
        with archive.open(name) as member:
            version = np.lib.format.read_magic(member)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(member)
        if dtype.kind not in "biuf":
            raise ValueError(f"type {dtype} is no number, and Python objects are never loaded")
        if math.prod(shape) * dtype.itemsize > 8 * MAX_PIXELS:
            raise ValueError(f"an array of shape {shape} is over the limit")
        with archive.open(name) as member:
            array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
            return array
