"""What is said to people while a command works, on standard error."""

import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def say(line: str) -> None:
    """Write a line to standard error, where it is in nobody's way.

    Args:
        line: The line, without its end.
    """
    sys.stderr.write(f"{harmless(line)}\n")


def show_progress(items: Iterable[T], doing: str, total: int) -> Iterator[T]:
    """Show on standard error how many items are done, where that is a terminal.

    Args:
        items: The items.
        doing: What is done to them, such as "reading masks".
        total: Their number.

    Yields:
        The items.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(items, doing, total=total, console=console, transient=True, disable=not console.is_terminal)


def harmless(text: str) -> str:
    """Replace what could break a line or move a terminal's cursor by question marks; files may have put it there."""
    return "".join("?" if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} else c for c in text)
