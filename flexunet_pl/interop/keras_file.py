"""What is in a Keras weight file: layers and arrays in order, and how the file describes its network."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.errors import ModelFileError, UserError

TIMEOUT_S = 30  # for a small file
_BYTES_PER_S = 20 << 20  # and more for a large one, on a slow disk

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
        raise ModelFileError(f"{target}: no such file")
    content = _run_reader(target)
    end = content.find(b"\n")
    try:
        described = json.loads(content[:end])
        layers = _cut(described["layers"], memoryview(content)[end + 1 :])
        description = _describe(described["description"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{target}: is damaged: {error}") from error
    return _sort_by_kind(target, layers, description)


def _run_reader(path: Path) -> bytes:
    timeout = TIMEOUT_S + path.stat().st_size / _BYTES_PER_S
    # no plug-ins that a file's filters could name, and no threads that reserve memory
    env = os.environ | {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - our own script, and the path is an argument of its own
            [sys.executable, "-P", str(_READER), str(path.absolute())],
            capture_output=True,
            timeout=timeout,
            env=env,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelFileError(f"{path}: gave no answer in {timeout:.0f} s; the file is damaged or hostile") from error
    if done.returncode == 1:
        raise ModelFileError(f"{path}: {done.stderr.decode(errors='replace')[:500]}")
    if done.returncode:
        raise ModelFileError(f"{path}: is damaged: the HDF5 library ended with status {done.returncode} on it")
    return done.stdout


def _cut(layers: list[Any], body: memoryview) -> list[KerasLayer]:
    """Cut the arrays out of the bytes that the child wrote; they share its memory."""
    values = np.frombuffer(body, dtype="<f4")
    result, at = [], 0
    for name, shapes in layers:
        arrays = []
        for shape in shapes:
            size = int(np.prod(shape, dtype=np.int64))
            arrays.append(values[at : at + size].reshape(shape))
            at += size
        result.append(KerasLayer(str(name), tuple(arrays)))
    return result


def _describe(text: str | None) -> tuple[dict[str, Any], ...]:
    """Return class name and settings of each layer from the JSON of a functional model, as plain data."""
    model = json.loads(text) if text else {}
    config = model.get("config") if isinstance(model, dict) else None
    layers = config.get("layers") if isinstance(config, dict) else None
    return tuple(layer for layer in layers or () if isinstance(layer, dict))


def _sort_by_kind(path: Path, layers: list[KerasLayer], description: tuple[dict[str, Any], ...]) -> KerasFile:
    kinds: dict[str, list[KerasLayer]] = {"convolution": [], "upsampling": [], "norm": []}
    for layer in layers:
        shapes = [array.shape for array in layer.arrays]
        # by shape, since names differ from build to build; the only kernels of 2x2 are those that double the size
        if len(shapes) == 2 and len(shapes[0]) == 4 and len(shapes[1]) == 1:
            kinds["upsampling" if shapes[0][:2] == (2, 2) else "convolution"].append(layer)
        elif len(shapes) == 4 and all(len(shape) == 1 for shape in shapes):
            kinds["norm"].append(layer)
        else:
            raise ModelFileError(
                f"{path}: layer `{layer.name}` has arrays of shapes {', '.join(map(str, shapes))}, which no layer of a "
                "FlexUNet has"
            )
        if not all(np.isfinite(array).all() for array in layer.arrays):
            raise ModelFileError(f"{path}: layer `{layer.name}` holds values that are not finite")
    if not kinds["convolution"]:
        raise ModelFileError(f"{path}: holds no convolution, so no FlexUNet")
    return KerasFile(path, tuple(kinds["convolution"]), tuple(kinds["upsampling"]), tuple(kinds["norm"]), description)
