"""The layers of a Keras file; works in the process of `flexunet_pl.io.hdf5_child`."""

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from flexunet_pl.io.hdf5_child import Found, Refused, check_stored, follow, is_hdf5, read_member

MAX_MEMORY = 4 << 30

_MAX_BYTES = 3 << 30  # of all arrays; the widest network of the original family has 2 GiB
_MAX_TEXT = 16 << 20  # of the architecture's description
_MAX_RATIO = 100
_GROUPS = ("layers", "_layer_checkpoint_dependencies")  # Keras 3, Keras 2.12 and later


@contextmanager
def read(path: Path) -> Iterator[Found]:
    """Find the layers that have arrays, in their order.

    Args:
        path: A ``.h5`` or ``.weights.h5`` file or a ``.keras`` archive.

    Yields:
        Name and number of arrays of each layer, the description of the network where there is one, and the arrays.

    Raises:
        Refused: If the file has another layout, links that lead out of it, or too large arrays.
    """
    with _open_model(path) as (file, description):
        layers = [(name, arrays) for name, arrays in _layers(file) if arrays]
        for name, arrays in layers:
            for array in arrays:
                _check_array(f"layer `{name}`", array)
        if sum(array.size * 4 for _, arrays in layers for array in arrays) > _MAX_BYTES:
            raise Refused(f"declares more than {_MAX_BYTES >> 30} GiB of weights")
        described = description if description is not None else _text(file.attrs.get("model_config"))
        facts = {"layers": [(name, len(arrays)) for name, arrays in layers], "description": described}
        yield facts, [(array, "<f4") for _, arrays in layers for array in arrays]


@contextmanager
def _open_model(path: Path) -> Iterator[tuple[h5py.File, str | None]]:
    """Open the HDF5 file, which in an archive is a member, with the description beside it.

    Raises:
        Refused: If the file is neither.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            described = "config.json" in archive.namelist()
            text = read_member(archive, "config.json", _MAX_TEXT, _MAX_RATIO).decode() if described else None
            weights = read_member(archive, "model.weights.h5", _MAX_BYTES, _MAX_RATIO)
        with h5py.File(h5py.h5f.open_file_image(weights)) as file:
            yield file, text
        return
    if not is_hdf5(path):
        raise Refused("is neither an HDF5 file (.h5, .weights.h5) nor a .keras archive")
    with h5py.File(path) as file:
        yield file, None


def _check_array(what: str, array: Any) -> None:
    if not isinstance(array, h5py.Dataset) or array.dtype.kind != "f" or array.shape is None:
        raise Refused(f"{what} holds something else than floating-point arrays")
    check_stored(array, what, _MAX_BYTES, _MAX_RATIO)
    stored, size = array.id.get_storage_size(), array.size * array.dtype.itemsize
    filtered = array.id.get_create_plist().get_nfilters() > 0
    # what was never stored reads as zeros, without an error
    if size and (stored == 0 or (not filtered and stored < size)):
        raise Refused(f"{what} declares an array of shape {array.shape}, but its values are not in the file")


def _layers(file: h5py.File) -> Iterator[tuple[str, list[h5py.Dataset]]]:
    group = follow(file, "model_weights") if "model_weights" in file else file
    if "layer_names" in group.attrs or "layer_names0" in group.attrs:
        for name in _names_in(group, "layer_names"):
            layer = follow(group, name)
            yield name, [follow(layer, weight) for weight in _names_in(layer, "weight_names")]
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


def _names_in(group: h5py.Group, attribute: str) -> list[str]:
    """Read a list of names; Keras splits long ones over ``<attribute>0``, ``<attribute>1``, ..."""
    parts = [attribute] if attribute in group.attrs else []
    parts += takewhile(lambda part: part in group.attrs, (f"{attribute}{i}" for i in count()))
    return [_text(name) or "" for part in parts for name in np.atleast_1d(group.attrs[part])]


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    return str(value)[:_MAX_TEXT] if value is not None else None
