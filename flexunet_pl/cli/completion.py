"""Completion of verbs and options in the shell."""

import argparse
import re
from collections.abc import Callable, Mapping

from flexunet_pl.common.errors import UserError

SHELLS = ("bash", "zsh", "fish")
_OPTION = re.compile(r"^  (?:-\w(?: \w+)?, )?(--[\w.-]+)(?:[ ]\[?=?(\S+))?.*?(?:\s{2,}(\S.*))?$")
_CHOICES = re.compile(r"\{([\w,.-]+)\}")


def completion(shell: str, verbs: Mapping[str, str], page: Callable[[str], str]) -> str:
    """Write what a shell has to read to complete verbs and options.

    Args:
        shell: One of `SHELLS`.
        verbs: Their summaries by name.
        page: Returns the help page of a verb.

    Returns:
        The script.

    Raises:
        UserError: If it is another shell.
    """
    if shell not in SHELLS:
        raise UserError(f"--completion {shell}: expected {', '.join(SHELLS)}")
    import shtab

    parser = argparse.ArgumentParser("flexunet")
    parser.add_argument("--version", action="store_true", help="show the version")
    of_verb = parser.add_subparsers()
    for verb, summary in verbs.items():
        options = of_verb.add_parser(verb, help=summary, add_help=False)
        for name, choices in options_of(page(verb)).items():
            action = options.add_argument(name, choices=choices)
            if choices is None:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        options.add_argument("paths", nargs="*").complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def options_of(page: str) -> dict[str, list[str] | None]:
    """Return the options that a help page explains, with the values they can have where those are few."""
    found: dict[str, list[str] | None] = {}
    for line in page.splitlines():
        if option := _OPTION.match(line):
            choices = _CHOICES.fullmatch(option[2] or "")
            found.setdefault(option[1], choices[1].split(",") if choices else None)
    return found
