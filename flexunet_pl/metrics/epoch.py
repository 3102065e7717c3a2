"""Scores of a segmentation: exact counts per case and class, and what is derived from them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from flexunet_pl.common.tensors import most_probable
from flexunet_pl.metrics.counts import SCORES, score_counts
from flexunet_pl.rgb_map import IGNORED


def dice_coef_multiclass(logits: Tensor, mask: Tensor) -> Tensor:
    """Compute the reference's score of that name: a soft pixel accuracy that counts the background.

    Args:
        logits: Shape ``(N, K, H, W)``.
        mask: Class indices, shape ``(N, H, W)``, int64; pixels of `IGNORED` do not count.

    Returns:
        One value per image, shape ``(N,)``, float32: ``(2 * sum(y * p) + 1) / (sum(y) + sum(p) + 1)`` with one-hot y
        and probabilities p, the sums over height, width and class.
    """
    counted = mask != IGNORED
    probabilities = logits.float().softmax(dim=1) * counted[:, None]
    matched = probabilities.gather(1, (mask * counted)[:, None]).sum(dim=(1, 2, 3))
    return (2 * matched + 1) / (counted.sum(dim=(1, 2)) + probabilities.sum(dim=(1, 2, 3)) + 1)


def case_counts(predicted: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """Count true positives, false positives and false negatives per case and class.

    Args:
        predicted: Class indices, shape ``(N, H, W)``, int64.
        mask: Class indices, shape ``(N, H, W)``, int64; pixels of `IGNORED` do not count.
        num_classes: Number of classes K.

    Returns:
        Pixel counts, shape ``(N, K, 3)``, int64, the last axis TP, FP, FN.
    """
    cases = torch.arange(len(mask), device=mask.device).view(-1, 1, 1)
    cells = (cases * num_classes + mask) * num_classes + predicted
    confusion = torch.bincount(cells[mask != IGNORED], minlength=len(mask) * num_classes**2)
    confusion = confusion.view(len(mask), num_classes, num_classes)
    tp = confusion.diagonal(dim1=1, dim2=2)
    return torch.stack([tp, confusion.sum(dim=1) - tp, confusion.sum(dim=2) - tp], dim=-1)


def summarise_counts(counts: Tensor, class_names: Sequence[str]) -> dict[str, float]:
    """Derive the scores of a set of cases from their counts.

    The `SCORES` are means over the cases in which the class is present in the mask, where a miss counts 0 (precision
    over those of them in which some was predicted). A score without any such case is not in the result.

    Args:
        counts: TP, FP, FN per case and class, shape ``(N, K, 3)``, int64, on the CPU.
        class_names: Name of each class, the background first.

    Returns:
        ``dice/<class>``, ``iou/<class>`` and so on, ``dice_pooled/<class>`` (over all pixels of all cases),
        ``miss_rate/<class>`` (share of the cases with the class in which none of it was found),
        ``false_alarm_rate/<class>`` (share of the cases without it in which some was) and ``dice``, the mean of
        ``dice/<class>``; all but the background, 0..1.
    """
    scores: dict[str, float] = {}
    for k, name in enumerate(class_names[1:], start=1):
        tp, fp, fn = counts[:, k].numpy().T
        present, found = tp + fn > 0, tp + fp > 0
        for key in SCORES:
            values = score_counts(key, tp[present], fp[present], fn[present])
            if np.isfinite(values).any():
                scores[f"{key}/{name}"] = float(np.nanmean(values))
        if present.any():
            scores[f"miss_rate/{name}"] = float((tp[present] == 0).mean())
        if not present.all():
            scores[f"false_alarm_rate/{name}"] = float(found[~present].mean())
        if present.any() or found.any():
            scores[f"dice_pooled/{name}"] = float(score_counts("dice", tp.sum(), fp.sum(), fn.sum()))
    of_classes = [value for key, value in scores.items() if key.startswith("dice/")]
    if of_classes:
        scores["dice"] = sum(of_classes) / len(of_classes)
    return scores


def score_names(class_names: Sequence[str]) -> list[str]:
    """List the names that the scores of an epoch can have.

    Args:
        class_names: Name of each class, the background first.

    Returns:
        The keys of `SegmentationScores.compute`, those without a case included.
    """
    per_class = (*SCORES, "dice_pooled", "miss_rate", "false_alarm_rate")
    return ["loss", "dice", "dice_coef_multiclass", *(f"{key}/{name}" for name in class_names[1:] for key in per_class)]


class SegmentationScores(Metric):
    """Collects counts, loss and the reference's score per case, and derives the scores of an epoch from them.

    Counts are exact integers per case, so that the scores do not depend on how many processes shared the cases. The
    loss is the mean of each batch, counted once per case.

    Args:
        class_names: Name of each class, the background first.
    """

    full_state_update = False
    counts: list[Tensor]
    soft_dice: list[Tensor]
    loss: list[Tensor]

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        # persistent: an epoch that is interrupted and resumed reports all of its cases
        for name in ("counts", "soft_dice", "loss"):
            self.add_state(name, default=[], dist_reduce_fx="cat", persistent=True)

    def update(self, logits: Tensor, mask: Tensor, loss: Tensor) -> None:
        """Add a batch.

        Args:
            logits: Shape ``(N, K, H, W)``; N may be 0, for a process that has no case left.
            mask: Class indices, shape ``(N, H, W)``, int64.
            loss: Mean loss of the batch, a scalar.
        """
        self.counts.append(case_counts(most_probable(logits), mask, len(self.class_names)))
        self.soft_dice.append(dice_coef_multiclass(logits, mask))
        self.loss.append(loss.float().expand(len(mask)))

    def compute(self) -> dict[str, float]:
        """Return `summarise_counts` of all cases, with ``loss`` and ``dice_coef_multiclass``."""
        return summarise_counts(dim_zero_cat(self.counts).cpu(), self.class_names) | {
            "loss": dim_zero_cat(self.loss).cpu().double().mean().item(),
            "dice_coef_multiclass": dim_zero_cat(self.soft_dice).cpu().double().mean().item(),
        }
