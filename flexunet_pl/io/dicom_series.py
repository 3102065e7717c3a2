"""DICOM series: every slice read with its own rescaling, and compared with the grid that results."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.dicom_folder import TAGS, scan_folder
from flexunet_runtime.dicom import apply_rescale, read_frames, read_object, reading, rescale_of

_SAME_PLACE_MM = 1e-3
_OFF_GRID_MM = 0.5  # of a corner of a slice, at most; and half a pixel


@dataclass(frozen=True)
class Slice:
    """Where a slice lies, and what its values stand for.

    Attributes:
        file: The object that holds it.
        frame: Which of its frames.
        position_mm: Of its first pixel, to the left, to the back and to the head of the patient.
        direction: Cosines of its rows and of its columns, shape ``(2, 3)``.
        spacing_mm: Distances between rows and between columns.
        shape: Rows and columns.
        thickness_mm: Of the slice.
        rescale: Slope and intercept.
    """

    file: Path
    frame: int
    position_mm: NDArray[np.float64]
    direction: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]
    thickness_mm: float = 1.0
    rescale: tuple[float, float] = (1.0, 0.0)

    def corners(self) -> NDArray[np.float64]:
        """Return the positions of its four corners, shape ``(4, 3)``."""
        rows, columns = self.shape
        ends = [(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)]
        across, down = self.direction
        steps = [(c * self.spacing_mm[1], r * self.spacing_mm[0]) for r, c in ends]
        return np.array([self.position_mm + x * across + y * down for x, y in steps])


@dataclass(frozen=True)
class Series:
    """A series of slices on one grid.

    Attributes:
        path: Its folder, or its one file.
        slices: From the feet up, or along their normal.
    """

    path: Path
    slices: tuple[Slice, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows and slices."""
        rows, columns = self.slices[0].shape
        return columns, rows, len(self.slices)

    @property
    def affine(self) -> NDArray[np.float64]:
        """From column, row and slice to mm to the left, to the back and to the head, shape ``(4, 4)``."""
        first, last = self.slices[0], self.slices[-1]
        step = (last.position_mm - first.position_mm) / max(1, len(self.slices) - 1)
        if len(self.slices) == 1:
            step = np.cross(*first.direction) * first.thickness_mm
        affine = np.eye(4)
        affine[:3, 0] = first.direction[0] * first.spacing_mm[1]
        affine[:3, 1] = first.direction[1] * first.spacing_mm[0]
        affine[:3, 2], affine[:3, 3] = step, first.position_mm
        return affine

    @property
    def files(self) -> list[Path]:
        """The objects, each once, in the order of the slices."""
        return list(dict.fromkeys(here.file for here in self.slices))

    def read(self) -> NDArray[Any]:
        """Read the voxels: stored values times slope plus intercept of their own slice.

        Returns:
            Shape ``(columns, rows, slices)``.

        Raises:
            DataError: If a file is damaged.
        """
        planes: list[NDArray[Any]] = []
        item: Any = None
        kept: tuple[Path | None, NDArray[Any]] = None, np.empty(0)
        for here in self.slices:
            if kept[0] != here.file:
                item = read_object(here.file, str(here.file), pixels=True)
                kept = here.file, read_frames(item, here.file, str(here.file))
            stored = kept[1]
            if here.frame >= len(stored) or stored.shape[1:] != here.shape:
                raise DataError(f"{here.file}: is damaged: its pixels are not those that it declares; export it again")
            planes.append(_narrowed(apply_rescale(item, stored[here.frame], here.rescale)))
        return np.stack(planes).transpose(2, 1, 0)


def has_frames(file: Path) -> bool:
    """Tell whether a DICOM file holds several slices.

    Args:
        file: The file.

    Raises:
        DataError: If it is damaged.
    """
    return "PerFrameFunctionalGroupsSequence" in read_object(file, str(file), pixels=False, tags=TAGS)


