"""One array of three dimensions in an HDF5 file; works in the process of `flexunet_pl.io.hdf5_child`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from flexunet_pl.io.hdf5_child import Found, Refused, check_stored, follow, is_hdf5

MAX_MEMORY = 12 << 30  # 2e9 values of 4 bytes, and as much again for what unpacks them
MAX_VALUES = 2_000_000_000
_MAX_BYTES = 8 * MAX_VALUES
_MAX_RATIO = 200


@contextmanager
def read(path: Path, name: str) -> Iterator[Found]:
    """Find the array.

    Args:
        path: The file.
        name: Path of the array in it; empty for the only one of three dimensions.

    Yields:
        No facts, and the array.

    Raises:
        Refused: If there is no such array.
    """
    if not is_hdf5(path):
        raise Refused("is no HDF5 file")
    with h5py.File(path) as file:
        key, array = _find(file, name)
        if not isinstance(array, h5py.Dataset) or array.ndim != 3 or array.dtype.kind not in "biuf":
            raise Refused(f"`{key}` is no array of numbers in three dimensions")
        if not 0 < array.size <= MAX_VALUES:
            raise Refused(f"`{key}` declares {array.size} values; refused unread")
        check_stored(array, f"`{key}`", _MAX_BYTES, _MAX_RATIO)
        yield {}, [(array, None)]


def _find(file: h5py.File, name: str) -> tuple[str, Any]:
    if name:
        return name, follow(file, name)
    here = {key: file[key] for key in file if isinstance(file.get(key, getlink=True), h5py.HardLink)}
    found = {key: item for key, item in here.items() if isinstance(item, h5py.Dataset) and item.ndim == 3}
    if len(found) != 1:
        raise Refused(f"holds {len(found)} arrays of three dimensions at its top; name one as data.volume.dataset")
    return next(iter(found.items()))
