"""The images and volumes of a folder tree."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.arrays import ARRAY_SUFFIXES
from flexunet_pl.io.dicom_folder import is_dicom, scan_folder
from flexunet_pl.io.dicom_series import has_frames
from flexunet_pl.io.pairs import IMAGE_SUFFIXES
from flexunet_pl.io.volume_files import VOLUME_SUFFIXES, holds_voxels_of, volume_suffix
from flexunet_runtime.files import fingerprint_files, is_readable


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

    @property
    def is_dicom(self) -> bool:
        """Whether it is a DICOM series."""
        return self.is_volume and not _is_volume(self.path)


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
        return [_only_case(source)]
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


def _only_case(file: Path) -> Case:
    """Take a file for a case.

    Raises:
        DataError: If it is a part of one.
    """
    beside = holds_voxels_of(file)
    if beside is not None:
        raise DataError(f"{file}: holds the voxels of {beside.name}; name that file")
    if _is_known(file) or not is_dicom(file):
        return Case(file, case_name(file), _is_volume(file))
    found = scan_folder(file.parent)
    if file in found.radiographs:
        return Case(file, case_name(file))
    if (file,) in found.series.values() and has_frames(file):
        return Case(file, case_name(file), is_volume=True)
    raise DataError(
        found.damaged.get(file) or f"{file}: is one slice of a DICOM series; name the folder that holds the series"
    )


def fingerprint(case: Case) -> str:
    """Tell a case from another one of the same name: by size and beginning and end of its files.

    Args:
        case: The case.

    Returns:
        16 hexadecimal digits.
    """
    files = sorted(case.path.iterdir()) if case.path.is_dir() else [case.path]
    return fingerprint_files(file for file in files if is_readable(file))


def _walk(folder: Path) -> Iterator[Case]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place)
        found = scan_folder(here)
        if found.is_volume():
            inside = here.relative_to(folder)
            yield Case(here, inside.as_posix() if inside.parts else folder.resolve().name, is_volume=True)
        for file in (here / name for name in names if not name.startswith(".")):
            if (_is_known(file) or file in found.radiographs) and file.is_file():
                yield Case(file, (here / case_name(file)).relative_to(folder).as_posix(), _is_volume(file))


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
        found += scan_folder(Path(place)).others
        for file in (Path(place) / name for name in names if not name.startswith(".")):
            if not file.is_file():
                found["pipe or device" if file.exists() else "broken link"] += 1
            elif not (_is_known(file) or is_dicom(file) or holds_voxels_of(file)):
                found[file.suffix.lower() or "without suffix"] += 1
        found.update("linked folder" for name in folders if (Path(place) / name).is_symlink())
    return dict(found)


def _is_known(path: Path) -> bool:
    return _is_volume(path) or path.suffix.lower() in IMAGE_SUFFIXES


def _is_volume(path: Path) -> bool:
    return volume_suffix(path) is not None or path.suffix.lower() in ARRAY_SUFFIXES


def case_name(path: Path) -> str:
    """Return the name of a file without its suffix, which may have two parts.

    Args:
        path: Such as ``a.nii.gz``.

    Returns:
        Such as ``a``.
    """
    known = volume_suffix(path)
    return path.name[: -len(known)] if known else path.stem
