"""What DICOM objects a folder holds: series of slices, radiographs, and what is no scan."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flexunet_pl.common.errors import DataError
from flexunet_runtime.dicom import is_dicom as begins_as_dicom
from flexunet_runtime.dicom import is_radiograph, kind_of, read_object, reading
from flexunet_runtime.images import DICOM_SUFFIXES

TAGS = (
    "SOPClassUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "ImageType", "Rows", "Columns",
    "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip
# objects that have pixels, but are no scan: segmentations, doses, maps, captured screens
_NO_SCANS = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("66.4", "66.7", "481.2", "30", "7", "7.1", "7.2", "7.3", "7.4")
)


@dataclass(frozen=True)
class DicomFolder:
    """The DICOM objects of a folder.

    Attributes:
        series: Files of each series of slices, by what the series is called.
        radiographs: Files of one picture each, which stand for themselves.
        others: How many of each kind are no scan, such as a structure set or a localizer.
        damaged: Files that cannot be read, and why.
    """

    series: dict[str, tuple[Path, ...]]
    radiographs: frozenset[Path]
    others: Counter[str]
    damaged: dict[Path, str]

    def is_volume(self) -> bool:
        """Tell whether there is a series, or what may be a part of one."""
        return bool(self.series or self.damaged)


def is_dicom(path: Path) -> bool:
    """Tell whether a file is a DICOM object, by its name or by how it begins.

    Args:
        path: The file.
    """
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    with path.open("rb") as stream:
        return begins_as_dicom(stream.read(132))


def scan_folder(folder: Path) -> DicomFolder:
    """Read the headers of the DICOM objects of a folder; those of folders below it are not looked at.

    Args:
        folder: The folder.

    Returns:
        What there is.

    Raises:
        UserError: If there are some, and pydicom is not installed.
    """
    return _scanned(folder, folder.stat().st_mtime_ns)


@lru_cache(maxsize=1024)  # listing, counting slices and reading all ask for it
def _scanned(folder: Path, changed_ns: int) -> DicomFolder:
    series: dict[str, list[Path]] = {}
    radiographs, damaged = set(), {}
    others: Counter[str] = Counter()
    localizers: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if not is_dicom(file):
            continue
        try:
            with reading(str(file)):
                kind, name = _kind_of(file)
        except DataError as error:
            damaged[file] = str(error)
            continue
        if kind == "radiograph":
            radiographs.add(file)
        elif kind == "other":
            others[name] += 1
        else:
            (localizers if kind == "localizer" else series).setdefault(name, []).append(file)
    if series:
        others["localizer"] += sum(map(len, localizers.values()))
    else:
        series = localizers
    return DicomFolder({name: tuple(files) for name, files in series.items()}, frozenset(radiographs), +others, damaged)


def _kind_of(file: Path) -> tuple[str, str]:
    """Tell what an object is: a radiograph, a localizer, a slice, or another kind, and what its series is called.

    Raises:
        DataError: If it is damaged.
    """
    header = read_object(file, str(file), pixels=False, tags=TAGS)
    if "SOPClassUID" not in header:
        raise DataError(f"{file}: is damaged: it does not say what it is; export it again")
    if is_radiograph(header):
        return "radiograph", ""
    if "Rows" not in header or (header.SOPClassUID in _NO_SCANS and "ImagePositionPatient" not in header):
        return "other", kind_of(header)
    number, text = header.get("SeriesNumber"), header.get("SeriesDescription") or header.get("Modality") or ""
    uid = str(header.get("SeriesInstanceUID", ""))
    is_localizer = "LOCALIZER" in (header.get("ImageType") or ())
    return "localizer" if is_localizer else "slice", f"{uid} ({'without number' if number is None else number}: {text})"
