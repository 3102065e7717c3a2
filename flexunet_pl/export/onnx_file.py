"""Checkpoint to ONNX: one file with the weights, the graph and all that is known of the model."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flexunet_pl.common.checkpoint_set import checkpoint_files, checkpoint_sha256
from flexunet_pl.common.errors import ModelFileError, UserError
from flexunet_pl.export.graph import DeployedModel, Fit
from flexunet_pl.models.load import read_saved_model
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.metadata import FORMAT, WITHOUT_STEPS, read_metadata

OPSET = 20
METADATA_KEY = "flexunet"  # of the one entry in the file's metadata, which is JSON

_MAX_BYTES = 2**31 - (1 << 24)  # a protobuf ends at 2 GiB
_MAX_BATCH, _MAX_SIDE = 256, 16384


@dataclass(frozen=True)
class Source:
    """What a checkpoint knows that the graph needs.

    Attributes:
        network: The network, in eval mode.
        rgb_map: The classes.
        image_size: Height and width of the network's images.
        in_channels: 3 for R, G, B or 1 for grey.
        metadata: Written to the file, as plain data.
        temperature: What logits are divided by before they become probabilities.
    """

    network: nn.Module
    rgb_map: RgbMap
    image_size: tuple[int, int]
    in_channels: int
    metadata: dict[str, Any]
    temperature: float = 1.0

    def deployed(self, *, probabilities: bool, half: bool = False) -> DeployedModel:
        """Return the network with its pre- and post-processing, in eval mode; its numbers of 16 bits on demand."""
        model = DeployedModel(
            self.network, self.rgb_map, self.image_size, self.in_channels,
            fit=self.metadata["fit"], probabilities=probabilities, half=half, temperature=self.temperature,
        )  # fmt: skip
        return model.eval()


def read_source(path: Path, fit: Fit | None = None) -> Source:
    """Read a checkpoint for an export.

    Args:
        path: The checkpoint, or several; see `checkpoint_files`.
        fit: How images become those of the network.

    Returns:
        What it holds.

    Raises:
        ModelFileError: If it is no checkpoint of this package.
        UserError: If it has classes that the runtime would refuse.
    """
    saved = read_saved_model(path)
    if saved.neighbours:
        raise UserError(
            f"{path}: takes slices with their neighbours (data.neighbours {saved.neighbours}), which the runtime does "
            "not read; use flexunet predict"
        )
    if fit == "resize" and saved.patches:
        raise UserError(f"{path}: was trained on patches at the images' own resolution, so --fit must be pad")
    fit = fit if fit is not None else "pad" if saved.patches else "resize"
    digest = checkpoint_sha256(path)
    metadata = {
        "format": FORMAT if saved.postprocessing else WITHOUT_STEPS,
        "flexunet_version": version("flexunet-pl"),
        "classes": [[n, list(c)] for n, c in zip(saved.rgb_map.names, saved.rgb_map.colors, strict=True)],
        "image_size": list(saved.image_size),
        "fit": fit,
        "in_channels": saved.in_channels,
        "image_window": list(saved.image_window) if saved.image_window is not None else None,
        **saved.facts.plain(),
        **({"postprocessing": [step.plain() for step in saved.postprocessing]} if saved.postprocessing else {}),
        "never_empty": saved.never_empty,
        "network": saved.network,
        "checkpoint_sha256": digest,
        "training_data_sha256": _training_data(path),
    }
    try:
        read_metadata(json.dumps(metadata))
    except ValueError as error:
        raise UserError(f"{path}: an ONNX file of it could not be read: it {error}") from error
    return Source(saved.build(), saved.rgb_map, saved.image_size, saved.in_channels, metadata, saved.temperature)


def write_onnx(
    source: Source,
    output: Path,
    *,
    probabilities: bool,
    fixed_size: tuple[int, int] | None = None,
    half: bool = False,
) -> None:
    """Write the model.

    Args:
        source: The checkpoint.
        output: The file to write.
        probabilities: Whether probabilities are an output beside the mask.
        fixed_size: Height and width of all images it will be given, which makes it a little faster.
        half: Whether the network's numbers have 16 bits rather than 32.

    Raises:
        UserError: If the model would be larger than 2 GiB.
        ModelFileError: If the network cannot be exported.
    """
    import onnx

    size = sum(p.numel() * p.element_size() for p in source.network.state_dict().values()) // (2 if half else 1)
    if size > _MAX_BYTES:
        raise UserError(
            f"{output}: the weights have {size / 2**30:.1f} GiB, but one ONNX file ends at 2 GiB; take fewer "
            "checkpoints, or --precision fp16, which halves them"
        )
    model = source.deployed(probabilities=probabilities, half=half)
    height, width = fixed_size if fixed_size is not None else (source.image_size[0] + 6, source.image_size[1] + 10)
    image = torch.zeros(2, height, width, 3, dtype=torch.uint8)  # sizes that are not to be taken for constants
    dims: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=_MAX_BATCH)}
    if fixed_size is None:
        dims |= {i: torch.export.Dim(n, min=2, max=_MAX_SIDE) for i, n in ((1, "height"), (2, "width"))}
    names = ["mask", "probabilities"] if probabilities else ["mask"]
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                model, (image,), dynamo=True, dynamic_shapes={"image": dims}, input_names=["image"],
                output_names=names, opset_version=OPSET, external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter raises kinds of its own, and torch's
        raise ModelFileError(
            f"this network cannot be exported: {str(error).strip().splitlines()[0]}; networks of plain torch layers can"
        ) from error
    proto = program.model_proto  # type: ignore[union-attr]
    proto.producer_name, proto.producer_version = "flexunet_pl", version("flexunet-pl")
    metadata = source.metadata | {"fixed_size": list(fixed_size) if fixed_size is not None else None}
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(metadata)})
    onnx.save_model(proto, output)


def _training_data(checkpoint: Path) -> str | None:
    """Return the hash of the files that a run was trained on, where the checkpoint lies in its run's folder."""
    try:
        (file,) = checkpoint_files(checkpoint)  # the folds of several are trained on different ones
        record = json.loads((file.absolute().parent.parent / "run.json").read_text(encoding="utf-8"))
        digest = record["data"]["train"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return str(digest)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own workings from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
