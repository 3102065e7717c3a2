"""Typed access to the settings of an original configuration, and a record of what became of each."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from flexunet_pl.interop.ini import Ini, Setting, printable, read_literal, read_string


class Taken(NamedTuple):
    """A value and where it came from.

    Attributes:
        value: The value.
        origin: Section, key and line; or that it is the original's default.
        setting: What stands in the file, None for a default.
    """

    value: Any
    origin: str
    setting: Setting | None


@dataclass
class Conversion:
    """A converted configuration.

    Attributes:
        config: The configuration, as YAML would give it; paths are relative to the folder of the original's file.
        remarks: What was not carried over, or not as it stands, a line each.
        origins: Where values came from, by dotted key.
        paths: Dotted keys whose values are paths.
        num_classes: Number of the network's outputs; 1 is foreground against background by sigmoid.
        color_order: RGB or BGR, the order of the channels that the original's network is given.
    """

    config: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    num_classes: int = 0
    color_order: str = "RGB"


class Reader(NamedTuple):
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
NUMBER = Reader("a number", read_literal, _is_number, float)
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


class Settings:
    """The settings that are still to be converted, and the conversion so far.

    Args:
        ini: The file.
        like_the_original: Whether a value that cannot be read is replaced by the original's default.
    """

    def __init__(self, ini: Ini, *, like_the_original: bool) -> None:
        self.ini = ini
        self.like_the_original = like_the_original
        self.left = dict(ini.settings)
        self.known: set[tuple[str, str]] = set()  # all that was asked for
        self.conversion = Conversion()

    def take(self, section: str, key: str, reader: Reader, default: Any = None) -> Taken:
        """Take a setting out of those that are left.

        Args:
            section: Its section.
            key: Its key.
            reader: Reads its text.
            default: The original's value where the setting is not there.

        Returns:
            Its value.

        Raises:
            UserError: If it cannot be read.
        """
        self.known.add((section, key))
        setting = self.left.pop((section, key), None)
        if setting is None:
            return Taken(default, f"the original's default, there is no [{section}] {key}", None)
        text = setting.raw if self.like_the_original else setting.value
        try:
            return Taken(reader.read(text), f"{setting.label}, line {setting.line}", setting)
        except ValueError as error:
            shown = " ".join(text.split())
            shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
            problem = f"{setting.label}: expected {reader.expected}, found `{shown}`"
            if str(error):
                problem += f" ({error})"
            if "\n" in text:
                problem += "; the indented lines below it are part of the value"
            if self.like_the_original:
                self.remark(f"{problem}; the original's default {default} is used", setting)
                return Taken(default, f"the original's default, line {setting.line} cannot be read", setting)
            raise self.ini.error(
                setting.line,
                f"{problem}; the original takes its default here in silence, as `--like-the-original` does",
            ) from error

    def has(self, section: str, key: str) -> bool:
        """Tell whether a setting is left."""
        return (section, key) in self.left

    def put(self, path: str, value: Any, origin: str = "") -> None:
        """Set a value of the configuration.

        Args:
            path: Its dotted key.
            value: Plain data.
            origin: Where it came from.
        """
        *parents, last = path.split(".")
        node = self.conversion.config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
        if origin:
            self.conversion.origins[path] = origin

    def remark(self, text: str, *settings: Setting | None) -> None:
        """Add a remark on settings."""
        lines = [setting.line for setting in settings if setting is not None]
        where = f"line {lines[0]}: " if len(lines) == 1 else f"lines {_join(lines)}: " if lines else ""
        self.conversion.remarks.append(printable(where + text))


def _join(lines: list[int]) -> str:
    return ", ".join(map(str, sorted(lines)))
