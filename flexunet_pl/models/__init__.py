"""Networks: tensors in, logits out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexunet_pl.models.flexunet import FlexUNet

__all__ = ["FlexUNet"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and the schedule of a network is needed without it
    if name != "FlexUNet":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flexunet_pl.models.flexunet import FlexUNet

    return FlexUNet
