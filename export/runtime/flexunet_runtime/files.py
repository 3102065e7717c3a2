"""Files that are written whole or not at all."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SAMPLED = 1 << 16  # bytes


def is_readable(path: Path) -> bool:
    """Tell whether a path leads to a regular file: a pipe would be waited for without end, a device has none."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def fingerprint_files(paths: Iterable[Path]) -> str:
    """Tell files from others of the same names: by size, beginning and end.

    Args:
        paths: The files.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest.update(f"{path.name} {size} ".encode("utf-8", "surrogateescape") + file.read(_SAMPLED))
            file.seek(max(0, size - _SAMPLED))
            digest.update(file.read(_SAMPLED))
    return digest.hexdigest()[:16]


@contextmanager
def written_in_place(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Give a temporary name beside a file and move it to the file's name once all is written.

    Args:
        path: The file to write; what it holds stays untouched until the new content is complete.
        suffix: End of the temporary name, for writers that go by it.

    Yields:
        The name to write to.

    Raises:
        OSError: If it cannot be written, with the file's name.
    """
    temporary = path.with_name(f".{path.name[:50]}.{os.getpid()}{suffix}")  # a long name has no room for more
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename in {None, str(temporary)}:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
