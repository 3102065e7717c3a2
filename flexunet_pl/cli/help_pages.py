"""Help pages, made once and kept: that of `fit` takes torch, Lightning and seconds to write, and neither to show."""

import contextlib
import hashlib
import io
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from platformdirs import user_cache_path

from flexunet_pl.common.console import say
from flexunet_pl.common.files import written_in_place

_SHOWN = ("lightning", "torch", "jsonargparse")  # packages whose options and types are on the pages
_PACKAGE = Path(__file__).parents[1]


def help_page(verb: str, write: Callable[[], object]) -> str:
    """Return the help page of a verb, for the width of this terminal.

    Args:
        verb: The verb.
        write: Prints its page; called where there is none of this version yet.

    Returns:
        The page.
    """
    kept = _folder() / f"{verb}-{shutil.get_terminal_size().columns}.txt"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return kept.read_text(encoding="utf-8")
    if sys.stderr.isatty():
        say("flexunet: the page is written once for each version, which takes some seconds")
    page = _printed(write)
    with contextlib.suppress(OSError):  # nowhere to keep it; then it is written each time
        kept.parent.mkdir(parents=True, exist_ok=True)
        with written_in_place(kept) as temporary:
            temporary.write_text(page, encoding="utf-8")
    return page


def _printed(write: Callable[[], object]) -> str:
    with io.StringIO() as page:
        # a parser leaves the program behind its page
        with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
            write()
        return page.getvalue()


def _folder() -> Path:
    """Return the folder of the pages that belong to what is installed, and to the program as it is now."""
    sources = [path.stat() for path in sorted(_PACKAGE.rglob("*.py"))]
    state = [sys.version, *map(_version, _SHOWN), *((each.st_size, each.st_mtime_ns) for each in sources)]
    return user_cache_path("flexunet") / "help" / hashlib.sha256(repr(state).encode()).hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
