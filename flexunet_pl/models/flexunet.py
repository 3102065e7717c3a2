"""FlexUNet: the configurable U-Net of TensorFlow-FlexUNet, layer for layer."""

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from flexunet_pl.common.errors import UserError
from flexunet_pl.models.blocks import (
    ConvBlock,
    Normalization,
    glorot_initialised,
    make_activation,
    name_normalization,
)
from flexunet_pl.models.schedule import MOST_WEIGHTS, check_image_size, count_weights, make_schedule


class FlexUNet(nn.Module):
    """U-Net whose depth, width, kernels, dilation and dropout follow from a few numbers.

    Level i of ``num_layers`` has ``base_filters * 2**i`` filters, kernels of ``max(base_kernels - 2 * i, 3)`` pixels,
    a dilation of ``max(dilation - i, 1)`` and a dropout of ``dropout_rate * i``; the last level is the bridge.

    Args:
        in_channels: Channels of the image, 3 for R, G, B.
        num_classes: Number of classes with the background; 1 gives a single logit (foreground, by sigmoid).
        base_filters: Filters of level 0.
        base_kernels: Kernel height and width of level 0 in pixels, odd.
        num_layers: Number of levels; both sides of the image must be a multiple of ``2**(num_layers - 1)``.
        dilation: Dilation of level 0 along height and width.
        dropout_rate: Dropout added per level.
        normalization: What normalises the features of the blocks: false or ``none``; true or ``batch``, a batch norm
            behind each activation, as in the original; ``group`` or ``instance``, before each activation.
        activation: Name of an activation of ``torch.nn``, such as ``relu`` or ``mish``.
        input_normalize: Whether the network divides the pixels by 255; else it uses them as they are.

    Raises:
        UserError: If an argument is out of its range.
    """

    takes_pixels = True  # in 0..255

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        base_filters: int = 16,
        base_kernels: tuple[int, int] = (9, 9),
        num_layers: int = 8,
        dilation: tuple[int, int] = (1, 1),
        dropout_rate: float = 0.04,
        normalization: bool | Normalization = False,
        activation: str = "relu",
        input_normalize: bool = True,
    ) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise UserError(f"in_channels ({in_channels}) and num_classes ({num_classes}) must be at least 1")
        make_activation(activation)  # a wrong name fails here, before any layer is drawn
        norm = name_normalization(normalization)
        self.init_args: dict[str, Any] = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "base_filters": base_filters,
            "base_kernels": list(base_kernels),
            "num_layers": num_layers,
            "dilation": list(dilation),
            "dropout_rate": dropout_rate,
            "normalization": norm if norm in {"group", "instance"} else norm == "batch",  # as in the original
            "activation": activation,
            "input_normalize": input_normalize,
        }
        levels = make_schedule(base_filters, base_kernels, num_layers, dilation, dropout_rate)
        weights = count_weights(levels, in_channels, num_classes)
        if weights > MOST_WEIGHTS:
            raise UserError(
                f"a FlexUNet with base_kernels {list(base_kernels)}, base_filters {base_filters} and num_layers "
                f"{num_layers} has {weights:,} weights, but at most {MOST_WEIGHTS:,} are taken; lower one of them"
            )
        channels = [in_channels, *(level.filters for level in levels)]
        self.encoder = nn.ModuleList(
            ConvBlock(before, level, normalization=norm, activation=activation)
            for before, level in zip(channels, levels, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        upward = levels[::-1]
        self.upsample = nn.ModuleList(
            glorot_initialised(nn.ConvTranspose2d(below.filters, level.filters, kernel_size=2, stride=2))
            for below, level in pairwise(upward)
        )
        self.decoder = nn.ModuleList(
            ConvBlock(2 * level.filters, level, normalization=norm, activation=activation) for level in upward[1:]
        )
        self.head = glorot_initialised(nn.Conv2d(base_filters, num_classes, kernel_size=1))
        self.size_factor = 2 ** (num_layers - 1)
        self.input_normalize = input_normalize

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Compute the logits.

        Args:
            image: Shape ``(N, in_channels, H, W)``, uint8 or float, values in 0..255.

        Returns:
            Logits, shape ``(N, num_classes, H, W)``, float; softmax over dimension 1 gives the probabilities
            (sigmoid where there is one class).

        Raises:
            UserError: If H or W is no multiple of ``2**(num_layers - 1)``.
        """
        check_image_size((image.shape[-2], image.shape[-1]), self.size_factor)
        features = image.to(self.head.weight.dtype)
        if self.input_normalize:
            features = features / 255
        skips = []
        for i, block in enumerate(self.encoder):
            features = block(self.pool(features) if i else features)
            skips.append(features)
        for upsample, block, skip in zip(self.upsample, self.decoder, skips[-2::-1], strict=True):
            features = block(torch.cat([upsample(features), skip], dim=1))
        logits: torch.Tensor = self.head(features)
        return logits
