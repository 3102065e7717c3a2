"""PNG files that no encoder writes."""

import struct
import zlib

GREY, RGB, GREY_ALPHA = 0, 2, 4


def png(width, height, bits, kind, rows):
    """A PNG of a header and rows, which begin with the byte of their filter, and need not agree with it."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bomb(width, height):
    """A small PNG that declares many pixels, and has ten rows of them."""
    return png(width, height, 1, GREY, bytes((width // 8 + 1) * 10))