def find_series(path: Path) -> Series:
    """Find the slices of a series and see that they lie on one grid.

    Args:
        path: A folder with one series, or one file of several frames.

    Returns:
        The series.

    Raises:
        DataError: If there is none or another one, a part of it is damaged, or the slices do not lie on one grid.
    """
    files = (path,) if path.is_file() else _only_series(path)
    slices = []
    for file in files:
        with reading(str(file)):
            slices += _slices_of(path, file)
    normal = np.cross(*slices[0].direction)
    ordered = sorted(slices, key=lambda here: float(here.position_mm @ normal))
    _check_grid(path, ordered)
    return Series(path, tuple(ordered))


def _only_series(path: Path) -> tuple[Path, ...]:
    found = scan_folder(path)
    if found.damaged:
        raise DataError(f"{next(iter(found.damaged.values()))}; the series is not complete without it")
    if len(found.series) != 1:
        listed = ", ".join(sorted(name.partition(" ")[2] for name in found.series)[:4])
        raise DataError(
            f"{path}: holds {len(found.series)} DICOM series {listed}".rstrip() + "; give a folder with one"
        )
    return next(iter(found.series.values()))


def _slices_of(path: Path, file: Path) -> list[Slice]:
    header = read_object(file, str(file), pixels=False, tags=TAGS)
    frames = int(header.get("NumberOfFrames", 1) or 1)
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if groups is None and frames > 1:
        raise DataError(
            f"{file}: holds {frames} frames that do not say where they lie: a film, or several views; save the picture "
            "that you want"
        )
    if groups is not None and len(groups) != frames:
        raise DataError(f"{file}: is damaged: it has {frames} frames and says where {len(groups)} lie; export it again")
    shared = (header.get("SharedFunctionalGroupsSequence") or [{}])[0]
    return [_slice_of(path, file, header, number, shared, group) for number, group in enumerate(groups or [{}])]


def _slice_of(path: Path, file: Path, header: Any, number: int, shared: Any, group: Any) -> Slice:
    def element(sequence: str, name: str) -> Any:
        """Look in the frame's groups, in those that all frames share, and in the object itself."""
        places = [(part.get(sequence) or [{}])[0] for part in (group, shared)]
        return next((place.get(name) for place in (*places, header) if place.get(name) is not None), None)

    try:
        position = np.array(element("PlanePositionSequence", "ImagePositionPatient"), np.float64).reshape(3)
        direction = np.array(element("PlaneOrientationSequence", "ImageOrientationPatient"), np.float64).reshape(2, 3)
        spacing = [float(n) for n in element("PixelMeasuresSequence", "PixelSpacing")]
        thickness = float(element("PixelMeasuresSequence", "SliceThickness") or 1.0)
        slope = element("PixelValueTransformationSequence", "RescaleSlope")
        intercept = element("PixelValueTransformationSequence", "RescaleIntercept")
        scale = rescale_of({"RescaleSlope": slope, "RescaleIntercept": intercept})
        shape = int(header.Rows), int(header.Columns)
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path}: a slice does not say where it lies (position, orientation, pixel spacing)") from error
    whole = np.isfinite([*position, *direction.ravel(), *spacing, thickness, *scale]).all()
    if not whole or min(*spacing, thickness) <= 0 or abs(np.linalg.norm(np.cross(*direction)) - 1) > 1e-2:
        raise DataError(f"{file}: its position, orientation, spacing or rescaling is none; correct its header")
    return Slice(file, number, position, direction, (spacing[0], spacing[1]), shape, thickness, scale)


def _narrowed(values: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers in 16 bits where they fit: a scan of 1,000 slices would else take a gigabyte."""
    fits = values.dtype == np.int32 and values.size and values.min() >= -32768 and values.max() <= 32767
    return values.astype(np.int16) if fits else values


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
        expected = replace(first, position_mm=first.position_mm + share * way)
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
