"""DICOM objects: their pixels as the standard means them, stored value times slope plus intercept."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_runtime.decoder import is_child, shared_decoder
from flexunet_runtime.errors import DataError, TooLargeError, UserError

_DEFLATED = "1.2.840.10008.1.2.1.99"
_RUN_LENGTHS = "1.2.840.10008.1.2.5"  # decoded by pydicom itself, in Python
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# SOP classes of computed and digital radiography, mammography included
_RADIOGRAPHS = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1")
)
_RADIOGRAPHY = frozenset({"CR", "DX", "MG", "IO", "RG"})  # modalities


def is_dicom(head: bytes) -> bool:
    """Tell by how it begins whether a file is a DICOM object.

    Args:
        head: Its first 132 bytes, or more.
    """
    return head[128:132] == b"DICM"


def read_object(source: Path | bytes, name: str, *, pixels: bool, tags: Sequence[str] | None = None) -> Any:
    """Read a DICOM object.

    Args:
        source: The file, or what it holds.
        name: What it is called in messages.
        pixels: Whether its pixels are wanted too.
        tags: Elements that are wanted; by default all.

    Returns:
        A pydicom ``Dataset``.

    Raises:
        DataError: If it is damaged or deflated.
        UserError: If pydicom is not installed.
    """
    pydicom = _pydicom()
    file = source if isinstance(source, Path) else io.BytesIO(source)
    wanted = list(tags) if tags is not None else None
    with reading(name):
        _refuse_deflated(source, name)
        return pydicom.dcmread(file, stop_before_pixels=not pixels, force=True, specific_tags=wanted)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Say of whatever goes wrong which object it is: pydicom converts values when they are asked for.

    Args:
        name: What the object is called in messages.

    Raises:
        DataError: If it is damaged.
        UserError: As it comes.
        MemoryError: With the name, if there is not enough.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of values that the standard does not allow
            yield
    except UserError:
        raise
    except MemoryError as error:
        raise MemoryError(f"{name}: memory ran out while it was read") from error
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file") from error
    except Exception as error:  # pydicom raises whatever its values do
        raise DataError(f"{name}: is damaged ({_reason(error)}); export it again or remove it") from error


def _refuse_deflated(source: Path | bytes, name: str) -> None:
    """Refuse an object that pydicom would unpack as a whole: a small file can unpack to any size.

    Raises:
        DataError: If it is one.
    """
    from pydicom.filereader import read_dataset

    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        if not is_dicom(file.read(132)):
            return
        # group 2 comes first and is never deflated itself
        meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)  # noqa: FBT003
    if meta.get("TransferSyntaxUID") == _DEFLATED:
        raise DataError(f"{name}: is deflated, which is not read; save it without that")


def read_frames(item: Any, source: Path | bytes, name: str) -> NDArray[Any]:
    """Decode the pixels of a DICOM object as they are stored, by whatever transfer syntax.

    Compressed ones are decoded in a process of its own: decoders end theirs where a file is damaged cleverly.

    Args:
        item: As `read_object` gives it, with its pixels.
        source: The file, or what it holds.
        name: What it is called in messages.

    Returns:
        Shape ``(frames, H, W)``, whole numbers.

    Raises:
        DataError: See `decode_frames`.
        MemoryError: If there is not enough for them.
    """
    if is_child() or not _needs_library(item):
        return decode_frames(item, name)
    return shared_decoder().frames(source.read_bytes() if isinstance(source, Path) else source, name)


def _needs_library(item: Any) -> bool:
    syntax = item.file_meta.get("TransferSyntaxUID") if hasattr(item, "file_meta") else None
    try:
        return syntax is not None and syntax != _RUN_LENGTHS and bool(syntax.is_encapsulated)
    except ValueError:  # it is no transfer syntax; to decode it says so
        return False


def decode_frames(item: Any, name: str) -> NDArray[Any]:
    """Decode the pixels of a DICOM object in this process.

    Args:
        item: As `read_object` gives it, with its pixels.
        name: What it is called in messages.

    Returns:
        Shape ``(frames, H, W)``, whole numbers.

    Raises:
        DataError: If they are damaged, in colours, or compressed in a way that nothing installed decodes.
        MemoryError: If there is not enough for them.
    """
    from pydicom.pixels import get_decoder

    with reading(name):
        samples = int(item.get("SamplesPerPixel", 1) or 1)
        if samples != 1 or not str(item.get("PhotometricInterpretation", "MONOCHROME2")).startswith("MONOCHROME"):
            raise DataError(f"{name}: is in colours; save it in grey")
        if _needs_library(item) and not get_decoder(item.file_meta.TransferSyntaxUID).is_available:
            syntax = item.file_meta.TransferSyntaxUID.name
            raise DataError(f"{name}: is compressed as {syntax}, which is not read; save it uncompressed")
        values: NDArray[Any] = np.asarray(item.pixel_array)
        return values.reshape(-1, *values.shape[-2:])


def apply_rescale(item: Any, stored: NDArray[Any], scale: tuple[float, float]) -> NDArray[Any]:
    """Turn stored values into what they stand for, such as HU.

    Args:
        item: The object, which may have a table instead.
        stored: Whole numbers.
        scale: Rescale slope and intercept.

    Returns:
        The same shape: int32 where slope and intercept keep whole numbers as they are, else float32.
    """
    if "ModalityLUTSequence" in item:
        from pydicom.pixels import apply_modality_lut

        return np.asarray(apply_modality_lut(stored, item), np.float32)
    slope, intercept = scale
    if slope == 1 and intercept.is_integer() and stored.dtype != np.uint32 and abs(intercept) < 1 << 30:
        return stored.astype(np.int32) + int(intercept)
    return (stored * np.float64(slope) + np.float64(intercept)).astype(np.float32)


def rescale_of(item: Any) -> tuple[float, float]:
    """Return slope and intercept of an object, or of one of its functional groups."""
    slope, intercept = item.get("RescaleSlope"), item.get("RescaleIntercept")
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


def is_radiograph(item: Any) -> bool:
    """Tell whether an object is a radiograph, which stands for itself, rather than a slice of a series."""
    sop_class = str(item.get("SOPClassUID", ""))
    captured = sop_class == _SECONDARY_CAPTURE and item.get("Modality") in _RADIOGRAPHY
    return sop_class in _RADIOGRAPHS or captured


def read_picture(source: Path | bytes, name: str, max_pixels: int) -> NDArray[Any]:
    """Read an object that holds one grey picture.

    Args:
        source: The file, or what it holds.
        name: What it is called in messages.
        max_pixels: Most pixels, looked at before they are decoded.

    Returns:
        Shape ``(H, W)``, after its rescaling. A radiograph as it is looked at: of MONOCHROME1, where 0 is white,
        inverted; of a slice of a CT the values are HU whatever is white.

    Raises:
        DataError: If it cannot be read, or holds no picture, several, or colours.
        TooLargeError: If it has too many pixels.
        UserError: If pydicom is not installed.
    """
    with reading(name):
        item = read_object(source, name, pixels=True)
        picture_size(item, name, max_pixels)
        (stored,) = read_frames(item, source, name)
        if is_radiograph(item) and item.PhotometricInterpretation == "MONOCHROME1":
            top = -1 if item.get("PixelRepresentation", 0) else (1 << int(item.BitsStored)) - 1
            stored = top - stored.astype(np.int32)
        return apply_rescale(item, stored, rescale_of(item))


def picture_size(item: Any, name: str, max_pixels: int) -> tuple[int, int]:
    """Return height and width of an object that holds one picture.

    Args:
        item: As `read_object` gives it.
        name: What it is called in messages.
        max_pixels: Most pixels.

    Returns:
        Both.

    Raises:
        DataError: If it holds no picture, or several.
        TooLargeError: If it has too many pixels.
    """
    with reading(name):
        if "Rows" not in item:
            raise DataError(f"{name}: is a DICOM object without pixels ({kind_of(item)}); name an image")
        rows, columns, frames = (int(item.get(key, 1) or 1) for key in ("Rows", "Columns", "NumberOfFrames"))
        if frames != 1:
            raise DataError(f"{name}: holds {frames} pictures; save the one that you want")
        if rows * columns > max_pixels:
            raise TooLargeError(f"{name}: {columns}x{rows} px is over the limit of {max_pixels / 1e6:g} megapixels")
        return rows, columns


def kind_of(item: Any) -> str:
    """Say in the standard's words what an object is, such as ``Segmentation`` or ``RT Structure Set``."""
    sop_class = item.get("SOPClassUID")
    known = sop_class and sop_class.name != str(sop_class)
    return str(sop_class.name).removesuffix(" Storage") if known else "DICOM object of an unknown class"


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise UserError("DICOM is read by pydicom, which is missing; `pip install pydicom python-gdcm`") from error
    return pydicom


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return "".join(c if c.isprintable() else "?" for c in text) or type(error).__name__
