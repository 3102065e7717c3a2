"""Read YAML files of strangers: plain values, of a size that stays what it seems."""

from pathlib import Path
from typing import Any

import yaml

from flexunet_pl.common.errors import UserError

_MAX_BYTES = 4_000_000
_MAX_VALUES = 100_000  # with each alias counted as what it stands for


def read_yaml(path: Path) -> Any:
    """Read a YAML file, as `read_yaml_text`, for its content alone."""
    return read_yaml_text(path)[0]


def read_yaml_text(path: Path) -> tuple[Any, str]:
    """Read a YAML file.

    Args:
        path: The file, UTF-8.

    Returns:
        What it holds: mappings, lists and plain values. And how it is written.

    Raises:
        UserError: If it cannot be read, is no YAML of plain values, or is larger than it seems; the message begins with
            the path and has the line, where there is one.
    """
    try:
        return _read(path)
    except UserError:
        raise
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path}{where}: is no YAML: {problem}") from error
    except (RecursionError, ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: is no YAML of plain values ({type(error).__name__})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _read(path: Path) -> tuple[Any, str]:
    if path.stat().st_size > _MAX_BYTES:
        raise UserError(f"{path}: has more than {_MAX_BYTES // 10**6} MB; a configuration has not")
    text = path.read_text(encoding="utf-8")
    try:
        check_aliases(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return yaml.safe_load(text), text


def check_aliases(text: str) -> None:
    """Refuse a text that is larger than it seems, or in which a key stands twice: of the two YAML keeps the last one.

    Args:
        text: YAML.

    Raises:
        UserError: If its aliases stand for too many values, or a key stands twice.
        yaml.YAMLError: If it is no YAML.
    """
    if "*" not in text and text.count(":") < 2:  # most are single values of a command line
        return
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return
    if _count(root, {}) > _MAX_VALUES:
        raise UserError(f"its aliases stand for more than {_MAX_VALUES} values; write them out")
    _check_keys(root, set())


def _check_keys(node: yaml.Node, known: set[int]) -> None:
    if id(node) in known:
        return
    known.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _check_keys(part, known)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen and key.value != "<<":
                    raise UserError(f"line {key.start_mark.line + 1}: `{key.value[:80]}` stands twice; give it once")
                seen.add(key.value)
            _check_keys(value, known)


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Count values, an alias as what it stands for; one that stands for what it lies in has no end."""
    if id(node) not in known:
        known[id(node)] = _MAX_VALUES + 1  # what it counts for within itself
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            parts = node.value
        elif isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        known[id(node)] = min(1 + sum(_count(part, known) for part in parts), _MAX_VALUES + 1)
    return known[id(node)]
