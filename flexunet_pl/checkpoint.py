"""Checkpoint files: written so that no kill loses the last one, read without running anything."""

import logging
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Trainer
from packaging.version import InvalidVersion, Version
from torch import Tensor
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

from flexunet_pl.common.checkpoint_set import Checkpoints, checkpoint_files, merge_checkpoints
from flexunet_pl.common.errors import DISK_FULL, ModelFileError, RunFailedError
from flexunet_pl.common.files import sha256_of
from flexunet_pl.common.hashed_files import known_hashes, remove_with_hash, written_with_hash
from flexunet_pl.io.dataset_facts import DatasetFacts

log = logging.getLogger(__name__)

VERSION_KEY = "pytorch-lightning_version"  # Lightning's key of its own version
_OLDEST = (2, 6)  # that this package has ever written with
_KINDS = {
    "callbacks": dict,
    "hyper_parameters": dict,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "epoch": int,
    "global_step": int,
    VERSION_KEY: str,
}
_PLAIN = (
    Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device,
    str, bytes, int, float, complex, bool, type(None),
)  # fmt: skip
_MAX_DEPTH = 50


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target and moves into place, with a SHA-256 beside it; reads with ``weights_only=True``.

    Args:
        weights_alone: Whether reading gives the weights and nothing else, as all but the resuming of a training needs.
    """

    def __init__(self, *, weights_alone: bool = False) -> None:
        self.weights_alone = weights_alone
        self._written: set[Path] = set()  # by this process

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint; until it is complete and on the disk, the file of that name stays as it was.

        Args:
            checkpoint: State to save, tensors and plain values.
            path: The file.
            storage_options: Not supported.

        Raises:
            TypeError: If storage options are given.
            RunFailedError: If the disk is full.
            OSError: If the file cannot be written for another reason.
        """
        if storage_options is not None:
            raise TypeError("storage_options are not supported: checkpoints are local files")
        target = Path(path)
        try:
            with written_with_hash(target) as file:
                torch.save(checkpoint, file)
            self._written.add(target.resolve())
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            free = shutil.disk_usage(target.parent).free / 1e6
            kept = "the one before it is whole" if target.exists() else "there is none before it"
            raise RunFailedError(
                f"{target}: the disk is full, {free:.0f} MB are free; the checkpoint was not saved, {kept}; make room, "
                "then resume with --ckpt_path last"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint with `read_checkpoint`; what is asked for ``weights_only``, it is True.

        Args:
            path: The file.
            map_location: Device to put the tensors on, the CPU by default.
            weights_only: Ignored.

        Returns:
            The checkpoint.

        Raises:
            ModelFileError: If it cannot be read, or a training of another version of Lightning cannot be resumed.
        """
        checkpoint = read_checkpoint(path, map_location)
        if self.weights_alone:
            # with a version of now: Lightning has nothing to convert, and calls nothing for what is not there
            return {"state_dict": checkpoint["state_dict"], VERSION_KEY: lightning.__version__}
        check_lightning_version(checkpoint.get(VERSION_KEY, "none"), path)
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint that this process has written, and its sidecar.

        Args:
            path: The file. Lightning takes it from the state of a resumed run, which may be a stranger's.
        """
        target = Path(path)
        if target.resolve() not in self._written:
            log.warning("%s was not removed: this process has not written it", target)
            return
        remove_with_hash(target)


# what a checkpoint's settings are used for; the rest belongs to the training
PREDICTION_SETTINGS = (
    "network",
    "rgb_map",
    "image_size",
    "in_channels",
    "image_window",
    "neighbours",
    "patches",
    "temperature",
    "postprocessing",
    "never_empty",
    *DatasetFacts().plain(),
)


def read_checkpoint(source: Checkpoints, map_location: Any | None = None) -> dict[str, Any]:
    """Read a checkpoint of this package without running code from it.

    Args:
        source: A local file, or several; see `checkpoint_files`.
        map_location: Device to put the tensors on, the CPU by default.

    Returns:
        The checkpoint: tensors and plain values. Of several files, that of an `Ensemble` of their networks.

    Raises:
        ModelFileError: If a file is missing, damaged, no checkpoint, or holds anything but tensors and plain values; or
            if several do not go together.
    """
    files = checkpoint_files(source)
    if len(files) == 1:
        return _read_file(files[0], map_location)
    return merge_checkpoints(
        {file: _read_file(file, map_location) for file in files},
        [key for key in PREDICTION_SETTINGS if key not in {"network", "temperature"}],
        VERSION_KEY,
    )


def _read_file(target: Path, map_location: Any | None) -> dict[str, Any]:
    if not target.is_file():
        raise ModelFileError(f"{target}: no such checkpoint file")
    known = known_hashes(target)
    if known and sha256_of(target) not in known:
        raise ModelFileError(
            f"{target}: damaged, its SHA-256 is not the one in {target.name}.sha256; "
            "use another checkpoint of the run, or remove the sidecar if you changed the file on purpose"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's version, where it is refused anyway
            with _no_extra_classes():
                checkpoint = torch.load(target, map_location=map_location or "cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds, and its advice is to load unsafely
        named = re.search(r"GLOBAL ([\w.]{1,80}) ", str(error))
        what = f"holds Python's `{named[1]}`" if named else "is no checkpoint of flexunet, or holds Python objects"
        raise ModelFileError(f"{target}: {what}; objects are never loaded, and nothing was run") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise ModelFileError(f"{target}: is no checkpoint of flexunet: it has no state_dict")
    if (found := _find_object(checkpoint, set())) is not None:  # packages may register classes that torch lets through
        raise ModelFileError(f"{target}: holds Python's `{found}`; objects are never loaded, and nothing was run")
    for key, kind in _KINDS.items():
        if not isinstance(checkpoint.get(key, kind()), kind):
            raise ModelFileError(f"{target}: is no checkpoint of flexunet: its {key} is no {kind.__name__}")
    return checkpoint


def check_lightning_version(saved: str, path: str | Path) -> None:
    """Refuse to resume what Lightning would convert first: its conversions are written for files of its own.

    Args:
        saved: Version of Lightning that has saved a checkpoint.
        path: The checkpoint.

    Raises:
        ModelFileError: If the version is not one that needs no conversion.
    """
    own = Version(lightning.__version__)
    try:
        fits = Version(saved).release[:2] >= _OLDEST and Version(saved).major == own.major
    except InvalidVersion:
        fits = False
    if not fits:
        raise ModelFileError(
            f"{path}: was saved by Lightning {saved[:40]!r}; a training is resumed from 2.6 on, below {own.major + 1}; "
            "validate, test, predict and export take the file as it is"
        )


@contextmanager
def _no_extra_classes() -> Iterator[None]:
    """Take back what packages let torch build from a file: a DeviceMesh opens a socket while it is made."""
    registered = get_safe_globals()
    clear_safe_globals()
    try:
        yield
    finally:
        add_safe_globals(registered)


def _find_object(value: Any, known: set[int], depth: int = 0) -> str | None:
    """Return the type of the first thing in a checkpoint that is neither a tensor nor a plain value."""
    if depth > _MAX_DEPTH:
        return "a structure without end"
    if isinstance(value, dict):
        parts = [*value, *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif type(value) in _PLAIN:
        return None
    else:
        return f"{type(value).__module__}.{type(value).__qualname__}"
    if id(value) in known:  # what stands in many places is looked at once
        return None
    known.add(id(value))
    return next((found for part in parts if (found := _find_object(part, known, depth + 1)) is not None), None)


def last_checkpoint(trainer: Trainer) -> Path:
    """Return where a run keeps its last state.

    Args:
        trainer: The trainer of the run.

    Returns:
        The file, which need not exist yet.
    """
    folders = [
        getattr(c, "dirpath", None) for c in trainer.checkpoint_callbacks if getattr(c, "filename", "") == "last"
    ]
    return Path(next(filter(None, folders), trainer.default_root_dir)) / "last.ckpt"
