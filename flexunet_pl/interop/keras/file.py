"""What is in a Keras weight file: layers and arrays in order, and how the file describes its network."""

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.console import harmless
from flexunet_pl.common.errors import ModelFileError, UserError

TIMEOUT_S = 30  # for a small file
_BYTES_PER_S = 20 << 20  # and more for a large one, on a slow disk

_MAX_HEADER = 64 << 20  # bytes; the description is at most 16 MiB
_READER = Path(__file__).with_name("hdf5_child.py")


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


def require_h5py() -> None:
    """Check that h5py is installed.

    Raises:
        UserError: If it is not.
    """
    if importlib.util.find_spec("h5py") is None:
        raise UserError("Keras files need h5py, which is not installed: pip install 'flexunet-pl[keras]'")


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
    require_h5py()
    target = Path(path)
    if not target.is_file():
        raise ModelFileError(f"{target}: {'is no file' if target.exists() else 'no such file'}")
    # no plug-ins that a file's filters could name, and no threads that reserve memory
    env = os.environ | {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", str(_READER), str(target.absolute())]
    timeout = TIMEOUT_S + target.stat().st_size / _BYTES_PER_S
    began = time.monotonic()
    # our own script, and the path is an argument of its own
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as child:  # noqa: S603
        watch = Timer(timeout, child.kill)
        watch.start()
        try:
            file = _receive(target, cast("BinaryIO", child.stdout))
        finally:
            watch.cancel()
            if sys.exc_info()[0] is not None:
                child.kill()
        said = cast("BinaryIO", child.stderr).read().decode(errors="replace")
    if file is not None:
        return file
    if time.monotonic() - began >= timeout:
        raise ModelFileError(f"{target}: gave no answer in {timeout:.0f} s; the file is damaged or hostile")
    if child.returncode == 1:
        raise ModelFileError(f"{target}: {said}")
    raise ModelFileError(f"{target}: is damaged: the HDF5 library ended with status {child.returncode} on it")


def _receive(path: Path, stream: BinaryIO) -> KerasFile | None:
    """Take what the child sends: a line of JSON with the shapes, which are judged first, then the arrays.

    Returns:
        The file, or None where the child ended before it had sent all.

    Raises:
        ModelFileError: If the file holds other layers than a FlexUNet has.
    """
    header = stream.readline(_MAX_HEADER)
    if not header.endswith(b"\n"):
        return None
    try:
        described = json.loads(header)
        shapes = [(harmless(name), [tuple(shape) for shape in shapes]) for name, shapes in described["layers"]]
        description = _describe(described["description"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path}: is damaged: {error}") from error
    kinds = [_kind(path, name, of_layer) for name, of_layer in shapes]
    values = np.empty(sum(math.prod(shape) for _, of_layer in shapes for shape in of_layer), dtype="<f4")
    if stream.readinto(values.data.cast("B")) != values.nbytes:  # type: ignore[attr-defined]
        return None
    layers = _cut(shapes, values)
    if "convolution" not in kinds:
        raise ModelFileError(f"{path}: holds no convolution, so no FlexUNet")
    for layer in layers:
        if not all(np.isfinite(array).all() for array in layer.arrays):
            raise ModelFileError(f"{path}: layer `{layer.name}` holds values that are not finite")
    convolutions, upsamplings, norms = (
        tuple(layer for of_layer, layer in zip(kinds, layers, strict=True) if of_layer == kind)
        for kind in ("convolution", "upsampling", "norm")
    )
    return KerasFile(path, convolutions, upsamplings, norms, description)


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


def _cut(shapes: list[tuple[str, list[tuple[int, ...]]]], values: NDArray[np.float32]) -> list[KerasLayer]:
    """Cut the layers' arrays out of all values; they share the memory."""
    result, at = [], 0
    for name, of_layer in shapes:
        arrays = []
        for shape in of_layer:
            size = math.prod(shape)
            arrays.append(values[at : at + size].reshape(shape))
            at += size
        result.append(KerasLayer(name, tuple(arrays)))
    return result


def _describe(text: str | None) -> tuple[dict[str, Any], ...]:
    """Return class name and settings of each layer from the JSON of a functional model, as plain data."""
    model = json.loads(text) if text else {}
    config = model.get("config") if isinstance(model, dict) else None
    layers = config.get("layers") if isinstance(config, dict) else None
    return tuple(layer for layer in layers or () if isinstance(layer, dict))
