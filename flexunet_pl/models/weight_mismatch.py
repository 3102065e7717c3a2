"""Why weights do not fit a network, and which FlexUNet they fit."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_SHOWN = 4  # weights that are named


def explain_mismatch(network: nn.Module, weights: Mapping[str, Any]) -> str | None:
    """Compare the names and shapes of weights with those of a network.

    Args:
        network: The network.
        weights: By name, as in its ``state_dict``.

    Returns:
        One line: what is missing, too much or of another shape; and where the weights are those of a FlexUNet, its
        settings. None where they fit.
    """
    own = {name: value for name, value in network.state_dict().items() if torch.is_tensor(value)}
    found = []
    for name, value in own.items():
        given = weights.get(name)
        if name not in weights:
            found.append(f"{name} is missing")
        elif not torch.is_tensor(given):
            found.append(f"{name} is no array")
        elif given.shape != value.shape:
            found.append(f"{name} is {_shape(given)}, in the network {_shape(value)}")
    found += [f"{name} is not in the network" for name in map(str, weights) if name not in own]
    if not found:
        return None
    rest = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    settings = _flexunet_settings(weights)
    are = ", ".join(f"{key} {value}" for key, value in settings.items())
    return f"its weights do not fit the network: {', '.join(found[:_SHOWN])}{rest}" + (
        f"; they are those of a FlexUNet with {are}" if settings else ""
    )


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "one number"


def _normalization(weights: Mapping[str, Any]) -> bool | str:
    if "encoder.0.layers.2.running_mean" in weights:
        return True
    return "group or instance" if "encoder.0.layers.1.bias" in weights else False


def _flexunet_settings(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that shapes tell of a FlexUNet; none where the weights are of something else."""
    first, head = (weights.get(name) for name in ("encoder.0.layers.0.weight", "head.weight"))
    if not (isinstance(first, Tensor) and isinstance(head, Tensor) and first.ndim == head.ndim == 4):
        return {}
    levels = {match[1] for name in weights if (match := re.match(r"encoder\.(\d+)\.layers\.0\.weight$", str(name)))}
    return {
        "in_channels": first.shape[1],
        "num_classes": head.shape[0],
        "base_filters": first.shape[0],
        "base_kernels": list(first.shape[2:]),
        "num_layers": len(levels),
        "normalization": _normalization(weights),
    }
