"""Volumes of any kind, turned to one orientation, and labels written back to where the volume lies."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import DataError, explained
from flexunet_pl.common.files import written_in_place
from flexunet_pl.io.dicom_folder import is_dicom
from flexunet_pl.io.dicom_series import find_series
from flexunet_pl.io.volume_files import StoredVolume, open_volume_file, require, volume_suffix

_ORIENTATION = "LPS"  # columns run to the patient's left, rows to the back, slices to the head
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_GRID_TOLERANCE = 1e-3  # in mm and, for directions, in cosines
# of a NIfTI header: what says where the voxels lie
_NIFTI_PLACE = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip


@dataclass(frozen=True)
class Volume:
    """A volume as it is looked at: axial slices from the feet up, the patient's right at the left of the picture.

    It is turned by whole quarters, never resampled: an oblique or sheared one stays what it is.

    Attributes:
        values: Shape ``(D, H, W)``, of the file's type after its own rescaling, such as HU.
        stored: The volume as its file has it; None for one without a geometry, whose voxels are 1 mm.
    """

    values: NDArray[Any]
    stored: StoredVolume | None = None

    @property
    def affine(self) -> NDArray[np.float64]:
        """From column, row and slice of the values to mm to the left, to the back and to the head, ``(4, 4)``."""
        if self.stored is None:
            return np.eye(4)
        orientations = require("nibabel").orientations
        turned = orientations.inv_ornt_aff(_turn(self.stored.affine), self.stored.shape)
        affine: NDArray[np.float64] = _TO_RAS @ self.stored.affine @ turned
        return affine

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distances between columns, rows and slices."""
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())

    @property
    def origin_mm(self) -> tuple[float, ...]:
        """Position of the first voxel."""
        return tuple(self.affine[:3, 3].tolist())

    @property
    def direction(self) -> tuple[float, ...]:
        """Direction cosines, row by row."""
        return tuple((self.affine[:3, :3] / self.spacing_mm).ravel().tolist())

    @property
    def forms_disagree(self) -> bool:
        """Whether it is a NIfTI file in which sform and qform say that it lies at different places."""
        if self.stored is None or self.stored.header is None:
            return False
        header = self.stored.header
        if min(int(header["sform_code"]), int(header["qform_code"])) <= 0:
            return False
        corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (*self.stored.shape, 1)
        off = corners @ (header.get_sform() - header.get_qform()).T
        return bool(np.abs(off).max() > 10 * _GRID_TOLERANCE)


def read_volume(path: Path) -> Volume:
    """Read a volume.

    Args:
        path: A file that ends in one of `VOLUME_SUFFIXES`, a DICOM file of several frames, or a folder with one DICOM
            series.

    Returns:
        The volume.

    Raises:
        DataError: If it is missing, damaged, cut short or of a kind that is not read; the message begins with the path.
        UserError: If the library that reads it is not installed.
    """
    _check_name(path)
    with _explained(path):
        stored = _open(path)
        values = stored.read()
        turned = require("nibabel").orientations.apply_orientation(values, _turn(stored.affine)).transpose(2, 1, 0)
    bad = 0 if values.dtype.kind in "iub" else values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise DataError(f"{path}: {bad} of {values.size} voxels are not finite numbers; export it again")
    return Volume(turned, stored)


def read_volume_shape(path: Path) -> tuple[int, int, int]:
    """Read from its header alone how many slices, rows and columns `read_volume` will give.

    Args:
        path: As for `read_volume`.

    Returns:
        The shape ``(D, H, W)``.

    Raises:
        DataError: If the header cannot be read.
        UserError: If the library that reads it is not installed.
    """
    _check_name(path)
    with _explained(path):
        stored = _open(path)
        columns, rows, slices = (stored.shape[int(axis)] for axis in np.argsort(_turn(stored.affine)[:, 0]))
    return slices, rows, columns


def write_volume(path: Path, values: NDArray[Any], like: Volume) -> None:
    """Write a NIfTI file that lies where the file of another volume lies, voxel on voxel.

    Args:
        path: The file, ending in ``.nii.gz``.
        values: Shape ``(D, H, W)``, as `read_volume` turns it.
        like: The volume whose grid it has.
    """
    nibabel = require("nibabel")
    stored = like.stored
    affine = stored.affine if stored is not None else _TO_RAS
    header = stored.header if stored is not None else None
    if header is None:
        image = nibabel.Nifti1Image(to_file_order(values, like), affine)
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        if not np.allclose(image.get_qform(), affine, atol=_GRID_TOLERANCE):  # it cannot say a shear
            image.header["qform_code"] = 0
        image.header.set_xyzt_units("mm")
    else:
        image = nibabel.Nifti1Image(to_file_order(values, like), header.get_best_affine())
        for field in _NIFTI_PLACE:
            image.header[field] = header[field]
        image.header["pixdim"][:4] = header["pixdim"][:4]
    with written_in_place(path, suffix=".nii.gz") as temporary:
        nibabel.save(image, temporary)


def to_file_order(values: NDArray[Any], like: Volume) -> NDArray[Any]:
    """Turn values back to the order of columns, rows and slices that the volume has in its file.

    Args:
        values: Shape ``(D, H, W)``, as `read_volume` turns it.
        like: The volume whose grid it has.

    Returns:
        Shape ``(columns, rows, slices)``.
    """
    swapped = values.transpose(2, 1, 0)
    if like.stored is None:
        return swapped
    orientations = require("nibabel").orientations
    there = orientations.axcodes2ornt(tuple(_ORIENTATION))
    back = orientations.ornt_transform(there, orientations.io_orientation(like.stored.affine))
    turned: NDArray[Any] = orientations.apply_orientation(swapped, back)
    return turned


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


def _open(path: Path) -> StoredVolume:
    """Open a volume and see that it lies somewhere.

    Raises:
        DataError: If its affine is not finite, or flat.
    """
    if path.is_dir() or (volume_suffix(path) is None and is_dicom(path)):
        series = find_series(path)
        stored = StoredVolume(series.shape, _TO_RAS @ series.affine, series.read)
    else:
        stored = open_volume_file(path)
    axes = stored.affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(stored.affine).all() or lengths.min() <= 0 or abs(np.linalg.det(axes / lengths)) < 1e-2:
        raise DataError(f"{path}: its affine is not finite or not invertible; correct its header")
    return stored


def _turn(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return nibabel's description of how the axes of a file are turned to ours."""
    orientations = require("nibabel").orientations
    there = orientations.axcodes2ornt(tuple(_ORIENTATION))
    turn: NDArray[np.float64] = orientations.ornt_transform(orientations.io_orientation(affine), there)
    return turn


def _check_name(path: Path) -> None:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:  # SimpleITK would end the process
        raise DataError(f"{path}: its name is not in UTF-8; rename it") from error


def _explained(path: Path) -> AbstractContextManager[None]:
    return explained(path, (Exception,), "damaged or no volume", _reason)  # every library has kinds of its own


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ITK ERROR: ") if lines else type(error).__name__


def _short(numbers: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{n:.4g}" for n in numbers) + ")"
