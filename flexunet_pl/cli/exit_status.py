"""How a command ends: the exit status that an error stands for, and the line that is said of it."""

import argparse
import shutil
import threading
from pathlib import Path

from flexunet_pl.common.errors import DISK_FULL, RunFailedError, RunInterrupted, UserError

OUR_MISTAKE = 70  # EX_SOFTWARE of sysexits.h


def exit_status(error: BaseException) -> int:
    """Return the exit status that an error stands for.

    Args:
        error: What ended the command.

    Returns:
        2 where the user can correct it, 3 where the run failed, 128 and the signal's number after a signal, 70 for what
        should not have happened.
    """
    if isinstance(error, RunInterrupted):
        return 128 + error.signum
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, RunFailedError | MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return 3
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return 3
    if (isinstance(error, RuntimeError) and "DataLoader worker" in str(error)) or _is_of_lost_process(error):
        return 3
    if isinstance(error, UserError | argparse.ArgumentError) or type(error).__name__ == "MisconfigurationException":
        return 2
    if isinstance(error, OSError) and error.filename is not None:
        return 2
    return OUR_MISTAKE


def _is_of_lost_process(error: BaseException) -> bool:
    """Tell whether another process of a distributed run is gone: NCCL has classes for it, gloo has none."""
    return type(error).__name__ in {"DistBackendError", "DistNetworkError"} or "/gloo/transport/" in str(error)


def one_line(error: BaseException) -> str:
    """Say of an error what it is, in one line.

    Args:
        error: What ended the command.

    Returns:
        The line, without the program's name.
    """
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, argparse.ArgumentError):
        return " ".join(error.message.split())
    if isinstance(error, OSError) and error.strerror is not None:
        return _of_file(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, MemoryError):
        inner = lines[-1].partition("Error: ")[2] or lines[-1]  # raised in a worker, it has the trace before it
        return f"memory ran out ({inner}); lower data.num_workers or data.batch_size, or --workers"
    if _is_of_lost_process(error):
        return "another process of this run is gone; its own lines, or who killed it, tell why; resume with --ckpt_path"
    if isinstance(error, RuntimeError) and "DataLoader worker" in lines[0]:
        return f"{lines[0]} Probably memory ran out; lower data.num_workers or data.batch_size"
    if lines[0].startswith("Caught ") and "worker process" in lines[0]:
        # raised in a worker: torch puts the trace into the message, and the error itself stands last
        return lines[-1].partition(": ")[2]
    if exit_status(error) == OUR_MISTAKE:
        said = " ".join(lines)[:500]
        return f"{type(error).__name__}: {said}; this is an error in flexunet: please report what --debug prints"
    return " ".join(lines)


def end_of_thread(given: threading.ExceptHookArgs) -> None:
    """Print what a thread died of; but a full disk is said by the main thread, which cannot write either."""
    if not (isinstance(given.exc_value, OSError) and given.exc_value.errno in DISK_FULL):
        threading.__excepthook__(given)


def _of_file(error: OSError) -> str:
    what = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror)
    if error.errno not in DISK_FULL:
        return f"{what}; look at the path and who may write there"
    places = [Path(error.filename).absolute(), *Path(error.filename).absolute().parents] if error.filename else [Path()]
    free = shutil.disk_usage(next(place for place in places if place.exists())).free
    return f"{what}; {free / 1e6:.0f} MB are free there; make room and run it again"
