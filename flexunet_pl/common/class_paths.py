"""What a class path in a configuration or a checkpoint may name, decided by where it stands.

Configurations and checkpoints come from strangers, and naming a class has it called. So each place of a configuration
takes classes of one kind: subclasses of the place's base, from the modules that such classes live in. A function,
method, module or instance is no class. The modules are compared before anything is imported, the class before it is
called, and its arguments by the same rule at every depth.
"""

import argparse
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from enum import Enum
from functools import cache
from importlib import import_module
from pathlib import PurePath
from typing import Any

from flexunet_pl.common.class_positions import LIBRARIES, Position
from flexunet_pl.common.errors import UserError

_PLAIN_NAME = re.compile(r"[\w .,+-]{0,100}")  # a name of something: no path, no address, no `hub:owner/repository`
_ADDRESS = re.compile(r"://|::")  # in any form that fsspec would open
# words in the names of arguments that have a class read a file or fetch something
_READING = frozenset({"dir", "file", "filename", "font", "path", "repo", "uri", "url"})
_FETCHING = frozenset({"download", "pretrained"})
_MAX_DEPTH = 20
_MOST_PARTS = 10_000  # mappings and lists of one setting


def find_class(class_path: Any, position: Position, trusted: Iterable[str] | None = ()) -> type[Any]:
    """Import the class that a class path names, where it may stand in a position.

    Args:
        class_path: Import path, such as ``torch.optim.Adam``.
        position: Where it stands.
        trusted: Packages, modules or classes that may be named besides the position's own; None for a checkpoint,
            where nothing else may be.

    Returns:
        The class.

    Raises:
        UserError: If it may not stand there; nothing outside of the position's modules was imported then.
    """
    shown = repr(class_path)[:200]
    if not isinstance(class_path, str) or not all(part.isidentifier() for part in class_path.split(".")):
        raise UserError(f"{shown} is no class path; {position.rule}")
    hint = trust_hint(class_path, position) if trusted is not None else ""
    trusted = tuple(trusted or ())
    if not _lies_below(class_path, (*position.homes, *trusted)) or _is_refused(class_path, position, trusted):
        raise UserError(f"`{class_path}` was not imported: {position.rule}{hint}")
    module_path, _, name = class_path.rpartition(".")
    try:
        found = getattr(import_module(module_path), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"`{class_path}` does not exist ({error}); {position.rule}") from error
    if not inspect.isclass(found) or not issubclass(found, tuple(map(_base, position.bases))):
        raise UserError(f"`{class_path}` is none, and was not called: {position.rule}")
    home = f"{found.__module__}.{found.__qualname__}"
    if not _lies_below(home, (*position.homes, *trusted)) or _is_refused(home, position, trusted):
        raise UserError(f"`{class_path}` was not called: {position.rule}{hint}")
    if inspect.isabstract(found):
        raise UserError(f"`{class_path}` is a base class and does nothing by itself; {position.rule}")
    return found


def trust_hint(class_path: str, position: Position | None) -> str:
    """Return how a refused class can be let in, or nothing where it is no class of this position in any case."""
    package = class_path.partition(".")[0]
    if package not in LIBRARIES:
        return f"; add `--trust {package}` if you trust its code"
    if position is not None and _lies_below(class_path, position.homes):
        return f", but not what reads, runs or sends; add `--trust {class_path}` if you trust what it is given"
    return ""


def check_arguments(
    found: type[Any], arguments: Mapping[str, Any], position: Position, key: str, trusted: Iterable[str] | None = ()
) -> None:
    """Refuse arguments by which a class would read a file, fetch something, or call a function.

    Args:
        found: The class.
        arguments: What it is to be called with; for what is not in there, its own defaults count.
        position: Where it stands.
        key: Key of the arguments, for the message.
        trusted: Packages, modules or classes that may be named besides the position's own; None for a checkpoint,
            where nothing else may be.

    Raises:
        UserError: If there is such an argument.
    """
    own_path = f"{found.__module__}.{found.__qualname__}"
    is_trusted = _lies_below(own_path, tuple(trusted or ()))
    defaults = _defaults(found)
    for name, value in {**defaults, **arguments}.items():
        where = f"{key}.{name}"
        reads = not is_trusted and _reads(name, value, position)
        if (name in defaults and value is defaults[name] and not reads) or (is_trusted and isinstance(value, str)):
            continue
        names_paths = position.names_paths or is_trusted
        check_value(value, where, position.parts or (position,), trusted, names_paths=names_paths)
        if reads:
            instead = "false" if value is True else "null"
            raise UserError(
                f"{where}: {value!r} would have {found.__name__} read a file or fetch something; set it to {instead}"
                + (f", or add `--trust {own_path}` if you trust what it is given" if trusted is not None else "")
            )


def check_value(
    value: Any,
    key: str,
    positions: tuple[Position, ...] = (),
    trusted: Iterable[str] | None = (),
    *,
    names_paths: bool = True,
    depth: int = 0,
) -> None:
    """Check a value of a configuration: plain, or a class with its arguments that may stand there.

    Args:
        value: Plain values, lists, mappings; a class is a mapping with ``class_path``.
        key: Its key, for the message.
        positions: What classes may stand there; none where there are no positions.
        trusted: Packages, modules or classes that may be named besides the position's own; None for a checkpoint,
            where nothing else may be.
        names_paths: Whether texts may name local files and folders.
        depth: How deep the value lies.

    Raises:
        UserError: If something in it is neither.
    """
    if depth > _MAX_DEPTH:
        raise UserError(f"{key[:200]}: lies more than {_MAX_DEPTH} levels deep")
    if isinstance(value, str):
        if _ADDRESS.search(value) or not (names_paths or _PLAIN_NAME.fullmatch(value)):
            expected = "a local path" if names_paths else "a plain name, no path or address"
            raise UserError(f"{key}: {value[:200]!r} is not allowed there; expected {expected}")
    elif (content := _mapping(value)) is not None:
        if "class_path" in content:
            check_class(content, key, positions, trusted)
            return
        for name, part in content.items():
            check_value(part, f"{key}.{name}", positions, trusted, names_paths=names_paths, depth=depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            check_value(part, key, positions, trusted, names_paths=names_paths, depth=depth + 1)
    elif not isinstance(value, bool | int | float | complex | PurePath | timedelta | Enum | type(None)):
        what = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}".strip(".")
        rules = "; ".join(position.rule for position in positions) or "only plain values stand there"
        raise UserError(f"{key}: `{what}` is no class, and was not called: {rules}")


