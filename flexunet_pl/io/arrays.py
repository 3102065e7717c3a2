"""Read arrays of voxels without a geometry: .npy, and .h5 in a process of its own."""

import math
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import DataError, UserError, explained
from flexunet_pl.common.files import written_in_place

ARRAY_SUFFIXES = (".npy", ".h5", ".hdf5")
_LARGEST = 1e30  # of a value; twice as much would be too much for what is computed of it
MAX_VALUES = 2_000_000_000  # as many as voxels of a volume

_TIMEOUT_S = 60  # for a small file
_BYTES_PER_S = 20 << 20  # and more for a large one
_CHILD = Path(__file__).with_name("hdf5_array_child.py")


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
    try:
        import h5py  # noqa: F401 - the child needs it
    except ImportError as error:
        raise UserError("HDF5 files are read by h5py, which is missing; `pip install 'flexunet-pl[keras]'`") from error
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    # no plug-ins that a file's filters could name, and no threads that reserve memory
    env = os.environ | {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", str(_CHILD), str(path.absolute()), dataset or ""]
    timeout = _TIMEOUT_S + path.stat().st_size / _BYTES_PER_S
    try:
        done = subprocess.run(command, capture_output=True, env=env, timeout=timeout, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{path}: gave no answer in {timeout:.0f} s; the file is damaged or hostile") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"HDF5 ended with status {done.returncode} on it"
        raise DataError(f"{path}: {said}; export it again or remove it")
    line, _, content = done.stdout.partition(b"\n")
    kind, *numbers = line.decode().split()
    return np.frombuffer(content, dtype=kind).reshape([int(n) for n in numbers])
