"""Int8 models from a float32 one, and the gate that they must pass."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flexunet_pl.common.errors import RunFailedError
from flexunet_pl.export.engines import Image, start
from flexunet_pl.export.onnx_file import METADATA_KEY
from flexunet_pl.export.parity import mean_dice

_LAYERS = ("Conv", "ConvTranspose")
_BETWEEN = ("Relu", "MaxPool", "Concat")  # which go on with the numbers that they are given
# the resize stays in float32, where it is exact


@dataclass(frozen=True)
class Trial:
    """An int8 model that was tried.

    Attributes:
        in_float: How many layers were kept in float32.
        layers: How many there are.
        dice: Dice between its masks and those of the float32 model, per class.
    """

    in_float: int
    layers: int
    dice: dict[str, float]

    @property
    def drop(self) -> float:
        """The largest fall of a class's Dice below 1."""
        return max((1 - value for value in self.dice.values() if not np.isnan(value)), default=0.0)


def write_int8(
    source: Path,
    output: Path,
    calibration: Sequence[Image],
    validation: Sequence[Image],
    class_names: Sequence[str],
    max_drop: float,
) -> list[Trial]:
    """Write a model whose layers count in 8 bits, keeping as many in float32 as the gate demands.

    Static quantisation, weights per channel, ranges of the activations from the calibration images. Where the Dice
    between its masks and those of the float32 model falls too far, the layers next to input and output are kept in
    float32, twice as many each time: they work at full resolution and are the most sensitive.

    Args:
        source: The float32 model.
        output: The file to write.
        calibration: Images ``(H, W, 3)``, uint8, from which ranges are taken.
        validation: Images on which masks are compared.
        class_names: Names in class order, the background first.
        max_drop: Largest fall of a class's Dice.

    Returns:
        What was tried; the last one was written.

    Raises:
        RunFailedError: If no model passes the gate; the message has the trials.
    """
    import onnx

    model = onnx.load_model(source, load_external_data=False)
    layers = [node.name for node in model.graph.node if node.op_type in _LAYERS]
    expected = _masks(source, validation)
    trials: list[Trial] = []
    count = 0
    while count < len(layers):
        kept = _outermost(layers, count)
        _quantise(source, output, calibration, kept)
        dice = mean_dice(_masks(output, validation), expected, class_names)
        trials.append(Trial(count, len(layers), dice))
        if trials[-1].drop <= max_drop:
            return trials
        count = max(1, count * 2)
    output.unlink(missing_ok=True)
    tried = "; ".join(f"{t.in_float} of {t.layers} layers in float32: Dice falls by {t.drop:.4f}" for t in trials)
    raise RunFailedError(f"not written: no int8 model keeps the Dice within {max_drop:g} ({tried})")


def _outermost(layers: Sequence[str], count: int) -> list[str]:
    """Return the names of the last, the first, the last but one, ... layers."""
    order = [name for pair in zip(reversed(layers), layers, strict=True) for name in pair]
    return list(dict.fromkeys(order))[:count]


def _quantise(source: Path, output: Path, images: Sequence[Image], kept: Sequence[str]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[dict[str, Any]] = iter([{"image": image[None]} for image in images])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    with _quiet(), tempfile.TemporaryDirectory(dir=output.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        _prepare(source, prepared)
        quantize_static(
            prepared,
            output,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=[*_LAYERS, *_BETWEEN],
            nodes_to_exclude=_with_what_follows(prepared, kept),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
    _copy_metadata(source, output)


def _with_what_follows(path: Path, kept: Sequence[str]) -> list[str]:
    """Return the names of layers in float32, and of what only hands their numbers on: 8 bits there would spoil them."""
    import onnx

    names: list[str] = []
    exact: set[str] = set()
    for node in onnx.load_model(path, load_external_data=False).graph.node:  # in the order in which they compute
        if node.name in kept or (node.op_type in _BETWEEN and not exact.isdisjoint(node.input)):
            names.append(node.name)
            exact.update(node.output)
        elif node.op_type not in {*_LAYERS, *_BETWEEN} and not exact.isdisjoint(node.input):
            exact.update(node.output)  # batch norm and the like are never quantised
    return names


def _prepare(source: Path, output: Path) -> None:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(str(source), str(output), skip_symbolic_shape=True, skip_optimization=True)


def _copy_metadata(source: Path, output: Path) -> None:
    import onnx

    known = {p.key: p.value for p in onnx.load_model(source, load_external_data=False).metadata_props}
    model = onnx.load_model(output)
    onnx.helper.set_model_props(model, {METADATA_KEY: known[METADATA_KEY]})
    onnx.save_model(model, output)


def _masks(path: Path, images: Sequence[Image]) -> list[Image]:
    run = start("onnxruntime", path)
    return [run(image[None])[0][0] for image in images]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice from the user, who cannot follow it."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
