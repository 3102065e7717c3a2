"""Read volumes: NIfTI, MHA, NRRD and DICOM series; whole files only, turned to one orientation, and labels back."""

import math
import struct
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import DataError, UserError, explained
from flexunet_pl.common.files import written_in_place
from flexunet_pl.io.dicom_series import read_radiograph, read_slices, without_pixels
from flexunet_pl.io.nifti_forms import NiftiForms, put_forms, read_forms
from flexunet_pl.io.volume_headers import check_stored

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".nrrd")

_ORIENTATION = "LPS"  # columns run to the patient's left, rows to the back, slices to the head
_GRID_TOLERANCE = 1e-3  # in mm and, for directions, in cosines


@dataclass(frozen=True)
class Volume:
    """A volume as it is looked at: axial slices from the feet up, the patient's right at the left of the picture.

    Attributes:
        values: Shape ``(D, H, W)``, of the file's type after its own rescaling, such as HU.
        spacing_mm: Distances between columns, rows and slices.
        origin_mm: Position of the first voxel.
        direction: Direction cosines, row by row; an oblique volume is turned by whole quarters, never resampled.
        orientation: What columns, rows and slices run to in the file, such as RAS.
        forms: Both affines of a NIfTI file in which they disagree.
    """

    values: NDArray[Any]
    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]
    direction: tuple[float, ...]
    orientation: str = _ORIENTATION
    forms: NiftiForms | None = None


def read_volume(path: Path) -> Volume:
    """Read a volume.

    Args:
        path: A ``.nii``, ``.nii.gz``, ``.mha`` or ``.nrrd`` file, or a folder with one DICOM series.

    Returns:
        The volume.

    Raises:
        DataError: If it is missing, damaged, cut short or of a kind that is not read; the message begins with the path.
        UserError: If SimpleITK is not installed.
    """
    sitk = _simpleitk()
    _check_name(path)
    with _explained(path):
        stored = read_slices(path, _series_files(path, sitk), sitk) if path.is_dir() else _read_file(path, sitk)
        orientation = _orientation(stored.GetDirection(), sitk)
        image = sitk.DICOMOrient(stored, _ORIENTATION)
        values = sitk.GetArrayFromImage(image)
    numbers = (*image.GetDirection(), *image.GetOrigin(), *image.GetSpacing())
    if not np.isfinite(numbers).all() or abs(np.linalg.det(np.reshape(image.GetDirection(), (3, 3)))) < 0.5:
        raise DataError(f"{path}: its affine is not finite or not invertible; correct its header")
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise DataError(f"{path}: {bad} of {values.size} voxels are not finite numbers; export it again")
    forms = read_forms(path) if path.name.lower().endswith((".nii", ".nii.gz")) else None
    return Volume(values, image.GetSpacing(), image.GetOrigin(), image.GetDirection(), orientation, forms)


def read_volume_shape(path: Path) -> tuple[int, int, int]:
    """Read from its header alone how many slices, rows and columns `read_volume` will give.

    Args:
        path: As for `read_volume`.

    Returns:
        The shape ``(D, H, W)``.

    Raises:
        DataError: If the header cannot be read.
        UserError: If SimpleITK is not installed.
    """
    sitk = _simpleitk()
    _check_name(path)
    with _explained(path):
        if path.is_dir():
            names = _series_files(path, sitk)
            reader = sitk.ImageFileReader()
            reader.SetFileName(names[0])
            reader.SetImageIO("GDCMImageIO")
            reader.ReadImageInformation()
            size = (*reader.GetSize()[:2], len(names))
        else:
            reader = _open_file(path, sitk)
            size = reader.GetSize()[:3]
        letters = _orientation(reader.GetDirection(), sitk)
    by_axis = {"LR": 2, "PA": 1, "SI": 0}
    shape = [0, 0, 0]
    for letter, length in zip(letters, size, strict=True):
        shape[next(axis for pair, axis in by_axis.items() if letter in pair)] = length
    return shape[0], shape[1], shape[2]


def read_radiograph_values(path: Path) -> NDArray[Any]:
    """Read a radiograph in DICOM; see `read_radiograph`.

    Args:
        path: The file.

    Returns:
        Shape ``(H, W)``.

    Raises:
        DataError: If it cannot be read.
        UserError: If SimpleITK is not installed.
    """
    sitk = _simpleitk()
    _check_name(path)
    with _explained(path):
        return read_radiograph(path, sitk)


def write_volume(path: Path, values: NDArray[Any], like: Volume) -> None:
    """Write a NIfTI file that lies where the file of another volume lies, voxel on voxel.

    Args:
        path: The file, ending in ``.nii.gz``.
        values: Shape ``(D, H, W)``, as `read_volume` turns it.
        like: The volume whose grid it has.
    """
    sitk = _simpleitk()
    image = to_file_order(values, like)
    with written_in_place(path, suffix=".nii.gz") as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)
        if like.forms is not None:
            put_forms(temporary, like.forms)


