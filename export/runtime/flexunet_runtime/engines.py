"""The engines that run a model file, each imported only where it is used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_runtime.errors import ModelFileError, UserError

MOST_THREADS = 256


@dataclass(frozen=True)
class Engine:
    """A model that an engine has loaded.

    Attributes:
        run: Maps images, shape ``(N, H, W, 3)``, uint8, to the outputs, in the order of `outputs`.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        metadata: What flexunet wrote into the file, JSON; empty where it wrote nothing.
    """

    run: Callable[[NDArray[np.uint8]], Sequence[NDArray[Any]]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: str


def start_engine(name: str, path: Path, threads: int | None, precision: str) -> Engine:
    """Load a model file.

    Args:
        name: One of `ENGINES`.
        path: The ONNX file.
        threads: Threads of a prediction; by default those of the machine.
        precision: For OpenVINO: ``f32``, or ``bf16`` on machines that have it.

    Returns:
        The engine.

    Raises:
        UserError: If there is no such engine, or it is not installed.
        ModelFileError: If the engine cannot run the file.
    """
    if name not in _STARTERS:
        raise UserError(f"there is no engine {name}; use {' or '.join(ENGINES)}")
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UserError(f"threads is {threads}; expected 1 to {MOST_THREADS}")
    return _STARTERS[name](path, threads, precision)


def _start_onnxruntime(path: Path, threads: int | None, precision: str) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is said by us, in one line
    options.enable_mem_pattern = False  # it plans memory for one size of images, and keeps a plan for each that comes
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        text = session.get_modelmeta().custom_metadata_map.get("flexunet", "")
    except Exception as error:  # it raises a dozen kinds of its own
        raise ModelFileError(
            f"{path}: is no model that onnxruntime can run ({str(error).partition(chr(10))[0]})"
        ) from error
    names = [output.name for output in session.get_outputs()]
    inputs = tuple(put.name for put in session.get_inputs())
    return Engine(lambda images: session.run(names, {"image": images}), inputs, tuple(names), text)


def _start_openvino(path: Path, threads: int | None, precision: str) -> Engine:
    try:
        import openvino
    except ImportError as error:
        raise UserError("openvino is not installed; pip install openvino") from error
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        core = openvino.Core()
        model = core.read_model(path)
        text = str(model.get_rt_info(["framework", "flexunet"]).value)
        compiled = core.compile_model(model, "CPU", options)
    except RuntimeError as error:
        raise ModelFileError(
            f"{path}: is no model that openvino can run ({str(error).partition(chr(10))[0]})"
        ) from error
    names = [output.get_any_name() for output in compiled.outputs]
    inputs = tuple(put.get_any_name() for put in compiled.inputs)
    return Engine(lambda images: [compiled(images)[i].copy() for i in range(len(names))], inputs, tuple(names), text)


_STARTERS: dict[str, Callable[[Path, int | None, str], Engine]] = {
    "onnxruntime": _start_onnxruntime,
    "openvino": _start_openvino,
}
ENGINES = tuple(_STARTERS)
