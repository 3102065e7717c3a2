"""What can be refused before training begins, rather than after an epoch of it."""

from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch import Trainer

from flexunet_pl.errors import UserError
from flexunet_pl.metrics import score_names
from flexunet_pl.task import SegmentationTask


def check_monitors(trainer: Trainer, task: SegmentationTask, monitors: Mapping[str, str | None]) -> None:
    """Refuse to watch a score that no epoch will have.

    Args:
        trainer: The trainer, set up.
        task: The task, which knows the classes.
        monitors: Watched score by section of the configuration.

    Raises:
        UserError: If there is no such score; the message lists those that there are.
    """
    validated = trainer.limit_val_batches != 0
    stages = ("train", "val") if validated else ("train",)
    known = {f"{stage}/{name}" for stage in stages for name in score_names(task.rgb_map.names)}
    for key, watched in monitors.items():
        if watched is not None and watched not in known:
            why = "there is no such score" if validated else "without validation there is no such score"
            raise UserError(f"{key}.monitor: {watched}: {why}; use one of {', '.join(sorted(known))}")


def check_checkpoint_folder(trainer: Trainer, dirpath: str | Path | None, resumed: str | Path | None) -> None:
    """Refuse to write where another run's checkpoints lie.

    Args:
        trainer: The trainer, set up.
        dirpath: Folder that the user has chosen for the checkpoints, if any.
        resumed: Checkpoint of the run that is resumed, if any.

    Raises:
        UserError: If the folder holds checkpoints of a run that is not the resumed one.
    """
    if trainer.loggers and not dirpath:
        return  # the logger has chosen a new folder, or that of the run which is resumed
    folder = Path(dirpath or Path(trainer.default_root_dir) / "checkpoints")
    if (folder / "last.ckpt").exists() and (resumed is None or Path(resumed).resolve().parent != folder.resolve()):
        raise UserError(f"{folder}: holds the checkpoints of another run; set checkpoint.dirpath to another folder")
