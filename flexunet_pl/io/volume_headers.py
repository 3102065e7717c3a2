"""Check that the file of a volume holds what its header declares, before it is read.

SimpleITK reads the missing part of a cut file as zeros, follows headers to other files, allocates whatever a header
declares, and crashes where a MetaImage declares some hundred dimensions; nibabel allocates too.
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
_MGH_BYTES = {0: 1, 1: 4, 3: 4, 4: 2}  # by kind of voxel
_MGH_OFFSET = 284


@dataclass(frozen=True)
class _Stored:
    """Where the voxels of a file are.

    Attributes:
        offset: Bytes before them; within the unpacked file for .nii.gz.
        voxels: How many are declared.
        width: Bytes of each.
        packed: "gzip" or "zlib", or "" for voxels as they are.
        file: Where they stand in a file of their own.
    """

    offset: int
    voxels: int
    width: int
    packed: str = ""
    file: Path | None = None


def check_stored(path: Path, kind: str) -> None:
    """Compare what a header declares with what the file holds.

    Args:
        path: The file.
        kind: Its suffix.

    Raises:
        DataError: If the file is shorter, declares absurd sizes, points out of its folder, or has an affine that is
            not finite.
    """
    readers = {".mha": _metaimage, ".mhd": _metaimage, ".nrrd": _nrrd, ".mgh": _mgh, ".mgz": _mgh}
    stored = readers.get(kind, _nifti)(path)
    if stored.voxels > MAX_VOXELS:
        raise DataError(
            f"{path}: declares {stored.voxels:.3g} voxels, over the limit of {MAX_VOXELS:.0e}; refused unread"
        )
    held, declared = _count_bytes(stored.file or path, stored), stored.voxels * stored.width
    if held < declared:
        raise DataError(f"{stored.file or path}: cut short: holds {held} of {declared} bytes; copy or export it again")


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
    apart = magic in {b"ni1", b"ni2"}
    if not apart and magic not in {b"n+1", b"n+2"}:
        raise DataError(f"{path}: is an Analyze 7.5 header, which does not say where right and left are; save NIfTI")
    if apart != path.name.lower().endswith(".hdr"):
        raise DataError(f"{path}: says that its voxels stand {'in another file' if apart else 'in itself'}; rename it")
    voxels = _voxels_beside(path) if apart else None
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
    if (
        not (0 if apart else length + 4) <= offset < _CHUNK
    ):  # four bytes tell of extensions; readers differ on smaller offsets
        raise DataError(f"{path}: its header puts the voxels at byte {offset:g}; export it again or remove it")
    if voxels is not None:
        packed = "gzip" if voxels.name.lower().endswith(".gz") else ""
    return _Stored(int(offset), math.prod(dims[:count]), bits // 8, packed, voxels)


def _voxels_beside(path: Path) -> Path:
    """Return the file of the voxels of a NIfTI header.

    Raises:
        DataError: If there is none.
    """
    for suffix in (".img", ".img.gz"):
        beside = path.with_name(path.name[: -len(".hdr")] + suffix)
        if beside.is_file():
            return beside
    raise DataError(f"{path}: its voxels are not beside it; copy {path.stem}.img here too")


def _mgh(path: Path) -> _Stored:
    packed = "gzip" if path.name.lower().endswith(".mgz") else ""
    with _opened(path, packed) as file:
        head = file.read(_MGH_OFFSET)
    if len(head) < _MGH_OFFSET:
        raise DataError(f"{path}: is only the beginning of an MGH file; export it again or remove it")
    version, *dims, kind = struct.unpack_from(">6i", head)
    if version != 1 or min(dims) < 1 or kind not in _MGH_BYTES:
        raise DataError(f"{path}: is no MGH file, or its header is invalid; export it again or remove it")
    if not np.isfinite(struct.unpack_from(">15f", head, 30)).all():
        raise DataError(f"{path}: its affine is not finite; correct its header")
    return _Stored(_MGH_OFFSET, math.prod(dims), _MGH_BYTES[kind], packed)


def _metaimage(path: Path) -> _Stored:
    head, fields = _text_header(path, b"ElementDataFile", "=")
    width = _MHA_BYTES.get(fields.get("elementtype", "").lower().removeprefix("met_"))
    if fields.get("binarydata", "").lower() != "true" or width is None:
        raise DataError(f"{path}: keeps its voxels in a way that is not read; save it again as .mha")
    if fields.get("ndims") not in {"2", "3", "4"} or int(fields["ndims"]) != len(fields.get("dimsize", "").split()):
        raise DataError(f"{path}: its header is invalid; export it again or remove it")
    channels = int(fields.get("elementnumberofchannels", "1"))
    packed = "zlib" if fields.get("compresseddata", "").lower() == "true" else ""
    voxels = _product(path, fields.get("dimsize", "")) * channels
    named = fields.get("elementdatafile", "")
    if named.lower() == "local":
        return _Stored(head, voxels, width, packed)
    beside = path.with_name(Path(named).name)
    if path.suffix.lower() != ".mhd" or named != beside.name or named.lower() == "list" or "%" in named:
        raise DataError(
            f"{path}: keeps its voxels in another file ({named}), which is read only of a .mhd, and beside it; save it "
            "as one .mha"
        )
    if not beside.is_file():
        raise DataError(f"{path}: its voxels are not beside it; copy {named} here too")
    before = int(fields.get("headersize", "0"))
    return _Stored(max(0, before), voxels, width, packed, beside)


def _nrrd(path: Path) -> _Stored:
    head, fields = _text_header(path, b"", ":")
    packed = {"raw": "", "gzip": "gzip", "gz": "gzip"}.get(fields.get("encoding", "").lower())
    width = next((n for name, n in _NRRD_BYTES if name in fields.get("type", "").lower()), None)
    if packed is None or width is None or {"data file", "datafile", "byte skip", "line skip"} & fields.keys():
        raise DataError(f"{path}: keeps its voxels in another file or in a way that is not read; save it again")
    return _Stored(head, _product(path, fields.get("sizes", "")), width, packed)


def _text_header(path: Path, last: bytes, mark: str) -> tuple[int, dict[str, str]]:
    """Read a header of lines, up to the one that begins with a word, or up to an empty one.

    Returns:
        Its length, and its fields; their names in lower case.

    Raises:
        DataError: If it has no end, or a field twice.
    """
    with path.open("rb") as file:
        lines: list[bytes] = []
        while (line := file.readline(_CHUNK)) and len(lines) < 1000:
            lines.append(line)
            if (last and line.startswith(last)) or not (last or line.strip()):
                texts = [text.decode("latin-1") for text in lines if text.strip() and text[:1] != b"#"]
                parted = (text.partition(mark) for text in texts)
                fields = {key.strip().lower(): value.strip() for key, _, value in parted}
                if len(fields) != len(texts):  # readers differ on which of two they believe
                    raise DataError(f"{path}: its header has a field twice; export it again or remove it")
                return file.tell(), fields
    raise DataError(f"{path}: its header has no end; export it again or remove it")


def _product(path: Path, sizes: str) -> int:
    numbers = [int(word) for word in sizes.split() if word.isdecimal() and len(word) < 10]
    if len(numbers) != len(sizes.split()) or not 1 <= len(numbers) <= 7:
        raise DataError(f"{path}: its header is invalid; export it again or remove it")
    return math.prod(numbers)


def _count_bytes(path: Path, stored: _Stored) -> int:
    """Count the bytes of the voxels, to the end where they are packed: their check sum stands there."""
    if not stored.packed:
        return path.stat().st_size - stored.offset
    held = 0
    for chunk in _chunks(path, stored):
        held += len(chunk)
        if held > stored.voxels * stored.width + _CHUNK:
            break  # more than is declared is not looked at
    return held


def _chunks(path: Path, stored: _Stored) -> Iterator[bytes]:
    if stored.packed and not path.name.lower().endswith((".gz", ".mgz")):
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
