"""Time RgbMap.decode against the broadcasted nearest-colour argmin, interleaved in one process.

Usage: python benchmarks/decode_mask.py [--repeats 30]
"""

import argparse
import statistics
import time

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.rgb_map import RgbMap

RGB_MAP = RgbMap.parse({"background": [0, 0, 0], "trachea": [255, 0, 0], "heart": [0, 255, 0], "lung": [0, 0, 255]})


def broadcast_argmin(mask: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Squared distance of every pixel to every colour, then the argmin: the plain way."""
    difference = mask[:, :, None, :].astype(np.int32) - palette[None, None].astype(np.int32)
    return (difference**2).sum(axis=-1).argmin(axis=-1)


def noisy_mask(rng: np.random.Generator, size: int = 512, off_map: float = 0.18) -> NDArray[np.uint8]:
    """Four classes in vertical bands, a share of the pixels off the map by a few levels, as after JPEG."""
    bands = np.repeat(np.arange(4, dtype=np.uint8), size // 4)[None].repeat(size, axis=0)
    noise = rng.integers(1, 7, (size, size, 3)) * (rng.random((size, size, 1)) < off_map)
    mask = RGB_MAP.paint(bands)
    return np.where(mask == 0, noise, mask - noise).astype(np.uint8)


def main() -> None:
    """Check that both agree, then print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    mask = noisy_mask(np.random.default_rng(137))
    if not np.array_equal(RGB_MAP.decode(mask).index, broadcast_argmin(mask, RGB_MAP.palette)):
        raise SystemExit("the two ways of decoding differ")
    seconds: dict[str, list[float]] = {"decode": [], "argmin": []}
    for _ in range(repeats):
        start = time.perf_counter()
        RGB_MAP.decode(mask)
        middle = time.perf_counter()
        broadcast_argmin(mask, RGB_MAP.palette)
        seconds["decode"].append(middle - start)
        seconds["argmin"].append(time.perf_counter() - middle)
    fast, slow = (statistics.median(seconds[k]) for k in ("decode", "argmin"))
    print(f"off-map pixels   {RGB_MAP.decode(mask).off_map / mask[..., 0].size:8.1%}")
    print(f"RgbMap.decode    {fast * 1e3:8.2f} ms")
    print(f"broadcast argmin {slow * 1e3:8.2f} ms")
    print(f"ratio            {slow / fast:8.1f}")


if __name__ == "__main__":
    main()
