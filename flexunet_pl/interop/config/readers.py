"""What the settings of an original configuration may be: types and ranges, and what to call them in messages."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from flexunet_pl.interop.config.ini import read_literal, read_string
from flexunet_pl.interop.equivalents import ACTIVATIONS


@dataclass(frozen=True)
class Reader:
    """Reads the text of a setting.

    Attributes:
        expected: What it reads, for messages.
        parse: Text to value; ValueError for what it does not take.
        fits: Whether the value is of the right type and in its range.
        convert: To plain data.
    """

    expected: str
    parse: Callable[[str], Any]
    fits: Callable[[Any], bool]
    convert: Callable[[Any], Any]

    def read(self, text: str) -> Any:
        """Read a text.

        Args:
            text: The text.

        Returns:
            Its value.

        Raises:
            ValueError: If it is none of what is expected.
        """
        value = self.parse(text)
        if not self.fits(value):
            raise ValueError("")
        return self.convert(value)


def is_literal(text: str) -> bool:
    """Tell whether a text is a Python literal, which the original can evaluate."""
    try:
        read_literal(text)
    except ValueError:
        return False
    return True


def _is_integer(value: Any) -> bool:
    return type(value) is int and abs(value) < 1 << 31


def _is_number(value: Any) -> bool:
    return type(value) in {int, float} and abs(value) < 1e300


def _is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, tuple | list) and all(map(of, value))


def _is_point(value: Any) -> bool:
    return _is_list(value, _is_number) and len(value) == 2


def _is_color(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(_is_integer(v) and 0 <= v <= 255 for v in value)


def _one_or_more(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


INTEGER = Reader("an integer", read_literal, _is_integer, int)
NATURAL = Reader("an integer of at least 0", read_literal, lambda v: _is_integer(v) and v >= 0, int)
COUNT = Reader("an integer of at least 1", read_literal, lambda v: _is_integer(v) and v >= 1, int)
NUMBER = Reader("a number", read_literal, _is_number, float)
POSITIVE = Reader("a number above 0", read_literal, lambda v: _is_number(v) and v > 0, float)
SHARE = Reader("a number above 0 and below 1", read_literal, lambda v: _is_number(v) and 0 < v < 1, float)
BOOLEAN = Reader("True or False", read_literal, lambda v: type(v) in {bool, int} and v in {0, 1}, bool)
PAIR = Reader("two integers such as (3, 3)", read_literal, lambda v: _is_list(v, _is_integer) and len(v) == 2, list)
NUMBERS = Reader("a list of numbers", read_literal, lambda v: _is_list(_one_or_more(v), _is_number), _one_or_more)
POINTS = Reader(
    "a list of points such as [(0.5, 0.5)]",
    read_literal,
    lambda v: _is_list(v, _is_point),
    lambda points: [list(point) for point in points],
)
STRING = Reader("a string", read_string, lambda v: True, str)
ACTIVATION = Reader(
    f"one of {', '.join(ACTIVATIONS)}",
    read_string,
    lambda v: v.replace("_", "").lower() in ACTIVATIONS,
    lambda v: str(v).lower(),
)
STRINGS = Reader(
    "a list of strings", read_literal, lambda v: _is_list(_one_or_more(v), lambda x: isinstance(x, str)), _one_or_more
)
PATH = Reader("a path", read_string, lambda v: True, lambda v: str(PurePosixPath(v.replace("\\", "/"))))
COLORS = Reader(
    "a dict of colours such as {(0, 0, 0): 0, (255, 0, 0): 1}",
    read_literal,
    lambda v: isinstance(v, dict) and bool(v) and all(map(_is_color, v)),
    dict,
)
