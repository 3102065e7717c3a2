"""The two affines of a NIfTI file, sform and qform, where they do not agree: SimpleITK knows one of them."""

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_CODES, _ROTATION, _ROWS, _PIXDIM = 252, 256, 280, 76  # offsets in a NIfTI-1 header
_SAME_MM = 1e-2


@dataclass(frozen=True)
class NiftiForms:
    """Both affines as the header holds them.

    Attributes:
        codes: Of qform and sform: 0 where it is not set.
        qfac: Sign of the third axis.
        rotation: Quaternion and offset of the qform.
        rows: Rows of the sform, 12 numbers.
    """

    codes: tuple[int, int]
    qfac: float
    rotation: tuple[float, ...]
    rows: tuple[float, ...]


def read_forms(path: Path) -> NiftiForms | None:
    """Read the affines of a NIfTI-1 file whose sform and qform disagree.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file that `check_stored` has found whole.

    Returns:
        Both; None where one of them is not set, or they agree.
    """
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        head = file.read(348)
    order = next((o for o in "<>" if struct.unpack_from(f"{o}i", head)[0] == 348), None)
    if order is None:
        return None
    pixdim = struct.unpack_from(f"{order}4f", head, _PIXDIM)
    codes = struct.unpack_from(f"{order}2h", head, _CODES)
    rotation = struct.unpack_from(f"{order}6f", head, _ROTATION)
    rows = struct.unpack_from(f"{order}12f", head, _ROWS)
    size = struct.unpack_from(f"{order}3h", head, 42)
    if min(codes) <= 0:
        return None
    corners = np.array([[i, j, k, 1] for i in (0, size[0]) for j in (0, size[1]) for k in (0, size[2])], dtype=float)
    off = corners @ (np.reshape(rows, (3, 4)) - _qform(pixdim, rotation)).T
    if np.abs(off).max() < _SAME_MM:
        return None
    return NiftiForms((codes[0], codes[1]), -1.0 if pixdim[0] < 0 else 1.0, rotation, rows)


def put_forms(path: Path, forms: NiftiForms) -> None:
    """Write both affines into a ``.nii.gz`` file.

    Args:
        path: The file, NIfTI-1 and little-endian, as SimpleITK writes it.
        forms: The affines.
    """
    with gzip.open(path) as file:
        content = bytearray(file.read())
    struct.pack_into("<f", content, _PIXDIM, forms.qfac)
    struct.pack_into("<2h", content, _CODES, *forms.codes)
    struct.pack_into("<6f", content, _ROTATION, *forms.rotation)
    struct.pack_into("<12f", content, _ROWS, *forms.rows)
    with gzip.open(path, "wb") as file:
        file.write(content)


def _qform(pixdim: tuple[float, ...], rotation: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the qform as three rows of an affine; see the NIfTI-1 standard, method 2."""
    b, c, d, *offset = rotation
    a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    turn = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip
    steps = np.array([pixdim[1], pixdim[2], pixdim[3] * (-1.0 if pixdim[0] < 0 else 1.0)])
    return np.column_stack([turn * steps, offset])
