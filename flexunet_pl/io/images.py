"""Read, resize and write images and masks; one decode policy for all of the package."""

import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from flexunet_pl.common.errors import DataError
from flexunet_pl.common.files import written_in_place
from flexunet_pl.io.window import Window
from flexunet_pl.rgb_map import DecodedMask, RgbMap

MAX_PIXELS = 50_000_000  # checked before decoding: a small file can declare billions of pixels
FAR_LIMIT = 0.005  # share of a mask's pixels; real anti-aliased and JPEG masks reach 0.0013
JPEG_FAR_LIMIT = 0.05  # the same for masks in JPEG, whose blocks of colour bleed across borders; at 64 px it is 0.007
FAR_COLOR_LIMIT = FAR_LIMIT / 10  # the same for one single colour, where blended borders scatter over many

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # whatever the suffix says; other decoders are never started
_EIGHT_BIT_MODES = frozenset({"1", "L", "P", "RGB"})
_ALPHA_MODES = frozenset({"LA", "PA", "RGBA", "La", "RGBa"})
_WIDE_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


def read_image(path: Path, channels: int = 3, window: Window | None = None) -> NDArray[np.uint8]:
    """Read an image by the decode policy.

    PNG, JPEG, TIFF and BMP of at most 50 megapixels are read, whole files only. EXIF orientation is applied. Alpha is
    dropped where it is opaque everywhere and refused elsewhere; CMYK and files of several frames are refused.

    Args:
        path: The file.
        channels: 3 for R, G, B or 1 for grey.
        window: Lowest and highest value for 16-bit and float images, mapped linearly to 0 and 255.

    Returns:
        The image, shape ``(H, W, channels)``, uint8.

    Raises:
        DataError: If the file is missing, damaged or of a kind that the policy refuses; the message begins with the
            path and ends with the remedy.
    """
    with _opened(path) as image:
        if image.mode in _WIDE_MODES:
            array = _apply_window(path, np.asarray(image), window)[..., None]
            return np.repeat(array, channels, axis=2)
        array = np.asarray(_eight_bit(path, image).convert("RGB" if channels == 3 else "L"))
    return array.reshape(*array.shape[:2], channels)


