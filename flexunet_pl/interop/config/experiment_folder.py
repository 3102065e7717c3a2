"""An experiment's folder of the original: its configuration, its pictures to watch, its data set, where they lie."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from flexunet_pl.common.errors import UserError
from flexunet_pl.interop.config.settings import Conversion

CONFIG_NAME = "train_eval_infer.config"
_DEPTH = 4  # folders below the experiment's that are looked at
_MOST_FOLDERS = 10_000


def find_config(folder: Path) -> Path:
    """Find the configuration of an experiment's folder.

    Args:
        folder: The folder.

    Returns:
        The file: of the usual name, here or below, or else the only one here that ends in .config.

    Raises:
        UserError: If there is none, or there are several.
    """
    usual = [here / CONFIG_NAME for here, _, files in _walk(folder) if CONFIG_NAME in files]
    nearest = [path for path in usual if len(path.parts) == min(len(other.parts) for other in usual)]
    found = nearest or sorted(folder.glob("*.config"))
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(str(path) for path in found[:3])
        raise UserError(f"{folder}: holds {len(found)} configurations ({listed}); name the one that you want")
    raise UserError(f"{folder}: no file {CONFIG_NAME} in this folder or below; name the configuration")


def locate_paths(conversion: Conversion, folder: Path) -> None:
    """Point a conversion to what lies in the experiment's folder, where its own paths lead nowhere.

    Args:
        conversion: With absolute paths; it is changed, and each change remarked on.
        folder: The experiment's folder.
    """
    config = conversion.config
    root = config.get("data", {}).get("root")
    if root is not None and not Path(root).is_dir():
        found = [here for here, folders, _ in _walk(folder) if "train" in folders and _is_split(here / "train")]
        _replace(conversion, "data.root", found, folder)
    for key in ("epoch_change.images", "data.predict_dir"):
        section, name = key.split(".")
        path = config.get(section, {}).get(name)
        if path is not None and not Path(path).is_dir():
            last = PurePath(path).parts[-2:]
            found = [here for here, _, _ in _walk(folder) if here.parts[-len(last) :] == last]
            _replace(conversion, key, found, folder)


def _replace(conversion: Conversion, key: str, found: list[Path], folder: Path) -> None:
    section, name = key.split(".")
    before = conversion.config[section][name]
    if len(found) == 1:
        conversion.config[section][name] = str(found[0].absolute())
        conversion.remarks.append(f"{key} was {before}, which is not there; {found[0]} is taken")
        return
    why = f"{folder} holds {len(found)} of its kind" if found else f"{folder} holds nothing of its kind"
    conversion.remarks.append(f"{key} is {before}, which is not there, and {why}; set it before you train")


def _is_split(folder: Path) -> bool:
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk through a folder, not through links, not deeply.

    Raises:
        UserError: If it has too many folders.
    """
    for count, (place, folders, files) in enumerate(os.walk(folder)):
        if count > _MOST_FOLDERS:
            raise UserError(f"{folder}: has more than {_MOST_FOLDERS} folders; name the configuration's file")
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield here, list(folders), files
        if len(here.relative_to(folder).parts) >= _DEPTH:
            folders.clear()
