"""Build a network from its class path and plain arguments, within the packages that may be imported."""

from importlib import import_module
from typing import Any

from torch import nn

from flexunet_pl.errors import ModelFileError

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
    module_path, _, name = class_path.rpartition(".")
    if module_path.split(".")[0] not in TRUSTED_PACKAGES:
        raise ModelFileError(
            f"network class `{class_path}` is outside the trusted packages ({', '.join(TRUSTED_PACKAGES)}) and was "
            "not imported; build it yourself and pass it as `network`"
        )
    try:
        network_class = getattr(import_module(module_path), name)
    except (ImportError, AttributeError) as error:
        raise ModelFileError(f"network class `{class_path}` does not exist: {error}") from error
    if not (isinstance(network_class, type) and issubclass(network_class, nn.Module)):
        raise ModelFileError(f"`{class_path}` is no network class")
    try:
        return network_class(**init_args)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"network class `{class_path}` does not take {init_args}: {error}") from error


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
