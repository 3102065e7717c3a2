"""Volumes in a file, or in a header with its voxels beside it: opened by nibabel or SimpleITK if they are whole."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.io.volume_headers import check_stored

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".mgz", ".mgh", ".hdr")
VOXELS_OF = {".img": ".hdr", ".img.gz": ".hdr", ".raw": ".mhd", ".zraw": ".mhd"}  # and the suffix of their header

_BY_SIMPLEITK = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".nrrd": "NrrdImageIO"}
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from left, back and head to right, front and head


@dataclass(frozen=True)
class StoredVolume:
    """A volume as its file has it.

    Attributes:
        shape: Columns, rows and slices.
        affine: From column, row and slice to mm to the right, to the front and to the head; it may be sheared.
        read: Reads the voxels, of that shape.
        header: That of a NIfTI file, which may have two affines.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    read: Callable[[], NDArray[Any]]
    header: Any = None


def open_volume_file(path: Path) -> StoredVolume:
    """Open a volume; its header alone is read, and its voxels are counted.

    Args:
        path: A file that ends in one of `VOLUME_SUFFIXES`.

    Returns:
        The volume.

    Raises:
        DataError: If it is cut short, declares absurd sizes, or is no single volume of one value a voxel.
        UserError: If nibabel or SimpleITK is not installed.
    """
    kind = volume_suffix(path)
    if kind is None:
        raise DataError(f"{path}: is no volume; expected one of {', '.join(VOLUME_SUFFIXES)}")
    check_stored(path, kind)
    return _open_by_simpleitk(path, kind) if kind in _BY_SIMPLEITK else _open_by_nibabel(path)


def volume_suffix(path: Path) -> str | None:
    """Return the suffix by which a file is a volume, in lower case; None for other files."""
    name = path.name.lower()
    return max((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)), key=len, default=None)


def holds_voxels_of(path: Path) -> Path | None:
    """Return the header beside a file that holds the voxels of a volume; None for other files."""
    for suffix, header in VOXELS_OF.items():
        beside = path.with_name(path.name[: -len(suffix)] + header)
        if path.name.lower().endswith(suffix) and beside.is_file():
            return beside
    return None


def require(module: str) -> Any:
    """Import a library that reads volumes.

    Args:
        module: Its name.

    Returns:
        The library.

    Raises:
        UserError: If it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"volumes are read by {module}, which is missing; `pip install 'flexunet-pl[volumes]'`"
        ) from error


def _open_by_nibabel(path: Path) -> StoredVolume:
    nibabel = require("nibabel")
    image = nibabel.load(path, mmap=False)  # a file that shrinks while it is mapped would end the process
    kind = image.get_data_dtype()
    if kind.names is None and kind.kind not in "iuf":
        raise DataError(f"{path}: has voxels of type {kind}; save it with whole numbers or floats")
    _check_one_volume(path, image.shape, 1 if kind.names is None else len(kind.names))
    header = image.header if hasattr(image.header, "get_sform") else None
    units = header.get_xyzt_units()[0] if header is not None else "mm"
    scale = np.diag([{"meter": 1000.0, "micron": 0.001}.get(units, 1.0)] * 3 + [1.0])
    return StoredVolume(image.shape[:3], scale @ image.affine, lambda: _voxels(image), header)


def _voxels(image: Any) -> NDArray[Any]:
    proxy = image.dataobj
    plain = proxy.slope in {1.0, None} and proxy.inter in {0.0, None}
    values = np.asarray(proxy.get_unscaled() if plain else image.get_fdata(dtype=np.float32, caching="unchanged"))
    return values.reshape(image.shape[:3])


def _open_by_simpleitk(path: Path, kind: str) -> StoredVolume:
    sitk = require("SimpleITK")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # noqa: FBT003 - it takes no name
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(_BY_SIMPLEITK[kind])
    reader.ReadImageInformation()
    size = reader.GetSize()
    _check_one_volume(path, size, reader.GetNumberOfComponents())
    count = len(size)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (count, count))[:3, :3] * reader.GetSpacing()[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]

    def read() -> NDArray[Any]:
        values: NDArray[Any] = sitk.GetArrayFromImage(reader.Execute())
        return values.reshape(values.shape[-3:]).transpose(2, 1, 0)

    return StoredVolume((size[0], size[1], size[2]), _TO_RAS @ affine, read)


def _check_one_volume(path: Path, size: tuple[int, ...], values: int) -> None:
    if len(size) < 3 or any(n > 1 for n in size[3:]) or values != 1:
        raise DataError(
            f"{path}: has {'x'.join(map(str, size))} voxels with {values} values each; save the one volume that you "
            "want, with three dimensions and one value"
        )
