"""Mutants of files: bytes flipped, cut, repeated, put in, exchanged with another seed; numbers that break sums."""

import random

_NUMBERS = [
    (value & (1 << 8 * width) - 1).to_bytes(width, order)
    for width in (1, 2, 4, 8)
    for value in (0, 1, -1, 0x7F, 0x7FFF, 0x7FFFFFFF, 1 << 62, 1 << 31)
    for order in ("little", "big")
]


def mutate(seeds: list[bytes], rng: random.Random) -> bytes:
    """Return a mutant of one of the seeds."""
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at, length = rng.randrange(len(content) + 1), rng.choice((1, 1, 2, 4, 16, 64, 256))
        kind = rng.randrange(7)
        if kind == 0 and content:
            content[at % len(content)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[at : at + length] = rng.randbytes(min(length, len(content) - at))
        elif kind == 2:
            number = rng.choice(_NUMBERS)
            content[at : at + len(number)] = number
        elif kind == 3:
            del content[at : at + length]
        elif kind == 4:
            content[at:at] = content[max(0, at - length) : at] * rng.choice((1, 2, 9))
        elif kind == 5:
            other = rng.choice(seeds)
            begin = rng.randrange(len(other) + 1)
            content[at : at + length] = other[begin : begin + length]
        else:
            del content[at:]
    return bytes(content[: 1 << 18])
