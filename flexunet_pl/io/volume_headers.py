"""Check that the file of a volume holds what its header declares, before it is read.

SimpleITK reads the missing part of a cut file as zeros, turns NaN in NIfTI files into zeros, follows headers to other
files, allocates whatever a header declares, and crashes where a MetaImage declares some hundred dimensions.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np

from flexunet_pl.common.errors import DataError

MAX_VOXELS = 2_000_000_000  # 512x512x7600; a header of a few bytes can declare any number

_CHUNK = 1 << 20
_MHA_BYTES = {
    "char": 1,
    "uchar": 1,
    "short": 2,
    "ushort": 2,
    "int": 4,
    "uint": 4,
    "float": 4,
    "double": 8,
    "long_long": 8,
    "ulong_long": 8,
}
_NRRD_BYTES = (("int8", 1), ("char", 1), ("short", 2), ("int16", 2), ("double", 8), ("float", 4), ("int", 4))
_NIFTI_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}  # by kind of voxel
_NIFTI_FLOATS = {16: "f4", 64: "f8"}


@dataclass(frozen=True)
class _Stored:
    """Where the voxels of a file are.

    Attributes:
        offset: Bytes before them; within the unpacked file for .nii.gz.
        voxels: How many are declared.
        width: Bytes of each.
        packed: "gzip" or "zlib", or "" for voxels as they are.
        floats: numpy's name of their type where they are to be looked through for values that are not finite.
    """

    offset: int
    voxels: int
    width: int
    packed: str = ""
    floats: str = ""


def check_stored(path: Path, kind: str) -> None:
    """Compare what a header declares with what the file holds.

    Args:
        path: The file.
        kind: ``.nii``, ``.nii.gz``, ``.mha`` or ``.nrrd``.

    Raises:
        DataError: If the file is shorter, declares absurd sizes, points to another file, or has an affine or voxels
            that are not finite.
    """
    stored = {".mha": _mha, ".nrrd": _nrrd}.get(kind, _nifti)(path)
    if stored.voxels > MAX_VOXELS:
        raise DataError(
            f"{path}: declares {stored.voxels:.3g} voxels, over the limit of {MAX_VOXELS:.0e}; refused unread"
        )
    held, bad = _walk(path, stored)
    declared = stored.voxels * stored.width
    if held < declared:
        raise DataError(f"{path}: cut short: holds {held} of {declared} bytes; copy or export it again")
    if bad:
        raise DataError(f"{path}: {bad} of {stored.voxels} voxels are not finite numbers; export it again")


def _nifti(path: Path) -> _Stored:
    packed = "gzip" if path.name.lower().endswith(".gz") else ""
    with _opened(path, packed) as file:
        head = file.read(540)
    sizes = [(order, struct.unpack_from(f"{order}i", head.ljust(4, b"\0"))[0]) for order in "<>"]
    order, length = next(((o, n) for o, n in sizes if n in {348, 540}), ("", 0))
    if not order or len(head) < length:
        raise DataError(f"{path}: is no NIfTI file, or only the beginning of one; export it again or remove it")
    first = length == 348
    magic = head[344:347] if first else head[4:7]
    if magic not in {b"n+1", b"n+2"}:
        raise DataError(f"{path}: keeps its voxels in another file; save it as one .nii or .nii.gz")
    count, *dims = struct.unpack_from(f"{order}8{'h' if first else 'q'}", head, 40 if first else 16)
    kind, bits = struct.unpack_from(f"{order}2h", head, 70 if first else 12)
    offset = struct.unpack_from(f"{order}{'f' if first else 'q'}", head, 108 if first else 168)[0]
    places = ((76, 4), (256, 18)) if first else ((104, 4), (352, 18))  # pixdim; quaternion, offsets and rows
    affine = [
        n for place, many in places for n in struct.unpack_from(f"{order}{many}{'f' if first else 'd'}", head, place)
    ]
    if not np.isfinite(affine).all():
        raise DataError(f"{path}: its affine is not finite; correct its header")
    if not 1 <= count <= 7 or min(dims[:count]) < 1 or _NIFTI_BITS.get(kind, bits) != bits or bits < 8:
        raise DataError(f"{path}: its header is invalid; export it again or remove it")
    if not length + 4 <= offset < _CHUNK:  # four bytes tell of extensions; readers differ on smaller offsets
        raise DataError(f"{path}: its header puts the voxels at byte {offset:g}; export it again or remove it")
    floats = order + _NIFTI_FLOATS[kind] if kind in _NIFTI_FLOATS else ""
    return _Stored(int(offset), math.prod(dims[:count]), bits // 8, packed, floats)


def _mha(path: Path) -> _Stored:
    head, fields = _text_header(path, b"ElementDataFile", "=")
    width = _MHA_BYTES.get(fields.get("elementtype", "").removeprefix("met_"))
    if fields.get("elementdatafile") != "local" or fields.get("binarydata") != "true" or width is None:
        raise DataError(f"{path}: keeps its voxels in another file or in a way that is not read; save it again")
    if fields.get("ndims") not in {"2", "3", "4"} or int(fields["ndims"]) != len(fields.get("dimsize", "").split()):
        raise DataError(f"{path}: its header is invalid; export it again or remove it")
    channels = int(fields.get("elementnumberofchannels", "1"))
    packed = "zlib" if fields.get("compresseddata") == "true" else ""
    return _Stored(head, _product(path, fields.get("dimsize", "")) * channels, width, packed)


def _nrrd(path: Path) -> _Stored:
    head, fields = _text_header(path, b"", ":")
    packed = {"raw": "", "gzip": "gzip", "gz": "gzip"}.get(fields.get("encoding", ""))
    width = next((n for name, n in _NRRD_BYTES if name in fields.get("type", "")), None)
    if packed is None or width is None or {"data file", "datafile", "byte skip", "line skip"} & fields.keys():
        raise DataError(f"{path}: keeps its voxels in another file or in a way that is not read; save it again")
    return _Stored(head, _product(path, fields.get("sizes", "")), width, packed)


def _text_header(path: Path, last: bytes, mark: str) -> tuple[int, dict[str, str]]:
    """Read a header of lines, up to the one that begins with a word, or up to an empty one.

    Returns:
        Its length, and its fields in lower case.

    Raises:
        DataError: If it has no end, or a field twice.
    """
    with path.open("rb") as file:
        lines: list[bytes] = []
        while (line := file.readline(_CHUNK)) and len(lines) < 1000:
            lines.append(line)
            if (last and line.startswith(last)) or not (last or line.strip()):
                texts = [text.decode("latin-1").lower() for text in lines if text.strip() and text[:1] != b"#"]
                fields = {key.strip(): value.strip() for key, _, value in (text.partition(mark) for text in texts)}
                if len(fields) != len(texts):  # readers differ on which of two they believe
                    raise DataError(f"{path}: its header has a field twice; export it again or remove it")
                return file.tell(), fields
    raise DataError(f"{path}: its header has no end; export it again or remove it")


def _product(path: Path, sizes: str) -> int:
    numbers = [int(word) for word in sizes.split() if word.isdecimal() and len(word) < 10]
    if len(numbers) != len(sizes.split()) or not 1 <= len(numbers) <= 7:
        raise DataError(f"{path}: its header is invalid; export it again or remove it")
    return math.prod(numbers)


def _walk(path: Path, stored: _Stored) -> tuple[int, int]:
    """Read the voxels through, to the end where they are packed: their check sum stands there.

    Returns:
        The number of bytes held, and of values that are not finite.
    """
    if not stored.packed and not stored.floats:
        return path.stat().st_size - stored.offset, 0
    held = bad = 0
    for chunk in _chunks(path, stored):
        held += len(chunk)
        if stored.floats:
            values = np.frombuffer(chunk[: len(chunk) // stored.width * stored.width], stored.floats)
            bad += values.size - int(np.count_nonzero(np.isfinite(values)))
        if held > stored.voxels * stored.width + _CHUNK:
            break  # more than is declared is not looked at
    return held, bad


def _chunks(path: Path, stored: _Stored) -> Iterator[bytes]:
    if stored.packed and not path.name.lower().endswith(".gz"):
        yield from _inflated(path, stored)
        return
    with _opened(path, stored.packed) as file:
        file.seek(stored.offset)
        while chunk := file.read(_CHUNK):
            yield chunk


def _inflated(path: Path, stored: _Stored) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | (16 if stored.packed == "gzip" else 0))
    with path.open("rb") as file:
        file.seek(stored.offset)
        while not unpacker.eof:
            block = unpacker.unconsumed_tail or file.read(_CHUNK)
            if not block:
                raise EOFError("its packed voxels have no end")
            yield unpacker.decompress(block, _CHUNK)


def _opened(path: Path, packed: str) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if packed else path.open("rb")
