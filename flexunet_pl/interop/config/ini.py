"""The original's INI dialect: sections of ``key = Python literal``, read with line numbers; nothing in it is run."""

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from flexunet_pl.common.commented_yaml import printable
from flexunet_pl.common.errors import UserError

MAX_CHARACTERS = 1 << 18  # the largest public configuration has about 10,000

_LINE_END = re.compile(r"\r\n|\n|\r")
_DELIMITER = re.compile("[=:]")
_QUOTED = re.compile(r"""[rRuU]?(['"])(.*)\1""", re.DOTALL)


@dataclass(frozen=True)
class Setting:
    """One ``key = value``.

    Attributes:
        section: Section it stands in.
        key: In lower case.
        value: Without comments, line ends and backslashes that continue a line.
        raw: As the original's parser sees it; it knows comments at the start of a line only.
        line: Line of the key, counted from 1.
        comments: Comments above it and behind it, with their lines.
    """

    section: str
    key: str
    value: str
    raw: str
    line: int
    comments: tuple[tuple[int, str], ...]

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return f"[{self.section}] {self.key}"


class Ini:
    """The settings of a file.

    Args:
        text: Content of the file.
        name: What to call the file in messages.

    Raises:
        UserError: If a line is no comment, section, setting or continuation, or something stands twice.
    """

    def __init__(self, text: str, name: str) -> None:
        if len(text) > MAX_CHARACTERS or "\0" in text:
            raise UserError(
                f"{name}: is no configuration: it is longer than {MAX_CHARACTERS} characters, or has zero bytes; save "
                "it as UTF-8"
            )
        self.name = name
        self.sections: dict[str, int] = {}
        self.settings: dict[tuple[str, str], Setting] = {}
        for setting in self._parse(text.removeprefix("\ufeff")):
            self.settings[setting.section, setting.key] = setting

    def error(self, line: int, problem: str) -> UserError:
        """Make the error for a line."""
        return UserError(f"{self.name}, line {line}: {printable(problem)}")

    def _parse(self, text: str) -> Iterator[Setting]:
        section, comments = "", []
        block: list[tuple[int, str]] = []  # the lines of the setting that is being read
        indent = 0
        for number, line in enumerate(_LINE_END.split(text), start=1):
            stripped = line.strip()
            if not stripped:
                continue
            if stripped[0] in ";#":
                comments.append((number, stripped.lstrip(";# \t")))
                continue
            depth = len(line) - len(line.lstrip())
            if block and depth > indent:
                block.append((number, stripped))
                continue
            if block:
                above = [c for c in comments if c[0] < block[-1][0]]
                yield self._setting(section, block, above)
                comments, block = [c for c in comments if c[0] > block[-1][0]], []
            indent = depth
            if stripped.startswith("["):
                section, comments = self._section(number, stripped), []
            else:
                block = [(number, stripped)]
        if block:
            yield self._setting(section, block, comments)

    def _section(self, number: int, line: str) -> str:
        name, bracket, rest = line[1:].partition("]")
        if not bracket or not name.strip() or _without_comment(rest)[0].strip():
            raise self.error(number, f"expected `[section]`, found `{line[:80]}`")
        if name == "DEFAULT":
            raise self.error(number, "[DEFAULT] sets keys of all sections at once; write them into the sections")
        if name in self.sections:
            raise self.error(
                number,
                f"section [{name}] began in line {self.sections[name]} already; join the two (the original gives up "
                "here and takes all its defaults)",
            )
        self.sections[name] = number
        return name

    def _setting(self, section: str, block: list[tuple[int, str]], comments: list[tuple[int, str]]) -> Setting:
        number, first = block[0]
        delimiter = _DELIMITER.search(first)
        name = first[: delimiter.start()].strip() if delimiter is not None else ""
        if delimiter is None or not name:
            raise self.error(number, f"expected `[section]` or `key = value`, found `{first[:80]}`")
        if not section:
            raise self.error(number, f"`{name}` stands before the first [section]; put it into one")
        key = name.lower()
        if (section, key) in self.settings:
            raise self.error(
                number,
                f"[{section}] {key} stands in line {self.settings[section, key].line} already; remove one (the "
                "original gives up here and takes all its defaults)",
            )
        lines = [(number, first[delimiter.end() :].strip()), *block[1:]]
        parts = []
        for at, line in lines:
            value, comment = _without_comment(line)
            parts.append(value.rstrip().removesuffix("\\").rstrip())
            if comment:
                comments = [*comments, (at, comment)]
        return Setting(
            section,
            key,
            value="\n".join(parts).strip(),
            raw="\n".join(line for _, line in lines).strip(),
            line=number,
            comments=tuple(sorted(comments)),
        )


def _without_comment(line: str) -> tuple[str, str]:
    """Split a line at the first ``;`` or ``#`` that is outside of quotes."""
    quote = ""
    for i, (before, character) in enumerate(pairwise(" " + line)):
        if quote:
            quote = "" if character == quote and before != "\\" else quote
        elif character in "'\"":
            quote = character
        elif character in ";#":
            return line[:i], line[i:].lstrip(";# \t")
    return line, ""


def read_literal(text: str) -> Any:
    """Read a Python literal.

    Args:
        text: The literal; names, calls and operators are none, and are never evaluated.

    Returns:
        Its value.

    Raises:
        ValueError: If it is no literal, or a dict in which a key stands twice.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes such as "\d"
            tree = ast.parse(text.strip(), mode="eval")
            value = ast.literal_eval(tree)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError("no literal") from error
    if isinstance(tree.body, ast.Dict) and len(tree.body.keys) != len(value):
        raise ValueError("a key stands twice")
    return value


def read_string(text: str) -> str:
    """Read a string, quoted or not; a backslash is one character, as in Windows paths.

    Args:
        text: The string as it stands in the file.

    Returns:
        The string without its quotes.

    Raises:
        ValueError: If it is empty, runs over several lines, or begins as a quoted string and does not end as one.
    """
    quoted = _QUOTED.fullmatch(text)
    value = (quoted[2] if quoted else text).replace("\\\\", "\\")
    unfit = {quoted[1]} if quoted else set("'\"()[]{}")
    if not value.strip() or not value.isprintable() or unfit & set(value):
        raise ValueError("no string")
    return value.strip()
