"""Read volumes: NIfTI, MHA, NRRD and DICOM series; whole files only, turned to one orientation."""

import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.errors import DataError, UserError
from flexunet_pl.volume_headers import check_stored

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".nrrd")

_ORIENTATION = "LPS"  # columns run to the patient's left, rows to the back, slices to the head
_GRID_TOLERANCE = 1e-3  # in mm and, for directions, in cosines


class Volume(NamedTuple):
    """A volume as it is looked at: axial slices from the feet up, the patient's right at the left of the picture.

    Attributes:
        values: Shape ``(D, H, W)``, of the file's type after its own rescaling, such as HU.
        spacing_mm: Distances between columns, rows and slices.
        origin_mm: Position of the first voxel.
        direction: Direction cosines, row by row; an oblique volume is turned by whole quarters, never resampled.
    """

    values: NDArray[Any]
    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]
    direction: tuple[float, ...]


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
    try:
        image = sitk.DICOMOrient(_read_series(path, sitk) if path.is_dir() else _read_file(path, sitk), _ORIENTATION)
        values = sitk.GetArrayFromImage(image)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (RuntimeError, OSError, EOFError, ValueError, zlib.error, struct.error) as error:
        raise DataError(f"{path}: damaged or no volume ({_reason(error)}); export it again or remove it") from error
    numbers = (*image.GetDirection(), *image.GetOrigin(), *image.GetSpacing())
    if not np.isfinite(numbers).all() or abs(np.linalg.det(np.reshape(image.GetDirection(), (3, 3)))) < 0.5:
        raise DataError(f"{path}: its affine is not finite or not invertible; mend its header")
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise DataError(f"{path}: {bad} of {values.size} voxels are not finite numbers; export it again")
    return Volume(values, image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def check_same_grid(path: Path, mask: Volume, image: Volume) -> None:
    """Check that a mask has a voxel for each of its image, in the same place.

    Args:
        path: The mask's file.
        mask: The mask.
        image: The image.

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


def _simpleitk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise UserError(
            "volumes are read by SimpleITK, which is missing; `pip install 'flexunet-pl[volumes]'`"
        ) from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # noqa: FBT003 - it takes no name
    return SimpleITK


def _read_file(path: Path, sitk: Any) -> Any:
    name = path.name.lower()
    kind = next((suffix for suffix in reversed(VOLUME_SUFFIXES) if name.endswith(suffix)), None)
    if kind is None:
        raise DataError(f"{path}: is no volume; expected one of {', '.join(VOLUME_SUFFIXES)}")
    check_stored(path, kind)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO({".mha": "MetaImageIO", ".nrrd": "NrrdImageIO"}.get(kind, "NiftiImageIO"))
    reader.ReadImageInformation()
    size, channels = reader.GetSize(), reader.GetNumberOfComponents()
    if len(size) < 3 or any(n > 1 for n in size[3:]) or channels != 1:
        raise DataError(
            f"{path}: has {'x'.join(map(str, size))} voxels with {channels} values each; save the one volume that you "
            "want, with three dimensions and one value"
        )
    image = reader.Execute()
    return image if len(size) == 3 else image[(*(slice(None),) * 3, *(0,) * (len(size) - 3))]


def _read_series(path: Path, sitk: Any) -> Any:
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path))
    if len(series) != 1:
        raise DataError(f"{path}: holds {len(series)} DICOM series; give a folder with one")
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path), series[0]))
    reader.MetaDataDictionaryArrayUpdateOn()
    image = reader.Execute()
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(f"{path}: has {image.GetNumberOfComponentsPerPixel()} values per voxel; expected one")
    places = [reader.GetMetaData(i, "0020|0032").split("\\") for i in range(image.GetDepth())]
    steps = np.linalg.norm(np.diff(np.asarray(places, dtype=float), axis=0), axis=1)
    if len(steps) and steps.max() > 1.1 * steps.min():  # SimpleITK would close the gap and say nothing
        at = int(steps.argmax())
        raise DataError(
            f"{path}: slices {at} and {at + 1} lie {steps[at]:.2f} mm apart and others {steps.min():.2f}; "
            "the series is not complete"
        )
    return image


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ITK ERROR: ") if lines else type(error).__name__


def _short(numbers: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{n:.4g}" for n in numbers) + ")"
