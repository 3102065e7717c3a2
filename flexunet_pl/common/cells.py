"""Cells of CSV files that spreadsheets open: a name that begins like a formula would be computed there."""

from typing import Any

_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r")
_MARK = "'"  # spreadsheets take what follows as text


def guard(value: Any) -> Any:
    """Mark a text that a spreadsheet would compute; numbers stay what they are.

    >>> guard("=1+1"), guard("-a"), guard("a"), guard(-1.5)
    ("'=1+1", "'-a", 'a', -1.5)
    """
    return f"{_MARK}{value}" if isinstance(value, str) and value.startswith((*_BEGINNINGS, _MARK)) else value


def unguard(text: str) -> str:
    """Return the text that was guarded.

    >>> unguard(guard("=1+1")), unguard(guard("'a")), unguard("a")
    ('=1+1', "'a", 'a')
    """
    return text.removeprefix(_MARK)
