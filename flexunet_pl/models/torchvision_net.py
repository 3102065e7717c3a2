"""TorchvisionNet: the segmentation networks of torchvision, as one class that gives logits."""

from typing import Any, Literal

import torch
from torch import nn

from flexunet_pl.common.errors import UserError

Architecture = Literal[
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "fcn_resnet50",
    "fcn_resnet101",
    "lraspp_mobilenet_v3_large",
]


class TorchvisionNet(nn.Module):
    """A segmentation network of torchvision, which are functions there and give a dictionary.

    Args:
        architecture: Name of the function in ``torchvision.models.segmentation``.
        num_classes: Number of classes with the background.
        in_channels: Channels of the image; these networks take 3.
        backbone_weights: Whether to fetch trained weights for the encoder.

    Raises:
        UserError: If the image has another number of channels.
    """

    def __init__(
        self,
        architecture: Architecture,
        num_classes: int,
        in_channels: int = 3,
        backbone_weights: Literal["DEFAULT"] | None = None,
    ) -> None:
        super().__init__()
        from torchvision.models import get_model

        if in_channels != 3:
            raise UserError(f"model.in_channels is {in_channels}, but networks of torchvision take 3")
        self.init_args: dict[str, Any] = {
            "architecture": architecture,
            "num_classes": num_classes,
            "in_channels": in_channels,
            "backbone_weights": None,  # a checkpoint has its own
        }
        self.network = get_model(
            architecture, weights=None, weights_backbone=backbone_weights, num_classes=num_classes, aux_loss=None
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images ``(N, 3, H, W)``, float, to logits ``(N, num_classes, H, W)``."""
        logits: torch.Tensor = self.network(image)["out"]
        return logits
