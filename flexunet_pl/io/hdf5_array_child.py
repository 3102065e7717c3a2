"""Reads one array of an HDF5 file in a process of its own, because a bad file can hang or crash the library.

Run as ``python hdf5_array_child.py FILE [DATASET]``. Standard output gets a line with type and shape, then the values.
"""

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

MAX_MEMORY = 12 << 30  # of this process: 2e9 values of 4 bytes, and as much again for what unpacks them
MAX_CPU_S = 600
MAX_VALUES = 2_000_000_000
SMALL = 1 << 20  # bytes; an array of zeros packs to next to nothing
MAX_RATIO = 200  # of the size of an array to that in the file


def main(path: str, name: str) -> None:
    """Write an array to standard output.

    Args:
        path: The file.
        name: Path of the array in it; empty for the only one of three dimensions.
    """
    _limit_resources()
    try:
        values = _read(path, name)
    except MemoryError:
        sys.exit("needs too much memory to read")
    except Exception as error:  # the library raises a dozen kinds on damaged files
        sys.exit(" ".join(str(error).split())[:500] or "is damaged")
    out = sys.stdout.buffer
    out.write(f"{values.dtype.str} {' '.join(map(str, values.shape))}\n".encode())
    out.write(values.data)
    out.flush()


def _read(path: str, name: str) -> Any:
    with Path(path).open("rb") as start:  # the library itself would look for a start anywhere
        if start.read(8) != b"\x89HDF\r\n\x1a\n":
            raise ValueError("is no HDF5 file")
    with h5py.File(path, "r") as file:
        return np.ascontiguousarray(_find(file, name)[()])


def _find(file: h5py.File, name: str) -> Any:
    if name:
        found = {name: _follow(file, name)}
    else:
        found = {key: file[key] for key in file if isinstance(file.get(key, getlink=True), h5py.HardLink)}
        found = {key: item for key, item in found.items() if isinstance(item, h5py.Dataset) and item.ndim == 3}
    if len(found) != 1:
        raise ValueError(f"holds {len(found)} arrays of three dimensions at its top; name one as data.volume.dataset")
    ((key, array),) = found.items()
    if not isinstance(array, h5py.Dataset) or array.ndim != 3 or array.dtype.kind not in "biuf":
        raise ValueError(f"`{key}` is no array of numbers in three dimensions")
    if array.is_virtual or array.external:
        raise ValueError(f"`{key}` keeps its values in another file")
    size, stored = array.size * array.dtype.itemsize, array.id.get_storage_size()
    if not array.size or array.size > MAX_VALUES or size > max(SMALL, stored * MAX_RATIO):
        raise ValueError(f"`{key}` declares {array.size} values, of which {stored} bytes are stored; refused unread")
    return array


def _follow(file: h5py.File, name: str) -> Any:
    item: Any = file
    for part in name.strip("/").split("/"):
        is_there = isinstance(item, h5py.Group) and isinstance(item.get(part, getlink=True), h5py.HardLink)
        if not is_there:
            raise ValueError(f"has no `{name}`; links are not followed")
        item = item[part]
    return item


def _limit_resources() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    for what, limit in ((resource.RLIMIT_AS, MAX_MEMORY), (resource.RLIMIT_CPU, MAX_CPU_S), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(what, (limit, limit))


if __name__ == "__main__":
    main(*sys.argv[1:3])
