"""Building blocks of a FlexUNet: activation by name, the convolution block, the Keras initialisers."""

import math
from typing import Literal, cast, get_args

import torch
from torch import nn
from torch.nn.modules import activation as torch_activations

from flexunet_pl.common.errors import UserError
from flexunet_pl.models.schedule import Level

Normalization = Literal["none", "batch", "group", "instance"]
_MOST_GROUPS = 8

# standard deviation of a standard normal cut off at two standard deviations
_TRUNCATED_STD = 0.87962566103423978
# these are no element-wise functions, take arguments, or draw random numbers
_UNFIT = {"GLU", "MultiheadAttention", "RReLU", "Softmax", "Softmax2d", "LogSoftmax", "Softmin", "Threshold"}
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    name.lower(): getattr(torch_activations, name) for name in torch_activations.__all__ if name not in _UNFIT
}
_ACTIVATIONS["swish"] = nn.SiLU  # the name that Keras gives it


def make_activation(name: str) -> nn.Module:
    """Look an activation up by its name in ``torch.nn``, in any case, with or without underscores.

    Args:
        name: Such as ``relu``, ``mish``, ``leaky_relu`` or ``Hardswish``.

    Returns:
        The activation as a module.

    Raises:
        UserError: If there is none of that name.
    """
    found = _ACTIVATIONS.get(name.replace("_", "").lower())
    if found is None:
        raise UserError(f"activation `{name}` is not known; use one of {', '.join(sorted(_ACTIVATIONS))}")
    return found()


def name_normalization(given: bool | str) -> Normalization:
    """Return the name of what normalises features.

    Args:
        given: The name, or what the original's settings say: true for batch norm, false for none.

    Returns:
        The name.

    Raises:
        UserError: If there is none of that name.
    """
    word = ("batch" if given else "none") if isinstance(given, bool) else given
    for name in get_args(Normalization):
        if name == word:
            return cast("Normalization", name)
    raise UserError(f"normalization is `{given}`; use one of {', '.join(get_args(Normalization))}")


class ConvBlock(nn.Module):
    """Two convolutions with an activation and, if wanted, a norm each, and dropout between.

    Args:
        in_channels: Channels of the input.
        level: Filters, kernel, dilation and dropout.
        normalization: The norm: ``batch`` behind the activation, ``group`` and ``instance`` before it.
        activation: Name of the activation.
    """

    def __init__(self, in_channels: int, level: Level, *, normalization: Normalization, activation: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, channels in enumerate((in_channels, level.filters)):
            layers.append(_same_conv(channels, level))
            if normalization in {"group", "instance"}:
                groups = math.gcd(level.filters, _MOST_GROUPS) if normalization == "group" else level.filters
                layers.append(nn.GroupNorm(groups, level.filters))
            layers.append(make_activation(activation))
            if normalization == "batch":
                # Keras' defaults; its momentum 0.99 weighs the old value, torch's weighs the new one
                layers.append(nn.BatchNorm2d(level.filters, eps=1e-3, momentum=0.01))
            if i == 0:  # at a rate of 0 too, so that the weights' names do not depend on it
                layers.append(nn.Dropout(level.dropout))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features of shape ``(N, in_channels, H, W)`` to ``(N, level.filters, H, W)``."""
        out: torch.Tensor = self.layers(features)
        return out


def _same_conv(in_channels: int, level: Level) -> nn.Conv2d:
    (dy, dx), (ky, kx) = level.dilation, level.kernel
    padding = (dy * (ky - 1) // 2, dx * (kx - 1) // 2)
    conv = nn.Conv2d(in_channels, level.filters, level.kernel, padding=padding, dilation=level.dilation)
    std = math.sqrt(2 / (in_channels * math.prod(level.kernel))) / _TRUNCATED_STD
    nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(_bias(conv))
    return conv


def glorot_initialised(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Conv2d | nn.ConvTranspose2d:
    """Draw the weights as Keras' default initialiser does (Glorot uniform), and zero the bias.

    Args:
        layer: The layer to initialise, with a bias.

    Returns:
        The same layer.
    """
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(_bias(layer))
    return layer


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> torch.Tensor:
    if layer.bias is None:
        raise ValueError("the layer has no bias")
    return layer.bias
