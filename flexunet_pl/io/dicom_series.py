"""DICOM series: every slice read with its own rescaling, and compared with the grid that results."""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import DataError

_SAME_PLACE_MM = 1e-3
_OFF_GRID_MM = 0.5  # of a corner of a slice, at most; and half a pixel
_PHOTOMETRIC = "0028|0004"
# SOP classes of computed and digital radiography, mammography included
_RADIOGRAPHS = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1")
)
_HEAD = 1 << 12  # bytes, in which the meta information ends
# beginnings of the SOP classes of objects without pixels of their own, and what they are
_WITHOUT_PIXELS = {
    "1.2.840.10008.5.1.4.1.1.11.": "presentation state",
    "1.2.840.10008.5.1.4.1.1.104.": "document",
    "1.2.840.10008.5.1.4.1.1.481.3": "RT structure set",
    "1.2.840.10008.5.1.4.1.1.481.5": "RT plan",
    "1.2.840.10008.5.1.4.1.1.66.1": "registration",
    "1.2.840.10008.5.1.4.1.1.66.3": "registration",
    "1.2.840.10008.5.1.4.1.1.88.": "structured report",
    "1.2.840.10008.5.1.4.1.1.9.": "waveform",
}


@dataclass(frozen=True)
class Slice:
    """Where a slice lies.

    Attributes:
        position_mm: Of its first pixel.
        direction: Cosines of its rows and of its columns, shape ``(2, 3)``.
        spacing_mm: Distances between rows and between columns.
        shape: Rows and columns.
    """

    position_mm: NDArray[np.float64]
    direction: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]

    def corners(self) -> NDArray[np.float64]:
        """Return the positions of its four corners, shape ``(4, 3)``."""
        rows, columns = self.shape
        ends = [(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)]
        across, down = self.direction
        steps = [(c * self.spacing_mm[1], r * self.spacing_mm[0]) for r, c in ends]
        return np.array([self.position_mm + x * across + y * down for x, y in steps])


def without_pixels(path: Path) -> str | None:
    """Say what a DICOM object is that has no pixels, such as a structured report.

    Args:
        path: The file.

    Returns:
        Its kind; None for an image, and for what cannot be told.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    sop_class = _sop_class(head)
    return next((kind for start, kind in _WITHOUT_PIXELS.items() if sop_class.startswith(start)), None)


def _sop_class(head: bytes) -> str:
    """Read the SOP class from the meta information, which is always explicit and little-endian; "" without one."""
    at = 132
    if head[128:132] != b"DICM":
        return ""
    while at + 8 <= len(head):
        group, element, kind, length = struct.unpack_from("<HH2sH", head, at)
        if group != 2:
            break
        at += 8
        if kind in {b"OB", b"OW", b"UN", b"SQ", b"UT"}:
            (length,) = struct.unpack_from("<I", head.ljust(at + 4, b"\0"), at)
            at += 4
        if element == 2:
            return head[at : at + length].rstrip(b"\0 ").decode("ascii", errors="replace")
        at += length
    return ""


def read_slices(path: Path, names: list[str], sitk: Any) -> Any:
    """Read the slices of a series one by one: each has a rescaling, and so a type, of its own.

    Args:
        path: The folder, for messages.
        names: The files, in order.
        sitk: SimpleITK.

    Returns:
        An image of SimpleITK, whose values are the stored ones times slope plus intercept of their own slice.

    Raises:
        DataError: If the slices do not lie on one grid.
    """
    images, slices = [], []
    for name in names:
        reader = sitk.ImageFileReader()
        reader.SetFileName(name)
        reader.SetImageIO("GDCMImageIO")
        image = reader.Execute()
        if image.GetNumberOfComponentsPerPixel() != 1:
            raise DataError(f"{path}: has {image.GetNumberOfComponentsPerPixel()} values per voxel; expected one")
        if image.GetDimension() == 3 and image.GetDepth() != 1:
            raise DataError(f"{path}: is a multi-frame DICOM file; convert it to NIfTI, or to one file per slice")
        images.append(_as_stored(path, image, reader, sitk))
        slices.append(_place_of(path, reader))
    _check_grid(path, slices)
    kinds = {image.GetPixelID() for image in images}
    if len(kinds) > 1:
        images = [sitk.Cast(image, sitk.sitkFloat32) for image in images]
    planes = [image[:, :, 0] if image.GetDimension() == 3 else image for image in images]
    for plane in planes:  # the grid is that of the series
        plane.SetOrigin((0.0, 0.0))
        plane.SetSpacing((1.0, 1.0))
        plane.SetDirection((1.0, 0.0, 0.0, 1.0))
    volume = sitk.JoinSeries(planes)
    first, normal = slices[0], np.cross(*slices[0].direction)
    step = float(np.linalg.norm(slices[-1].position_mm - first.position_mm)) / max(1, len(slices) - 1)
    volume.SetOrigin(first.position_mm.tolist())
    volume.SetSpacing((first.spacing_mm[1], first.spacing_mm[0], step or images[0].GetSpacing()[-1]))
    if len(slices) > 1 and normal @ (slices[-1].position_mm - first.position_mm) < 0:
        normal = -normal
    volume.SetDirection(np.stack([*first.direction, normal], axis=1).ravel().tolist())
    return volume


def read_radiograph(path: Path, sitk: Any) -> NDArray[Any]:
    """Read a radiograph: one picture, without a place in the patient.

    Args:
        path: The file.
        sitk: SimpleITK.

    Returns:
        Values as they are looked at, shape ``(H, W)``: of MONOCHROME1, where 0 is white, inverted.

    Raises:
        DataError: If it holds several pictures, or colours.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("GDCMImageIO")
    image = reader.Execute()
    values = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() != 1 or values.size != values.shape[-1] * values.shape[-2]:
        raise DataError(f"{path}: holds several pictures or colours; save the one grey picture that you want")
    return np.asarray(values.reshape(values.shape[-2:]))


