"""Several checkpoints as one: the runs of the folds, whose networks predict together."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flexunet_pl.common.errors import ModelFileError
from flexunet_pl.common.files import sha256_of

Checkpoints = str | Path | Sequence[str | Path]

_MOST = 32
_BEST = "best.ckpt"


def checkpoint_files(source: Checkpoints) -> list[Path]:
    """Return the files that a command line, or a script, means by a checkpoint.

    Args:
        source: A file; several, as a sequence or a list separated by commas; the folder of a run, whose best checkpoint
            is meant; or a folder of such folders, or of checkpoints, all of which are meant.

    Returns:
        The files; one that is missing is named when it is read.

    Raises:
        ModelFileError: If it is an address, a folder holds no checkpoint, or there are too many.
    """
    if "://" in str(source):
        raise ModelFileError(f"{source}: checkpoints are read from local files only; download it first")
    if not isinstance(source, str | Path):
        files = [file for part in source for file in checkpoint_files(part)]
    elif (folder := Path(source)).is_dir():
        files = _in_folder(folder)
    elif not folder.exists() and (parts := _parts(str(source))):
        files = [file for part in parts for file in checkpoint_files(part)]
    else:
        files = [folder]
    if not 1 <= len(files) <= _MOST:
        raise ModelFileError(f"{source}: {len(files)} checkpoints; 1 to {_MOST} can predict together")
    return files


def _parts(text: str) -> list[str]:
    """Return the names in a list such as ``a.ckpt,b.ckpt`` or ``[a.ckpt, b.ckpt]``; none where it is no list."""
    listed = text.startswith("[") and text.endswith("]")
    if not listed and "," not in text:
        return []
    parts = (part.strip(" \t\"'") for part in (text[1:-1] if listed else text).split(","))
    return [part for part in parts if part]


def _in_folder(folder: Path) -> list[Path]:
    for best in (folder / "checkpoints" / _BEST, folder / _BEST):
        if best.is_file():
            return [best]
    files = sorted(folder.glob(f"*/checkpoints/{_BEST}")) or sorted(folder.glob("*.ckpt"))
    if not files:
        raise ModelFileError(
            f"{folder}: is no file, and a folder without a checkpoint; name a file, the folder of a run, or that of "
            "the runs of all folds"
        )
    return files


def checkpoint_sha256(source: Checkpoints) -> str:
    """Return the SHA-256 of a checkpoint; of several, that of theirs."""
    digests = [sha256_of(file) for file in checkpoint_files(source)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def merge_checkpoints(
    checkpoints: Mapping[Path, Mapping[str, Any]], shared: Sequence[str], version_key: str
) -> dict[str, Any]:
    """Make one checkpoint of several: that of an `Ensemble` of their networks, with nothing of their trainings.

    Args:
        checkpoints: What each file holds.
        shared: Names of the settings in which they must agree.
        version_key: Key of Lightning's version.

    Returns:
        A checkpoint.

    Raises:
        ModelFileError: If they do not agree, or one does not know how its network was built.
    """
    settings = {path: checkpoint.get("hyper_parameters", {}) for path, checkpoint in checkpoints.items()}
    (first, reference), *others = settings.items()
    for path, other in others:
        for key in shared:
            if (other.get(key) or None) != (reference.get(key) or None):  # older files lack what is off by default
                raise ModelFileError(
                    f"{path}: its {key} is {str(other.get(key))[:200]} but that of {first} is "
                    f"{str(reference.get(key))[:200]}; only networks of the same task can predict together"
                )
    networks = [saved.get("network") for saved in settings.values()]
    if None in networks:
        path = list(settings)[networks.index(None)]
        raise ModelFileError(f"{path}: does not know how its network was built, which several together must")
    ensemble = {"class_path": "flexunet_pl.models.Ensemble", "init_args": {"members": networks}}
    weights = {
        f"network.members.{number}.{str(name).removeprefix('network.')}": value
        for number, checkpoint in enumerate(checkpoints.values())
        for name, value in checkpoint["state_dict"].items()
        if str(name).startswith("network.")
    }
    temperatures = [saved.get("temperature", 1.0) for saved in settings.values()]
    if not all(isinstance(t, int | float) and t > 0 for t in temperatures):
        raise ModelFileError(f"{first}: its temperature, or that of another of the files, is no number above 0")
    merged = {key: reference[key] for key in shared if key in reference}
    merged |= {"network": ensemble, "temperature": math.exp(sum(map(math.log, temperatures)) / len(temperatures))}
    return {
        "state_dict": weights,
        "hyper_parameters": merged,
        version_key: checkpoints[first].get(version_key, "none"),
    }
