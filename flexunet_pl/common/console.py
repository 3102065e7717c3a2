"""What is said to people while a command works, on standard error."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from flexunet_runtime.console import harmless, say

__all__ = ["harmless", "say", "show_progress"]

T = TypeVar("T")


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
