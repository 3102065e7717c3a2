"""From a Keras file to a checkpoint: what the file tells of its network, and what must be assumed."""

import colorsys
from pathlib import Path
from typing import Any

import lightning
import torch

from flexunet_pl.checkpoint import AtomicCheckpointIO
from flexunet_pl.console import say
from flexunet_pl.errors import ModelFileError
from flexunet_pl.interop.experiment import check_output, read_config
from flexunet_pl.interop.keras import ACTIVATIONS, fill_network, match_layers
from flexunet_pl.interop.keras_file import KerasFile, read_keras_file
from flexunet_pl.interop.settings import Conversion
from flexunet_pl.models.flexunet import FlexUNet
from flexunet_pl.rgb_map import MAX_CLASSES
from flexunet_pl.task import SegmentationTask

_ASSUMED: dict[str, Any] = {"dilation": [1, 1], "dropout_rate": 0.0, "activation": "relu", "input_normalize": True}
_USUAL_SIZE = 512
_MAX_DILATION = 64


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

    Raises:
        ModelFileError: If the file cannot be read, or is not that of a FlexUNet or of the configured one.
    """
    target = output if output is not None else weights.with_suffix(".ckpt")
    check_output(target, overwrite=overwrite)
    conversion = read_config(config) if config is not None else None
    file = read_keras_file(weights)
    found = collect_arguments(file, conversion)
    arguments = {key: value for key, (value, _) in found.items()}
    size, rgb_map = arguments.pop("image_size"), arguments.pop("rgb_map")
    with torch.device("meta"):  # shapes only: a hostile file must not make us reserve memory
        match_layers(FlexUNet(**arguments), file)
    network = FlexUNet(**arguments)
    fill_network(network, file)
    if conversion is not None and conversion.color_order == "BGR":
        _swap_channels(network)
        say("note: [image] color_order is BGR: the first kernel was turned round for images in RGB")
    task = SegmentationTask(network, rgb_map, tuple(size), in_channels=arguments["in_channels"])
    checkpoint = {
        "state_dict": task.state_dict(),
        "hyper_parameters": task.plain_hparams,
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
    }
    AtomicCheckpointIO().save_checkpoint(checkpoint, target)
    width = max(map(len, found))
    for key, (value, source) in found.items():
        say(f"{key:<{width}}  {value}  ({source})")
    say(f"{target} written; next: flexunet predict --ckpt_path {target} --data.predict_dir IMAGES")


def collect_arguments(file: KerasFile, conversion: Conversion | None = None) -> dict[str, tuple[Any, str]]:
    """Collect what is known of the network of a file: from its arrays, its description, a configuration, or assumed.

    Args:
        file: The file.
        conversion: The configuration it was trained with, if there is one.

    Returns:
        Arguments of a FlexUNet, ``image_size`` and ``rgb_map``, each with its source.

    Raises:
        ModelFileError: If the arrays are not those of a FlexUNet, or not of the configured one.
    """
    of_arrays = arguments_of_arrays(file)
    of_description = arguments_of_description(file)
    configured = _configured(conversion)
    result: dict[str, tuple[Any, str]] = {}
    for key in ("in_channels", "num_classes", "base_filters", "base_kernels", "num_layers", "normalization"):
        if configured.get(key, of_arrays[key]) != of_arrays[key]:
            raise ModelFileError(
                f"{file.path}: was not trained with this configuration: {key} is {configured[key]} there, but "
                f"{of_arrays[key]} by the arrays of the file"
            )
        result[key] = (of_arrays[key], "from the arrays")
    for key, usual in _ASSUMED.items():
        if key in of_description:
            result[key] = (of_description[key], "from the file's description of its network")
            if configured.get(key, of_description[key]) != of_description[key]:
                result[key] = (of_description[key], f"{result[key][1]}; the configuration says {configured[key]}")
        elif key in configured:
            result[key] = (configured[key], "from the configuration")
        else:
            result[key] = (usual, "assumed: the file does not tell, give the original's --config")
    factor = 2 ** (of_arrays["num_layers"] - 1)
    usual_size = [max(1, round(_USUAL_SIZE / factor)) * factor] * 2
    for source, values in (("configuration", configured), ("file's description of its network", of_description)):
        if "image_size" in values:
            result["image_size"] = (values["image_size"], f"from the {source}")
            break
    else:
        result["image_size"] = (usual_size, "assumed: the file does not tell, give the original's --config")
    if "rgb_map" in configured:
        result["rgb_map"] = (configured["rgb_map"], "from the configuration")
    else:
        made_up = _assumed_map(max(2, of_arrays["num_classes"]))
        result["rgb_map"] = (made_up, "assumed: no Keras file holds names and colours, give the original's --config")
    return result


def arguments_of_arrays(file: KerasFile) -> dict[str, Any]:
    """Derive arguments of a FlexUNet from the shapes of the arrays.

    Args:
        file: The file.

    Returns:
        in_channels, num_classes, base_filters, base_kernels, num_layers and normalization.

    Raises:
        ModelFileError: If no FlexUNet has such arrays.
    """
    levels = len(file.upsamplings) + 1
    kernels = [layer.arrays[0].shape for layer in file.convolutions]
    wanted = 4 * levels - 1
    if len(kernels) != wanted or len(file.norms) not in {0, wanted - 1}:
        raise ModelFileError(
            f"{file.path}: holds {len(kernels)} convolutions, {len(file.upsamplings)} transposed ones and "
            f"{len(file.norms)} batch norms, which no FlexUNet has (one of {levels} levels has {wanted} convolutions)"
        )
    filters = [shape[3] for shape in kernels[: 2 * levels : 2]]
    expected = [filters[0] * 2**i for i in range(levels)]
    if filters != expected or kernels[-1][3] > MAX_CLASSES:
        raise ModelFileError(
            f"{file.path}: its levels have {', '.join(map(str, filters))} filters and {kernels[-1][3]} classes; a "
            f"FlexUNet that begins so has {', '.join(map(str, expected))} filters and at most {MAX_CLASSES} classes"
        )
    return {
        "in_channels": kernels[0][2],
        "num_classes": kernels[-1][3],
        "base_filters": filters[0],
        "base_kernels": list(kernels[0][:2]),
        "num_layers": levels,
        "normalization": bool(file.norms),
    }


def arguments_of_description(file: KerasFile) -> dict[str, Any]:
    """Read arguments of a FlexUNet, and the size of its images, from the file's description of its network.

    The description is data: no layer in it is built, and a ``Lambda`` is taken to be the original's division by 255.

    Args:
        file: The file.

    Returns:
        What it tells of dilation, dropout_rate, activation, input_normalize and image_size; nothing without one.

    Raises:
        ModelFileError: If it describes a network that no FlexUNet is.
    """
    configs: dict[str, list[dict[str, Any]]] = {}
    for layer in file.description:
        config = layer.get("config")
        configs.setdefault(str(layer.get("class_name")), []).append(config if isinstance(config, dict) else {})
    if "Conv2D" not in configs:
        return {}
    first = configs["Conv2D"][0]
    result: dict[str, Any] = {"input_normalize": "Lambda" in configs or "Rescaling" in configs}
    for rescaling in configs.get("Rescaling", []):
        if (
            not _is_number(rescaling.get("scale"))
            or abs(255 * rescaling["scale"] - 1) > 1e-6
            or rescaling.get("offset")
        ):
            raise ModelFileError(f"{file.path}: scales its input by {rescaling.get('scale')}; a FlexUNet does by 1/255")
    dilation = first.get("dilation_rate", [1, 1])
    if not isinstance(dilation, list) or len(dilation) != 2 or not all(d in range(1, _MAX_DILATION) for d in dilation):
        raise ModelFileError(f"{file.path}: dilation {dilation} of its first convolution is not known")
    result["dilation"] = dilation
    name = first.get("activation")
    name = name.get("config") if isinstance(name, dict) else name  # a function of the original's own, such as mish
    ours = {keras_name: torch_name for torch_name, keras_name in reversed(ACTIVATIONS.items())}
    if name not in ours:
        raise ModelFileError(f"{file.path}: activation `{name}` is not known; known are {', '.join(ours)}")
    result["activation"] = ours[name]
    rates = [config.get("rate") for config in configs.get("Dropout", [])]
    if len(rates) > 1 and _is_number(rates[1]):  # that of level 1 is the rate itself
        result["dropout_rate"] = rates[1]
    inputs = configs.get("InputLayer", [{}])[0]
    shape = inputs.get("batch_shape") or inputs.get("batch_input_shape")
    if isinstance(shape, list) and len(shape) == 4 and all(isinstance(side, int) for side in shape[1:3]):
        result["image_size"] = shape[1:3]
    return result


def _configured(conversion: Conversion | None) -> dict[str, Any]:
    if conversion is None:
        return {}
    model = conversion.config["model"]
    values = {key: model[key] for key in ("in_channels", "image_size", "rgb_map") if key in model}
    return {**values, **model["network"]["init_args"], "num_classes": conversion.num_classes}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _assumed_map(classes: int) -> dict[str, list[int]]:
    """Make up names and colours, as far apart in hue as they can be."""
    colors = [[0, 0, 0], *([255, 255, 255] for _ in range(classes == 2))]
    hues = [i / (classes - 1) for i in range(classes - len(colors))]
    colors += [[round(255 * c) for c in colorsys.hsv_to_rgb(hue, 1, 1)] for hue in hues]
    return {"background" if i == 0 else f"class_{i}": color for i, color in enumerate(colors)}


def _swap_channels(network: FlexUNet) -> None:
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1))
