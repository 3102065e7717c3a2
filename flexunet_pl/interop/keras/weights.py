"""Weights of a FlexUNet from and to Keras files, and the same network as a Keras model."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import nn

from flexunet_pl import __version__
from flexunet_pl.common.errors import ModelFileError, UserError
from flexunet_pl.common.files import written_in_place
from flexunet_pl.interop.equivalents import ACTIVATIONS
from flexunet_pl.interop.keras.file import KerasFile, KerasLayer, read_keras_file
from flexunet_pl.interop.keras.layers import Layer, keras_layers
from flexunet_pl.io.hdf5 import require_h5py
from flexunet_pl.models.flexunet import FlexUNet
from flexunet_pl.models.schedule import check_image_size

if TYPE_CHECKING:
    import keras

FORMATS = (".keras", ".weights.h5", ".h5")


def load_keras_weights(network: nn.Module, path: str | Path) -> None:
    """Fill a network with the weights of a Keras file; layers are matched by order and shape, not by name.

    Args:
        network: A FlexUNet; it stays as it was where the file does not fit.
        path: A ``.h5`` file written by Keras 2 or 3 (weights or whole model), a ``.weights.h5`` or a ``.keras`` file.

    Raises:
        UserError: If the network is no FlexUNet, or h5py is not installed.
        ModelFileError: If the file cannot be read or does not fit; the message names the first layer that differs.
    """
    fill_network(network, read_keras_file(path))


def fill_network(network: nn.Module, file: KerasFile) -> None:
    """Fill a network with the layers of a file; see `load_keras_weights`.

    Args:
        network: A FlexUNet.
        file: What was read.
    """
    for layer, of_file in match_layers(network, file):
        layer.fill(of_file.arrays)


def match_layers(network: nn.Module, file: KerasFile) -> list[tuple[Layer, KerasLayer]]:
    """Match the layers of a network with those of a file, by order within each kind, and compare their shapes.

    Args:
        network: A FlexUNet.
        file: What was read.

    Returns:
        The pairs.

    Raises:
        ModelFileError: If the file does not fit.
    """
    matched: list[tuple[Layer, KerasLayer]] = []
    layers = keras_layers(network)
    for noun, keras_name, found in (
        ("convolutions", "conv2d", file.convolutions),
        ("transposed convolutions", "conv2d_transpose", file.upsamplings),
        ("batch norms", "batch_normalization", file.norms),
    ):
        wanted = [layer for layer in layers if layer.kind.keras_name == keras_name]
        if len(found) != len(wanted):
            raise ModelFileError(
                f"{file.path}: holds {len(found)} {noun} but the network has {len(wanted)}; "
                "check num_layers and normalization"
            )
        matched += zip(wanted, found, strict=True)
    for layer, of_file in matched:
        shapes = [array.shape for array in of_file.arrays]
        if shapes != layer.shapes:
            raise ModelFileError(
                f"{file.path}: {layer.place}, layer `{of_file.name}`: expected arrays of shapes {_join(layer.shapes)} "
                f"but found {_join(shapes)}"
            )
    return matched


def save_keras_weights(network: nn.Module, path: str | Path, image_size: tuple[int, int] | None = None) -> None:
    """Write the weights of a network as a file that Keras, and so the original, opens.

    Args:
        network: A FlexUNet.
        path: The file; its ending chooses the format. ``.h5``: legacy weights for ``load_weights`` of Keras 2 and 3.
            ``.weights.h5``: weights of Keras 3. ``.keras``: the whole model of Keras 3, for ``load_model``.
        image_size: Height and width that a ``.keras`` model is built for; any where none is given.

    Raises:
        UserError: If the ending is another one, the network is no FlexUNet, or a library is missing.
    """
    require_h5py("Keras files")
    target = Path(path)
    form = next((ending for ending in FORMATS if target.name.endswith(ending)), None)
    if form is None:
        raise UserError(f"{target}: unknown format; let the name end in {', '.join(FORMATS)}")
    layers = keras_layers(network)
    with written_in_place(target) as temporary:
        if form == ".keras":
            staged = temporary.with_suffix(".keras")  # Keras looks at the ending
            build_keras_model(cast("FlexUNet", network), image_size).save(staged)
            staged.replace(temporary)
        else:
            _write_h5(temporary, layers, legacy=form == ".h5")


def _write_h5(path: Path, layers: list[Layer], *, legacy: bool) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        if legacy:
            file.attrs["layer_names"] = np.array([layer.keras_name.encode() for layer in layers])
            # the layout is that of Keras 2; for files without a version Keras would convert the arrays of Keras 1
            file.attrs.update({"backend": "tensorflow", "keras_version": "2.15.0", "flexunet_pl": __version__})
        for layer in layers:
            arrays = layer.arrays()
            if legacy:
                names = [f"{layer.keras_name}/{name}:0" for name in layer.kind.array_names]
                group = file.create_group(layer.keras_name)
                group.attrs["weight_names"] = np.array([name.encode() for name in names])
            else:
                names = [str(i) for i in range(len(arrays))]
                group = file.create_group(f"layers/{layer.keras_name}/vars")
            for name, array in zip(names, arrays, strict=True):
                group.create_dataset(name, data=array)


def build_keras_model(network: FlexUNet, image_size: tuple[int, int] | None = None) -> "keras.Model":
    """Build the network as a functional Keras model with the same weights; on torch, unless Keras is told otherwise.

    Args:
        network: A FlexUNet.
        image_size: Height and width of the input; any where none is given.

    Returns:
        A model of images ``(N, H, W, C)``, 0..255, to probabilities ``(N, H, W, K)`` (softmax, or sigmoid where K
        is 1). A network that scales its input begins with a ``Rescaling`` layer. There is no ``Lambda``.

    Raises:
        UserError: If the network is no FlexUNet, its activation has no equal in Keras, or Keras is not installed.
    """
    layers = keras_layers(network)
    if image_size is not None:
        check_image_size(image_size, network.size_factor)
    name = str(network.init_args["activation"]).replace("_", "").lower()
    if name not in ACTIVATIONS:
        raise UserError(f"activation `{name}` has no equal in Keras; those that have: {', '.join(ACTIVATIONS)}")
    make = _LayerMaker({layer.module: layer.keras_name for layer in layers}, ACTIVATIONS[name])
    keras = make.keras
    inputs = keras.layers.Input((*(image_size or (None, None)), network.init_args["in_channels"]))
    features = keras.layers.Rescaling(1 / 255)(inputs) if network.input_normalize else inputs
    skips = []
    for i, block in enumerate(network.encoder):
        features = make.block(block, keras.layers.MaxPooling2D(2)(features) if i else features)
        skips.append(features)
    for upsample, block, skip in zip(network.upsample, network.decoder, skips[-2::-1], strict=True):
        features = keras.layers.Concatenate()([make.upsampling(upsample)(features), skip])
        features = make.block(block, features)
    last = "sigmoid" if network.init_args["num_classes"] == 1 else "softmax"
    model = keras.Model(inputs, make.convolution(cast("nn.Conv2d", network.head), last)(features), name="flexunet")
    for layer in layers:
        model.get_layer(layer.keras_name).set_weights(layer.arrays())
    return model


class _LayerMaker:
    """Makes the Keras counterparts of layers.

    Args:
        names: Name of each layer that has arrays.
        activation: Keras' name of the blocks' activation.
    """

    def __init__(self, names: dict[nn.Module, str], activation: str) -> None:
        self.names = names
        self.activation = activation
        self.keras = _import_keras()

    def block(self, block: nn.Module, features: Any) -> Any:
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                features = self.convolution(module, self.activation)(features)
            elif isinstance(module, nn.BatchNorm2d):
                features = self.norm(module)(features)
            elif isinstance(module, nn.Dropout):
                features = self.keras.layers.Dropout(module.p)(features)
        return features

    def convolution(self, conv: nn.Conv2d, activation: str) -> Any:
        return self.keras.layers.Conv2D(
            conv.out_channels,
            conv.kernel_size,
            dilation_rate=conv.dilation,
            padding="same",
            activation=activation,
            name=self.names[conv],
        )

    def norm(self, norm: nn.BatchNorm2d) -> Any:
        # Keras' momentum weighs the old value, torch's the new one
        return self.keras.layers.BatchNormalization(
            momentum=1 - (norm.momentum or 0), epsilon=norm.eps, name=self.names[norm]
        )

    def upsampling(self, conv: nn.Module) -> Any:
        return self.keras.layers.Conv2DTranspose(conv.out_channels, 2, strides=2, name=self.names[conv])


def _import_keras() -> Any:
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")  # TensorFlow, its default, need not be there
    try:
        import keras
    except ImportError as error:
        raise UserError("Keras is not installed: pip install 'flexunet-pl[keras]'") from error
    return keras


def _join(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(str(shape) for shape in shapes)
