"""Time and memory of `flexunet check` per pair of 512x512, for two sizes of a data set.

Run as ``python benchmarks/check.py [PAIRS]``; the smaller data set has a quarter of them.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flexunet_pl.prepare.phantom import PHANTOM_MAP, write_phantom


def main() -> None:
    """Print seconds and megabytes for both sizes, and what 10,000 pairs would take."""
    largest = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        write_phantom(source, patients=20, slices=1, size=512)
        measured = [measure(source, Path(folder) / str(pairs), pairs) for pairs in (largest // 4, largest)]
    (small, quick, low), (large, slow, high) = measured
    per_pair = (slow - quick) / (large - small)
    print(
        f"{per_pair * 1e3:.1f} ms per pair on {os.cpu_count()} cores; 10,000 pairs: {per_pair * 1e4 / 60:.1f} minutes"
    )
    print(f"memory: {(high - low) * 1024 / (large - small):.1f} kB more per pair")


def measure(source: Path, root: Path, pairs: int) -> tuple[int, float, float]:
    """Check a data set of that many pairs; returns pairs, seconds and the largest process's megabytes."""
    images = sorted((source / "train" / "images").iterdir())
    for i in range(pairs):
        image = images[i % len(images)]
        split = root / ("train" if i % 5 else "test")
        for kind, path in (("images", image), ("masks", image.parents[1] / "masks" / image.name)):
            target = split / kind / f"{i:06d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
    rgb_map = str(PHANTOM_MAP.to_dict())
    command = [sys.executable, "-m", "flexunet_pl", "check", str(root), "--rgb-map", rgb_map, "--json"]
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # noqa: S603 - our own program
    seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{pairs} pairs: {seconds:.1f} s, {memory:.0f} MB")
    return pairs, seconds, memory


if __name__ == "__main__":
    main()
