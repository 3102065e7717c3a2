"""What a TIFF file says of itself that Pillow does not open, so that it is refused by its true name."""

import struct
from typing import IO

SAMPLES_PER_PIXEL, BITS_PER_SAMPLE = 277, 258  # tags
_SHORT = 3


def tiff_bands(file: IO[bytes]) -> tuple[int, int] | None:
    """Read from the first directory of a TIFF file how many bands it has, and of how many bits.

    Args:
        file: The file.

    Returns:
        Both; None where it is no TIFF, or does not say it.
    """
    file.seek(0)
    head = file.read(8)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(head[:4])
    if order is None or len(head) < 8:
        return None
    file.seek(struct.unpack(f"{order}I", head[4:])[0])
    counted = file.read(2)
    entries = file.read(12 * struct.unpack(f"{order}H", counted)[0]) if len(counted) == 2 else b""
    found = {}
    for at in range(0, len(entries) - 11, 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", entries, at)
        if tag in {SAMPLES_PER_PIXEL, BITS_PER_SAMPLE} and kind == _SHORT:
            (value,) = struct.unpack_from(f"{order}H", entries, at + 8)
            if count > 2:  # they stand elsewhere
                file.seek(struct.unpack_from(f"{order}I", entries, at + 8)[0])
                content = file.read(2)
                value = struct.unpack(f"{order}H", content)[0] if len(content) == 2 else 0
            found[tag] = value
    bands = found.get(SAMPLES_PER_PIXEL)
    return (bands, found.get(BITS_PER_SAMPLE, 8)) if bands is not None else None
