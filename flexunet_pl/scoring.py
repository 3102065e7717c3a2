"""What a module scores while it trains, validates and tests, and how a checkpoint keeps half an epoch of it."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from flexunet_pl.common.errors import UserError
from flexunet_pl.data.batch import Batch
from flexunet_pl.losses import compute_loss
from flexunet_pl.metrics.epoch import SegmentationScores
from flexunet_pl.optimization import OptimizedModule, OptimizerFactory, SchedulerFactory

_TRAIN_SCORES = "train_scores."  # prefix of their names in a checkpoint


class ScoredModule(OptimizedModule):
    """A module with scores of each stage.

    Args:
        class_names: The classes, the background first.
        optimizer: See `OptimizedModule`.
        scheduler: See `OptimizedModule`.
    """

    loss: nn.Module

    def __init__(
        self, class_names: tuple[str, ...], optimizer: OptimizerFactory, scheduler: SchedulerFactory | None
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.train_scores, self.val_scores, self.test_scores = (SegmentationScores(class_names) for _ in range(3))

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation."""
        log_scores(self, "val", self.val_scores)

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test."""
        log_scores(self, "test", self.test_scores)

    def _score(self, logits: Tensor, batch: Batch, scores: SegmentationScores) -> Tensor:
        """Add a batch to scores, and return its loss."""
        counted = batch["counted"]  # 0 where the images only keep the processes in step: then nothing is added
        logits, mask = logits[:counted], batch["mask"][:counted].long()
        loss = compute_loss(self.loss, logits, mask) if counted else logits.sum()
        if scores is not self.train_scores or bool(torch.isfinite(loss)):  # `FiniteLoss` decides what such a step does
            scores.update(logits.detach(), mask, loss.detach())
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add, within an epoch, the scores that all processes have so far."""
        if self.trainer.world_size > 1 and self.train_scores.update_called:
            with self.train_scores.sync_context():
                state = self.train_scores.state_dict(prefix=_TRAIN_SCORES)
                checkpoint["state_dict"].update({key: [value] for key, value in state.items()})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the scores of an interrupted epoch to the first process, which must not count them twice."""
        if self.global_rank:
            weights = checkpoint["state_dict"]
            checkpoint["state_dict"] = {k: [] if k.startswith(_TRAIN_SCORES) else v for k, v in weights.items()}


def _sees_all(trainer: Trainer) -> bool:
    return trainer.limit_train_batches == 1.0 and not trainer.overfit_batches and not trainer.fast_dev_run  # type: ignore[attr-defined]


def log_scores(module: LightningModule, stage: str, scores: SegmentationScores) -> None:
    """Log the scores of an epoch, and begin the next.

    Args:
        module: Logs them.
        stage: train, val or test.
        scores: What was collected; nothing is logged where that is nothing.

    Raises:
        UserError: If no class but the background was in any mask of a whole training epoch.
    """
    if not scores.update_called:
        return
    computed = scores.compute()
    if stage == "train" and "dice" not in computed and _sees_all(module.trainer):
        raise UserError(
            "no training mask shows more than the background, so there is nothing to learn; look at the masks and at "
            "model.rgb_map with `flexunet check`"
        )
    for name, value in computed.items():
        shown = stage == "val" and name in {"loss", "dice"}
        module.log(f"{stage}/{name}", value, on_step=False, on_epoch=True, prog_bar=shown, sync_dist=True, batch_size=1)
    scores.reset()
