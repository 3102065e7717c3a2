"""What is in a Keras weight file: layers and arrays in order, and how the file describes its network."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.console import harmless
from flexunet_pl.common.errors import ModelFileError
from flexunet_pl.io.hdf5 import Header, read_hdf5, require_h5py

TIMEOUT_S = 30  # for a small file


@dataclass(frozen=True)
class KerasLayer:
    """A layer with its arrays.

    Attributes:
        name: The layer's name in the file.
        arrays: float32, in Keras' order: kernel and bias, or gamma, beta, mean and variance.
    """

    name: str
    arrays: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True)
class KerasFile:
    """The layers of a Keras file that have arrays, by kind; within a kind they are in the network's order.

    Attributes:
        path: The file.
        convolutions: Kernel ``(kh, kw, in, out)`` and bias each.
        upsamplings: Transposed convolutions, kernel ``(2, 2, out, in)`` and bias each.
        norms: Batch norms, four arrays each.
        description: Class name and settings of each layer, where the file describes its network.
    """

    path: Path
    convolutions: tuple[KerasLayer, ...]
    upsamplings: tuple[KerasLayer, ...]
    norms: tuple[KerasLayer, ...]
    description: tuple[dict[str, Any], ...]


def read_keras_file(path: str | Path) -> KerasFile:
    """Read a ``.h5``, ``.weights.h5`` or ``.keras`` file, arrays only; nothing in it is run or built.

    The HDF5 library works in a child process with limits on time and memory.

    Args:
        path: The file.

    Returns:
        Its layers.

    Raises:
        UserError: If h5py is not installed.
        ModelFileError: If the file is missing, damaged, too large, refers to other files, or holds no such network.
    """
    require_h5py("Keras files")
    target = Path(path)
    header, arrays = read_hdf5(
        "keras", target, error=ModelFileError, seconds=TIMEOUT_S, judge=lambda header: _judge(target, header)
    )
    layers, kinds, rest = [], _judge(target, header), iter(arrays)
    for name, number in header.facts["layers"]:
        layers.append(KerasLayer(harmless(name), tuple(itertools.islice(rest, number))))
        if not all(np.isfinite(array).all() for array in layers[-1].arrays):
            raise ModelFileError(f"{target}: layer `{layers[-1].name}` holds values that are not finite")
    convolutions, upsamplings, norms = (
        tuple(layer for of_layer, layer in zip(kinds, layers, strict=True) if of_layer == kind)
        for kind in ("convolution", "upsampling", "norm")
    )
    return KerasFile(target, convolutions, upsamplings, norms, _describe(target, header.facts["description"]))


def _judge(path: Path, header: Header) -> list[str]:
    """Tell of what kind each layer is, before its arrays are taken.

    Raises:
        ModelFileError: If the file holds other layers than a FlexUNet has.
    """
    shapes = iter(shape for _, shape in header.arrays)
    kinds = [_kind(path, harmless(n), list(itertools.islice(shapes, number))) for n, number in header.facts["layers"]]
    if "convolution" not in kinds:
        raise ModelFileError(f"{path}: holds no convolution, so no FlexUNet")
    return kinds


def _kind(path: Path, name: str, shapes: list[tuple[int, ...]]) -> str:
    """Tell what a layer is by the shapes of its arrays: names differ from build to build.

    Raises:
        ModelFileError: If it is nothing that a FlexUNet has.
    """
    if [len(shape) for shape in shapes] == [4, 1]:
        return "upsampling" if shapes[0][:2] == (2, 2) else "convolution"  # other kernels are odd
    if [len(shape) for shape in shapes] == [1, 1, 1, 1]:
        return "norm"
    raise ModelFileError(
        f"{path}: layer `{name}` has arrays of shapes {', '.join(map(str, shapes))}, which no layer of a FlexUNet has"
    )


def _describe(path: Path, text: str | None) -> tuple[dict[str, Any], ...]:
    """Return class name and settings of each layer from the JSON of a functional model, as plain data.

    Raises:
        ModelFileError: If it is no JSON.
    """
    try:
        model = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: is damaged: {error}") from error
    config = model.get("config") if isinstance(model, dict) else None
    layers = config.get("layers") if isinstance(config, dict) else None
    return tuple(layer for layer in layers or () if isinstance(layer, dict))
