"""Losses for class indices: logits ``(N, K, H, W)`` and mask ``(N, H, W)`` int64 in, a scalar out.

``torch.nn.CrossEntropyLoss`` and the multiclass losses of ``segmentation_models_pytorch`` fit as they are; those of
monai want the mask with a channel axis and options set, which is what these classes do. monai is imported where it is
used: it takes seconds.
"""

from collections.abc import Sequence

import torch
from torch import nn

from flexunet_pl.common.errors import UserError


class DiceCELoss(nn.Module):
    """Soft Dice, averaged over classes, plus cross-entropy.

    Args:
        include_background: Whether the Dice part averages over the background too.
        lambda_dice: Weight of the Dice part.
        lambda_ce: Weight of the cross-entropy part.
        pooled: Whether the Dice of a class is that of all pixels of a batch, rather than the mean over its images, in
            each of which a class that is absent counts as missed.
    """

    def __init__(
        self,
        *,
        include_background: bool = False,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        from monai import losses

        self.loss = losses.DiceCELoss(
            include_background=include_background,
            to_onehot_y=True,
            softmax=True,
            lambda_dice=lambda_dice,
            lambda_ce=lambda_ce,
            batch=pooled,
        )

    def forward(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits ``(N, K, H, W)`` for class indices ``(N, H, W)``."""
        loss: torch.Tensor = self.loss(logits, mask[:, None])
        return loss


class FocalLoss(nn.Module):
    """Cross-entropy that weighs pixels down as they become certain.

    Args:
        gamma: Strength; 0 is cross-entropy.
        include_background: Whether background pixels' own class counts.
    """

    def __init__(self, *, gamma: float = 2.0, include_background: bool = True) -> None:
        super().__init__()
        from monai import losses

        self.loss = losses.FocalLoss(
            include_background=include_background, to_onehot_y=True, gamma=gamma, use_softmax=True
        )

    def forward(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits ``(N, K, H, W)`` for class indices ``(N, H, W)``."""
        loss: torch.Tensor = self.loss(logits, mask[:, None])
        return loss


class TverskyLoss(nn.Module):
    """Dice with unequal weights for false positives and false negatives; raise beta for lesions that get missed.

    Args:
        alpha: Weight of false positives.
        beta: Weight of false negatives.
        include_background: Whether the background is averaged in.
    """

    def __init__(self, *, alpha: float = 0.3, beta: float = 0.7, include_background: bool = False) -> None:
        super().__init__()
        from monai import losses

        self.loss = losses.TverskyLoss(
            include_background=include_background, to_onehot_y=True, softmax=True, alpha=alpha, beta=beta
        )

    def forward(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits ``(N, K, H, W)`` for class indices ``(N, H, W)``."""
        loss: torch.Tensor = self.loss(logits, mask[:, None])
        return loss


def weigh_classes(loss: nn.Module, weights: Sequence[float]) -> None:
    """Give each class a weight in a loss: in its cross-entropy, or in the focal loss.

    Args:
        loss: A `torch.nn.CrossEntropyLoss`, or one of this module that has a cross-entropy part.
        weights: One per class, in class order.

    Raises:
        UserError: If the loss knows no weights.
    """
    from monai.losses import FocalLoss as OfMonai

    parts = {id(m): m for m in loss.modules() if isinstance(m, nn.CrossEntropyLoss | OfMonai)}
    if not parts:
        raise UserError(f"model.class_weights: {type(loss).__name__} takes none; leave them out, or use another loss")
    for part in parts.values():
        name = "weight" if isinstance(part, nn.CrossEntropyLoss) else "class_weight"
        skipped = 0 if getattr(part, "include_background", True) else 1
        # not persistent: a checkpoint serves runs with other weights too
        part.register_buffer(name, torch.tensor(list(weights)[skipped:]), persistent=False)


def check_loss(loss: nn.Module) -> None:
    """Refuse a loss that would train without an error, but on other numbers than logits.

    Args:
        loss: The loss.

    Raises:
        UserError: If it is such a loss.
    """
    if isinstance(loss, nn.NLLLoss):
        raise UserError("model.loss: NLLLoss takes logarithms of probabilities, not logits; use CrossEntropyLoss")


def compute_loss(loss: nn.Module, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Call a loss.

    Args:
        loss: The loss.
        logits: Shape ``(N, K, H, W)``.
        mask: Class indices, shape ``(N, H, W)``, int64.

    Returns:
        A scalar.

    Raises:
        UserError: If the loss does not take them, or gives something else.
        OutOfMemoryError: If memory runs out.
    """
    name = type(loss).__name__
    try:
        value: torch.Tensor = loss(logits, mask)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError, TypeError, IndexError) as error:
        raise UserError(
            f"model.loss: {name} does not take logits {tuple(logits.shape)} and class indices {tuple(mask.shape)}: "
            f"{error}"
        ) from error
    if value.ndim:
        raise UserError(f"model.loss: {name} gives {tuple(value.shape)} numbers, not one; set its `reduction` to mean")
    return value
