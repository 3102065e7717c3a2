"""Configurations as YAML for people: in order, with a comment behind each value that has one."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml


def printable(text: str) -> str:
    """Replace what cannot be shown, line ends and broken characters among it, by question marks."""
    return "".join(c if c.isprintable() else "?" for c in text)


def commented_lines(
    node: Mapping[str, Any], comments: Mapping[str, str], path: str = "", indent: str = ""
) -> Iterator[str]:
    """Write a configuration.

    Args:
        node: Mappings, lists and plain values.
        comments: What is said behind a value, by its path, such as ``model.image_size``.
        path: Of the node itself, with its dot; empty for the whole.
        indent: In front of each line.

    Yields:
        The lines.
    """
    for key, value in node.items():
        here = f"{path}.{key}" if path else key
        comment = f"  # {printable(comments[here])}" if here in comments else ""
        name = _scalar(key)
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:{comment}"
            yield from commented_lines(value, comments, here, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{indent}{name}:{comment}"
            for item in value:
                first, *rest = commented_lines(item, comments, here, indent + "  ")
                yield f"{indent}- {first.lstrip()}"
                yield from rest
        else:
            yield f"{indent}{name}: {_scalar(value)}{comment}"


def _scalar(value: Any) -> str:
    text = _dump(value, allow_unicode=True)
    return text if text.isprintable() else _dump(value, allow_unicode=False)


def _dump(value: Any, *, allow_unicode: bool) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1 << 20, allow_unicode=allow_unicode)
    return text.removesuffix("...\n").strip()
