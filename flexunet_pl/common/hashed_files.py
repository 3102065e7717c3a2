"""Files with a SHA-256 beside them, written so that the two never disagree, whenever a kill comes."""

import hashlib
import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from flexunet_pl.common.files import sha256_of

log = logging.getLogger(__name__)


@contextmanager
def written_with_hash(target: Path) -> Iterator[IO[bytes]]:
    """Give a file to write to, and put it, with its hash, in the place of another once it is on the disk.

    Args:
        target: The file; until the new one is complete it stays as it was.

    Yields:
        What to write to.

    Raises:
        OSError: If it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target)
    # in the same folder: a move from another file system would be no replace
    staged = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with staged.open("wb") as file:
            writer = _HashingWriter(file)
            try:
                yield cast("IO[bytes]", writer)
            except RuntimeError as error:  # which torch makes of what went wrong with the file
                raise writer.error or error from error
            file.flush()
            os.fsync(file.fileno())
        # between the two moves the old and the new file are both right, so the sidecar names both
        new = writer.sha256.hexdigest()
        if target.exists():
            known = known_hashes(target)
            old = known[0] if len(known) == 1 else sha256_of(target)  # a kill has left two, or there is no sidecar
            _write_sidecar(target, [old, new])
        staged.replace(target)
        _write_sidecar(target, [new])
        _sync_folder(target.parent)
    finally:
        staged.unlink(missing_ok=True)


def remove_with_hash(target: Path) -> None:
    """Remove a file and its hash.

    Args:
        target: The file, which may be gone already.
    """
    target.unlink(missing_ok=True)
    _sidecar(target).unlink(missing_ok=True)


def known_hashes(target: Path) -> list[str]:
    """Return the hashes that stand beside a file.

    Args:
        target: The file.

    Returns:
        One, or two where a write was cut off between its moves; none where none stands there.
    """
    sidecar = _sidecar(target)
    if not sidecar.is_file():
        return []
    return [
        line.split()[0] for line in sidecar.read_text(encoding="utf-8", errors="replace").splitlines() if line.split()
    ]


class _HashingWriter(io.RawIOBase):
    """Hash what goes through to a file, so that it need not be read again."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.file = file
        self.sha256 = hashlib.sha256()
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise


def _sidecar(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _write_sidecar(target: Path, hashes: list[str]) -> None:
    sidecar = _sidecar(target)
    staged = sidecar.with_name(f".{sidecar.name}.{os.getpid()}.tmp")
    with staged.open("w", encoding="utf-8") as file:
        file.writelines(f"{value}  {target.name}\n" for value in hashes)  # the format of sha256sum
        file.flush()
        os.fsync(file.fileno())
    staged.replace(sidecar)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(target: Path) -> None:
    """Remove what a killed run left while it wrote this file; a run folder has one writer."""
    for stale in sorted(target.parent.glob(f".{target.name}*.tmp")):
        stale.unlink(missing_ok=True)
        log.warning("removed %s, left by a run that was killed while it saved", stale)