class ImageReader(NamedTuple):
    """How an image file becomes the network's input.

    Attributes:
        size: Height and width of that input in pixels.
        channels: 3 for R, G, B or 1 for grey.
        window: Lowest and highest value for 16-bit and float images.
    """

    size: tuple[int, int]
    channels: int = 3
    window: Window | None = None

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Read an image at its own size, shape ``(H, W, channels)``, uint8; see `read_image`."""
        return read_image(path, self.channels, self.window)


def read_mask(path: Path, rgb_map: RgbMap) -> NDArray[np.uint8]:
    """Read a mask as class indices.

    A picture (RGB, palette, grey, 1-bit) is decoded by nearest colour. An ``.npz`` file holds one one-hot array of
    shape ``(H, W, K)`` or an index array of shape ``(H, W)``, named ``mask`` or alone in the file.

    Args:
        path: The file.
        rgb_map: Classes and their colours.

    Returns:
        Class index per pixel, shape ``(H, W)``, uint8.

    Raises:
        DataError: If the file is missing, damaged or of a kind that the policy refuses, or if more than 0.5 % of its
            pixels (5 % in JPEG), or 0.05 % in one single colour, are far from every colour of the map.
    """
    if path.suffix.lower() == ".npz":
        return _read_npz_mask(path, rgb_map)
    with _opened(path) as image:
        if image.mode in _WIDE_MODES:
            raise DataError(f"{path}: a mask must have 8 bits per channel but has mode {image.mode}; save it as RGB")
        pixels = np.asarray(_eight_bit(path, image).convert("RGB"))
        limit = JPEG_FAR_LIMIT if image.format == "JPEG" else FAR_LIMIT
    decoded = rgb_map.decode(pixels)
    if len(decoded.far_colors) > FAR_COLOR_LIMIT * decoded.index.size:
        _check_far_colors(path, decoded, limit, rgb_map)
    if not decoded.index.any():
        _check_indices(path, pixels, rgb_map)
    return decoded.index


def read_size(path: Path) -> tuple[int, int]:
    """Read the size of an image from its header alone.

    Args:
        path: The file.

    Returns:
        Height and width as the file will be read, after EXIF orientation.

    Raises:
        DataError: If the header cannot be read or the policy refuses it.
    """
    with _opened(path, decode=False) as image:
        width, height = image.size
        # of a TIFF Pillow gives the turned size already; a PNG without EXIF it would decode to look for it at the end
        turned = image.format != "TIFF" and "exif" in image.info and image.getexif().get(0x0112, 1) in {5, 6, 7, 8}
    return (width, height) if turned else (height, width)


def read_mode(path: Path) -> str:
    """Read the mode of an image from its header alone.

    Args:
        path: The file.

    Returns:
        Pillow's name for it, such as RGB, L, P or I;16.

    Raises:
        DataError: If the header cannot be read or the policy refuses it.
    """
    with _opened(path, decode=False) as image:
        return str(image.mode)


@contextmanager
def _opened(path: Path, *, decode: bool = True) -> Iterator[Image.Image]:
    """Open an image under the policy.

    Raises:
        DataError: Whatever goes wrong, in here or while the caller works with the image.
        MemoryError: If there is not enough for it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; size is checked here, before decoding
            # Pillow is given the open file: from a path it maps uncompressed TIFFs and turns them wrongly
            with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
                _check_header(path, image)
                if decode:
                    image.load()
                    _check_end(path, image)
                    ImageOps.exif_transpose(image, in_place=True)
                yield image
    except DataError:
        raise
    except MemoryError as error:
        raise MemoryError(f"{path}: memory ran out while it was read") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: declares far more than {MAX_PIXELS // 10**6} megapixels; refused unread") from error
    except UnidentifiedImageError as error:
        what = "is empty" if path.stat().st_size == 0 else "is no PNG, JPEG, TIFF or BMP image"
        raise DataError(f"{path}: {what}; export it again or remove it") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: damaged or truncated ({reason}); export it again or remove it") from error


def _check_header(path: Path, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: {width}x{height} px is over the limit of {MAX_PIXELS // 10**6} megapixels; tile it")
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{path}: holds {getattr(image, 'n_frames', 0)} frames; save the one you want as its own file")
    if image.format in {"PNG", "TIFF"} and image.mode not in _WIDE_MODES and ";16" in str(getattr(image, "tile", "")):
        raise DataError(f"{path}: has 16 bits in each of several channels; save it as 16-bit greyscale or as 8-bit RGB")
    if image.mode == "CMYK" or image.mode not in _EIGHT_BIT_MODES | _ALPHA_MODES | _WIDE_MODES:
        raise DataError(f"{path}: colour mode {image.mode} is not supported; convert it to RGB or greyscale")


def _check_end(path: Path, image: Image.Image) -> None:
    # Pillow is content with a PNG that lacks its end; the rest of it may be damaged too
    if image.format == "PNG" and b"IEND\xaeB`\x82" not in path.read_bytes():
        raise DataError(f"{path}: damaged or truncated (no end mark); export it again or remove it")


def _eight_bit(path: Path, image: Image.Image) -> Image.Image:
    """Return the image without its alpha channel.

    Raises:
        DataError: If a pixel is not opaque.
    """
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return image
    with_alpha = image.convert("RGBA")
    lowest, _ = with_alpha.getchannel("A").getextrema()
    if lowest != 255:
        raise DataError(f"{path}: has transparent pixels; flatten it onto a background first")
    return with_alpha.convert("RGB")


def _apply_window(path: Path, values: NDArray[np.generic], window: Window | None) -> NDArray[np.uint8]:
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise DataError(f"{path}: has {int((~np.isfinite(wide)).sum())} values that are not finite; export it again")
    if window is None:
        raise DataError(
            f"{path}: has more than 8 bits per pixel, values {wide.min():g} to {wide.max():g}; "
            f"say how to scale it, `image_window: [{wide.min():g}, {wide.max():g}]`"
        )
    return window.apply(wide)


def _check_far_colors(path: Path, decoded: DecodedMask, limit: float, rgb_map: RgbMap) -> None:
    far, size = decoded.far_colors, decoded.index.size
    colors, counts = np.unique(far, axis=0, return_counts=True)
    most = int(counts.argmax())
    if len(far) > limit * size or counts[most] > FAR_COLOR_LIMIT * size:
        raise DataError(
            f"{path}: {len(far)} of {size} pixels have a colour that is far from every class, "
            f"most often {colors[most].tolist()} ({int(counts[most])} pixels); add it to `rgb_map`, "
            f"which has {', '.join(f'{n} {list(c)}' for n, c in zip(rgb_map.names, rgb_map.colors, strict=True))}"
        )


def _check_indices(path: Path, pixels: NDArray[np.uint8], rgb_map: RgbMap) -> None:
    """Refuse grey values 1, 2, ... that are class indices: as colours they are all nearly black.

    Raises:
        DataError: If the mask looks like that.
    """
    grey = (pixels == pixels[..., :1]).all() and pixels.max() < len(rgb_map)
    if grey and np.count_nonzero(pixels[..., 0]) > FAR_COLOR_LIMIT * pixels[..., 0].size:
        raise DataError(
            f"{path}: its values 0 to {pixels.max()} look like class indices, not colours; save the colours of "
            "`rgb_map`, or the indices as .npz"
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
    if mask.ndim == 2 and mask.size and top is not None and np.isin(mask, np.arange(len(rgb_map))).all():
        return np.asarray(mask, dtype=np.uint8)
    raise DataError(
        f"{path}: array of shape {mask.shape} and type {mask.dtype} is no mask; expected one-hot 0 and 1, "
        f"(H, W, {len(rgb_map)}), one channel per class of `rgb_map`, or indices (H, W) below {len(rgb_map)}"
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


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize an image bilinearly, averaging over the source pixels where it shrinks.

    Args:
        image: Shape ``(H, W, C)``, uint8, C of 1 or 3.
        size: Height and width wanted.

    Returns:
        Shape ``(*size, C)``, uint8.
    """
    if image.shape[:2] == tuple(size):
        return image
    plane = image[..., 0] if image.shape[2] == 1 else image
    picture = Image.fromarray(plane)
    # in two calls: Pillow rounds between its two passes, and which one comes first depends on its version
    for wanted in ((size[1], picture.height), (size[1], size[0])):
        picture = picture.resize(wanted, Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(*size, image.shape[2])


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


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a PNG beside its name and move it into place.

    Args:
        path: The file, ending in ``.png``.
        image: Shape ``(H, W, 3)`` or ``(H, W)``, uint8.
    """
    _save_png(path, Image.fromarray(image))


def write_mask(path: Path, index: NDArray[np.uint8], rgb_map: RgbMap) -> None:
    """Write class indices as a palette PNG whose colours are those of the classes.

    Args:
        path: The file, ending in ``.png``.
        index: Class index per pixel, shape ``(H, W)``, uint8.
        rgb_map: Colour of each class.
    """
    picture = Image.fromarray(index)  # one byte per pixel; with a palette put on it, the mode becomes P
    picture.putpalette(rgb_map.palette.tobytes())
    _save_png(path, picture)


def _save_png(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_in_place(path) as temporary:
        picture.save(temporary, format="PNG")
