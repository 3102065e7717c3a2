"""From a Keras file of the original to a checkpoint."""

from pathlib import Path
from typing import Any

from flexunet_pl.commands.import_config import read_config
from flexunet_pl.common.console import say
from flexunet_pl.common.errors import ModelFileError, UserError
from flexunet_pl.common.files import check_input, check_output
from flexunet_pl.interop.keras.arguments import collect_arguments
from flexunet_pl.interop.keras.file import KerasFile, read_keras_file


def import_keras(
    weights: Path, config: Path | None = None, output: Path | None = None, overwrite: bool = False
) -> None:
    """Turn a Keras file of the original into a checkpoint for test, predict, fit and export.

    What arrays and description of the file do not tell comes from the original's configuration, or is assumed; all of
    it is listed on the console with where it came from.

    Args:
        weights: A .h5, .weights.h5 or .keras file, such as best_model.h5.
        config: The original's train_eval_infer.config, for the colours and what the file does not tell.
        output: The checkpoint to write; by default beside the Keras file.
        overwrite: Whether to replace a file of that name.
    """
    check_input(weights)
    target = output if output is not None else weights.with_suffix(".ckpt")
    check_output(target, weights, overwrite=overwrite)
    conversion = read_config(config) if config is not None else None
    file = read_keras_file(weights)
    found = collect_arguments(file, conversion)
    width = max(map(len, found))
    for key, (value, source) in found.items():
        say(f"{key:<{width}}  {value}  ({source})")
    bgr = conversion is not None and conversion.color_order == "BGR"
    if bgr:
        say("note: [image] color_order is BGR: the first kernel is turned round for images in RGB")
    _write_checkpoint(file, {key: value for key, (value, _) in found.items()}, target, bgr=bgr)
    say(f"{target} written; next: flexunet predict --ckpt_path {target} --data.predict_dir IMAGES")


def _write_checkpoint(file: KerasFile, arguments: dict[str, Any], target: Path, *, bgr: bool) -> None:
    # these take many seconds to import, and most mistakes are found without them
    import lightning
    import torch

    from flexunet_pl.checkpoint import AtomicCheckpointIO
    from flexunet_pl.interop.keras.weights import fill_network, match_layers
    from flexunet_pl.models.flexunet import FlexUNet
    from flexunet_pl.task import SegmentationTask

    size, rgb_map = arguments.pop("image_size"), arguments.pop("rgb_map")
    try:
        with torch.device("meta"):  # shapes only: a hostile file must not make us reserve memory
            match_layers(FlexUNet(**arguments), file)
    except UserError as error:
        raise error if isinstance(error, ModelFileError) else ModelFileError(f"{file.path}: {error}") from error
    network = FlexUNet(**arguments)
    fill_network(network, file)
    if bgr:
        first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
        with torch.no_grad():
            first.weight.copy_(first.weight.flip(1))
    task = SegmentationTask(network, rgb_map, tuple(size), in_channels=arguments["in_channels"])
    checkpoint = {
        "state_dict": task.state_dict(),
        "hyper_parameters": dict(task.hparams),
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
    }
    AtomicCheckpointIO().save_checkpoint(checkpoint, target)
