"""Read the trained network of a checkpoint: what prediction needs of it, as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flexunet_pl.checkpoint import PREDICTION_SETTINGS, VERSION_KEY, read_checkpoint
from flexunet_pl.common.checkpoint_set import Checkpoints
from flexunet_pl.common.class_paths import find_stranger, is_plain
from flexunet_pl.common.class_positions import POSITIONS
from flexunet_pl.common.errors import ModelFileError, UserError
from flexunet_pl.io.dataset_facts import DatasetFacts
from flexunet_pl.io.images import ImageReader
from flexunet_pl.models.behind import check_temperature, read_steps
from flexunet_pl.models.build import build_network, for_pixels
from flexunet_pl.models.weight_mismatch import explain_mismatch
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.bands import MAX_BANDS
from flexunet_runtime.postprocess import Step
from flexunet_runtime.window import Window

_PREFIX = "network."  # of the network's weights in a checkpoint


@dataclass(frozen=True)
class SavedModel:
    """What a checkpoint says of its network; optimizer, loss, callbacks and whatever else it names are left alone.

    Attributes:
        path: The checkpoint.
        rgb_map: The classes.
        image_size: Height and width of the network's images.
        in_channels: 3 for R, G, B, 1 for grey, else the bands of TIFF files.
        image_window: Lowest and highest value of 16-bit and float images, if they were scaled.
        neighbours: How many slices before a slice, and behind it, are its further channels.
        patches: Whether it was trained on patches at the images' own resolution.
        temperature: What its logits are divided by before they become probabilities.
        postprocessing: What is done with its masks.
        never_empty: Whether each case that it was validated on is known to show more than the background.
        facts: How the slices of volumes that were trained on became pictures, if it is known.
        network: Class path and arguments of the network, if they are known.
        weights: Of the network, by name.
        training: Names of what else was set in the training, with the settings; for comparison, never to be built.
        resumable: Whether it holds the state of a training, to go on from.
        lightning_version: Of Lightning, which has saved it.
    """

    path: Path
    rgb_map: RgbMap
    image_size: tuple[int, int]
    in_channels: int
    image_window: tuple[float, float] | None
    neighbours: int
    patches: bool
    temperature: float
    postprocessing: tuple[Step, ...]
    never_empty: bool
    facts: DatasetFacts
    network: Mapping[str, Any] | None
    weights: Mapping[str, Any]
    training: Mapping[str, Any]
    resumable: bool
    lightning_version: str

    @property
    def settings(self) -> dict[str, Any]:
        """Map, sizes, window and neighbours, as plain values."""
        return {
            "rgb_map": self.rgb_map.to_dict(),
            "image_size": list(self.image_size),
            "in_channels": self.in_channels,
            "image_window": list(self.image_window) if self.image_window is not None else None,
            "neighbours": self.neighbours,
            "patches": self.patches,
            "temperature": self.temperature,
            "postprocessing": [step.plain() for step in self.postprocessing] or None,
            "never_empty": self.never_empty,
        }

    def build(self) -> nn.Module:
        """Return the trained network, in eval mode, on the CPU.

        Returns:
            Maps images ``(N, C, H, W)`` in 0..255 to logits ``(N, K, H, W)``.

        Raises:
            ModelFileError: If the checkpoint names no network that may be built, or its weights do not fit.
        """
        spec = self._spec()
        self.check()
        try:
            network = build_network(spec["class_path"], spec["init_args"])
        except UserError as error:
            raise ModelFileError(f"{self.path}: {error}") from error
        return _fill(network, self.weights, self.path)

    def check(self) -> None:
        """Compare the network with the weights before memory is taken for it: arguments cost a stranger nothing.

        Raises:
            ModelFileError: If the checkpoint names no network that may be built, or its weights do not fit.
        """
        spec = self._spec()
        try:
            with torch.device("meta"):
                network = for_pixels(build_network(spec["class_path"], spec["init_args"]))
        except UserError as error:
            if "meta tensor" in str(error):  # a class that computes with its weights while it is made
                return
            raise ModelFileError(f"{self.path}: {error}") from error
        if why := explain_mismatch(network, self.weights):
            raise ModelFileError(f"{self.path}: {why}")

    def _spec(self) -> dict[str, Any]:
        if self.network is None:
            raise ModelFileError(f"{self.path}: does not know how its network was built; pass it as `network`")
        return {"class_path": self.network.get("class_path"), "init_args": self.network.get("init_args") or {}}


def read_saved_model(source: Checkpoints) -> SavedModel:
    """Read what a checkpoint says of its network.

    Args:
        source: A checkpoint of this package, or several whose networks predict together; see `checkpoint_files`.

    Returns:
        It.

    Raises:
        ModelFileError: If a file is no checkpoint of this package, or several do not go together.
    """
    checkpoint = read_checkpoint(source)
    path = Path(source) if isinstance(source, str | Path) else Path(",".join(map(str, source)))
    saved = checkpoint.get("hyper_parameters", {})
    if "rgb_map" not in saved:
        raise ModelFileError(f"{path}: is no checkpoint of flexunet: it has no rgb_map")
    size, channels, window = saved.get("image_size"), saved.get("in_channels", 3), saved.get("image_window")
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int for side in size)):
        raise ModelFileError(f"{path}: is no checkpoint of flexunet: it has no image_size")
    if type(channels) is not int or not 1 <= channels <= MAX_BANDS:
        raise ModelFileError(f"{path}: is no checkpoint of flexunet: in_channels {channels}")
    if type(neighbours := saved.get("neighbours", 0)) is not int:
        raise ModelFileError(f"{path}: is no checkpoint of flexunet: neighbours {neighbours}")
    network = saved.get("network")
    if network is not None and not (
        isinstance(network, dict) and isinstance(network.get("init_args") or {}, dict) and "class_path" in network
    ):
        raise ModelFileError(f"{path}: the checkpoint's network is no class path with arguments")
    training = {str(key): value for key, value in saved.items() if key not in PREDICTION_SETTINGS}
    if not is_plain(saved):
        raise ModelFileError(f"{path}: its settings hold more than plain values; nothing of them was used")
    for name, value in training.items():
        if (named := find_stranger({name: value}, POSITIONS.get(f"model.{name}"))) is not None:
            raise ModelFileError(f"{path}: {name[:100]}: names `{named}`, as no training can; nothing of it was run")
    try:
        rgb_map = RgbMap.parse(saved["rgb_map"])
        ImageReader((size[0], size[1]), channels, Window.parse(window, "image_window"), neighbours)
        facts = DatasetFacts.parse(saved)
        temperature = check_temperature(saved.get("temperature", 1.0))
        steps = read_steps(saved.get("postprocessing"), rgb_map.names)
    except UserError as error:
        raise ModelFileError(f"{path}: {error}") from error
    return SavedModel(
        path=path,
        rgb_map=rgb_map,
        image_size=(size[0], size[1]),
        in_channels=int(channels),
        image_window=(window[0], window[1]) if window is not None else None,
        neighbours=neighbours,
        patches=saved.get("patches") is True,
        temperature=temperature,
        postprocessing=steps,
        never_empty=saved.get("never_empty") is True,
        facts=facts,
        network=network,
        weights=network_weights(checkpoint["state_dict"]),
        training=training,
        resumable="optimizer_states" in checkpoint,
        lightning_version=checkpoint.get(VERSION_KEY, "none"),
    )


def load_model(path: Checkpoints, network: nn.Module | None = None) -> nn.Module:
    """Load the trained network of a checkpoint.

    Args:
        path: A checkpoint of this package; or several, as a sequence or the folder of their runs, whose networks become
            one `Ensemble`.
        network: The network to fill, for those whose arguments the checkpoint does not know, and for classes outside
            of the packages that a checkpoint may name.

    Returns:
        The network in eval mode, on the CPU: images ``(N, C, H, W)`` in 0..255 in, logits ``(N, K, H, W)`` out.

    Raises:
        ModelFileError: If the file is no checkpoint of this package, or its weights do not fit the network.
    """
    if network is not None:  # then the file need not say anything of it
        return _fill(network, network_weights(read_checkpoint(path)["state_dict"]), path)
    return read_saved_model(path).build()


def network_weights(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the network's part of a checkpoint's ``state_dict``, by its own names."""
    return {str(k).removeprefix(_PREFIX): v for k, v in state.items() if str(k).startswith(_PREFIX)}


def _fill(network: nn.Module, weights: Mapping[str, Any], path: Checkpoints) -> nn.Module:
    network = for_pixels(network)
    if why := explain_mismatch(network, weights):
        raise ModelFileError(f"{path}: {why}")
    try:
        network.load_state_dict(dict(weights))
    except (RuntimeError, NotImplementedError) as error:  # kinds of arrays that cannot be copied, such as sparse ones
        raise ModelFileError(f"{path}: its weights cannot be used: {str(error).splitlines()[0]}") from error
    return network.eval()
