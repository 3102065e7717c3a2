"""Images: read by the decode policy, which the runtime shares; resized and written."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.neighbours import slices_around
from flexunet_runtime.bands import MAX_BANDS, bands_size
from flexunet_runtime.errors import UserError
from flexunet_runtime.files import written_in_place
from flexunet_runtime.images import MAX_PIXELS, open_image, read_image
from flexunet_runtime.masks import encode_image
from flexunet_runtime.window import Window

__all__ = [
    "MAX_PIXELS",
    "ImageReader",
    "read_image",
    "read_mode",
    "read_orientation",
    "read_size",
    "resize_image",
    "write_image",
]

_ORIENTATION = 0x0112  # tag of EXIF


@dataclass(frozen=True)
class ImageReader:
    """How an image file becomes the network's input.

    Attributes:
        size: Height and width of that input in pixels.
        channels: 3 for R, G, B, 1 for grey, else the number of bands of TIFF files.
        window: Lowest and highest value for 16-bit and float images.
        neighbours: How many slices before a slice, and behind it, share the channels with it; see `slices_around`.
    """

    size: tuple[int, int]
    channels: int = 3
    window: Window | None = None
    neighbours: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MAX_BANDS:
            raise UserError(f"model.in_channels is {self.channels}; expected 1 to {MAX_BANDS}, 3 for R, G, B")
        if self.neighbours < 0:
            raise UserError(f"data.neighbours is {self.neighbours}; it must be at least 0")
        slices = 2 * self.neighbours + 1
        if self.neighbours and self.channels not in {slices, 3 * slices}:
            raise UserError(
                f"model.in_channels is {self.channels}, but data.neighbours {self.neighbours} makes pictures of "
                f"{slices} slices: set it to {slices}, or to {3 * slices} for slices in R, G, B"
            )

    @property
    def slice_channels(self) -> int:
        """Channels of one slice."""
        return self.channels // (2 * self.neighbours + 1)

    @property
    def alone(self) -> "ImageReader":
        """The same for slices without their neighbours, which is what people look at."""
        return replace(self, channels=self.slice_channels, neighbours=0)

    def middle(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the slice itself of a picture of slices, shape ``(H, W, slice_channels)``."""
        first = self.neighbours * self.slice_channels
        return picture[..., first : first + self.slice_channels]

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Read an image at its own size, shape ``(H, W, channels)``, uint8; see `read_image`.

        Raises:
            DataError: If it cannot be read, or a neighbour is of another size.
        """
        if not self.neighbours:
            return read_image(path, self.channels, self.window)
        files = slices_around(path, self.neighbours)
        slices = {file: read_image(file, self.slice_channels, self.window) for file in dict.fromkeys(files)}
        if odd := [file for file in files if slices[file].shape != slices[path].shape]:
            raise DataError(f"{odd[0]}: is of another size than {path.name}, the slice beside it; export both again")
        return np.concatenate([slices[file] for file in files], axis=2)


def read_size(path: Path, channels: int = 3) -> tuple[int, int]:
    """Read the size of an image from its header alone.

    Args:
        path: The file.
        channels: As for `read_image`.

    Returns:
        Height and width as the file will be read, after EXIF orientation.

    Raises:
        DataError: If the header cannot be read or the policy refuses it.
    """
    if channels not in {1, 3}:
        return bands_size(path, channels, MAX_PIXELS)
    with open_image(path, decode=False) as image:
        width, height = image.size
        # of a TIFF Pillow gives the turned size already; a PNG without EXIF it would decode to look for it at the end
        turned = (
            image.format != "TIFF" and "exif" in image.info and image.getexif().get(_ORIENTATION, 1) in {5, 6, 7, 8}
        )
    return (width, height) if turned else (height, width)


def read_orientation(path: Path) -> int:
    """Read from the header alone how EXIF says that an image is turned.

    Args:
        path: The file.

    Returns:
        1 where it is not, up to 8.

    Raises:
        DataError: If the header cannot be read or the policy refuses it.
    """
    with open_image(path, decode=False) as image:
        turned = image.getexif().get(_ORIENTATION, 1) if "exif" in image.info or image.format == "TIFF" else 1
    return int(turned) if turned in range(1, 9) else 1


def read_mode(path: Path) -> str:
    """Read the mode of an image from its header alone.

    Args:
        path: The file.

    Returns:
        Pillow's name for it, such as RGB, L, P or I;16.

    Raises:
        DataError: If the header cannot be read or the policy refuses it.
    """
    with open_image(path, decode=False) as image:
        return str(image.mode)


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize an image bilinearly, averaging over the source pixels where it shrinks.

    Args:
        image: Shape ``(H, W, C)``, uint8.
        size: Height and width wanted.

    Returns:
        Shape ``(*size, C)``, uint8.
    """
    if image.shape[:2] == tuple(size):
        return image
    if image.shape[2] not in {1, 3}:
        return np.concatenate([resize_image(image[..., k : k + 1], size) for k in range(image.shape[2])], axis=2)
    plane = image[..., 0] if image.shape[2] == 1 else image
    picture = Image.fromarray(plane)
    # in two calls: Pillow rounds between its two passes, and which one comes first depends on its version
    for wanted in ((size[1], picture.height), (size[1], size[0])):
        picture = picture.resize(wanted, Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(*size, image.shape[2])


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a PNG beside its name and move it into place.

    Args:
        path: The file, ending in ``.png``.
        image: Shape ``(H, W, 3)`` or ``(H, W)``, uint8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_in_place(path) as temporary:
        temporary.write_bytes(encode_image(image))
