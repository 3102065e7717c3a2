"""The model's settings, as they stand in a configuration and in a checkpoint."""

import json
from collections.abc import Mapping
from typing import Any

from flexunet_pl.common.class_paths import find_class, find_stranger
from flexunet_pl.common.class_positions import NETWORK, POSITIONS
from flexunet_pl.common.errors import ModelFileError, UserError
from flexunet_pl.models.build import without_downloads
from flexunet_pl.models.load import SavedModel

# arguments that follow from `rgb_map` and `in_channels`
LINKED_ARGUMENTS = frozenset({"num_classes", "classes", "out_channels", "in_channels"})
# that decide how a training goes on, and must be those of the run that is resumed
_OF_A_TRAINING = ("loss", "class_weights", "optimizer", "scheduler", "deep_supervision")


def settings_of(saved: SavedModel, given: Any) -> dict[str, Any]:
    """Return the settings of a checkpoint for the `model` section of a configuration, but those that are linked to it.

    Args:
        saved: The checkpoint.
        given: The network that the configuration names, if any. It is used where the checkpoint names the same class,
            and that class is one that a configuration may name, with ``--trust``, and a checkpoint may not.

    Returns:
        Plain values: map, sizes and window, and the network, without the arguments that follow from others.

    Raises:
        ModelFileError: If the checkpoint's network may not be built, or its weights do not fit it.
    """
    settings = {name: value for name, value in saved.settings.items() if name != "neighbours"}
    if saved.network is None:
        raise ModelFileError(
            f"{saved.path}: does not know how its network was built; load it with `load_model(path, network)`"
        )
    class_path = saved.network["class_path"]
    try:
        find_class(class_path, NETWORK, None)
    except UserError as error:
        if given is not None and given.get("class_path") == class_path:
            return settings
        package = str(class_path).partition(".")[0]
        raise ModelFileError(
            f"{saved.path}: network: {error}; or give the network in a configuration of your own, by `-c` and "
            f"`--trust {package[:100]}`"
        ) from error
    saved.check()
    init_args = without_downloads(saved.network)["init_args"]
    settings["network"] = {
        "class_path": class_path,
        "init_args": {name: value for name, value in init_args.items() if name not in LINKED_ARGUMENTS},
    }
    return settings


def training_record(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says of how its network was trained, for a later comparison.

    Args:
        settings: The `model` section of the configuration, as plain values.

    Returns:
        Settings by name. Where one names a class that ``--trust`` has let in, it is a text: a checkpoint names none.
    """
    record = {name: settings.get(name) for name in _OF_A_TRAINING}
    return {
        name: value
        if find_stranger(value, POSITIONS.get(f"model.{name}")) is None
        else json.dumps(value, sort_keys=True)
        for name, value in record.items()
    }


def find_differences(saved: SavedModel, settings: Mapping[str, Any]) -> list[str]:
    """Compare how a checkpoint's network was trained with a configuration.

    Args:
        saved: The checkpoint.
        settings: The `model` section of the configuration, as plain values.

    Returns:
        Names of settings that are known of the checkpoint and differ, such as "optimizer".
    """
    record = training_record(settings)
    return [name for name in record if name in saved.training and saved.training[name] != record[name]]


def name_one_class(one: Any, two: Any) -> bool:
    """Tell whether two import paths lead to the same network, as `flexunet_pl.FlexUNet` and the module's own do."""
    if not (isinstance(one, str) and isinstance(two, str) and one.rpartition(".")[2] == two.rpartition(".")[2]):
        return False
    try:
        return find_class(one, NETWORK) is find_class(two, NETWORK)
    except UserError:
        return False


def has_one_class(saved: SavedModel) -> bool:
    """Tell whether the network of a checkpoint has one class."""
    init_args = (saved.network or {}).get("init_args") or {}
    return any(init_args.get(key) == 1 for key in LINKED_ARGUMENTS - {"in_channels"})
