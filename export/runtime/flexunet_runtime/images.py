"""Images as arrays: the one decode policy, of the runtime, of its service and of flexunet_pl."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from flexunet_runtime.bands import read_bands
from flexunet_runtime.dicom import is_dicom, picture_size, read_object, read_picture
from flexunet_runtime.errors import DataError, NoImageError, TooLargeError
from flexunet_runtime.files import is_readable
from flexunet_runtime.tiff import BITS_PER_SAMPLE, SAMPLES_PER_PIXEL, tiff_bands
from flexunet_runtime.window import Window, stretch

MAX_PIXELS = 50_000_000  # checked before decoding: a small file can declare billions of pixels
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
DICOM_SUFFIXES = frozenset({".dcm", ".ima"})

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # whatever the suffix says; other decoders are never started
_EIGHT_BIT_MODES = frozenset({"1", "L", "P", "RGB"})
_ALPHA_MODES = frozenset({"LA", "PA", "RGBA", "La", "RGBa"})
_EXTRA_SAMPLES, _PHOTOMETRIC, _WHITE_IS_ZERO = 338, 262, 0  # tags of TIFF, and a value
_START_OF_SCAN, _MOST_SCANS = b"\xff\xda", 100  # encoders write some ten
_WIDE_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


def read_image(path: str | Path, channels: int = 3, window: Window | None = None) -> NDArray[np.uint8]:
    """Read an image by the decode policy.

    PNG, JPEG, TIFF, BMP and DICOM of at most 50 megapixels are read, whole files only. EXIF orientation is applied.
    Alpha is dropped where it is opaque everywhere and refused elsewhere; CMYK and files of several frames are refused.
    Of DICOM the values are those after its rescaling, such as HU; a radiograph is read as it is looked at.

    Args:
        path: The file.
        channels: 3 for R, G, B, 1 for grey; any other number for a TIFF file of so many bands.
        window: Lowest and highest value for 16-bit and float images, mapped linearly to 0 and 255; of DICOM without
            one the picture's own.

    Returns:
        The image, shape ``(H, W, channels)``, uint8.

    Raises:
        DataError: If the file is missing, damaged or of a kind that the policy refuses; the message begins with the
            path and ends with the remedy.
    """
    source = Path(path)
    if channels not in {1, 3}:
        return read_bands(source, channels, window, MAX_PIXELS)
    with _opened(source) as file:
        dicom = is_dicom(file.read(132))
    if dicom:
        return _of_dicom(source, str(path), channels, window, MAX_PIXELS)
    with open_image(path) as image:
        return _to_array(image, str(path), channels, window)


def decode_image(
    content: bytes, channels: int = 3, window: Window | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Decode the content of an image file by the same policy.

    Args:
        content: What the file holds.
        channels: 3 for R, G, B or 1 for grey.
        window: Lowest and highest value for 16-bit and float images.
        max_pixels: Most pixels, looked at before they are decoded.

    Returns:
        The image, shape ``(H, W, channels)``, uint8.

    Raises:
        DataError: See `read_image`; `TooLargeError` and `NoImageError` are kinds of it.
    """
    if is_dicom(content):
        return _of_dicom(content, "image", channels, window, max_pixels)
    with _decoded(io.BytesIO(content), "image", max_pixels=max_pixels) as image:
        return _to_array(image, "image", channels, window)


