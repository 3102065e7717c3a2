"""What an ONNX file holds, read without running it: weights in other files and damaged ones are refused."""

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flexunet_runtime.errors import ModelFileError

# kinds of message in an ONNX file that can hold tensors, and which of their fields hold what; sparse tensors are none
# of ours
_MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor"},
    "tensor": {},
}
_SPARSE = {("graph", 15), ("attribute", 22), ("attribute", 23)}
_BRANCHES = {("attribute", 6), ("attribute", 11)}  # graphs in a node: loops, which may be without end, and branches
_TYPE, _RAW = 2, 9  # fields of a tensor: the type of its numbers, and their bytes
_FLOATS = {1: "<f4", 10: "<f2", 11: "<f8"}
_WIDTHS = {1: 8, 2: 0, 5: 4}  # bytes of a field by its wire type; of the second kind it says so itself
_EXTERNAL = (13, 14)  # fields of a tensor that name another file, and say that there is one
_DEEPEST = 50
_CHUNK = 1 << 24  # bytes that are looked at at a time


def check_one_piece(path: Path) -> None:
    """Refuse a model that keeps tensors in other files, which could be any of the machine, or has damaged weights.

    Args:
        path: The ONNX file.

    Raises:
        ModelFileError: If it does, or is no ONNX file.
    """
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _walk(path, content, (0, len(content)), "model", 0)
        except ModelFileError:
            raise
        except ValueError as error:
            raise ModelFileError(f"{path}: is no ONNX file, or only a part of one") from error


def _walk(path: Path, content: mmap.mmap, span: tuple[int, int], kind: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise ModelFileError(f"{path}: is nested too deep")
    numbers, raw = 0, (0, 0)
    for field, value in _fields(content, *span):
        if (kind, field) in _SPARSE:
            raise ModelFileError(f"{path}: has sparse tensors, which flexunet does not export")
        if (kind, field) in _BRANCHES:
            raise ModelFileError(f"{path}: has loops or branches, which flexunet does not export; refused")
        if kind == "tensor" and field in _EXTERNAL and value != 0:
            raise ModelFileError(f"{path}: keeps weights in another file; refused: a model must be one file")
        if isinstance(value, int):
            numbers = value if field == _TYPE else numbers
        elif field in _MESSAGES[kind]:
            _walk(path, content, value, _MESSAGES[kind][field], depth + 1)
        elif field == _RAW:
            raw = value
    if kind == "tensor" and raw[1] - raw[0] > 8 and not _is_finite(content, raw, _FLOATS.get(numbers)):
        raise ModelFileError(f"{path}: has weights that are not finite; it is damaged, or its training was")


def _is_finite(content: mmap.mmap, raw: tuple[int, int], numbers: str | None) -> bool:
    chunks = (content[start : min(start + _CHUNK, raw[1])] for start in range(*raw, _CHUNK))
    return numbers is None or all(np.isfinite(np.frombuffer(chunk, numbers)).all() for chunk in chunks)


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Give the fields of a protobuf message: number, and value or where the bytes lie.

    Raises:
        ValueError: If it is none.
    """
    while at < end:
        tag, at = _number(content, at, end)
        wire = tag & 7
        if wire == 0:
            value, at = _number(content, at, end)
            yield tag >> 3, value
            continue
        if wire not in _WIDTHS:
            raise ValueError("no such wire type")
        length, at = (_WIDTHS[wire], at) if wire != 2 else _number(content, at, end)
        if at + length > end:
            raise ValueError("cut short")
        yield tag >> 3, (at, at + length)
        at += length


def _number(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("cut short")
