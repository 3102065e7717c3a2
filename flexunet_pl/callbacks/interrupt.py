"""GracefulStop: a signal ends training with its state saved."""

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from flexunet_pl.checkpoint import last_checkpoint
from flexunet_pl.common.console import say
from flexunet_pl.common.errors import RunInterrupted

_SIGNALS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


class GracefulStop(Callback):
    """On SIGTERM, SIGINT or SIGUSR1 saves ``last.ckpt`` at the next step and ends the run.

    Within an epoch the state is saved at once; in the last step of an epoch, and in validation, the epoch is finished
    first and its own checkpoint serves. A second SIGINT ends the run at once. SLURM is asked to requeue a job that it
    ends by SIGUSR1.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[int, Any] = {}

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals."""
        self._listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals, where no sanity check came before."""
        self._listen()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop, where a signal came."""
        if not trainer.is_last_batch and self._asked(trainer):
            target = last_checkpoint(trainer)
            trainer.save_checkpoint(target, weights_only=False)
            self._stop(trainer, target)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop behind the epoch in which a signal came too late to save within it."""
        if self._asked(trainer):
            self._stop(trainer, last_checkpoint(trainer))

    def _listen(self) -> None:
        # only here, behind Lightning's own registration, which would otherwise save inside a signal handler
        if not self._previous and threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._note) for s in _SIGNALS}

    def _note(self, signum: int, frame: Any) -> None:
        if signum == signal.SIGINT and self._received == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = signum

    def _asked(self, trainer: Trainer) -> bool:
        if trainer.world_size == 1:
            return self._received is not None
        # the processes must agree on the step at which they save together
        return bool(trainer.strategy.reduce_boolean_decision(self._received is not None, all=False))

    def _stop(self, trainer: Trainer, target: Path) -> None:
        signum = self._received or signal.SIGTERM
        if signum == getattr(signal, "SIGUSR1", None) and trainer.is_global_zero:
            _requeue()
        if target.exists():
            where, what = f"checkpoint saved to {target}", f"resume with --ckpt_path {target}"
        else:
            where, what = "no epoch was finished, nothing was saved", "start again"
        raise RunInterrupted(signum, f"stopped by {signal.Signals(signum).name}: {where}; {what}")


def _requeue() -> None:
    """Have SLURM run the job again, where this is one; with ``--ckpt_path last`` it goes on then."""
    job, array = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_JOB_ID")
    program = shutil.which("scontrol")
    if job is None or program is None:
        return
    name = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else job
    done = subprocess.run([program, "requeue", name], check=False)  # noqa: S603 - SLURM's own program
    say(f"job {name} {'was requeued' if done.returncode == 0 else 'could not be requeued'}")
