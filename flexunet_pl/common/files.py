"""Files of any kind: written whole, told apart by their hash, refused before any work."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from flexunet_pl.common.errors import UserError
from flexunet_runtime.files import written_in_place

__all__ = ["check_input", "check_output", "check_results_folder", "sha256_of", "written_in_place"]


def sha256_of(path: Path) -> str:
    """Hash a file.

    Args:
        path: The file.

    Returns:
        Its SHA-256, 64 hexadecimal digits.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_input(source: Path) -> None:
    """Refuse an input that is no file.

    Args:
        source: The file.

    Raises:
        UserError: If it is none.
    """
    if source.parts and source.parts[0].endswith(":") and len(source.parts[0]) > 2:  # https:
        raise UserError(f"{source}: is an address; download the file first")
    if not source.is_file():
        raise UserError(f"{source}: {'is no file' if source.exists() else 'no such file'}")


def check_output(target: Path, source: Path, *, overwrite: bool) -> None:
    """Refuse an output file that cannot be written, before any work.

    Args:
        target: The file.
        source: The input, which is never overwritten.
        overwrite: Whether it may be there already.

    Raises:
        UserError: If it may not be written.
    """
    if target.is_dir():
        raise UserError(f"{target}: is a folder; name a file")
    if target.exists() and target.samefile(source):
        raise UserError(f"{target}: is the input itself; name another output")
    if target.exists() and not overwrite:
        raise UserError(f"{target}: is there already; name another file, or add --overwrite")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder; make it, or name another output")


def check_results_folder(folder: Path, mark: str, others: Iterable[str]) -> None:
    """Refuse a folder for results that has files of their names which are not results.

    Args:
        folder: The folder; it need not be there.
        mark: Name of the file by which results are known; where it is there, they may be written again.
        others: Names of the other files.

    Raises:
        UserError: If it is a file, or holds such files.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder for the results")
    there = [name for name in others if (folder / name).exists()]
    if there and not (folder / mark).is_file():
        raise UserError(
            f"{folder / there[0]}: is there already, and no whole result of ours ({mark} is not beside it); remove it, "
            "or name another folder"
        )
