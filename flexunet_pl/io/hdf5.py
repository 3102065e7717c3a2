"""HDF5 files, read in a process of their own with limits on time and memory."""

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Timer
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import UserError

_BYTES_PER_S = 20 << 20  # of a large file, on a slow disk
_MAX_HEADER = 64 << 20  # bytes; the longest description that it may hold has 16 MiB


@dataclass(frozen=True)
class Header:
    """What a file declares, before any of its arrays is taken.

    Attributes:
        facts: What its layout says beside the arrays.
        arrays: Type and shape of each.
    """

    facts: dict[str, Any]
    arrays: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]


def require_h5py(what: str) -> None:
    """Check that h5py is installed.

    Args:
        what: What needs it, for the message.

    Raises:
        UserError: If it is not.
    """
    if importlib.util.find_spec("h5py") is None:
        raise UserError(f"{what} need h5py, which is not installed: pip install 'flexunet-pl[keras]'")


def read_hdf5(
    layout: str,
    path: Path,
    *options: str,
    error: type[UserError],
    seconds: float,
    judge: Callable[[Header], Any] = lambda header: None,
) -> tuple[Header, list[NDArray[Any]]]:
    """Read the arrays of a file that a layout finds; see `flexunet_pl.io.hdf5_child`.

    Args:
        layout: ``array`` or ``keras``.
        path: The file.
        options: Handed to the layout.
        error: What is raised of a bad file.
        seconds: Time for a small file.
        judge: Called with the header before the arrays are taken; may raise.

    Returns:
        The header and the arrays, which share their memory.

    Raises:
        UserError: If the file is missing, damaged, hostile or too slow, as `error`.
    """
    if not path.is_file():
        raise error(f"{path}: {'is no file' if path.exists() else 'no such file'}")
    # no plug-ins that a file's filters could name, and no threads that reserve memory
    env = os.environ | {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "flexunet_pl.io.hdf5_child", layout, str(path.absolute()), *options]
    timeout, began = seconds + path.stat().st_size / _BYTES_PER_S, time.monotonic()
    # our own module, and the path is an argument of its own
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as child:  # noqa: S603
        watch = Timer(timeout, child.kill)
        watch.start()
        try:
            found = _receive(path, cast("BinaryIO", child.stdout), error, judge)
        finally:
            watch.cancel()
            if sys.exc_info()[0] is not None:
                child.kill()
        said = cast("BinaryIO", child.stderr).read().decode(errors="replace")
    if found is not None:
        return found
    if time.monotonic() - began >= timeout:
        raise error(f"{path}: gave no answer in {timeout:.0f} s; the file is damaged or hostile")
    if child.returncode == 1:
        raise error(f"{path}: {said}")
    raise error(f"{path}: is damaged: the HDF5 library ended with status {child.returncode} on it")


def _receive(
    path: Path, stream: BinaryIO, error: type[UserError], judge: Callable[[Header], None]
) -> tuple[Header, list[NDArray[Any]]] | None:
    """Take what the child sends, or return None where it ended before it had sent all."""
    line = stream.readline(_MAX_HEADER)
    if not line.endswith(b"\n"):
        return None
    try:
        declared = json.loads(line)
        header = Header(declared["facts"], tuple((np.dtype(kind), tuple(shape)) for kind, shape in declared["arrays"]))
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise error(f"{path}: is damaged: {problem}") from problem
    judge(header)
    sizes = [math.prod(shape) * kind.itemsize for kind, shape in header.arrays]
    content = np.empty(sum(sizes), np.uint8)
    if stream.readinto(content.data) != content.nbytes:  # type: ignore[attr-defined]
        return None
    parts = _cut(content, sizes)
    arrays = [part.view(kind).reshape(shape) for part, (kind, shape) in zip(parts, header.arrays, strict=True)]
    return header, arrays


def _cut(content: NDArray[np.uint8], sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
    return [content[start:end] for start, end in pairwise(np.cumsum([0, *sizes]))]
