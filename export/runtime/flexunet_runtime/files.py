"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
