"""Checkpoint to a proven ONNX file: graph, precision, gate, parity, and only then the file's name."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flexunet_pl.common.console import say
from flexunet_pl.common.errors import RunFailedError, UserError
from flexunet_pl.export.engines import Image, list_engines
from flexunet_pl.export.graph import Fit
from flexunet_pl.export.onnx_file import Source, read_source, write_onnx
from flexunet_pl.export.parity import Row, check_parity, print_parity, prove_parity, write_parity
from flexunet_pl.export.precision import Trial, write_int8
from flexunet_pl.io.images import read_image, resize_image
from flexunet_pl.io.pairs import list_files
from flexunet_pl.prepare.phantom import draw_slice
from flexunet_runtime.window import Window

Precision = Literal["fp32", "fp16", "int8"]

_COMPARED = 16  # images of a folder, evenly chosen
_CALIBRATED = 64  # images of a folder, evenly chosen
_PHANTOMS = 4
_HALF_LIMIT = 1e-3  # share of pixels whose class may differ in float16


@dataclass(frozen=True)
class OnnxOptions:
    """How a model is exported.

    Attributes:
        precision: Of the network's numbers.
        probabilities: Whether they are an output beside the mask.
        fit: How images become those of the network.
        size: Height and width of all images that it will be given; None for any.
        calibrate: Folder of images from which int8 takes its ranges.
        images: Folder of images on which the engines are compared.
        max_drop: Largest fall of a class's Dice by int8.
    """

    precision: Precision = "fp32"
    probabilities: bool = True
    fit: Fit | None = None
    size: tuple[int, int] | None = None
    calibrate: Path | None = None
    images: Path | None = None
    max_drop: float = 0.005


def export_onnx(checkpoint: Path, output: Path, options: OnnxOptions) -> dict[str, Any]:
    """Write a checkpoint as an ONNX file, after it is proven to do the same.

    Args:
        checkpoint: The checkpoint.
        output: The file; beside it a ``.parity.json`` with the proof.
        options: How.

    Returns:
        What the file says of the model, as plain data.

    Raises:
        UserError: If the options do not go together.
        RunFailedError: If the file does something else than the checkpoint.
    """
    if options.precision == "int8" and options.calibrate is None:
        raise UserError("int8 takes its ranges from images: give a folder of them, with lesions, as --calibrate")
    if options.size is not None and min(options.size) < 2:
        raise UserError(f"size is {list(options.size)}; expected height and width, such as [512, 512]")
    source = read_source(checkpoint, options.fit)
    images = _read_images(source, options.images or options.calibrate, _COMPARED, options.size)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        made = Path(folder) / "model.onnx"
        write_onnx(
            source, made, probabilities=options.probabilities, fixed_size=options.size, half=options.precision == "fp16"
        )
        trials: list[Trial] = []
        if options.precision == "int8":
            calibration = _read_images(source, options.calibrate, _CALIBRATED, options.size)
            plain, made = made, Path(folder) / "int8.onnx"
            try:
                trials = write_int8(plain, made, calibration, images, source.rgb_map.names, options.max_drop)
            except RunFailedError as error:
                raise RunFailedError(f"{output}: {error}") from error
        rows = prove_parity(source, made, images)
        print_parity(rows, len(images), made.stat().st_size)
        _check(rows, output, options.precision)
        facts = {
            "model": output.name,
            "precision": options.precision,
            "images": len(images),
            "bytes": made.stat().st_size,
            "trials": [asdict(trial) for trial in trials],
            **source.metadata,
        }
        write_parity(rows, output.with_suffix(".parity.json"), facts)
        made.replace(output)
    if trials:
        last, limit = trials[-1], options.max_drop
        kept = f", {last.in_float} of {last.layers} layers in float32" if last.in_float else ""
        say(f"int8: the Dice of a class falls by at most {max(last.drop, 0):.4f} (limit {limit:g}){kept}")
    if "openvino" not in list_engines():
        say("note: OpenVINO is not installed, so it was not compared: pip install 'flexunet-pl[openvino]'")
    say(f"{output} written ({output.stat().st_size / 1e6:.1f} MB), with {output.with_suffix('.parity.json').name}")
    return source.metadata


def _check(rows: Sequence[Row], output: Path, precision: Precision) -> None:
    if precision == "fp32":
        check_parity(rows, output)
    for row in rows if precision == "fp16" else ():
        if row.pixels_differ > _HALF_LIMIT:
            raise RunFailedError(
                f"{output}: not written: in float16 with {row.engine} {row.pixels_differ:.2%} of the pixels are of "
                f"another class; the limit is {_HALF_LIMIT:.1%}; use fp32"
            )


def _read_images(source: Source, folder: Path | None, most: int, size: tuple[int, int] | None) -> list[Image]:
    """Read some images of a folder, evenly chosen, or draw phantoms."""
    height, width = source.image_size
    if folder is None:
        side = max(height, width)
        drawn = [draw_slice(i, (i + 0.5) / _PHANTOMS, side, 137)[0][:height, :width] for i in range(_PHANTOMS)]
        images = [np.repeat(grey[..., None], 3, axis=2) for grey in drawn]
        images[-1] = resize_image(images[-1], (height + 37, width + 51))  # one that must be resized
    else:
        paths = list_files(folder)
        window = Window.parse(source.metadata["image_window"])
        chosen = np.unique(np.linspace(0, len(paths) - 1, most).astype(int))
        images = [read_image(paths[i], 3, window) for i in chosen]
    return [resize_image(image, size) for image in images] if size is not None else images
