"""Errors that end a command with one line and a known exit status."""


class UserError(ValueError):
    """Something the user can mend: usage, configuration, output path. Exit status 2."""


class DataError(UserError):
    """An image, a mask or a folder of them cannot be used. The message begins with its path."""


class ModelFileError(UserError):
    """A checkpoint is damaged, foreign or unsafe. The message begins with its path."""


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
