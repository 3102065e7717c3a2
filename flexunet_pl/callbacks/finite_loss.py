"""FiniteLoss: a loss that is not finite ends the run before it spoils the weights."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from flexunet_pl.checkpoint import last_checkpoint
from flexunet_pl.errors import RunFailedError


class FiniteLoss(Callback):
    """Ends the run at the first loss that is NaN or infinite; weights and checkpoints stay as they were."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note whose images these are."""
        self._names = list(batch["name"])

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Check the loss.

        Raises:
            RunFailedError: If it is not finite.
        """
        if torch.isfinite(loss):
            return
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        last = last_checkpoint(trainer)
        raise RunFailedError(
            f"the loss is {loss.item()} in epoch {trainer.current_epoch + 1}, step {trainer.global_step}, at learning "
            f"rate {rate:g}, for {', '.join(self._names)}; look at these images or lower the rate, then "
            + (f"resume with --ckpt_path {last}" if last.exists() else "start again")
        )
