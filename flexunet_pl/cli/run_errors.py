"""What goes wrong before the work has begun is a setting, or a checkpoint that does not fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer

from flexunet_pl.cli.parser_errors import explain_parser_error
from flexunet_pl.common.errors import ModelFileError, UserError


class Begun(Callback):
    """Knows whether the work has begun.

    Attributes:
        done: Whether it has.
    """

    def __init__(self) -> None:
        self.done = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note it."""
        self.done = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note it, unless this is the trial before a training."""
        self.done = self.done or not trainer.sanity_checking

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note it."""
        self.done = True

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note it."""
        self.done = True


@contextmanager
def explained_values() -> Iterator[None]:
    """Say of a value that a class does not take which it is.

    Raises:
        UserError: If there is one.
    """
    try:
        yield
    except UserError:
        raise
    except ModuleNotFoundError as error:  # of what Lightning can use and does not require
        raise UserError(f"configuration: {' '.join(str(error).split())}") from error
    except (ValueError, MisconfigurationException) as error:
        cause: BaseException = error
        while not isinstance(cause, UserError) and cause.__cause__ is not None:
            cause = cause.__cause__  # the parser puts its own words before those of a class
        raise UserError(f"configuration: {explain_parser_error(str(cause), ())}") from error


@contextmanager
def explained_start(begun: Begun, trainer: Trainer, resumed: str | None) -> Iterator[None]:
    """Say of what goes wrong before the work has begun that it is a setting, or the state of a checkpoint.

    Args:
        begun: Whether it has.
        trainer: The trainer.
        resumed: Checkpoint of the run that is resumed, if any.

    Raises:
        UserError: If a setting is wrong.
        ModelFileError: If the state in the checkpoint does not fit.
        OSError: With the name of a file or folder.
    """  # noqa: DOC501 - what is raised once the work has begun goes on as it is
    try:
        yield
    except OSError as error:  # TensorBoard's do not say of which file they are
        if error.filename is None and error.strerror is not None:
            error.filename = str(Path(trainer.log_dir or trainer.default_root_dir))
        raise
    except UserError:
        raise
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        ImportError,
        MisconfigurationException,
    ) as error:
        if begun.done:
            raise
        if resumed is not None:
            raise ModelFileError(
                f"{resumed}: the state of its training does not fit this one ({type(error).__name__}: {error}); resume"
                " it with the settings of its run, or start a new training"
            ) from error
        if isinstance(error, ValueError | MisconfigurationException | ModuleNotFoundError):  # what Lightning says of it
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error
        raise
