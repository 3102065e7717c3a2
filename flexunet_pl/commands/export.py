"""The verb `export`: a checkpoint in the format that is asked for."""

from pathlib import Path
from typing import Literal

from flexunet_pl.common.checkpoint_set import checkpoint_files
from flexunet_pl.common.console import say
from flexunet_pl.common.errors import UserError
from flexunet_pl.common.files import check_input, check_output
from flexunet_pl.export.graph import Fit
from flexunet_pl.export.onnx_export import OnnxOptions, Precision, export_onnx
from flexunet_pl.export.onnx_file import read_source
from flexunet_pl.export.triton import export_triton
from flexunet_pl.interop.keras.weights import save_keras_weights

Format = Literal["onnx", "triton", "keras", "weights.h5", "h5"]


def export_model(
    checkpoint: Path,
    to: Format | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    precision: Precision = "fp32",
    probabilities: bool = True,
    fit: Fit | None = None,
    size: tuple[int, int] | None = None,
    calibrate: Path | None = None,
    images: Path | None = None,
    max_drop: float = 0.005,
) -> None:
    """Write the network of a checkpoint as ONNX, for deployment, or as a file that Keras, and so the original, opens.

    An ONNX file is the whole model: pixels of a file in, class indices of the same size out, with names and colours of
    the classes inside. It is compared with the checkpoint in ONNX Runtime, and in OpenVINO where that is installed, and
    not written if it does something else; a table is printed and saved beside it.

    Args:
        checkpoint: The checkpoint; or several, separated by commas, or the folder of the runs of all folds: then one
            file holds all their networks, and averages their probabilities.
        to: onnx; triton: a folder with an ONNX file and its configuration, for a model repository of Triton and other
            servers of the KServe v2 protocol; keras: the whole model of Keras 3, for load_model; weights.h5: weights of
            Keras 3; h5: weights in the legacy format, for load_weights("best_model.h5") of the original. By default
            what the output ends in.
        output: The file, or for Triton the folder, to write; by default the checkpoint's name with the format's ending.
        overwrite: Whether to replace what has that name.
        precision: Of an ONNX file: fp32; fp16, for GPUs; int8, for CPUs, which takes --calibrate.
        probabilities: Whether an ONNX file gives them beside the mask; predictions in tiles need them.
        fit: How images become those of the network in an ONNX file: resized to its size; or padded to the next size
            that it takes, which keeps their resolution. By default as in training: padded where that was on patches.
        size: Height and width of all images that an ONNX file will be given; by default any.
        calibrate: Folder of images from which int8 takes its ranges: some dozens, with lesions.
        images: Folder of images on which file and checkpoint are compared; by default those to calibrate with, or
            phantoms.
        max_drop: How far the Dice between the masks of int8 and fp32 may fall below 1 for any class; layers are kept in
            fp32 until it holds.

    Raises:
        UserError: If neither format nor output is given, the two do not fit, or the output exists.
        ModelFileError: If the checkpoint cannot be read, or its network not be exported.
        RunFailedError: If the file does something else than the checkpoint.
    """
    files = checkpoint_files(checkpoint)
    for file in files:
        check_input(file)
    if output is None:
        if to is None:
            raise UserError("export: name a format, as in `--to keras`, or an output")
        if len(files) > 1 and not checkpoint.is_dir():
            raise UserError("export: several checkpoints have no name of their own; name an --output")
        output = checkpoint.with_suffix("" if to == "triton" else f".{to}")
    elif to not in {None, "triton"} and (
        not output.name.endswith(f".{to}") or (to == "h5" and output.name.endswith(".weights.h5"))
    ):
        raise UserError(f"{output}: is no name for this format, Keras looks at it; let it end in .{to}")
    options = OnnxOptions(precision, probabilities, fit, size, calibrate, images, max_drop)
    if to == "triton":
        export_triton(checkpoint, output, options, overwrite=overwrite)
        return
    for file in files:
        check_output(output, file, overwrite=overwrite)
    if output.suffix == ".onnx":
        export_onnx(checkpoint, output, options)
        return
    source = read_source(checkpoint)
    save_keras_weights(source.network, output, source.image_size)
    say(f"{output} written ({output.stat().st_size / 1e6:.1f} MB)")
