"""Run an ONNX file with ONNX Runtime or OpenVINO in a process of its own, and measure it there."""

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import RunFailedError

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Measured:
    """What an engine made of images, and what it took.

    Attributes:
        masks: One per image, shape ``(H, W)``.
        probabilities: One per image, shape ``(K, H, W)``; empty where the model gives none.
        load_s: Seconds until the first image could be predicted.
        image_s: Median seconds per image, the first left out where there are several.
        peak_mb: Largest memory of the process in 1e6 bytes, or NaN.
    """

    masks: list[Image]
    probabilities: list[NDArray[np.float32]]
    load_s: float
    image_s: float
    peak_mb: float


def list_engines() -> list[str]:
    """Return the engines that are installed."""
    return ["onnxruntime", *(["openvino"] if find_spec("openvino") else [])]


def run_engine(engine: str, path: Path, images: Sequence[Image]) -> Measured:
    """Run a model in a fresh process.

    Args:
        engine: One of `list_engines`.
        path: The ONNX file.
        images: Shape ``(H, W, 3)``, uint8 each.

    Returns:
        Results and measurements.

    Raises:
        RunFailedError: If the process was lost.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_run, engine, path, list(images)).result()
        except BrokenProcessPool as error:
            raise RunFailedError(f"{path}: {engine} was lost with it; probably memory ran out") from error


def start(engine: str, path: Path) -> Any:
    """Load a model.

    Args:
        engine: One of `list_engines`.
        path: The ONNX file.

    Returns:
        A function from images ``(N, H, W, 3)`` to the list of outputs.
    """
    if engine == "openvino":
        import openvino

        # float32 is asked for: on some machines the default is bfloat16
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda images: [output.copy() for output in compiled(images).values()]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": images})


def _run(engine: str, path: Path, images: list[Image]) -> Measured:
    began = time.perf_counter()
    model = start(engine, path)
    load_s = time.perf_counter() - began
    masks, probabilities, seconds = [], [], []
    for image in images:
        began = time.perf_counter()
        outputs = model(image[None])
        seconds.append(time.perf_counter() - began)
        masks.append(outputs[0][0])
        probabilities += [output[0] for output in outputs[1:]]
    return Measured(masks, probabilities, load_s, float(np.median(seconds[1:] or seconds)), _peak_mb())


def _peak_mb() -> float:
    """Return the largest memory of this process; getrusage would count that of its parent, on Linux."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6
