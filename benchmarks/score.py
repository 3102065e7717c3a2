"""Seconds of `flexunet score` for 1,000 pairs of 512x512 with four classes, without and with borders, in one run."""

import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from flexunet_pl.cli.main import main as flexunet
from flexunet_pl.io.masks import write_mask
from flexunet_pl.prepare.phantom import PHANTOM_MAP, draw_slice

PAIRS, DRAWN = 1000, 50


def main() -> None:
    """Print the two times."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for i in range(DRAWN):
            index = draw_slice(i // 5, i % 5 / 5, 512, 137)[1]
            for kind, shown in (("truth", index), ("pred", np.roll(index, (3, 2), axis=(0, 1)))):
                write_mask(root / kind / f"{i:04d}.png", shown, PHANTOM_MAP)
                for copy in range(i + DRAWN, PAIRS, DRAWN):
                    shutil.copy(root / kind / f"{i:04d}.png", root / kind / f"{copy:04d}.png")
        options = ["--pred", str(root / "pred"), "--target", str(root / "truth"), "--out", str(root / "out")]
        for surfaces in ("false", "true"):
            began = time.perf_counter()
            flexunet(["score", *options, "--rgb-map", json.dumps(PHANTOM_MAP.to_dict()), "--surfaces", surfaces])
            print(f"{PAIRS} pairs, surfaces {surfaces}: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
