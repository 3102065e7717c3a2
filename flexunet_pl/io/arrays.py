"""Read arrays of voxels without a geometry: .npy, and .h5 in a process of its own."""

import math
from contextlib import AbstractContextManager
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import DataError, explained
from flexunet_pl.common.files import written_in_place
from flexunet_pl.io.hdf5 import read_hdf5, require_h5py

ARRAY_SUFFIXES = (".npy", ".h5", ".hdf5")
_LARGEST = 1e30  # of a value; twice as much would be too much for what is computed of it
MAX_VALUES = 2_000_000_000  # as many as voxels of a volume

_TIMEOUT_S = 60  # of a small HDF5 file


def read_array(path: Path, dataset: str | None = None) -> NDArray[Any]:
    """Read an array of three dimensions.

    Args:
        path: A ``.npy``, ``.h5`` or ``.hdf5`` file.
        dataset: Path of the array in an HDF5 file; by default the only one of three dimensions.

    Returns:
        The array as it is stored: finite numbers.

    Raises:
        DataError: If it is missing, damaged, too large, or not an array of three dimensions of numbers.
        UserError: If h5py is not installed.
    """
    array = _read_npy(path) if path.suffix.lower() == ".npy" else _read_hdf5(path, dataset)
    bad = array.size - int(np.count_nonzero(np.abs(array.astype(np.float64, copy=False)) < _LARGEST))
    if bad:
        raise DataError(f"{path}: {bad} of {array.size} values are not finite, or beyond {_LARGEST:g}; export it again")
    return array


def read_array_shape(path: Path, dataset: str | None = None) -> tuple[int, ...]:
    """Read the shape of what `read_array` gives; of a ``.npy`` file from its header alone.

    Args:
        path: The file.
        dataset: As for `read_array`.

    Returns:
        The shape.

    Raises:
        DataError: If it cannot be read.
    """
    if path.suffix.lower() == ".npy":
        with _explained(path), path.open("rb") as file:
            return _read_header(path, file)
    return _read_hdf5(path, dataset).shape


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a ``.npy`` file.

    Args:
        path: The file.
        array: The array.
    """
    with written_in_place(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _read_npy(path: Path) -> NDArray[Any]:
    with _explained(path), path.open("rb") as file:
        _read_header(path, file)
        file.seek(0)
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _read_header(path: Path, file: BinaryIO) -> tuple[int, ...]:
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    if dtype.kind not in "biuf" or len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MAX_VALUES:
        raise DataError(
            f"{path}: holds an array of shape {shape} and type {dtype}; expected numbers in three dimensions, at most "
            f"{MAX_VALUES:.0e} of them"
        )
    if path.stat().st_size - file.tell() < math.prod(shape) * dtype.itemsize:
        raise DataError(f"{path}: cut short; copy or export it again")
    return tuple(shape)


def _explained(path: Path) -> AbstractContextManager[None]:
    # numpy's parser of headers raises what Python's tokenizer and parser do
    kinds = (ValueError, EOFError, SyntaxError, TypeError, TokenError, OverflowError, RecursionError, MemoryError)
    return explained(path, kinds, "is no readable .npy file", lambda error: " ".join(str(error).split())[:200])


def _read_hdf5(path: Path, dataset: str | None) -> NDArray[Any]:
    require_h5py("HDF5 files")
    _, (array,) = read_hdf5("array", path, dataset or "", error=DataError, seconds=_TIMEOUT_S)
    return array
