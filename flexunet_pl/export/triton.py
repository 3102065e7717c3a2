"""A model as Triton and other servers of the KServe v2 protocol want it: a folder with version and configuration."""

import json
from pathlib import Path

from flexunet_pl.common.console import say
from flexunet_pl.common.errors import UserError
from flexunet_pl.common.files import written_in_place
from flexunet_pl.export.onnx_export import OnnxOptions, export_onnx

_MAX_BATCH = 8


def export_triton(checkpoint: Path, folder: Path, options: OnnxOptions, *, overwrite: bool) -> None:
    """Write a checkpoint as a model of a model repository: ``config.pbtxt`` and ``1/model.onnx``, proven first.

    Args:
        checkpoint: The checkpoint.
        folder: The model's folder; its name is the model's, and the folder above it is the repository.
        options: How the model is exported.
        overwrite: Whether a model that is there may be replaced.

    Raises:
        UserError: If the folder is a file, or holds something and may not be overwritten.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not overwrite):
        raise UserError(f"{folder}: is there already; name another folder, or add --overwrite")
    version = folder / "1"
    version.mkdir(parents=True, exist_ok=True)
    metadata = export_onnx(checkpoint, version / "model.onnx", options)
    (version / "model.parity.json").replace(folder / "model.parity.json")  # a version holds the model alone
    with written_in_place(folder / "config.pbtxt") as temporary:
        temporary.write_text(_describe(len(metadata["classes"]), options, json.dumps(metadata)), encoding="utf-8")
    say(f"{folder} written: tritonserver --model-repository {folder.absolute().parent}")


def _describe(classes: int, options: OnnxOptions, metadata: str) -> str:
    """Return the configuration; the first dimension, of the images, is not named in it."""
    height, width = options.size if options.size is not None else (-1, -1)
    outputs = [f'  {{ name: "mask" data_type: TYPE_UINT8 dims: [ {height}, {width} ] }}']
    if options.probabilities:
        dims = f"{classes}, {height}, {width}"
        outputs.append(f'  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {dims} ] }}')
    listed = ",\n".join(outputs)
    return (
        'backend: "onnxruntime"\n'
        f"max_batch_size: {_MAX_BATCH}\n"
        f'input [ {{ name: "image" data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] }} ]\n'
        f"output [\n{listed}\n]\n"
        "dynamic_batching { }\n"  # what waits goes together, where sizes agree
        f'parameters {{ key: "flexunet" value {{ string_value: {json.dumps(metadata)} }} }}\n'
    )
