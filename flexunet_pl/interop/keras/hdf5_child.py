"""Reads the arrays of a Keras file in a process of its own, because a bad file can hang or crash the HDF5 library.

Run as ``python hdf5_child.py FILE``. Standard output gets one line of JSON, then the arrays as little-endian float32 in
the order of the JSON's ``layers``. No object is built from the file: only names, numbers and arrays leave it.
"""

import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np

MAX_BYTES = 3 << 30  # of all arrays; the widest network of the original family has 2 GiB
MAX_TEXT = 16 << 20  # of the architecture's description
MAX_MEMORY = 4 << 30  # of this process
MAX_CPU_S = 120  # so that it ends even where the parent is gone
SMALL = 1 << 20  # bytes; an array of zeros packs to next to nothing
MAX_RATIO = 100  # of the size of an array or a zip member to its compressed size

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_GROUPS = ("layers", "_layer_checkpoint_dependencies")  # Keras 3, Keras 2.12 and later


class Refused(Exception):  # noqa: N818 - the file is at fault
    """The file is not one that may be read; the message says why."""


def main(path: str) -> None:
    """Write the content of a Keras file to standard output.

    Args:
        path: The file.
    """
    out = sys.stdout.buffer
    try:
        limit_resources()
        with open_model(Path(path)) as (file, description):
            layers = list(find_layers(file))
            described = description if description is not None else _text(file.attrs.get("model_config"))
            header = [[name, [list(a.shape) for a in arrays]] for name, arrays in layers]
            out.write(json.dumps({"layers": header, "description": described}).encode() + b"\n")
            out.flush()  # the parent judges the shapes before it takes the arrays
            for _, arrays in layers:
                for array in arrays:
                    out.write(np.ascontiguousarray(array[()], dtype="<f4").data)
    except Refused as refusal:
        refuse(str(refusal))
    except MemoryError:
        refuse("needs more than 4 GiB of memory to read")
    except Exception as error:  # the library raises a dozen kinds on damaged files
        refuse(f"is damaged: {error}")
    out.flush()


def refuse(reason: str) -> NoReturn:
    """Say on standard error why the file is not read, and end."""
    sys.stderr.write(" ".join(reason.split())[:500])
    sys.exit(1)


def limit_resources() -> None:
    """Limit memory and time of this process, and keep it from writing files; Windows has no such limits."""
    try:
        import resource
    except ImportError:
        return
    for what, limit in (
        (resource.RLIMIT_AS, MAX_MEMORY),
        (resource.RLIMIT_CPU, MAX_CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))


@contextmanager
def open_model(path: Path) -> Iterator[tuple[h5py.File, str | None]]:
    """Open a ``.h5`` or ``.keras`` file for reading.

    Args:
        path: The file.

    Yields:
        The HDF5 file, and the description of the network that a ``.keras`` archive holds beside it.

    Raises:
        Refused: If the file is neither.
    """
    description = None
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "config.json" in archive.namelist():
                description = read_member(archive, "config.json", MAX_TEXT).decode()
            weights = read_member(archive, "model.weights.h5", MAX_BYTES)
        file = h5py.File(h5py.h5f.open_file_image(weights))
    elif is_hdf5(path):
        file = h5py.File(path, "r")
    else:
        raise Refused("is neither an HDF5 file (.h5, .weights.h5) nor a .keras archive")
    with file:
        yield file, description


