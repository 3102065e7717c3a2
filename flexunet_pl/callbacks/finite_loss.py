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
        if _all_finite(trainer, loss):
            return
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        raise RunFailedError(
            f"the loss is {loss.item()} in epoch {trainer.current_epoch + 1}, step {trainer.global_step}, at learning "
            f"rate {rate:g}, for {', '.join(self._names)}; look at these images or lower the rate, then "
            f"{_advice(trainer)}"
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the loss of the validation, before the epoch's checkpoints are saved.

        Raises:
            RunFailedError: If it is not finite.
        """
        loss = trainer.callback_metrics.get("val/loss")
        if trainer.sanity_checking or loss is None or bool(torch.isfinite(loss)):
            return
        raise RunFailedError(
            f"the validation loss is {loss.item()} in epoch {trainer.current_epoch + 1}: the last steps spoiled the "
            f"weights, which were not saved; lower the rate, then {_advice(trainer)}"
        )


def _all_finite(trainer: Trainer, loss: torch.Tensor) -> bool:
    finite = bool(torch.isfinite(loss))
    # all processes must end together: one that goes on would wait for the others for ever
    return finite if trainer.world_size == 1 else bool(trainer.strategy.reduce_boolean_decision(finite, all=True))


def _advice(trainer: Trainer) -> str:
    last = last_checkpoint(trainer)
    return f"resume with --ckpt_path {last}" if last.exists() else "start again"
