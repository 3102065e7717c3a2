"""An exported network, and the deployment kit that runs it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from flexunet_pl.__main__ import main

RUNTIME = Path(__file__).parents[2] / "export" / "runtime"
sys.path.insert(0, str(RUNTIME))  # as if it were installed


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="session")
def runtime():
    """The module of the deployment kit."""
    import flexunet_runtime

    return flexunet_runtime


@pytest.fixture(scope="session")
def lively(tmp_path_factory, trained):
    """A checkpoint whose network gives every class, whatever two epochs have taught."""
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    generator = torch.Generator().manual_seed(137)
    for key, w in checkpoint["state_dict"].items():
        if key.startswith("network."):
            noise = torch.randn(w.shape, generator=generator) * (2 / w[0].numel()) ** 0.5
            checkpoint["state_dict"][key] = noise if w.ndim == 4 else noise * 0
    head = checkpoint["state_dict"]["network.head.weight"]
    checkpoint["state_dict"]["network.head.weight"] = head - head.mean(dim=1, keepdim=True)  # no class wins everywhere
    path = tmp_path_factory.mktemp("lively") / "model.ckpt"
    torch.save(checkpoint, path)
    return path


@pytest.fixture(scope="session")
def exported(lively):
    """Its ONNX file, by the command line."""
    assert main(["export", str(lively), "--to", "onnx"]) == 0
    return lively.with_suffix(".onnx")