def check_class(
    spec: Mapping[str, Any], key: str, positions: tuple[Position, ...], trusted: Iterable[str] | None = ()
) -> type[Any]:
    """Check a class with its arguments.

    Args:
        spec: ``class_path``, ``init_args`` and ``dict_kwargs``.
        key: Its key, for the message.
        positions: What may stand there.
        trusted: Packages, modules or classes that may be named besides the position's own; None for a checkpoint,
            where nothing else may be.

    Returns:
        The class.

    Raises:
        UserError: If it may not stand there, or one of its arguments may not.
    """
    if not positions:
        raise UserError(f"{key}: names the class {spec['class_path']!r}, but only plain values stand there")
    for number, position in enumerate(positions):
        try:
            found = find_class(spec["class_path"], position, trusted)
        except UserError as error:
            if number + 1 == len(positions):
                raise UserError(f"{key}: {error}") from error
            continue
        break
    arguments: dict[str, Any] = {}
    for part in ("init_args", "dict_kwargs"):
        given = _mapping(spec.get(part) or {})
        if given is None or not all(isinstance(name, str) for name in given):
            raise UserError(f"{key}.{part}: is no mapping of arguments")
        arguments.update(given)
    check_arguments(found, arguments, position, key, trusted)
    return found


def is_plain(value: Any, known: set[int] | None = None) -> bool:
    """Tell whether a value is made of mappings with names, lists, texts, numbers, booleans and None.

    Args:
        value: The value.
        known: Identities of the mappings and lists in it that were seen; one that stands in many places counts once.
    """
    known = set() if known is None else known
    if isinstance(value, Mapping):
        parts: Iterable[Any] = [*value, *value.values()]
    elif isinstance(value, list | tuple):
        parts = value
    else:
        return type(value) in {str, int, float, bool, type(None)}
    if id(value) in known:
        return True
    known.add(id(value))
    return len(known) <= _MOST_PARTS and all(is_plain(part, known) for part in parts)


def find_stranger(settings: Any, position: Position | None = None, depth: int = 0) -> str | None:
    """Look for a class path that cannot stand in a position, by its name alone: nothing is imported.

    Args:
        settings: Plain values, such as a setting of a training.
        position: Where they stand; None where no class stands.
        depth: How deep they lie.

    Returns:
        The first such class path, or None.
    """
    if depth > _MAX_DEPTH:
        return "a structure without end"
    if isinstance(settings, list | tuple):
        parts: Iterable[Any] = settings
    elif isinstance(settings, Mapping):
        for key in ("class_path", "_class_path", "_instantiator"):
            if key in settings and not _can_stand(str(settings[key]), position):
                return str(settings[key])[:200]
        parts = settings.values()
    else:
        return None
    return next((found for part in parts if (found := find_stranger(part, position, depth + 1)) is not None), None)


def _can_stand(class_path: str, position: Position | None) -> bool:
    named_like_a_class = class_path.rpartition(".")[2][:1].isupper()
    return (
        position is not None
        and named_like_a_class
        and _lies_below(class_path, position.homes)
        and not _lies_below(class_path, position.refused)
    )


def _mapping(value: Any) -> Mapping[str, Any] | None:
    """Return a mapping, or a namespace of the parser as one; None for another value."""
    if isinstance(value, argparse.Namespace):
        return {name: part for name, part in vars(value).items() if name != "__path__"}  # of the file it stood in
    return value if isinstance(value, Mapping) else None


def _lies_below(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(f"{place}.") for place in places)


def _is_refused(path: str, position: Position, trusted: tuple[str, ...]) -> bool:
    return _lies_below(path, position.refused) and not _lies_below(path, trusted)


@cache
def _base(path: str) -> type[Any]:
    module, _, name = path.rpartition(".")
    base: type[Any] = getattr(import_module(module), name)
    return base


def _defaults(found: type[Any]) -> dict[str, Any]:
    """Return the defaults of a class's arguments, those that it hands on to its bases included."""
    defaults: dict[str, Any] = {}
    for owner in found.__mro__:
        if "__init__" in vars(owner):
            defaults = {**dict(_own_defaults(owner)), **defaults}
    return defaults


def _own_defaults(owner: type[Any]) -> Iterator[tuple[str, Any]]:
    try:
        parameters = inspect.signature(vars(owner)["__init__"]).parameters.values()
    except (TypeError, ValueError):  # written in C
        return
    yield from ((p.name, p.default) for p in parameters if p.default is not p.empty)


def _reads(name: str, value: Any, position: Position) -> bool:
    """Tell whether an argument has a class read a file or fetch something, by its name."""
    words = set(name.split("_"))
    if position.names_paths or not value:
        return False
    if not _FETCHING.isdisjoint(words):  # whatever is true in an `if` switches it on
        return True
    return not isinstance(value, int | float) and not _READING.isdisjoint(words)
