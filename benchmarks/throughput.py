"""Whole jobs against what is bare of them: `fit` against a loop of steps, `predict` against the forward passes alone.

What starting takes is measured by a short job and taken off.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from flexunet_pl import SegmentationDataModule, SegmentationTask
from flexunet_pl.cli.main import main as flexunet
from flexunet_pl.models import FlexUNet
from flexunet_pl.prepare.phantom import PHANTOM_MAP, write_phantom

SIDE, BATCH, WORKERS = 256, 4, 2
NETWORK = {"base_filters": 16, "num_layers": 5, "base_kernels": [3, 3], "dropout_rate": 0.0}


def main() -> None:
    """Print both ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000, help="for predict")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_phantom(place / "data", patients=40, slices=5, size=SIDE)
        write_config(place)
        fit_ratio(place)
        predict_ratio(place, given.images)


def write_config(place: Path) -> None:
    """Write the configuration that both have."""
    config = {
        "model": {
            "rgb_map": PHANTOM_MAP.to_dict(),
            "image_size": [SIDE, SIDE],
            "network": {"class_path": "flexunet_pl.models.FlexUNet", "init_args": NETWORK},
        },
        "data": {"root": str(place / "data"), "batch_size": BATCH, "num_workers": WORKERS},
        "trainer": {"enable_progress_bar": False, "enable_model_summary": False, "logger": {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {"save_dir": str(place / "runs"), "name": None},
        }},
    }  # fmt: skip
    (place / "c.yaml").write_text(yaml.safe_dump(config))


def fit_ratio(place: Path) -> None:
    """Compare two epochs of fit with as many bare steps and forward passes of validation."""

    def fit(epochs: int) -> float:
        began = time.perf_counter()
        if flexunet(["fit", "-c", str(place / "c.yaml"), "--trainer.max_epochs", str(epochs)]):
            raise SystemExit("fit failed")
        return time.perf_counter() - began

    whole = -fit(1) + fit(3)
    data = SegmentationDataModule(
        place / "data", PHANTOM_MAP.to_dict(), (SIDE, SIDE), batch_size=BATCH, num_workers=WORKERS
    )
    data.setup("fit")
    train, valid = list(data.train_dataloader()), list(data.val_dataloader())
    task = SegmentationTask(FlexUNet(3, 4, **NETWORK), PHANTOM_MAP.to_dict(), (SIDE, SIDE))  # type: ignore[arg-type]
    network, optimizer = task.network.to(memory_format=torch.channels_last), torch.optim.Adam(task.parameters())
    bare = 0.0
    for epoch in range(3):
        began = time.perf_counter()
        network.train()
        for batch in train:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(task(batch["image"]), batch["mask"].long()).backward()
            torch.nn.utils.clip_grad_value_(network.parameters(), 0.4)
            optimizer.step()
        network.eval()
        with torch.no_grad():
            for batch in valid:
                task(batch["image"])
        bare += (time.perf_counter() - began) * (epoch > 0)
    print(f"fit, {SIDE}x{SIDE}, {len(train)} steps an epoch, {WORKERS} workers: {whole / bare:.3f} of the bare loop")


def predict_ratio(place: Path, count: int) -> None:
    """Compare predict of a folder with the forward passes of its network."""
    sources = sorted((place / "data").rglob("images/*.png"))
    for name, number in (("many", count), ("few", BATCH)):
        (place / name).mkdir()
        for i in range(number):
            (place / name / f"{i:05}.png").symlink_to(sources[i % len(sources)])
    (checkpoint,) = sorted((place / "runs").rglob("version_0/checkpoints/last.ckpt"))

    def predict(name: str) -> float:
        began = time.perf_counter()
        words = ["--data.predict_dir", place / name, "--prediction.output_dir", place / f"{name}_masks"]
        words += ["--data.batch_size", BATCH, "--data.num_workers", WORKERS, "--trainer.enable_progress_bar", "false"]
        if flexunet(["predict", "--ckpt_path", str(checkpoint), *map(str, words)]):
            raise SystemExit("predict failed")
        return time.perf_counter() - began

    predict("few")
    (place / "few_masks").rename(place / "warm")
    whole = -predict("few") + predict("many")
    network = FlexUNet(3, 4, **NETWORK).eval().to(memory_format=torch.channels_last)  # type: ignore[arg-type]
    pictures = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sources[:BATCH]])
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    with torch.inference_mode():
        network(batch)
        began = time.perf_counter()
        for _ in range((count - BATCH) // BATCH):
            network(batch).argmax(1)
        bare = time.perf_counter() - began
    print(f"predict, {count} images of {SIDE}x{SIDE}: {whole / bare:.3f} of the bare network")


if __name__ == "__main__":
    main()
