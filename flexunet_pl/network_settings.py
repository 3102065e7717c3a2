"""The network's settings, as they stand in a configuration and in a checkpoint."""

from typing import Any

from flexunet_pl.errors import ModelFileError
from flexunet_pl.models.build import import_class

# arguments that follow from `rgb_map` and `in_channels`
LINKED_ARGUMENTS = frozenset({"num_classes", "classes", "out_channels", "in_channels"})


def without_downloads(network: dict[str, Any]) -> dict[str, Any]:
    """Return a network's class and arguments without weights to download, which those of the checkpoint replace."""
    init_args = dict(network.get("init_args") or {})
    if "encoder_weights" in init_args:
        init_args["encoder_weights"] = None
    return {**network, "init_args": init_args}


def without_links(saved: dict[str, Any]) -> dict[str, Any]:
    """Return saved settings without the network arguments that follow from others.

    Raises:
        ModelFileError: If they describe no network.
    """
    network = saved.get("network") or {}
    if not isinstance(network, dict) or not isinstance(network.get("init_args", {}), dict):
        raise ModelFileError("the checkpoint's network is no class path with arguments")
    network = dict(network)
    network["init_args"] = {k: v for k, v in (network.get("init_args") or {}).items() if k not in LINKED_ARGUMENTS}
    return {**saved, "network": network}


def name_one_class(one: Any, two: Any) -> bool:
    """Tell whether two import paths lead to the same class, as `flexunet_pl.FlexUNet` and the module's own do."""
    if not (isinstance(one, str) and isinstance(two, str) and one.rpartition(".")[2] == two.rpartition(".")[2]):
        return False
    try:
        return import_class(one) is import_class(two)
    except ModelFileError:
        return False


def has_one_class(saved: dict[str, Any]) -> bool:
    """Tell whether the network of a checkpoint has one class; `without_links` has checked the types."""
    init_args = (saved.get("network") or {}).get("init_args") or {}
    return any(init_args.get(key) == 1 for key in LINKED_ARGUMENTS - {"in_channels"})
