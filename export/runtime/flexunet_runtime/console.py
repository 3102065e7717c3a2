"""What is said to people on standard error."""

import sys
import unicodedata


def say(line: str) -> None:
    """Write a line to standard error, where it is in nobody's way.

    Args:
        line: The line, without its end.
    """
    sys.stderr.write(f"{harmless(line)}\n")


def harmless(text: str) -> str:
    """Replace what could break a line or move a terminal's cursor by question marks; files may have put it there."""
    return "".join("?" if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} else c for c in text)
