"""What is said to people while a command works, on standard error."""

import sys


def say(line: str) -> None:
    """Write a line to standard error, where it is in nobody's way.

    Args:
        line: The line, without its end.
    """
    sys.stderr.write(f"{line}\n")
