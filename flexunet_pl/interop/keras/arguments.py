"""What a Keras file tells of its network, by its arrays and its description, and what must be assumed."""

import colorsys
import reprlib
from typing import Any

from flexunet_pl.common.errors import ModelFileError
from flexunet_pl.interop.config.settings import Conversion
from flexunet_pl.interop.equivalents import ACTIVATIONS
from flexunet_pl.interop.keras.file import KerasFile
from flexunet_pl.rgb_map import MAX_CLASSES

_ASSUMED: dict[str, Any] = {"dilation": [1, 1], "dropout_rate": 0.0, "activation": "relu", "input_normalize": True}
_USUAL_SIZE = 512
_MAX_DILATION = 64
_MAX_SIDE = 1 << 14  # px


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
    configured = _configured(conversion)
    for key, value in of_arrays.items():
        if configured.get(key, value) != value:
            raise ModelFileError(
                f"{file.path}: was not trained with this configuration: {key} is {configured[key]} there, but {value} "
                "by the arrays of the file"
            )
    assumed = _ASSUMED | _assumed_of(of_arrays)
    of_description = arguments_of_description(file)
    result: dict[str, tuple[Any, str]] = {key: (value, "from the arrays") for key, value in of_arrays.items()}
    for key, usual in assumed.items():
        if key in of_description:
            source = "from the file's description of its network"
            if configured.get(key, of_description[key]) != of_description[key]:
                source += f"; the configuration says {configured[key]}"
            result[key] = (of_description[key], source)
        elif key in configured:
            result[key] = (configured[key], "from the configuration")
        else:
            result[key] = (usual, "assumed: the file does not tell, give the original's --config")
    return result


def _assumed_of(of_arrays: dict[str, Any]) -> dict[str, Any]:
    factor = 2 ** (of_arrays["num_layers"] - 1)
    side = max(1, round(_USUAL_SIZE / factor)) * factor
    return {"image_size": [side, side], "rgb_map": _assumed_map(max(2, of_arrays["num_classes"]))}


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
    if kernels[0][2] not in {1, 3}:
        raise ModelFileError(f"{file.path}: takes {kernels[0][2]} channels; images with 1 or 3 are read here")
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
    result = {
        "dilation": _dilation(file, first.get("dilation_rate", [1, 1])),
        "activation": _activation(file, first.get("activation")),
        "input_normalize": _is_scaled(file, configs.get("Rescaling", [])) or "Lambda" in configs,
    }
    rates = [config.get("rate") for config in configs.get("Dropout", [])]
    if len(rates) > 1:  # that of level 1 is the rate itself
        result["dropout_rate"] = _rate(file, rates[1])
    inputs = configs.get("InputLayer", [{}])[0]
    shape = inputs.get("batch_shape") or inputs.get("batch_input_shape")
    if isinstance(shape, list) and len(shape) == 4 and shape[1:3] != [None, None]:
        result["image_size"] = _size(file, shape[1:3])
    return result


def _dilation(file: KerasFile, value: Any) -> list[int]:
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(type(d) is int and 0 < d < _MAX_DILATION for d in value)
    ):
        raise _unknown(file, "a dilation", value)
    return value


def _activation(file: KerasFile, value: Any) -> str:
    name = value.get("config") if isinstance(value, dict) else value  # a function of the original's own, such as mish
    ours = {keras_name: torch_name for torch_name, keras_name in reversed(ACTIVATIONS.items())}
    if not isinstance(name, str) or name not in ours:
        raise _unknown(file, "an activation", value)
    return ours[name]


def _is_scaled(file: KerasFile, rescalings: list[dict[str, Any]]) -> bool:
    for config in rescalings:
        scale = config.get("scale")
        if not isinstance(scale, float) or not abs(255 * scale - 1) <= 1e-6 or config.get("offset"):
            raise _unknown(file, "a scaling of the input, other than by 1/255,", scale)
    return bool(rescalings)


def _rate(file: KerasFile, value: Any) -> float:
    if type(value) not in {int, float} or not 0 <= value < 1:
        raise _unknown(file, "a dropout rate", value)
    return float(value)


def _size(file: KerasFile, sides: list[Any]) -> list[int]:
    factor = 2 ** len(file.upsamplings)
    if not all(type(side) is int and 0 < side <= _MAX_SIDE and side % factor == 0 for side in sides):
        raise _unknown(file, "an image size", sides)
    return sides


def _unknown(file: KerasFile, what: str, value: Any) -> ModelFileError:
    return ModelFileError(f"{file.path}: describes {what} that a FlexUNet does not have: {reprlib.repr(value)}")


def _configured(conversion: Conversion | None) -> dict[str, Any]:
    if conversion is None:
        return {}
    model = conversion.config["model"]
    values = {key: model[key] for key in ("in_channels", "image_size", "rgb_map") if key in model}
    return {**values, **model["network"]["init_args"], "num_classes": conversion.num_classes}


def _assumed_map(classes: int) -> dict[str, list[int]]:
    """Make up names and colours, as far apart in hue as they can be."""
    colors = [[0, 0, 0], *([255, 255, 255] for _ in range(classes == 2))]
    hues = [i / (classes - 1) for i in range(classes - len(colors))]
    colors += [[round(255 * c) for c in colorsys.hsv_to_rgb(hue, 1, 1)] for hue in hues]
    return {"background" if i == 0 else f"class_{i}": color for i, color in enumerate(colors)}
