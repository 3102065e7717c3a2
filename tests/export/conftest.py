"""An exported network, and the deployment kit that runs it."""

from pathlib import Path

import numpy as np
import pytest

from flexunet_pl.cli.main import main

RUNTIME = Path(__file__).parents[2] / "export" / "runtime"


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="session")
def runtime():
    """The module of the deployment kit."""
    import flexunet_runtime

    return flexunet_runtime


@pytest.fixture(scope="session")
def exported(lively):
    """Its ONNX file, by the command line."""
    assert main(["export", str(lively), "--to", "onnx"]) == 0
    return lively.with_suffix(".onnx")
