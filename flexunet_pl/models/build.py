"""Build a network from its class path and plain arguments, within the packages that may be imported."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from flexunet_pl.errors import ModelFileError
from flexunet_pl.models.flexunet import FlexUNet

# what a configuration or a checkpoint may name; both come from strangers
TRUSTED_PACKAGES = (
    "flexunet_pl",
    "torch",
    "torchvision",
    "lightning",
    "monai",
    "segmentation_models_pytorch",
    "albumentations",
    "torchmetrics",
)


def import_class(class_path: str) -> Any:
    """Import what a class path names.

    Args:
        class_path: Import path within the trusted packages.

    Returns:
        What it names.

    Raises:
        ModelFileError: If the path is outside the trusted packages or leads nowhere.
    """
    module_path, _, name = class_path.rpartition(".")
    if module_path.split(".")[0] not in TRUSTED_PACKAGES:
        raise ModelFileError(
            f"network class `{class_path}` is outside the trusted packages ({', '.join(TRUSTED_PACKAGES)}) and was "
            "not imported; build it yourself and pass it as `network`"
        )
    try:
        return getattr(import_module(module_path), name)
    except (ImportError, AttributeError) as error:
        raise ModelFileError(f"network class `{class_path}` does not exist: {error}") from error


def build_network(class_path: str, init_args: dict[str, Any]) -> nn.Module:
    """Import a network class and call it.

    Args:
        class_path: Import path of a subclass of ``torch.nn.Module`` in one of the trusted packages.
        init_args: Its keyword arguments.

    Returns:
        The network, with fresh weights.

    Raises:
        ModelFileError: If the path is outside the trusted packages, names no network, or the arguments do not fit.
    """
    network_class = import_class(class_path)
    if not (isinstance(network_class, type) and issubclass(network_class, nn.Module)):
        raise ModelFileError(f"`{class_path}` is no network class")
    try:
        return network_class(**init_args)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"network class `{class_path}` does not take {init_args}: {error}") from error


class ScaledInput(nn.Module):
    """Gives a network that expects values in 0..1 the pixels in 0..255 that every network here is called with.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)``, uint8 or float in 0..255, to logits ``(N, K, H, W)``."""
        logits: Tensor = self.network(image.to(next(self.network.parameters()).dtype) / 255)
        return logits


def size_factor(network: nn.Module) -> int:
    """Return what both sides of a network's images must be multiples of.

    Args:
        network: A network, behind a scaling or not.
    """
    bare = network.network if isinstance(network, ScaledInput) else network
    # FlexUNet states its factor; the encoders of segmentation_models_pytorch state their stride
    stride = getattr(getattr(bare, "encoder", None), "output_stride", 1)
    return int(getattr(bare, "size_factor", stride))


def for_pixels(network: nn.Module) -> nn.Module:
    """Return the network as one that takes pixels in 0..255, in channels-last memory.

    Args:
        network: A FlexUNet, which does, or another network, which is taken to expect 0..1.

    Returns:
        The network itself, or the network behind a scaling.
    """
    scaled = network if isinstance(network, FlexUNet) else ScaledInput(network)
    return scaled.to(memory_format=torch.channels_last)


def network_spec(network: nn.Module) -> dict[str, Any] | None:
    """Describe a network as plain data, from which `build_network` makes it again.

    Args:
        network: A network that keeps its arguments in ``init_args``, as FlexUNet does.

    Returns:
        Class path and arguments, or None where the network does not keep them.
    """
    init_args = getattr(network, "init_args", None)
    if not isinstance(init_args, dict):
        return None
    return {"class_path": f"{type(network).__module__}.{type(network).__qualname__}", "init_args": dict(init_args)}
