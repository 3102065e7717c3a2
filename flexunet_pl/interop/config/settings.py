"""Typed access to the settings of an original configuration, and a record of what became of each."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from flexunet_pl.common.commented_yaml import printable
from flexunet_pl.common.errors import UserError
from flexunet_pl.interop.config.ini import Ini, Setting
from flexunet_pl.interop.config.readers import Reader, is_literal

T = TypeVar("T")


@dataclass(frozen=True)
class Taken:
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
        if self.like_the_original and not is_literal(setting.raw):
            used = f"the original's default {default} is used" if default is not None else "it is as if it were missing"
            self.remark(f"{setting.label} cannot be evaluated; {used}", setting)
            return Taken(default, f"the original's default, line {setting.line} cannot be evaluated", None)
        try:
            return Taken(reader.read(setting.value), f"{setting.label}, line {setting.line}", setting)
        except ValueError as error:
            found = " ".join(setting.value.split())
            problem = f"{setting.label}: expected {reader.expected}, found `{found[:60]}{'...' * (len(found) > 60)}`"
            if str(error):
                problem += f" ({error})"
            if "\n" in setting.value:
                problem += "; the indented lines below it are part of the value"
            if not is_literal(setting.raw):
                problem += "; the original takes its default here in silence, as `--like-the-original` does aloud"
            raise self.error(setting, problem) from error

    def take_or_usual(self, section: str, key: str, reader: Reader, usual: Any) -> Taken:
        """Take a setting for which the original has no default, and say so where it is missing.

        Args:
            section: Its section.
            key: Its key.
            reader: Reads its text.
            usual: What stands in for it.

        Returns:
            Its value.
        """
        taken = self.take(section, key, reader, usual)
        if taken.setting is None:
            self.remark(f"there is no [{section}] {key}, for which the original has no default; {usual} is used")
            return replace(taken, origin=f"assumed, there is no [{section}] {key}")
        return taken

    def take_section(self, section: str) -> list[Setting]:
        """Take all settings of a section that are left."""
        places = [place for place in self.left if place[0] == section]
        return [self.left.pop(place) for place in places]

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

    def checked(self, setting: Setting | None, build: Callable[[], T]) -> T:
        """Build something from values of the file; a complaint gets the line of the setting.

        Args:
            setting: The setting that it depends on most.
            build: Builds it.

        Returns:
            What was built.

        Raises:
            UserError: If the values do not fit.
        """
        try:
            return build()
        except UserError as error:
            raise self.error(setting, str(error)) from error

    def error(self, setting: Setting | None, problem: str) -> UserError:
        """Make the error for a setting, or for a default where there is none."""
        return self.ini.error(setting.line if setting is not None else 1, problem)

    def remark(self, text: str, *settings: Setting | None) -> None:
        """Add a remark on settings."""
        lines = [setting.line for setting in settings if setting is not None]
        where = f"line {lines[0]}: " if len(lines) == 1 else f"lines {_join(lines)}: " if lines else ""
        self.conversion.remarks.append(printable(where + text))


def _join(lines: list[int]) -> str:
    """Write line numbers, runs of them as ``first-last``."""
    runs: list[list[int]] = []
    for line in sorted(set(lines)):
        if runs and line == runs[-1][1] + 1:
            runs[-1][1] = line
        else:
            runs.append([line, line])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
