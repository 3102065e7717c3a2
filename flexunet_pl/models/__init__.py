"""Networks: tensors in, logits out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexunet_pl.models.ensemble import Ensemble
    from flexunet_pl.models.flexunet import FlexUNet
    from flexunet_pl.models.torchvision_net import TorchvisionNet

__all__ = ["Ensemble", "FlexUNet", "TorchvisionNet"]

# torch takes seconds to import, and the schedule of a network is needed without it
_HOME = {
    "Ensemble": "flexunet_pl.models.ensemble",
    "FlexUNet": "flexunet_pl.models.flexunet",
    "TorchvisionNet": "flexunet_pl.models.torchvision_net",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
