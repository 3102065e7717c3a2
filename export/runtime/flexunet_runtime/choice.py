"""Which engine is the fastest for a model on this machine, by trying."""

import argparse
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from flexunet_runtime.console import say
from flexunet_runtime.engines import ENGINES
from flexunet_runtime.model import Model

AUTO = "auto"
_TIMES = 3  # of which the fastest counts, behind one that warms up


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add what `open_model` asks for."""
    parser.add_argument(
        "--engine", default=ENGINES[0], choices=(*ENGINES, AUTO),
        help=f"auto takes the fastest of those that are installed, and says what each takes (default: {ENGINES[0]})",
    )  # fmt: skip
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"), help="of OpenVINO (default: f32)")
    parser.add_argument("--threads", type=int, help="of a prediction; by default those of the machine")


def open_model(program: str, path: str | Path, engine: str, threads: int | None, precision: str) -> Model:
    """Open a model in an engine, or in the fastest of those that are installed, and say which.

    Args:
        program: Who says so.
        path: The ONNX file.
        engine: Its name, or ``auto``.
        threads: Threads of a prediction; by default those of the machine.
        precision: For OpenVINO.

    Returns:
        The model.
    """
    if engine != AUTO:
        return Model(path, engine, threads, precision)
    installed = [name for name in ENGINES if find_spec(name) is not None]
    models = {name: Model(path, name, threads, precision) for name in installed}
    seconds = {name: _seconds(model) for name, model in models.items()}
    fastest = min(seconds, key=lambda name: seconds[name])
    tried = ", ".join(f"{name} {taken:.3f} s an image" for name, taken in seconds.items())
    say(f"{program}: engine {fastest} ({tried})")
    return models[fastest]


def _seconds(model: Model) -> float:
    image = np.zeros((*(model.fixed_size or model.image_size), 3), np.uint8)
    seconds = []
    for _ in range(1 + _TIMES):
        began = time.perf_counter()
        model.predict(image)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