def decode_size(content: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read from the header alone how large an image is before EXIF turns it.

    Args:
        content: What the file holds.
        max_pixels: Most pixels.

    Returns:
        Height and width.

    Raises:
        DataError: See `read_image`.
    """
    if is_dicom(content):
        return picture_size(read_object(content, "image", pixels=False), "image", max_pixels)
    with _decoded(io.BytesIO(content), "image", decode=False, max_pixels=max_pixels) as image:
        return image.height, image.width


@contextmanager
def open_image(path: str | Path, *, decode: bool = True) -> Iterator[Image.Image]:
    """Open an image file under the policy.

    Args:
        path: The file.
        decode: Whether its pixels are wanted, turned as EXIF says, rather than its header alone.

    Yields:
        The image, with its alpha channel.

    Raises:
        DataError: Whatever goes wrong, in here or while the caller works with the image.
        MemoryError: If there is not enough for it.
    """
    with _opened(Path(path)) as file, _decoded(file, str(path), decode=decode) as image:
        yield image


def without_alpha(image: Image.Image, name: str) -> Image.Image:
    """Return an image without its alpha channel.

    Args:
        image: Of 8 bits per channel.
        name: The file, for the message.

    Returns:
        The image itself, where it has none.

    Raises:
        DataError: If a pixel is not opaque.
    """
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return image
    with_alpha = image.convert("RGBA")
    lowest, _ = with_alpha.getchannel("A").getextrema()
    if lowest != 255:
        raise DataError(f"{name}: has transparent pixels; flatten it onto a background first")
    return with_alpha.convert("RGB")


def is_wide(image: Image.Image) -> bool:
    """Tell whether an image has more than 8 bits per pixel and one channel: such ones need a window."""
    return image.mode in _WIDE_MODES


def _opened(path: Path) -> IO[bytes]:
    if path.exists() and not path.is_dir() and not is_readable(path):
        raise DataError(f"{path}: is no regular file but a pipe or a device; remove it")
    # Pillow is given the open file: from a path it maps uncompressed TIFFs and turns them wrongly
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


@contextmanager
def _decoded(file: IO[bytes], name: str, *, decode: bool = True, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    limit = f"{max_pixels / 1e6:g} megapixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; size is checked here, before decoding
            with Image.open(file, formats=_FORMATS) as image:
                _check_header(image, name, max_pixels)
                if decode:
                    _check_scans(file, image, name)
                    image.load()
                    _check_end(file, image, name)
                    ImageOps.exif_transpose(image, in_place=True)
                yield image
    except DataError:
        raise
    except MemoryError as error:
        raise MemoryError(f"{name}: memory ran out while it was read") from error
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{name}: declares far more than {limit}; refused unread") from error
    except UnidentifiedImageError as error:
        if (bands := tiff_bands(file)) is not None:
            raise DataError(
                f"{name}: is a TIFF of {bands[0]} bands of {bands[1]} bits, which is not read; save one or three bands "
                "of 8 bits, or one of 16"
            ) from error
        what = "is no PNG, JPEG, TIFF, BMP or DICOM image" if file.seek(0, io.SEEK_END) else "is empty"
        raise NoImageError(f"{name}: {what}; export it again or remove it") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{name}: damaged or truncated ({reason}); export it again or remove it") from error


def _check_header(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise TooLargeError(
            f"{name}: {width}x{height} px is over the limit of {max_pixels / 1e6:g} megapixels; tile it"
        )
    if _has_frames(image):
        raise DataError(f"{name}: holds several frames; save the one you want as its own file")
    if image.format in {"PNG", "TIFF"} and not is_wide(image) and ";16" in str(getattr(image, "tile", "")):
        raise DataError(f"{name}: has 16 bits in each of several channels; save it as 16-bit greyscale or as 8-bit RGB")
    tags = getattr(image, "tag_v2", {})
    if tags.get(_EXTRA_SAMPLES) and 0 in tags[_EXTRA_SAMPLES]:  # neither kind of alpha
        raise DataError(
            f"{name}: has {tags.get(SAMPLES_PER_PIXEL)} bands, of which some are no colours; save the three or the "
            "one that you want"
        )
    if image.mode not in _EIGHT_BIT_MODES | _ALPHA_MODES | _WIDE_MODES:
        raise DataError(f"{name}: colour mode {image.mode} is not supported; convert it to RGB or greyscale")


def _has_frames(image: Image.Image) -> bool:
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1) > 1
    try:
        image.seek(1)  # to count them would walk through all: some 60,000 fit into a small file
    except EOFError:
        return False
    return True


def _check_scans(file: IO[bytes], image: Image.Image, name: str) -> None:
    """Refuse a JPEG that is decoded over and over: each scan is a pass over all pixels.

    Raises:
        DataError: If it has far more than any encoder writes.
    """
    if image.format == "JPEG":
        file.seek(0)
        scans = file.read().count(_START_OF_SCAN)
        file.seek(0)
        if scans > _MOST_SCANS:
            raise DataError(f"{name}: has {scans} scans, over the limit of {_MOST_SCANS}; save it again")


def _check_end(file: IO[bytes], image: Image.Image, name: str) -> None:
    # Pillow is content with a PNG that lacks its end; the rest of it may be damaged too
    if image.format == "PNG":
        file.seek(0)
        if b"IEND\xaeB`\x82" not in file.read():
            raise DataError(f"{name}: damaged or truncated (no end mark); export it again or remove it")


def _of_dicom(
    source: Path | bytes, name: str, channels: int, window: Window | None, max_pixels: int
) -> NDArray[np.uint8]:
    return np.repeat(stretch(read_picture(source, name, max_pixels), window)[..., None], channels, axis=2)


def _to_array(image: Image.Image, name: str, channels: int, window: Window | None) -> NDArray[np.uint8]:
    if is_wide(image):
        grey = _apply_window(_wide_values(image, name), name, window)[..., None]
        return np.repeat(grey, channels, axis=2)
    array = np.asarray(without_alpha(image, name).convert("RGB" if channels == 3 else "L"))
    return array.reshape(*array.shape[:2], channels)


def _wide_values(image: Image.Image, name: str) -> NDArray[np.generic]:
    """Return the values of an image of more than 8 bits; Pillow turns those where 0 is white at 8 bits alone.

    Raises:
        DataError: If they are floats of which 0 is white.
    """
    values: NDArray[np.generic] = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) != _WHITE_IS_ZERO:
        return values
    if image.mode == "F":
        raise DataError(f"{name}: says that 0 is white, of numbers that have no black; save it with 0 as black")
    bits = tags.get(BITS_PER_SAMPLE, (16,))
    return np.asarray((1 << int(bits[0])) - 1 - values.astype(np.int64))


def _apply_window(values: NDArray[np.generic], name: str, window: Window | None) -> NDArray[np.uint8]:
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise DataError(f"{name}: has {int((~np.isfinite(wide)).sum())} values that are not finite; export it again")
    if window is None:
        raise DataError(
            f"{name}: has more than 8 bits per pixel, values {wide.min():g} to {wide.max():g}; "
            f"say how to scale it, `image_window: [{wide.min():g}, {wide.max():g}]`"
        )
    return window.apply(wide)
