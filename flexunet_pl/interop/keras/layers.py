"""The layers of a FlexUNet in the order in which Keras numbers and stores them."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flexunet_pl.common.errors import UserError
from flexunet_pl.models.flexunet import FlexUNet

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Kind:
    """A kind of layer that has arrays.

    Attributes:
        keras_name: What Keras calls the first layer of the kind; the others get ``_1``, ``_2``, ...
        array_names: Keras' names of the arrays, in Keras' order.
        tensor_names: torch's names of the same arrays.
    """

    keras_name: str
    array_names: tuple[str, ...]
    tensor_names: tuple[str, ...]


_KINDS: dict[type[nn.Module], Kind] = {
    nn.Conv2d: Kind("conv2d", ("kernel", "bias"), ("weight", "bias")),
    nn.ConvTranspose2d: Kind("conv2d_transpose", ("kernel", "bias"), ("weight", "bias")),
    nn.BatchNorm2d: Kind(
        "batch_normalization",
        ("gamma", "beta", "moving_mean", "moving_variance"),
        ("weight", "bias", "running_mean", "running_var"),
    ),
}


@dataclass(frozen=True)
class Layer:
    """A layer of a network and its counterpart in Keras.

    Attributes:
        module: The layer.
        keras_name: Name of the layer in a Keras model that is built first in its process.
        place: Where it is, for people.
    """

    module: nn.Module
    keras_name: str
    place: str

    @property
    def kind(self) -> Kind:
        """What is known of layers of this type."""
        return _KINDS[type(self.module)]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the layer's arrays as Keras keeps them."""
        return [tuple(tensor.shape) for tensor in self._tensors()]

    def arrays(self) -> list[Array]:
        """Return the layer's values as Keras keeps them, float32 on the CPU."""
        return [tensor.cpu().float().contiguous().numpy() for tensor in self._tensors()]

    def fill(self, arrays: tuple[Array, ...]) -> None:
        """Copy Keras' arrays, of the right shapes, into the layer."""
        with torch.no_grad():
            for name, array in zip(self.kind.tensor_names, arrays, strict=True):
                tensor = getattr(self.module, name)
                tensor.copy_(_from_keras(torch.from_numpy(np.array(array))))

    def _tensors(self) -> list[torch.Tensor]:
        return [_to_keras(getattr(self.module, name).detach()) for name in self.kind.tensor_names]


def _to_keras(tensor: torch.Tensor) -> torch.Tensor:
    # (out, in, h, w) to (h, w, in, out); of a transposed convolution (in, out, h, w) to (h, w, out, in)
    return tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor


def _from_keras(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor


def keras_layers(network: nn.Module) -> list[Layer]:
    """List the layers of a network that have arrays, in Keras' order: encoder, decoder from the bridge up, head.

    Args:
        network: A FlexUNet.

    Returns:
        The layers.

    Raises:
        UserError: If the network is no FlexUNet, or has values that no Keras layer keeps.
    """
    if not isinstance(network, FlexUNet):
        raise UserError(f"{type(network).__name__} has no Keras form; only a FlexUNet does")
    if isinstance(norm := network.init_args["normalization"], str):
        raise UserError(f"normalization `{norm}` has no form in the original, which knows batch norm and none")
    parts: list[tuple[str, nn.Module]] = [(f"encoder level {i}", b) for i, b in enumerate(network.encoder)]
    upward = range(len(network.decoder) - 1, -1, -1)
    for i, upsample, block in zip(upward, network.upsample, network.decoder, strict=True):
        parts += [(f"decoder level {i}", upsample), (f"decoder level {i}", block)]
    parts.append(("head", network.head))
    counts: Counter[str] = Counter()
    layers = []
    for place, part in parts:
        for module in part.modules():
            if type(module) in _KINDS:
                name = _KINDS[type(module)].keras_name
                layers.append(Layer(module, name + (f"_{counts[name]}" if counts[name] else ""), place))
                counts[name] += 1
    covered = sum(p.numel() for layer in layers for p in layer.module.parameters())
    if covered != sum(p.numel() for p in network.parameters()):
        raise UserError("the network's activation has weights of its own, which no Keras file of the original keeps")
    return layers
