"""Where a data set is made of another one: a new folder, files copied to it or linked."""

import os
import shutil
from pathlib import Path
from typing import Literal

from flexunet_pl.common.errors import UserError


def check_new_folder(src: Path, out: Path) -> None:
    """Check that a folder can be written to without touching anything that is there.

    Args:
        src: The data set that is read.
        out: The folder to write.

    Raises:
        UserError: If it is not empty, or lies in the other.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is not empty; name another folder")
    if out.resolve().is_relative_to(src.resolve()):
        raise UserError(f"{out}: lies in the input {src}; name a folder outside of it")


def place_file(source: Path, target: Path, mode: Literal["copy", "link"]) -> None:
    """Copy a file, or make a relative link to it.

    Args:
        source: The file.
        target: Where it is to be; folders on the way are made.
        mode: Which of the two.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if mode == "link":
        # resolved: a link is followed from where its folder really lies
        target.symlink_to(os.path.relpath(source.parent.resolve() / source.name, target.parent.resolve()))
    else:
        shutil.copy2(source, target)
