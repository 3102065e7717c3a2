"""Losses for class indices: logits ``(N, K, H, W)`` and mask ``(N, H, W)`` int64 in, a scalar out.

Pixels of `IGNORED` have no part in any of them: their gradient is 0.

``torch.nn.CrossEntropyLoss`` and the multiclass losses of ``segmentation_models_pytorch`` fit as they are; those of
monai want the mask with a channel axis and options set, which is what these classes do. monai is imported where it is
used: it takes seconds.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from flexunet_pl.common.errors import UserError
from flexunet_pl.rgb_map import IGNORED

_NOT_SET = (None, -100)  # what libraries' losses ignore where they are not told


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
        self.pooled = pooled
        self.loss.cross_entropy.ignore_index = IGNORED

    def forward(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits ``(N, K, H, W)`` for class indices ``(N, H, W)``."""
        parts = self.loss
        dice = _of_counted(parts.dice, logits, mask, together=self.pooled)
        loss: torch.Tensor = parts.lambda_dice * dice + parts.lambda_ce * parts.cross_entropy(logits, mask)
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
        return _of_counted(self.loss, logits, mask, together=True)


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
        return _of_counted(self.loss, logits, mask, together=False)


def _of_counted(
    loss: Callable[..., torch.Tensor], logits: torch.Tensor, mask: torch.Tensor, *, together: bool
) -> torch.Tensor:
    """Call a loss of monai with the pixels that count: with those of all images together, or the mean over images."""
    counted = mask != IGNORED
    if bool(counted.all()):
        return loss(logits, mask[:, None])
    parts = [slice(None)] if together else [slice(i, i + 1) for i in range(len(mask)) if counted[i].any()]
    pixels = logits.movedim(1, -1)
    values = [
        loss(pixels[part][counted[part]].T[None, :, :, None], mask[part][counted[part]][None, None, :, None])
        for part in parts
    ]
    return torch.stack(values).mean()


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


def prepare_loss(loss: nn.Module) -> None:
    """Have a loss of a library pass over pixels of `IGNORED`; and refuse one that would train on other than logits.

    Args:
        loss: The loss.

    Raises:
        UserError: If it is such a loss.
    """
    if isinstance(loss, nn.NLLLoss):
        raise UserError("model.loss: NLLLoss takes logarithms of probabilities, not logits; use CrossEntropyLoss")
    for part in loss.modules():
        if getattr(part, "ignore_index", 0) in _NOT_SET:
            part.ignore_index = IGNORED  # type: ignore[assignment]


def _ignores(loss: nn.Module) -> bool:
    of_ours = isinstance(loss, DiceCELoss | FocalLoss | TverskyLoss)
    return of_ours or any(getattr(part, "ignore_index", None) == IGNORED for part in loss.modules())


def compute_loss(loss: nn.Module, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Call a loss.

    Args:
        loss: The loss.
        logits: Shape ``(N, K, H, W)``.
        mask: Class indices, shape ``(N, H, W)``, int64; `IGNORED` where a pixel does not count.

    Returns:
        A scalar; 0, with a gradient of 0, where no pixel counts.

    Raises:
        UserError: If the loss does not take them, or gives something else, or would count pixels that do not.
        OutOfMemoryError: If memory runs out.
    """
    name = type(loss).__name__
    ignored = mask == IGNORED
    if bool(ignored.any()):
        if not _ignores(loss):
            raise UserError(
                f"model.loss: {name} counts every pixel, but the masks have some that do not count; use one with an "
                "`ignore_index`, or one of flexunet_pl.losses"
            )
        if bool(ignored.all()):
            return logits.sum() * 0
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
