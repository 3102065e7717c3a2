"""The images and volumes of a folder tree, and the slices of a volume as pictures for the network."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.arrays import ARRAY_SUFFIXES, read_array, read_array_shape
from flexunet_pl.io.dicom_series import is_radiograph, without_pixels
from flexunet_pl.io.images import ImageReader
from flexunet_pl.io.pairs import IMAGE_SUFFIXES
from flexunet_pl.io.volumes import (
    VOLUME_SUFFIXES,
    Volume,
    is_dicom,
    read_radiograph_values,
    read_volume,
    read_volume_shape,
)
from flexunet_runtime.window import Window

_SAMPLED = 1 << 16  # bytes


@dataclass(frozen=True)
class Case:
    """An image, or a volume: what is predicted and written as one.

    Attributes:
        path: The file, or the folder of a DICOM series.
        name: Its place below the folder it was found in, without the suffix.
        is_volume: Whether it has slices.
    """

    path: Path
    name: str
    is_volume: bool = False

    @property
    def is_array(self) -> bool:
        """Whether it is a volume without a geometry."""
        return self.is_volume and self.path.suffix.lower() in ARRAY_SUFFIXES


@dataclass(frozen=True)
class SliceRules:
    """How a volume is cut into pictures.

    Attributes:
        axis: 0, 1, 2 for axial, coronal and sagittal slices, whatever the order in the file; in .npy and .h5 files,
            which do not say how the patient lies, the axis of the array.
        window: Lowest and highest value, such as -160 and 240 HU, mapped to 0 and 255, also of 16-bit images; by
            default model.image_window, and without that each slice from its own lowest to its own highest value, as in
            the original.
        rotation: Degrees by which each slice is turned counterclockwise for the network; the mask is turned back.
        dataset: Path of the array in an HDF5 file; by default the only one of three dimensions.
    """

    axis: Literal[0, 1, 2] = 0
    window: tuple[float, float] | None = None
    rotation: Literal[0, 90, 180, 270] = 0
    dataset: str | None = None

    def __post_init__(self) -> None:
        Window.parse(self.window, "data.volume.window")


def list_cases(source: Path) -> list[Case]:
    """List what a folder tree holds, or the one that a path names.

    Args:
        source: A folder, which is looked through with all below it but not through links to folders; a folder with a
            DICOM series; or a file. Hidden files and folders are passed over.

    Returns:
        The cases, sorted by name, at least one.

    Raises:
        DataError: If there is none, or two of them have one name.
    """
    if source.is_file():
        if is_dicom(source) and is_radiograph(source):
            return [Case(source, case_name(source))]
        if is_dicom(source):
            raise DataError(f"{source}: is one slice of a DICOM series; name the folder that holds the series")
        return [Case(source, case_name(source), _is_volume(source))]
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; expected one that holds images or volumes, or one file")
    found = sorted(_walk(source), key=lambda case: case.name)
    by_name: dict[str, Case] = {}
    for case in found:
        twin = by_name.setdefault(case.name, case)
        if twin is not case:
            raise DataError(f"{case.path}: would be written under the same name as {twin.path.name}; rename one")
    if not found:
        known = ", ".join((*sorted(IMAGE_SUFFIXES), *VOLUME_SUFFIXES, *ARRAY_SUFFIXES))
        raise DataError(f"{source}: no image in this folder; expected files ending in {known}, or a DICOM series")
    return found


def count_slices(case: Case, rules: SliceRules) -> int:
    """Return how many pictures a case has, 1 for an image; of a volume the header alone is read.

    Args:
        case: The case.
        rules: How volumes are cut.

    Returns:
        The number.

    Raises:
        DataError: If the header cannot be read.
    """
    if not case.is_volume:
        return 1
    shape = read_array_shape(case.path, rules.dataset) if case.is_array else read_volume_shape(case.path)
    return int(shape[rules.axis])


def read_case(case: Case, rules: SliceRules) -> Volume:
    """Read a volume.

    Args:
        case: A volume.
        rules: Where the values are in an HDF5 file.

    Returns:
        The volume; one without a geometry has voxels of 1 mm.

    Raises:
        DataError: If it cannot be read.
    """
    if not case.is_array:
        return read_volume(case.path)
    return Volume(read_array(case.path, rules.dataset), (1.0,) * 3, (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def cut_slice(values: NDArray[Any], number: int, rules: SliceRules, reader: ImageReader) -> NDArray[np.uint8]:
    """Make a picture of a slice.

    Args:
        values: Those of the volume, shape ``(D, H, W)``.
        number: Which slice along the axis of the rules.
        rules: How the volume is cut.
        reader: How pictures are made: their channels and window.

    Returns:
        The picture, shape ``(H, W, channels)``, uint8.
    """
    plane = np.take(values, number, axis=rules.axis)
    low, high = float(plane.min()), float(plane.max())
    if reader.window is None and low == high:
        picture = np.zeros(plane.shape, np.uint8)
    else:
        picture = (reader.window or Window(low, high)).apply(plane)
    turned = np.rot90(picture, rules.rotation // 90)
    return np.repeat(turned[..., None], reader.channels, axis=2)


def join_slices(masks: list[NDArray[Any]], rules: SliceRules) -> NDArray[Any]:
    """Put what was predicted of all slices back together.

    Args:
        masks: One per slice, as the picture lies.
        rules: How the volume was cut.

    Returns:
        Values of the volume's shape ``(D, H, W)``.
    """
    return np.stack([np.rot90(mask, -(rules.rotation // 90)) for mask in masks], axis=rules.axis)


def fingerprint(case: Case) -> str:
    """Tell a case from another one of the same name: by size and beginning and end of its files.

    Args:
        case: The case.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in sorted(case.path.iterdir()) if case.path.is_dir() else [case.path]:
        if path.is_file():
            size = path.stat().st_size
            with path.open("rb") as file:
                digest.update(f"{path.name} {size} ".encode("utf-8", "surrogateescape") + file.read(_SAMPLED))
                file.seek(max(0, size - _SAMPLED))
                digest.update(file.read(_SAMPLED))
    return digest.hexdigest()[:16]


