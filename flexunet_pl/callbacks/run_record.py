"""RunRecord: what a training ran on, for whoever wants to repeat it."""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from flexunet_pl.common.files import sha256_of, written_in_place
from flexunet_pl.io.pairs import Pair

_PACKAGES = ("flexunet-pl", "torch", "lightning", "numpy", "albumentations", "monai")
_MOST_BYTES = 8 << 30  # of files whose content is read for a hash


class RunRecord(Callback):
    """Writes ``run.json`` in the run's folder: versions, device, precision, and number and hash of the data's files."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it before training starts."""
        folder = trainer.log_dir  # all processes must ask for it together
        if not trainer.is_global_zero or not trainer.loggers or folder is None:
            return
        record = {
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
            "device": _device(trainer),
            "processes": trainer.world_size,
            "precision": str(trainer.precision),
            "parameters": sum(p.numel() for p in pl_module.parameters()),
            "data": {split: _describe(pairs) for split, pairs in getattr(_data(trainer), "pairs", {}).items()},
        }
        Path(folder).mkdir(parents=True, exist_ok=True)
        with written_in_place(Path(folder) / "run.json") as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _data(trainer: Trainer) -> Any:
    return trainer.datamodule  # type: ignore[attr-defined]


def _device(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def _describe(pairs: list[Pair]) -> dict[str, Any]:
    """Count and hash the files of a split; of very large ones names and sizes alone."""
    files = [path for pair in pairs for path in pair]
    sizes = [path.stat().st_size for path in files]
    whole = sum(sizes) <= _MOST_BYTES
    digest = hashlib.sha256()
    for path, size in zip(files, sizes, strict=True):
        digest.update(f"{path.name}\0{size}\0".encode())
        if whole:
            digest.update(bytes.fromhex(sha256_of(path)))
    return {"pairs": len(pairs), "sha256": digest.hexdigest(), "hashed": "contents" if whole else "names and sizes"}