def is_radiograph(path: Path) -> bool:
    """Tell whether a DICOM file is a radiograph, which stands for itself, rather than a slice of a series.

    Args:
        path: The file.
    """
    with path.open("rb") as file:
        return _sop_class(file.read(_HEAD)) in _RADIOGRAPHS


def _as_stored(path: Path, image: Any, reader: Any, sitk: Any) -> Any:
    """Undo that GDCM inverts MONOCHROME1, for looking at: of a CT the values are HU all the same.

    Raises:
        DataError: If that cannot be undone.
    """
    if not reader.HasMetaDataKey(_PHOTOMETRIC) or reader.GetMetaData(_PHOTOMETRIC).strip() != "MONOCHROME1":
        return image
    if reader.GetMetaData("0028|0103").strip() != "0":
        raise DataError(f"{path}: is MONOCHROME1 with signed values, which is not read; export it as MONOCHROME2")
    slope, intercept = (
        float(reader.GetMetaData(tag)) if reader.HasMetaDataKey(tag) else default
        for tag, default in (("0028|1053", 1.0), ("0028|1052", 0.0))
    )
    top = (1 << int(reader.GetMetaData("0028|0101"))) - 1
    return top * slope + 2 * intercept - sitk.Cast(image, sitk.sitkFloat32)


def _place_of(path: Path, reader: Any) -> Slice:
    try:
        position, direction, spacing = (
            [float(word) for word in reader.GetMetaData(tag).split("\\")]
            for tag in ("0020|0032", "0020|0037", "0028|0030")
        )
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path}: a slice does not say where it lies (position, orientation, pixel spacing)") from error
    columns, rows = reader.GetSize()[:2]
    return Slice(np.array(position), np.reshape(direction, (2, 3)), (spacing[0], spacing[1]), (int(rows), int(columns)))


def _check_grid(path: Path, slices: list[Slice]) -> None:
    """Compare each slice with a grid of equal steps from the first slice to the last.

    Raises:
        DataError: If one lies elsewhere; the message says why.
    """
    first, last = slices[0], slices[-1]
    for number, here in enumerate(slices[1:], start=1):
        if here.shape != first.shape:
            raise DataError(f"{path}: slice {number + 1} has {here.shape} pixels and the first one {first.shape}")
        if not np.allclose(here.spacing_mm, first.spacing_mm, rtol=1e-3):
            raise DataError(
                f"{path}: the pixel spacing changes from {first.spacing_mm} mm to {here.spacing_mm} at slice "
                f"{number + 1}; resample the series to one grid"
            )
    places = np.array([here.position_mm for here in slices])
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    if len(steps) and steps.min() < _SAME_PLACE_MM:
        at = int(steps.argmin())
        raise DataError(
            f"{path}: slices {at + 1} and {at + 2} lie at one place: copies, or two phases of one scan; give a folder "
            "with one"
        )
    if len(steps) and steps.max() > 1.1 * steps.min():
        at = int(steps.argmax())
        raise DataError(
            f"{path}: slices {at} and {at + 1} lie {steps[at]:.2f} mm apart and others {steps.min():.2f}; "
            "the series is not complete"
        )
    tolerance = min(_OFF_GRID_MM, min(first.spacing_mm) / 2)
    way = last.position_mm - first.position_mm
    normal = np.cross(*first.direction)
    for number, here in enumerate(slices):
        share = number / max(1, len(slices) - 1)
        expected = Slice(first.position_mm + share * way, first.direction, first.spacing_mm, first.shape)
        off = float(np.linalg.norm(here.corners() - expected.corners(), axis=1).max())
        if off > tolerance:
            turned = not np.allclose(here.direction, first.direction, atol=1e-4)
            why = "is turned against the first one" if turned else "does not lie at an equal step from the others"
            raise DataError(
                f"{path}: slice {number + 1} {why}: it lies up to {off:.1f} mm off the grid; resample the series to one"
            )
    along = float(way @ normal)
    aside = float(np.linalg.norm(way - along * normal))
    if aside > tolerance:
        tilt = math.degrees(math.atan2(aside, abs(along)))
        raise DataError(
            f"{path}: a sheared stack, of a gantry tilted by {tilt:.1f} degrees: the last slice lies {aside:.1f} mm "
            "aside; resample the series to a straight grid first"
        )