def is_hdf5(path: Path) -> bool:
    """Tell whether a file begins like HDF5: the library itself would look for a start anywhere."""
    with path.open("rb") as file:
        return file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Read a file of an archive into memory.

    Raises:
        Refused: If it is missing or too large.
    """
    if archive.namelist().count(name) != 1:
        raise Refused(f"is no .keras archive: it must hold one {name}")
    info = archive.getinfo(name)
    if info.file_size > min(limit, max(info.compress_size, 1) * MAX_RATIO):
        raise Refused(f"{name} in it unpacks to {info.file_size} bytes, which is too much")
    content = io.BytesIO()
    with archive.open(info) as member:
        while block := member.read(1 << 20):
            content.write(block)
            if content.tell() > limit:
                raise Refused(f"{name} in it is larger than it says")
    return content.getvalue()


def find_layers(file: h5py.File) -> Iterator[tuple[str, list[h5py.Dataset]]]:
    """Find the layers that have arrays, in their order, and check that the arrays are really in the file.

    Yields:
        Name and arrays of a layer.

    Raises:
        Refused: If the file has another layout, links that lead out of it, or too large arrays.
    """
    total = 0
    for name, arrays in _layers(file):
        for array in arrays:
            check_array(name, array)
            total += array.size * 4
        if total > MAX_BYTES:
            raise Refused(f"declares more than {MAX_BYTES >> 30} GiB of weights")
        if arrays:
            yield name, arrays


def _layers(file: h5py.File) -> Iterator[tuple[str, list[h5py.Dataset]]]:
    group = follow(file, "model_weights") if "model_weights" in file else file
    if "layer_names" in group.attrs or "layer_names0" in group.attrs:
        for name in names_in(group, "layer_names"):
            layer = follow(group, name)
            yield name, [follow(layer, weight) for weight in names_in(layer, "weight_names")]
        return
    for container in _GROUPS:
        if container in file:
            layers = follow(file, container)
            for name in sorted(layers, key=_number):
                variables = follow(layers, f"{name}/vars") if "vars" in follow(layers, name) else {}
                yield name, [follow(variables, key) for key in sorted(variables, key=_number)]
            return
    raise Refused("is HDF5, but holds no weights of a Keras network")


def _number(name: str) -> tuple[str, int]:
    """Sort `conv2d`, `conv2d_2`, `conv2d_10` in that order: the order in which Keras made the layers."""
    match = re.fullmatch(r"(.*?)_?(\d+)", name)
    return (match[1], int(match[2])) if match else (name, -1)


def names_in(group: h5py.Group, attribute: str) -> list[str]:
    """Read a list of names; Keras splits long ones over ``<attribute>0``, ``<attribute>1``, ..."""
    parts = [attribute] if attribute in group.attrs else []
    parts += takewhile(lambda part: part in group.attrs, (f"{attribute}{i}" for i in count()))
    return [_text(name) or "" for part in parts for name in np.atleast_1d(group.attrs[part])]


def follow(group: h5py.Group, name: str) -> Any:
    """Go to a member of a group, by hard links only.

    Raises:
        Refused: If a link on the way is soft or external.
    """
    for part in name.split("/"):
        if part not in group:
            raise Refused(f"names `{name}`, which is not in it")
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise Refused(f"`{name}` is a link; links are not followed")
        group = group[part]
    return group


def check_array(layer: str, array: Any) -> None:
    """Refuse what is no array of floats that lies in this file as a whole.

    Raises:
        Refused: If it is not.
    """
    what = f"layer `{layer}`"
    if not isinstance(array, h5py.Dataset) or array.dtype.kind != "f" or array.shape is None:
        raise Refused(f"{what} holds something else than floating-point arrays")
    if array.external or array.is_virtual:
        raise Refused(f"{what} lies in another file; other files are not read")
    if array.size * 4 > MAX_BYTES:
        raise Refused(f"{what} declares an array of shape {array.shape}, which is too much")
    stored, size = array.id.get_storage_size(), array.size * array.dtype.itemsize
    filtered = array.id.get_create_plist().get_nfilters() > 0
    # what was never stored reads as zeros, without an error
    if size and (stored == 0 or (not filtered and stored < size)):
        raise Refused(f"{what} declares an array of shape {array.shape}, but its values are not in the file")
    if size > max(MAX_RATIO * stored, SMALL):
        raise Refused(f"{what} unpacks from {stored} to {size} bytes, which is too much")


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    return str(value)[:MAX_TEXT] if value is not None else None


if __name__ == "__main__":
    main(sys.argv[1])
