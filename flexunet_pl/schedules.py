"""Schedules of the learning rate that end with the training, however long that may take."""

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from flexunet_pl.common.errors import UserError

_SETTLED = 5  # steps, before which their pace is not judged
_SLOW = 0.9  # share of the steps foreseen


class WarmupStableDecay(LRScheduler):
    """Raises the rate, keeps it, and lets it fall to 0 as the training ends.

    The end is that of `trainer.max_time`, `max_steps` or `max_epochs`, whichever comes first. The clock decides one
    thing: when the last part of the time begins, the number of steps that fit into it is foreseen from those so far.
    Before and after that the rate follows from the number of the step, and all of it is saved, so that a resumed run
    takes the steps that it would have taken. Only where steps have become much slower is the rest foreseen anew.

    Source: Hägele et al. 2024, Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations.

    Args:
        optimizer: Whose rate it is.
        warmup_steps: Steps in which the rate rises from almost 0.
        decay: Share of the training in which it falls, above 0 and at most 1.

    Raises:
        UserError: If a value is out of its range.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int = 50, decay: float = 0.3) -> None:
        if warmup_steps < 0 or not 0 < decay <= 1:
            raise UserError(
                f"model.scheduler: warmup_steps ({warmup_steps}) must be at least 0, decay ({decay}) above 0 and at "
                "most 1"
            )
        self.warmup_steps = warmup_steps
        self.decay = decay
        self.falls_from: int | None = None  # step
        self.falls_for = 0  # steps
        self.fell_at = 0.0  # share of the training
        super().__init__(optimizer)

    @property
    def is_done(self) -> bool:
        """Whether the rate has fallen to 0."""
        return self.falls_from is not None and self.last_epoch >= self.falls_from + self.falls_for

    def advance(self, passed: float) -> None:
        """Set the rate of the next step.

        Args:
            passed: Share of the training that has passed, 0..1.
        """
        done = self.last_epoch + 1  # steps
        if self.falls_from is None and passed >= 1 - self.decay:
            self.falls_from = done
            self.falls_for = max(1, round(done * (1 - passed) / passed))
            self.fell_at = passed
        elif self.falls_from is not None and (fallen := done - self.falls_from) >= _SETTLED and passed > self.fell_at:
            fitting = fallen * (1 - self.fell_at) / (passed - self.fell_at)
            if fitting < _SLOW * self.falls_for:  # the time would end before the rate does
                self.falls_for = max(fallen + 1, round(fitting))
        self.step()

    def get_lr(self) -> list[Any]:
        """Return the rate of each group of parameters for the step `last_epoch`, which torch counts from 0."""
        share = min(1.0, (self.last_epoch + 1) / (self.warmup_steps + 1))
        if self.falls_from is not None:
            share *= max(0.0, 1 - (self.last_epoch - self.falls_from + 1) / (self.falls_for + 1))
        return [rate * share for rate in self.base_lrs]
