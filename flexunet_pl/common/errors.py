"""Errors that end a command with one line and a known exit status."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flexunet_runtime.errors import DataError, ModelFileError, UserError

__all__ = ["DISK_FULL", "DataError", "ModelFileError", "RunFailedError", "RunInterrupted", "UserError", "explained"]

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # of an OSError


class RunFailedError(RuntimeError):
    """A run broke down: the loss is not finite, a worker or the memory was lost. Exit status 3."""


class RunInterrupted(Exception):  # noqa: N818 - a signal is no error
    """A signal ended the run after its state was saved.

    Args:
        signum: Number of the signal; the exit status is 128 plus it.
        message: What was saved and how to go on.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


@contextmanager
def explained(
    path: Path, kinds: tuple[type[Exception], ...], what: str, reason: Callable[[BaseException], str] = str
) -> Iterator[None]:
    """Say of what goes wrong while a file is read which file it is, and what to do.

    Args:
        path: The file.
        kinds: Errors that mean that the file is at fault.
        what: What is wrong with it then, such as "is no volume".
        reason: Gives the words of an error.

    Raises:
        DataError: If the file is missing or at fault.
        UserError: As it comes, such as of a library that is missing.
        MemoryError: As it comes.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except kinds as error:
        if isinstance(error, MemoryError) and MemoryError not in kinds:  # that is not the file's fault
            raise
        raise DataError(f"{path}: {what} ({reason(error)}); export it again or remove it") from error
