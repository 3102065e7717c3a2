"""TIFF files of any number of bands, such as infrared beside red, green and blue: read by tifffile."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_runtime.errors import DataError, TooLargeError, UserError
from flexunet_runtime.files import is_readable
from flexunet_runtime.window import Window

MAX_BANDS = 64

_PLAIN, _DEFLATE = 1, frozenset({8, 32946})  # kinds of compression
_NUMBERS = "uif"


def read_bands(path: Path, bands: int, window: Window | None, max_pixels: int) -> NDArray[np.uint8]:
    """Read a TIFF file of several bands, none of which has a meaning of its own here.

    Args:
        path: The file.
        bands: How many there must be.
        window: Values that become black and white; must be given where bands have more than 8 bits.
        max_pixels: Most pixels, looked at before they are decoded.

    Returns:
        Shape ``(H, W, bands)``, uint8.

    Raises:
        DataError: If it is no such file.
        UserError: If tifffile is not installed.
    """
    with _opened(path) as (tiff, page):
        _check(path, tiff, page, bands, max_pixels)
        if int(page.compression) in _DEFLATE:
            _check_unpacked(path, tiff.filehandle, page)
        values = np.asarray(page.asarray())
    values = values.reshape(page.shape)
    if page.axes.startswith("S"):
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(page.imagelength, page.imagewidth, bands)
    if values.dtype == np.uint8:
        return values
    if not np.isfinite(values.astype(np.float64)).all():
        raise DataError(f"{path}: has values that are not finite; export it again")
    if window is None:
        low, high = values.min(), values.max()
        raise DataError(
            f"{path}: has more than 8 bits per band, values {low:g} to {high:g}; say how to scale it, "
            f"`image_window: [{low:g}, {high:g}]`"
        )
    return window.apply(values)


def bands_size(path: Path, bands: int, max_pixels: int) -> tuple[int, int]:
    """Read height and width of such a file from its header alone, by the same rules.

    Args:
        path: The file.
        bands: How many there must be.
        max_pixels: Most pixels.

    Returns:
        Both.

    Raises:
        DataError: If it is no such file.
        UserError: If tifffile is not installed.
    """
    with _opened(path) as (tiff, page):
        _check(path, tiff, page, bands, max_pixels)
        return int(page.imagelength), int(page.imagewidth)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a file, and say of whatever goes wrong which one it is.

    Raises:
        DataError: If it is damaged.
        UserError: If tifffile is not installed.
        MemoryError: As it comes.
    """
    try:
        import tifffile
    except ImportError as error:
        raise UserError("images of several bands are read by tifffile: `pip install tifffile`") from error
    if path.exists() and not is_readable(path):
        raise DataError(f"{path}: is no regular file but a pipe, a device or a folder; remove it")
    try:
        with tifffile.TiffFile(path) as tiff:
            yield tiff, tiff.pages.first
    except (UserError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # tifffile raises whatever its values do
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: damaged, or no TIFF ({reason}); export it again or remove it") from error


def _check(path: Path, tiff: Any, page: Any, bands: int, max_pixels: int) -> None:
    """Look at the header before anything is decoded.

    Raises:
        DataError: If the file is not what is wanted.
        TooLargeError: If it has too many pixels.
    """
    height, width, found = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    if height * width > max_pixels:
        raise TooLargeError(
            f"{path}: {width}x{height} px is over the limit of {max_pixels / 1e6:g} megapixels; tile it"
        )
    if found != bands:
        raise DataError(
            f"{path}: has {found} bands, and model.in_channels is {bands}; set it, or save the bands wanted"
        )
    if int(page.imagedepth) != 1 or _has_frames(tiff):
        raise DataError(f"{path}: holds several frames; save the one you want as its own file")
    if page.dtype is None or np.dtype(page.dtype).kind not in _NUMBERS:
        raise DataError(f"{path}: has bands of type {page.dtype}; save whole numbers or floats")
    if int(page.compression) not in _DEFLATE | {_PLAIN}:
        raise DataError(f"{path}: is compressed as {page.compression.name}; save it uncompressed, or deflated")


def _has_frames(tiff: Any) -> bool:
    try:
        further = tiff.pages[1]
    except IndexError:
        return False
    return not further.is_reduced  # smaller copies, for a quick look, are none


def _check_unpacked(path: Path, file: Any, page: Any) -> None:
    """Unpack what is packed, and stop where it is more than it says: a small file can unpack to any size.

    Raises:
        DataError: If it is.
    """
    left = 2 * int(page.nbytes) + (1 << 16)  # the tiles at the borders are whole
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        unpacker = zlib.decompressobj()
        left -= len(unpacker.decompress(file.read(count), left + 1))
        if left < 0:
            raise DataError(f"{path}: unpacks to more than it declares; refused")
