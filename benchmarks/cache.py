"""Seconds per epoch of the training loader alone, without and with the caches, 512x512, two workers, in one run."""

import tempfile
import time
from pathlib import Path

import torch

from flexunet_pl.data.datamodule import SegmentationDataModule
from flexunet_pl.prepare.phantom import PHANTOM_MAP, write_phantom


def main() -> None:
    """Print the epochs' times and the ratio of the second to one without a cache."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        write_phantom(root, patients=60, slices=5, size=512)
        seconds = {}
        for cache in ("none", "ram", "disk"):
            module = SegmentationDataModule(
                root,
                PHANTOM_MAP.to_dict(),
                (512, 512),
                batch_size=4,
                num_workers=2,
                train_transform=None,
                cache=cache,
            )
            module.setup("fit")
            began = time.perf_counter()
            loader = module.train_dataloader()
            print(f"cache {cache}, made in {time.perf_counter() - began:.2f} s")
            for epoch in range(3):
                began = time.perf_counter()
                total = sum(int(batch["mask"].sum(dtype=torch.int64)) for batch in loader)
                seconds[cache, epoch] = time.perf_counter() - began
                print(f"cache {cache}, epoch {epoch}: {seconds[cache, epoch]:.2f} s (check sum {total})")
        for cache in ("ram", "disk"):
            print(f"second epoch {seconds['none', 1] / seconds[cache, 1]:.1f} x as fast with cache {cache}")


if __name__ == "__main__":
    main()