class SliceReader:
    """Reads pictures of images and volumes; keeps the volume that was read last, because its slices come in a row.

    Args:
        reader: How images are read.
        rules: How volumes are cut.
    """

    def __init__(self, reader: ImageReader, rules: SliceRules) -> None:
        self.reader = reader if rules.window is None else replace(reader, window=Window.parse(rules.window))
        self.rules = rules
        self._kept: tuple[Path, NDArray[Any] | DataError] | None = None

    def read(self, case: Case, number: int) -> NDArray[np.uint8]:
        """Read a picture at its own size.

        Args:
            case: The case.
            number: Which of its slices; 0 for an image.

        Returns:
            The picture, shape ``(H, W, channels)``, uint8.

        Raises:
            DataError: If the file cannot be read; for a volume it is raised for each of its slices.
        """
        if not case.is_volume and _is_known(case.path):
            return self.reader.read(case.path)
        if not case.is_volume:
            return cut_slice(read_radiograph_values(case.path)[None], 0, SliceRules(), self.reader)
        if self._kept is None or self._kept[0] != case.path:
            self._kept = None  # before the next one is read: two need not fit the memory
            try:
                self._kept = case.path, read_case(case, self.rules).values
            except DataError as error:
                self._kept = case.path, error
        values = self._kept[1]
        if isinstance(values, DataError):
            raise values
        return cut_slice(values, number, self.rules, self.reader)


def _walk(folder: Path) -> Iterator[Case]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place)
        files = [here / name for name in names if not name.startswith(".") and (here / name).is_file()]
        objects = [file for file in files if not _is_known(file) and is_dicom(file)]
        radiographs = {file for file in objects if is_radiograph(file)}
        if len(objects) > len(radiographs):
            inside = here.relative_to(folder)
            yield Case(here, inside.as_posix() if inside.parts else folder.resolve().name, is_volume=True)
        for file in files:
            volume = _is_volume(file)
            if volume or file in radiographs or file.suffix.lower() in IMAGE_SUFFIXES:
                yield Case(file, (here / case_name(file)).relative_to(folder).as_posix(), volume)


def passed_over(source: Path) -> dict[str, int]:
    """Count the files of a folder tree that `list_cases` takes for no image and no part of one.

    Args:
        source: The folder.

    Returns:
        Numbers by suffix, or by kind for DICOM objects without pixels; of hidden files none.
    """
    found: Counter[str] = Counter()
    for place, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in (Path(place) / name for name in names if not name.startswith(".")):
            if _is_known(file) or not file.is_file():
                continue
            kind = without_pixels(file) if is_dicom(file) else file.suffix.lower() or "without suffix"
            if kind is not None:
                found[kind] += 1
        found.update("linked folder" for name in folders if (Path(place) / name).is_symlink())
    return dict(found)


def _is_known(path: Path) -> bool:
    return _is_volume(path) or path.suffix.lower() in IMAGE_SUFFIXES


def _is_volume(path: Path) -> bool:
    return path.name.lower().endswith((*VOLUME_SUFFIXES, *ARRAY_SUFFIXES))


def case_name(path: Path) -> str:
    """Return the name of a file without its suffix, which may have two parts.

    Args:
        path: Such as ``a.nii.gz``.

    Returns:
        Such as ``a``.
    """
    known = next((s for s in sorted(VOLUME_SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(s)), "")
    return path.name[: -len(known)] if known else path.stem
