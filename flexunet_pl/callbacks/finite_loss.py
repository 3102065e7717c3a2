"""FiniteLoss: a loss that is not finite ends the run before it spoils the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from flexunet_pl.checkpoint import last_checkpoint
from flexunet_pl.common.console import say
from flexunet_pl.common.errors import RunFailedError, UserError


class FiniteLoss(Callback):
    """Ends the run at the first loss that is NaN or infinite; weights and checkpoints stay as they were.

    Args:
        skip: How many steps with such a loss are left out, as if they had not been, before one ends the run.

    Raises:
        UserError: If the number is negative.
    """

    def __init__(self, skip: int = 0) -> None:
        if skip < 0:
            raise UserError(f"finite_loss.skip is {skip}; 0 ends the run at the first loss that is not finite")
        self.skip = skip
        self._skipped = 0
        self._leave_out = False
        self._batch: Any = None
        self._statistics: list[Tensor] = []  # running ones, which the forward pass of a step changes

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps were left out, for a run that is resumed."""
        return {"skipped": self._skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._skipped = int(state_dict["skipped"])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep what is needed to name the images, or to undo the step."""
        self._batch = batch
        if self.skip:
            self._statistics = [buffer.clone() for buffer in pl_module.buffers()]

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Check the loss.

        Raises:
            RunFailedError: If it is not finite, and as many were left out as may be.
        """
        if _all_finite(trainer, loss):
            return
        names = ", ".join(self._batch["name"])
        what = f"the loss is {loss.item()} in epoch {trainer.current_epoch + 1}, step {trainer.global_step}"
        if self._skipped < self.skip:
            self._skipped += 1
            self._leave_out = True
            say(f"warning: {what}, for {names}; the step is left out ({self._skipped} of {self.skip})")
            return
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        layer = _first_layer_not_finite(trainer, pl_module, self._batch["image"])
        raise RunFailedError(
            f"{what}, at learning rate {rate:g}, for {names}"
            + (f", from layer {layer} on" if layer else "")
            + f"; look at these images or lower the rate, then {_advice(trainer)}"
        )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Undo a step that is left out: without gradients an optimizer changes nothing."""
        if self._leave_out:
            self._leave_out = False
            optimizer.zero_grad(set_to_none=True)
            for buffer, before in zip(pl_module.buffers(), self._statistics, strict=True):
                buffer.copy_(before)

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


def _first_layer_not_finite(trainer: Trainer, pl_module: LightningModule, image: Tensor) -> str | None:
    """Return the name of the first layer whose output is not finite, or None where all are: then it is the loss."""
    with torch.no_grad(), trainer.precision_plugin.forward_context(), _watched(pl_module) as found:
        pl_module(image)
    return next(iter(found), None)


@contextmanager
def _watched(module: nn.Module) -> Iterator[list[str]]:
    """Note the names of layers whose output is not finite, in the order in which they compute."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                found.append(name)

        return hook

    layers = [(name, layer) for name, layer in module.named_modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _all_finite(trainer: Trainer, loss: Tensor) -> bool:
    finite = bool(torch.isfinite(loss))
    # all processes must end together: one that goes on would wait for the others for ever
    return finite if trainer.world_size == 1 else bool(trainer.strategy.reduce_boolean_decision(finite, all=True))


def _advice(trainer: Trainer) -> str:
    last = last_checkpoint(trainer)
    return f"resume with --ckpt_path {last}" if last.exists() else "start again"
