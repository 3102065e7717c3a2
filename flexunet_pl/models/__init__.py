"""Networks: tensors in, logits out."""

from flexunet_pl.models.flexunet import FlexUNet

__all__ = ["FlexUNet"]
