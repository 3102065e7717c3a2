"""What can be refused before training begins, rather than after an epoch of it."""

import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from lightning.pytorch import Trainer

from flexunet_pl.common.errors import UserError
from flexunet_pl.metrics.epoch import score_names
from flexunet_pl.task import SegmentationTask

_COPIES = 9  # of the weights: best, last and one that is being written, each with two moments of an optimizer
_LOCK = "run.lock"


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
    # a logger chooses a new folder, or that of the run which is resumed, unless the user has named a version
    place = trainer.loggers[0].log_dir if trainer.loggers else None
    folder = Path(dirpath or Path(place or trainer.default_root_dir) / "checkpoints")
    if (folder / "last.ckpt").exists() and (resumed is None or Path(resumed).resolve().parent != folder.resolve()):
        raise UserError(f"{folder}: holds the checkpoints of another run; set checkpoint.dirpath to another folder")


@contextmanager
def claim_run_folder(
    trainer: Trainer, task: SegmentationTask, dirpath: str | Path | None, data: Path | None
) -> Iterator[None]:
    """Make the folder of a run, once it is seen to be fit for it, and keep other runs out of it.

    Args:
        trainer: The trainer, set up.
        task: The task; its size tells how much a run will write.
        dirpath: Folder that the user has chosen for the checkpoints, if any.
        data: Root of the data.

    Yields:
        Nothing; the folder is locked until then, or until the process is gone.

    Raises:
        UserError: If the folder lies among the images, cannot be written to, has too little space, or is in use.
    """
    own = Path(dirpath or Path(trainer.default_root_dir) / "checkpoints")
    folder = Path(trainer.loggers[0].log_dir or own) if trainer.loggers else own
    place = folder.resolve()
    if data is not None and any(place.is_relative_to((data / split).resolve()) for split in ("train", "valid", "test")):
        raise UserError(f"{folder}: lies among the images of {data}; set trainer.logger.init_args.save_dir elsewhere")
    _check_space(folder, task)
    lock = FileLock(folder / _LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        owner = (folder / _LOCK).read_text(encoding="utf-8", errors="replace").strip() or "another process"
        raise UserError(
            f"{folder}: in use by {owner}; wait for it, or start again to get a folder of its own"
        ) from error
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written to ({error.strerror}); choose another trainer.logger.init_args.save_dir"
        ) from error
    try:
        (folder / _LOCK).write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def _check_space(folder: Path, task: SegmentationTask) -> None:
    needed = _COPIES * sum(p.numel() * p.element_size() for p in task.network.parameters())
    free = shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e6:.0f} MB are free, but checkpoints need about {needed / 1e6:.0f} MB; make room, or "
            "choose another trainer.logger.init_args.save_dir"
        )
