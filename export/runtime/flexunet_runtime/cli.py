"""The command line of the runtime."""

import argparse
import errno
import signal
from collections.abc import Callable
from pathlib import Path

from flexunet_runtime.choice import add_engine_options, open_model
from flexunet_runtime.console import say
from flexunet_runtime.errors import UserError

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def main() -> int:
    """Run the command line.

    Returns:
        The exit status: 0 done, 1 an image could not be used, 2 what the user can mend, 3 memory or disk ran out, 70 an
        error of ours, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(prog="flexunet_runtime", description="Write a mask for each image of a folder.")
    parser.add_argument("model", help="ONNX file that flexunet export has written")
    parser.add_argument("images", help="folder of images, or one image")
    parser.add_argument("out", help="folder for the masks, palette PNGs; one that was begun is gone on with")
    parser.add_argument("--tiled", action="store_true", help="predict larger images in tiles, at their own resolution")
    parser.add_argument("--overwrite", action="store_true", help="write to a folder that is not empty, and all anew")
    add_engine_options(parser)
    parser.add_argument("--debug", action="store_true", help="show where in the program an error arose")
    given = parser.parse_args()
    return explained_status("flexunet_runtime", lambda: _predict(given), debug=given.debug)


def explained_status(program: str, work: Callable[[], int], *, debug: bool = False) -> int:
    """Do the work of a command, and turn whatever goes wrong into one line and an exit status.

    Args:
        program: Its name, for the line.
        work: Returns the status where all goes well.
        debug: Whether errors are left as they are.

    Returns:
        The exit status; see `main`.
    """
    try:
        return work()
    except KeyboardInterrupt:
        say(f"{program}: interrupted; the same command again goes on")
        return 128 + signal.SIGINT
    except Exception as error:
        if debug:
            raise
        status, text = _verdict(error)
        say(f"{program}: {text}")
        return status


def _verdict(error: Exception) -> tuple[int, str]:
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, MemoryError):
        return 3, str(error) or "memory ran out; take smaller images, or more memory"
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return (3 if error.errno in _DISK_FULL else 2), f"{name}{error.strerror}; name another place, or make room"
    reason = str(error).partition("\n")[0][:300]
    return 70, f"{type(error).__name__}: {reason}; this is an error of the program: please report what --debug prints"


def _predict(given: argparse.Namespace) -> int:
    if not Path(given.images).exists():
        raise UserError(f"{given.images}: no such folder or image")
    model = open_model("flexunet_runtime", given.model, given.engine, given.threads, given.precision)
    written = failed = 0
    for _, problem in model.predict_folder(given.images, given.out, tiled=given.tiled, overwrite=given.overwrite):
        if problem:
            failed += 1
            say(f"failed: {problem}")
        else:
            written += 1
    there = sum(1 for _ in Path(given.out).glob("*.png")) - written
    say(f"{written} masks written to {given.out}" + (f", {there} were there already" if there else ""))
    return 1 if failed or not (written or there) else 0
