"""Call a function with a command line: its arguments are the options, its docstring is the help page."""

import argparse
from collections.abc import Callable
from inspect import signature
from itertools import pairwise
from typing import TypeVar, get_origin

from flexunet_pl.common.errors import UserError

T = TypeVar("T")


def run_function(function: Callable[..., T], verb: str, args: list[str]) -> T:
    """Call a function with what the command line gives: positional what it requires, unless that is keyword-only.

    Args:
        function: The function; its docstring says what its arguments are.
        verb: What it is called on the command line.
        args: The command line behind the verb.

    Returns:
        What the function returns.

    Raises:
        UserError: If the command line is wrong.
    """
    from jsonargparse import ArgumentParser

    from flexunet_pl.cli.parser_errors import explain_parser_error

    summary = (function.__doc__ or "").partition("Args:")[0]
    parser = ArgumentParser(prog=f"flexunet {verb}", description=summary, exit_on_error=False, allow_abbrev=False)
    parameters = signature(function).parameters.values()
    positional: set[str | int] = {p.name for p in parameters if p.default is p.empty and p.kind is not p.KEYWORD_ONLY}
    options: set[str | int] = {p.name for p in parameters if p.name not in positional}
    parser.add_function_arguments(function, as_group=False, as_positional=True, skip=options)
    parser.add_function_arguments(function, as_group=False, as_positional=False, skip=positional)
    switches = {key for key, value in parser.get_defaults().items() if isinstance(value, bool)}
    for action in parser._actions:  # for the help page; there is no other way to name options
        action.option_strings = [option.replace("_", "-") for option in action.option_strings]
    # as the verbs of Lightning call it
    args = ["--config" if arg == "-c" and "config" in options else arg for arg in args]
    args = [arg for arg in args if arg != "--ckpt_path" or "checkpoint" not in positional]
    lists = {p.name for p in parameters if p.default is p.empty and get_origin(p.annotation) is list}
    words = [_option(arg, following, switches, lists) for arg, following in pairwise([*args, ""])]
    try:
        given = parser.instantiate_classes(parser.parse_args(words))  # options objects, such as a pairing rule
    except argparse.ArgumentError as error:
        known = [key.replace("_", "-") for key in vars(parser.get_defaults())]
        raise UserError(f"{verb}: {explain_parser_error(error.message, known)}") from error
    return function(**vars(given))


def _option(arg: str, following: str, switches: set[str], lists: set[str]) -> str:
    """Write an option as the parser wants it: with underscores, a value for a bare switch, a plus for a list's item."""
    if not arg.startswith("--"):
        return arg
    name, equals, value = arg[2:].partition("=")
    name = name.replace("-", "_")
    bare = name in switches and not equals and following.lower() not in {"true", "false"}
    item = "+" if name in lists and not (value or following).startswith("[") else ""
    return f"--{name}=true" if bare else f"--{name}{item}{equals}{value}"
