"""Build a network from its class path and plain arguments, as a checkpoint holds them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.nn.parameter import is_lazy

from flexunet_pl.common.class_paths import check_class, is_plain
from flexunet_pl.common.class_positions import NETWORK
from flexunet_pl.common.errors import ModelFileError, UserError
from flexunet_pl.models.schedule import MOST_WEIGHTS

_MOST_LAYERS = 20_000


def build_network(class_path: str, init_args: Mapping[str, Any]) -> nn.Module:
    """Build a network from what a checkpoint says of it, without fetching weights.

    Args:
        class_path: Import path of a network class, as `flexunet_pl.common.class_paths.NETWORK` allows.
        init_args: Its arguments, plain values; weights to start from are left out.

    Returns:
        The network, with fresh weights.

    Raises:
        ModelFileError: If the path names no such class, or the arguments do not fit it.
    """
    arguments = without_downloads({"class_path": class_path, "init_args": init_args})["init_args"]
    if not is_plain(arguments):
        raise ModelFileError("network.init_args holds more than plain values")
    try:
        network_class = check_class({"class_path": class_path, "init_args": arguments}, "network", (NETWORK,), None)
        with size_limits():
            network: nn.Module = network_class(**arguments)
    except UserError as error:
        raise ModelFileError(str(error)) from error
    except Exception as error:  # whatever a class makes of arguments that it does not know
        shown = f"{arguments}"[:300]
        raise ModelFileError(f"network class `{class_path}` does not take {shown}: {_first_line(error)}") from error
    return network


def without_downloads(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's class and arguments without weights to fetch, which those of the checkpoint replace.

    Args:
        network: ``class_path`` and ``init_args``.

    Returns:
        A copy in which every argument that names weights is None.
    """
    init_args = {
        name: None if "weights" in str(name).split("_") else value
        for name, value in (network.get("init_args") or {}).items()
    }
    # what segmentation_models_pytorch fetches where nothing is said
    if str(network.get("class_path", "")).startswith("segmentation_models_pytorch."):
        init_args["encoder_weights"] = None
    return {**network, "init_args": init_args}


@contextmanager
def size_limits() -> Iterator[None]:
    """Stop the building of a network that has more layers or weights than any network for images needs.

    Yields:
        Nothing; within, every new layer and weight is counted.

    Raises:
        UserError: Within, if the network is too large.
    """
    counts = {"layers": 0, "weights": 0}

    def count_layer(module: nn.Module, name: str, layer: nn.Module | None) -> None:
        _count(counts, "layers", 1, _MOST_LAYERS)

    def count_weights(module: nn.Module, name: str, weight: nn.Parameter) -> None:
        known = weight is not None and not is_lazy(weight)  # its size comes with the first image
        _count(counts, "weights", weight.numel() if known else 0, MOST_WEIGHTS)

    def count_buffer(module: nn.Module, name: str, buffer: Tensor | None) -> None:
        _count(counts, "weights", buffer.numel() if buffer is not None else 0, MOST_WEIGHTS)

    hooks = [register_module_module_registration_hook(count_layer)]
    hooks.append(register_module_parameter_registration_hook(count_weights))
    hooks.append(register_module_buffer_registration_hook(count_buffer))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _count(counts: dict[str, int], what: str, more: int, most: int) -> None:
    counts[what] += more
    if counts[what] > most:
        raise UserError(f"model.network has more than {most:,} {what}; lower its size, such as its kernels or depth")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


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
    bare = without_scaling(network)
    # FlexUNet states its factor; the encoders of segmentation_models_pytorch state their stride
    stride = getattr(getattr(bare, "encoder", None), "output_stride", 1)
    return int(getattr(bare, "size_factor", stride))


def for_pixels(network: nn.Module) -> nn.Module:
    """Return the network as one that takes pixels in 0..255, in channels-last memory.

    Args:
        network: A FlexUNet or an Ensemble, which does, or another network, which is taken to expect 0..1.

    Returns:
        The network itself, or the network behind a scaling.
    """
    scaled = network if getattr(network, "takes_pixels", False) else ScaledInput(network)
    return scaled.to(memory_format=torch.channels_last)


def without_scaling(network: nn.Module) -> nn.Module:
    """Return the network itself, behind a scaling or not."""
    return network.network if isinstance(network, ScaledInput) else network


def network_spec(network: nn.Module) -> dict[str, Any] | None:
    """Describe a network as plain data, from which `build_network` makes it again.

    Args:
        network: A network that keeps its arguments, as those of this package and of segmentation_models_pytorch do.

    Returns:
        Class path and arguments, or None where the network does not keep them.
    """
    bare = without_scaling(network)
    class_path = f"{type(bare).__module__}.{type(bare).__qualname__}"
    # networks of segmentation_models_pytorch keep their arguments under another name
    kept = "config" if class_path.startswith("segmentation_models_pytorch.") else "init_args"
    init_args = getattr(bare, kept, None)
    if not isinstance(init_args, Mapping) or not is_plain(init_args):
        return None
    spec = {"class_path": class_path, "init_args": json.loads(json.dumps(dict(init_args)))}  # lists for tuples
    return without_downloads(spec)
