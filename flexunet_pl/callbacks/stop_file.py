"""StopFile: a file in the working folder ends training after the epoch."""

import logging
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class StopFile(Callback):
    """Ends training after the epoch in which a file of that name appears, and removes the file.

    Args:
        path: The file; its content does not matter.
    """

    def __init__(self, path: Path = Path("break_training")) -> None:
        self.path = path

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove a file that an earlier run left."""
        if trainer.is_global_zero and self.path.exists():
            log.warning("%s was there before training began; removed", self.path)
            self.path.unlink()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for the file."""
        if trainer.strategy.reduce_boolean_decision(self.path.exists(), all=False):
            log.warning("%s found: training ends after epoch %d", self.path, trainer.current_epoch + 1)
            trainer.should_stop = True
            if trainer.is_global_zero:
                self.path.unlink(missing_ok=True)
