"""StopFile: a file in the working folder ends training after the epoch."""

import logging
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from flexunet_pl.common.errors import UserError

log = logging.getLogger(__name__)

_NAME = "break_training"  # the reference's


class StopFile(Callback):
    """Ends training after the epoch in which a file of that name appears, and removes the file.

    Args:
        path: The file. One of another name than ``break_training`` is removed only where it is empty.
    """

    def __init__(self, path: Path = Path(_NAME)) -> None:
        self.path = path

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove a file that an earlier run left.

        Raises:
            UserError: If the file there is none of these.
        """
        if trainer.is_global_zero and self.path.exists():
            if not self._may_be_removed():
                raise UserError(
                    f"stop_file.path: {self.path} is there and holds something; name a file that is not there"
                )
            log.warning("%s was there before training began; removed", self.path)
            self.path.unlink()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for the file."""
        if trainer.strategy.reduce_boolean_decision(self.path.exists(), all=False):
            log.warning("%s found: training ends after epoch %d", self.path, trainer.current_epoch + 1)
            trainer.should_stop = True
            if trainer.is_global_zero and self._may_be_removed():
                self.path.unlink(missing_ok=True)

    def _may_be_removed(self) -> bool:
        """Tell whether it is a stop file and no file of the user's: a configuration may name any."""
        return self.path.name == _NAME or (self.path.is_file() and not self.path.stat().st_size)
