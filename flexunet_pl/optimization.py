"""How a network is trained: its optimizer, the schedule of its rate, the clipping of its gradients."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelPruning, Timer
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import LBFGS, Adam, Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR

from flexunet_pl.common.errors import UserError
from flexunet_pl.schedules import WarmupStableDecay

_STEPPED_PER_BATCH = (CyclicLR, OneCycleLR, WarmupStableDecay)  # the others of torch are stepped once an epoch

_USED = 0.98  # share of `max_time` in which a schedule ends, since the pace of the last steps is foreseen, not known


class OptimizerFactory(Protocol):
    """Makes an optimizer for parameters; on the command line a subclass of ``torch.optim.Optimizer``."""

    def __call__(self, params: Iterable[Tensor], /) -> Optimizer:
        """Return an optimizer of these parameters."""
        ...


class SchedulerFactory(Protocol):
    """Makes a scheduler for an optimizer; on the command line a subclass of ``LRScheduler``."""

    def __call__(self, optimizer: Optimizer, /) -> LRScheduler:
        """Return a scheduler of this optimizer's rate."""
        ...


def reference_optimizer(params: Iterable[Tensor], /) -> Optimizer:
    """Return Adam with the reference's epsilon."""
    return Adam(params, lr=1e-4, eps=1e-7)


def reference_scheduler(optimizer: Optimizer, /) -> LRScheduler:
    """Return the reference's reducer of the rate: times 0.4 where the loss has not fallen for 4 epochs."""
    return ReduceLROnPlateau(
        optimizer, monitor="val/loss", factor=0.4, patience=4, threshold=1e-4, threshold_mode="abs"
    )


def share_of_training(trainer: Trainer) -> float:
    """Return how much of a training has passed, by the limit that it will reach first.

    Args:
        trainer: In training; its `max_time`, `max_steps` and `max_epochs` are the limits.

    Returns:
        0..1, the same in all processes.
    """
    shares = [0.0]
    for timer in (callback for callback in trainer.callbacks if isinstance(callback, Timer)):  # type: ignore[attr-defined]
        remaining, elapsed = timer.time_remaining(), timer.time_elapsed()
        if remaining is not None:
            shares.append(elapsed / max(_USED * (elapsed + remaining), 1e-9))
    steps = trainer.estimated_stepping_batches
    if 0 < steps < float("inf"):
        shares.append(trainer.global_step / steps)
    share = min(1.0, max(shares))
    return float(trainer.strategy.broadcast(share)) if trainer.world_size > 1 else share


class OptimizedModule(LightningModule):
    """A module that makes its optimizer and its scheduler, and steps them so that a resumed run misses no step.

    Args:
        optimizer: Called with the parameters.
        scheduler: Called with the optimizer; stepped once an epoch, after validation, or with each batch where that is
            how it counts (`OneCycleLR`, `CyclicLR`, `WarmupStableDecay`). None keeps the rate.
    """

    def __init__(self, optimizer: OptimizerFactory, scheduler: SchedulerFactory | None) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.memory_format = torch.channels_last  # of images and weights
        self._lr: float | None = None

    @property
    def lr(self) -> float | None:
        """The learning rate that `LearningRateFinder` has found; None where the optimizer's own is used."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = value

    @property
    def backbone(self) -> nn.Module:
        """The encoder of the network, for `BackboneFinetuning`.

        Raises:
            UserError: If it has none.
        """
        network = self.network
        encoder = getattr(network, "encoder", None)
        if not isinstance(encoder, nn.Module):
            raise UserError(f"model.network: {type(network).__name__} has no encoder to train later than the rest")
        return encoder

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer, and the scheduler where there is one.

        Raises:
            UserError: If one of them does not take its settings.
        """
        try:
            optimizer = self.optimizer(self.parameters())
            scheduler = self.scheduler(optimizer) if self.scheduler is not None else None
        except ValueError as error:
            raise UserError(f"model.optimizer or model.scheduler: {error}") from error
        prunes = any(isinstance(callback, ModelPruning) for callback in self._callbacks)
        if isinstance(optimizer, LBFGS) or prunes:  # both look at weights or gradients as flat arrays
            self.memory_format = torch.contiguous_format
            self.to(memory_format=torch.contiguous_format)
        if scheduler is None:
            return optimizer
        interval = "step" if isinstance(scheduler, _STEPPED_PER_BATCH) else "epoch"
        monitor = getattr(scheduler, "monitor", None)
        config = {"scheduler": scheduler, "interval": interval, "monitor": monitor, "strict": False}
        return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[return-value]

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step the optimizer.

        Raises:
            UserError: If it cannot train this network.
            RuntimeError: Whatever else goes wrong.
        """
        try:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        except RuntimeError as error:
            if "does not support" not in str(error):
                raise
            raise UserError(f"model.optimizer: {str(error).splitlines()[0]}") from error

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, where there are any: a step that is left out has none, which torch does not take."""
        if any(parameter.grad is not None for group in optimizer.param_groups for parameter in group["params"]):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Step a scheduler with a batch.

        One that is stepped once an epoch waits for `on_train_epoch_end`: Lightning would step it after the epoch's
        checkpoint is saved, and a resumed run would miss the step.

        Raises:
            UserError: If it has no more steps.
        """
        if not self._is_stepped_per_batch(scheduler):
            return
        if isinstance(scheduler, WarmupStableDecay):
            scheduler.advance(share_of_training(self.trainer))
            self.trainer.should_stop = self.trainer.should_stop or scheduler.is_done
            return
        try:
            scheduler.step()
        except ValueError as error:  # OneCycleLR, beyond its last step
            raise UserError(f"model.scheduler: {error}") from error

    def on_train_epoch_end(self) -> None:
        """Step the scheduler, before the epoch's checkpoint is saved.

        Raises:
            UserError: If the scheduler watches a score that was not computed.
        """
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            self._step_on_plateau(scheduler)
        elif isinstance(scheduler, LRScheduler) and not self._is_stepped_per_batch(scheduler):
            scheduler.step()

    def _step_on_plateau(self, scheduler: ReduceLROnPlateau) -> None:
        trainer = self.trainer
        every = trainer.check_val_every_n_epoch or 1
        if scheduler.monitor.startswith("val/") and (self.current_epoch + 1) % every:
            return  # no validation in this epoch
        watched = trainer.callback_metrics.get(scheduler.monitor)
        if watched is None and 0 <= trainer.max_steps <= trainer.global_step:
            return  # training has ended within an epoch, before its validation
        if watched is None:
            raise UserError(
                f"model.scheduler watches `{scheduler.monitor}`, which was not computed; use one of "
                f"{', '.join(sorted(trainer.callback_metrics))}"
            )
        scheduler.step(watched.item())

    @property
    def _callbacks(self) -> list[Any]:
        trainer = self._trainer
        return trainer.callbacks if trainer is not None else []  # type: ignore[attr-defined]

    def _is_stepped_per_batch(self, scheduler: Any) -> bool:
        return any(c.interval == "step" for c in self.trainer.lr_scheduler_configs if c.scheduler is scheduler)
