"""The process in which the HDF5 library works, because a bad file can hang or crash it.

Run as ``python -m flexunet_pl.io.hdf5_child LAYOUT FILE [NAME]``. A layout is a function that finds arrays in an open
file; standard output gets a line of JSON with what it says of them and with their types and shapes, then their values.
No object is built from the file: only names, numbers and arrays leave it.
"""

import io
import json
import sys
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np

MAX_CPU_S = 600  # so that it ends even where the parent is gone
SMALL = 1 << 20  # bytes; an array of zeros packs to next to nothing

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LAYOUTS = {"array": "flexunet_pl.io.hdf5_array", "keras": "flexunet_pl.interop.keras.layout"}

# what a layout gives: plain facts, and the arrays with the type to which each is converted, or None
Found = tuple[dict[str, Any], list[tuple[h5py.Dataset, str | None]]]


class Refused(Exception):  # noqa: N818 - the file is at fault
    """The file is not one that may be read; the message says why."""


def main(layout: str, path: str, *options: str) -> None:
    """Write the arrays of a file to standard output, or end with status 1 and the reason on standard error.

    Args:
        layout: One of `_LAYOUTS`: a module with a function ``read(path, *options)``, which gives a context with what
            was `Found`, and with ``MAX_MEMORY``, bytes that this process may take.
        path: The file.
        options: Handed to it.
    """
    module = import_module(_LAYOUTS[layout])
    out = sys.stdout.buffer
    try:
        _limit_resources(module.MAX_MEMORY)
        with module.read(Path(path), *options) as (facts, arrays):
            kinds = [(np.dtype(kind or array.dtype).newbyteorder("<").str, array.shape) for array, kind in arrays]
            out.write(json.dumps({"facts": facts, "arrays": kinds}).encode() + b"\n")
            out.flush()  # the parent judges the shapes before it takes the arrays
            for (array, _), (kind, _) in zip(arrays, kinds, strict=True):
                out.write(np.ascontiguousarray(array[()], dtype=kind).data)
        out.flush()
    except Refused as refusal:
        _refuse(str(refusal))
    except MemoryError:
        _refuse(f"needs more than {module.MAX_MEMORY >> 30} GiB of memory to read")
    except Exception as error:  # the library raises a dozen kinds on damaged files
        _refuse(f"is damaged: {error}")


def _refuse(reason: str) -> None:
    sys.stderr.write(" ".join(reason.split())[:500])
    sys.exit(1)


def _limit_resources(memory: int) -> None:
    """Limit memory and time of this process, and keep it from writing files; Windows has no such limits."""
    try:
        import resource
    except ImportError:
        return
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, MAX_CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))


def is_hdf5(path: Path) -> bool:
    """Tell whether a file begins like HDF5: the library itself would look for a start anywhere."""
    with path.open("rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE


def read_member(archive: zipfile.ZipFile, name: str, limit: int, ratio: int) -> bytes:
    """Read a file of an archive into memory.

    Args:
        archive: The archive.
        name: Of the file.
        limit: Most bytes.
        ratio: Most times that it may be larger than its packed form.

    Returns:
        Its content.

    Raises:
        Refused: If it is missing or too large.
    """
    if archive.namelist().count(name) != 1:
        raise Refused(f"is no .keras archive: it must hold one {name}")
    info = archive.getinfo(name)
    if info.file_size > min(limit, max(info.compress_size, 1) * ratio):
        raise Refused(f"{name} in it unpacks to {info.file_size} bytes, which is too much")
    content = io.BytesIO()
    with archive.open(info) as member:
        while block := member.read(1 << 20):
            content.write(block)
            if content.tell() > limit:
                raise Refused(f"{name} in it is larger than it says")
    return content.getvalue()


def follow(group: Any, name: str) -> Any:
    """Go to a member of a group, by hard links only.

    Args:
        group: The group.
        name: Names on the way, joined by ``/``.

    Returns:
        The member.

    Raises:
        Refused: If it is not there, or a link on the way is soft or external.
    """
    for part in name.strip("/").split("/"):
        if not isinstance(group, h5py.Group) or part not in group:
            raise Refused(f"names `{name}`, which is not in it")
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise Refused(f"`{name}` is a link; links are not followed")
        group = group[part]
    return group


def check_stored(array: h5py.Dataset, what: str, max_bytes: int, ratio: int) -> None:
    """Refuse an array that does not lie in the file, or is much larger than what is stored of it.

    Args:
        array: The array.
        what: Its name, for the message.
        max_bytes: Most bytes.
        ratio: Most times that it may be larger than what is stored.

    Raises:
        Refused: If it is such an array.
    """
    if array.external or array.is_virtual:
        raise Refused(f"{what} lies in another file; other files are not read")
    stored, size = array.id.get_storage_size(), array.size * array.dtype.itemsize
    if size > max_bytes:
        raise Refused(f"{what} declares an array of shape {array.shape}, which is too much; refused unread")
    if size > max(ratio * stored, SMALL):
        raise Refused(f"{what} unpacks from {stored} to {size} bytes, which is too much; refused unread")


if __name__ == "__main__":
    import_module("flexunet_pl.io.hdf5_child").main(*sys.argv[1:])  # the layouts import the module by this name
