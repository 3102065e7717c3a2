"""What can be refused before training begins, rather than after an epoch of it."""

import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning.pytorch import Trainer

from flexunet_pl.check.quick import quick_check
from flexunet_pl.cli.defaults import MONITORS
from flexunet_pl.common.console import say
from flexunet_pl.common.errors import UserError
from flexunet_pl.common.processes import count_cores
from flexunet_pl.data.datamodule import SegmentationDataModule
from flexunet_pl.metrics.epoch import score_names
from flexunet_pl.rgb_map import RgbMap
from flexunet_pl.task import SegmentationTask

_MOST_FINDINGS = 5  # of the data, shown before a training
_FEW_PROCESSES, _PROCESSES_PER_CORE = 16, 4
_COPIES = 9  # of the weights: best, last and one that is being written, each with two moments of an optimizer
_LOCK = "run.lock"


def check_trainer(trainer_config: Mapping[str, Any], num_workers: int) -> None:
    """Refuse what Lightning takes and then fails by, and more processes than a machine can bear.

    Args:
        trainer_config: The `trainer` section of the configuration.
        num_workers: Processes that read data, besides each training process.

    Raises:
        UserError: If there is such a setting.
    """
    for key in ("accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval"):
        value = trainer_config.get(key)
        if isinstance(value, int | float) and value <= 0:
            raise UserError(f"trainer.{key} is {value}; it must be above 0")
    strategy = str(trainer_config.get("strategy"))
    if strategy.endswith(("spawn", "fork", "notebook")):
        raise UserError(f"trainer.strategy: {strategy} cannot hand a run to its processes; use ddp")
    most = max(_FEW_PROCESSES, _PROCESSES_PER_CORE * count_cores())
    if num_workers > most:
        raise UserError(f"data.num_workers is {num_workers}; this machine has {count_cores()} cores: at most {most}")
    devices = trainer_config.get("devices")
    asked = int(str(devices)) if str(devices).isdecimal() else 1
    if asked > most:
        raise UserError(
            f"trainer.devices is {devices}; this machine has {count_cores()} cores: at most {most} processes"
        )


def check_classes(config: Any, *, begins: bool) -> None:
    """Look for the classes; and where a training begins without a network of its own, say that a plan would fit better.

    Args:
        config: Configuration of a verb.
        begins: Whether a training begins, which no checkpoint gives a network.

    Raises:
        UserError: If there are no classes.
    """
    if begins and config.model.get("network") is None and config.data.root is not None:
        plan = f"`flexunet plan {config.data.root} --minutes 10` writes a configuration for this data and this machine"
        if not config.model.rgb_map:
            raise UserError(
                f"model.rgb_map is missing: name the classes and their colours; or {plan}, classes included"
            )
        say(f"note: no network is named, so the original's of 127 M weights is trained; {plan}")
    RgbMap.parse(config.model.rgb_map)


@contextmanager
def check_fit(trainer: Trainer, task: SegmentationTask, data: SegmentationDataModule, config: Any) -> Iterator[None]:
    """Look for errors before any folder is made; then make that of the run, and hold it.

    Args:
        trainer: The trainer, set up.
        task: The task.
        data: The data, set up.
        config: Configuration of `fit`.

    Yields:
        Nothing; see `claim_run_folder`.
    """
    for finding in quick_check(data.pairs)[:_MOST_FINDINGS] if trainer.is_global_zero else ():
        say(f"warning: {finding.message} (`flexunet check` finds more)")
    check_monitors(trainer, task, {key: config[key].monitor for key in MONITORS})
    check_checkpoint_folder(trainer, config.checkpoint.dirpath, config.ckpt_path)
    with ExitStack() as held:
        if trainer.is_global_zero:
            held.enter_context(claim_run_folder(trainer, task, config.checkpoint.dirpath, data.root))
        yield


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