def to_file_order(values: NDArray[Any], like: Volume) -> Any:
    """Turn values back to the order of columns, rows and slices that the volume has in its file.

    Args:
        values: Shape ``(D, H, W)``, as `read_volume` turns it.
        like: The volume whose grid it has.

    Returns:
        An image of SimpleITK with that volume's spacing, origin and direction in its file.
    """
    sitk = _simpleitk()
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(like.spacing_mm)
    image.SetOrigin(like.origin_mm)
    image.SetDirection(like.direction)
    return sitk.DICOMOrient(image, like.orientation)


def series_files(path: Path) -> list[Path]:
    """List the files of a DICOM series in the order of its slices.

    Args:
        path: Folder with one series.

    Returns:
        The files.

    Raises:
        DataError: If it holds none, or several series.
        UserError: If SimpleITK is not installed.
    """
    return [Path(name) for name in _series_files(path, _simpleitk())]


def check_same_grid(path: Path, mask: Volume, image: Volume) -> None:
    """Check that a mask has a voxel for each of its image, or of another mask, in the same place.

    Args:
        path: The mask's file.
        mask: The mask.
        image: The image, or the other mask.

    Raises:
        DataError: If sizes or places differ; the message names both.
    """
    if mask.values.shape != image.values.shape:
        raise DataError(
            f"{path}: mask has {mask.values.shape} voxels (slices, rows, columns) but its image has "
            f"{image.values.shape}; export both on one grid"
        )
    for name in ("spacing_mm", "origin_mm", "direction"):
        ours, theirs = getattr(mask, name), getattr(image, name)
        if not np.allclose(ours, theirs, rtol=0, atol=_GRID_TOLERANCE):
            raise DataError(
                f"{path}: mask has {name} {_short(ours)} but its image has {_short(theirs)}; export both on one grid"
            )


def is_dicom(path: Path) -> bool:
    """Tell whether a file is one of a DICOM series, by its name or by how it begins.

    Args:
        path: The file.
    """
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    if path.suffix.lower() in {".dcm", ".ima"}:
        return True
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _check_name(path: Path) -> None:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:  # SimpleITK would end the process
        raise DataError(f"{path}: its name is not in UTF-8; rename it") from error


def _simpleitk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise UserError(
            "volumes are read by SimpleITK, which is missing; `pip install 'flexunet-pl[volumes]'`"
        ) from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # noqa: FBT003 - it takes no name
    return SimpleITK


def _explained(path: Path) -> AbstractContextManager[None]:
    kinds = (RuntimeError, OSError, EOFError, ValueError, zlib.error, struct.error)
    return explained(path, kinds, "damaged or no volume", _reason)


def _orientation(direction: tuple[float, ...], sitk: Any) -> str:
    side = math.isqrt(len(direction))  # 4 where a fourth dimension of length 1 is declared
    cosines = np.reshape(direction, (side, side))[:3, :3]
    return str(sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(cosines.flatten().tolist()))


def _open_file(path: Path, sitk: Any) -> Any:
    name = path.name.lower()
    kind = next((suffix for suffix in reversed(VOLUME_SUFFIXES) if name.endswith(suffix)), None)
    if kind is None:
        raise DataError(f"{path}: is no volume; expected one of {', '.join(VOLUME_SUFFIXES)}")
    check_stored(path, kind)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO({".mha": "MetaImageIO", ".nrrd": "NrrdImageIO"}.get(kind, "NiftiImageIO"))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise DataError(
                f"{path}: its affine is sheared: rows, columns and slices are not at right angles; resample it to a "
                "straight grid first"
            ) from error
        raise
    size, channels = reader.GetSize(), reader.GetNumberOfComponents()
    if len(size) < 3 or any(n > 1 for n in size[3:]) or channels != 1:
        raise DataError(
            f"{path}: has {'x'.join(map(str, size))} voxels with {channels} values each; save the one volume that you "
            "want, with three dimensions and one value"
        )
    return reader


def _read_file(path: Path, sitk: Any) -> Any:
    image = _open_file(path, sitk).Execute()
    further = image.GetDimension() - 3
    return image[(*(slice(None),) * 3, *(0,) * further)] if further else image


def _series_files(path: Path, sitk: Any) -> list[str]:
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path))
    if len(series) != 1:
        raise DataError(f"{path}: holds {len(series)} DICOM series; give a folder with one")
    names = list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path), series[0]))
    known = {Path(name).name for name in names}
    beside = [file for file in sorted(path.iterdir()) if file.name not in known and is_dicom(file)]
    lost = [file for file in beside if without_pixels(file) is None]
    if lost:  # GDCM passes over what it cannot read
        raise DataError(f"{lost[0]}: is damaged, so the series is not complete; export it again")
    return names


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ITK ERROR: ") if lines else type(error).__name__


def _short(numbers: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{n:.4g}" for n in numbers) + ")"
