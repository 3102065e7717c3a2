"""The command `flexunet`: the table of verbs, and how a run ends."""

import argparse
import difflib
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar, get_origin

from flexunet_pl import __version__
from flexunet_pl.common.console import say
from flexunet_pl.common.errors import DISK_FULL, RunFailedError, RunInterrupted, UserError

T = TypeVar("T")


class Verb(NamedTuple):
    """A verb of the command line.

    Attributes:
        summary: What it does, in one line.
        run: Called with its name, its arguments and the packages to trust; returns the exit status, None for 0. What it
            needs is imported in there.
    """

    summary: str
    run: Callable[[str, list[str], list[str]], int | None]


def _run_lightning(verb: str, args: list[str], trusted: list[str]) -> int:
    from flexunet_pl.cli.lightning import run

    return run(verb, args, trusted)


def _run_phantom(verb: str, args: list[str], trusted: list[str]) -> None:
    from flexunet_pl.prepare.phantom import write_phantom

    _run_function(write_phantom, verb, args)


def _run_check(verb: str, args: list[str], trusted: list[str]) -> int:
    from flexunet_pl.commands.check import check_data

    return int(_run_function(check_data, verb, args) or 0)


def _run_split(verb: str, args: list[str], trusted: list[str]) -> None:
    from flexunet_pl.commands.split import split_data

    _run_function(split_data, verb, args)


def _run_prepare(verb: str, args: list[str], trusted: list[str]) -> int:
    from flexunet_pl.commands.prepare import prepare_data

    return int(_run_function(prepare_data, verb, args) or 0)


def _run_augment(verb: str, args: list[str], trusted: list[str]) -> None:
    from flexunet_pl.commands.augment import augment_data

    _run_function(augment_data, verb, args)


def _run_score(verb: str, args: list[str], trusted: list[str]) -> None:
    from flexunet_pl.commands.score import score_masks

    _run_function(score_masks, verb, args)


def _run_report(verb: str, args: list[str], trusted: list[str]) -> None:
    from flexunet_pl.commands.report import write_report

    _run_function(write_report, verb, args)


def _run_demo(verb: str, args: list[str], trusted: list[str]) -> None:
    from flexunet_pl.commands.demo import run_demo

    _run_function(run_demo, verb, args)


def _run_import_config(verb: str, args: list[str], trusted: list[str]) -> None:
    from flexunet_pl.commands.import_config import import_config

    _run_function(import_config, verb, args)


def _run_import_keras(verb: str, args: list[str], trusted: list[str]) -> None:
    from flexunet_pl.commands.import_keras import import_keras

    _run_function(import_keras, verb, args)


def _run_export(verb: str, args: list[str], trusted: list[str]) -> None:
    from flexunet_pl.commands.export import export_model

    _run_function(export_model, verb, args)


def _run_function(function: Callable[..., T], verb: str, args: list[str]) -> T:
    """Call a function with what the command line gives: positional what it requires, unless that is keyword-only.

    Raises:
        UserError: If the command line is wrong.
    """
    from jsonargparse import ArgumentParser

    from flexunet_pl.cli.parser_errors import explain_mistake

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
    lists = {p.name for p in parameters if p.default is p.empty and get_origin(p.annotation) is list}
    words = [_option(arg, following, switches, lists) for arg, following in pairwise([*args, ""])]
    try:
        given = parser.parse_args(words)
    except argparse.ArgumentError as error:
        known = [key.replace("_", "-") for key in vars(parser.get_defaults())]
        raise UserError(f"{verb}: {explain_mistake(error.message, known)}") from error
    return function(**given.as_dict())


def _option(arg: str, following: str, switches: set[str], lists: set[str]) -> str:
    """Write an option as the parser wants it: with underscores, a value for a bare switch, a plus for a list's item."""
    if not arg.startswith("--"):
        return arg
    name, equals, value = arg[2:].partition("=")
    name = name.replace("-", "_")
    bare = name in switches and not equals and following.lower() not in {"true", "false"}
    item = "+" if name in lists and not (value or following).startswith("[") else ""
    return f"--{name}=true" if bare else f"--{name}{item}{equals}{value}"


VERBS = {
    "fit": Verb("train a network on a folder of images and colour-coded masks", _run_lightning),
    "validate": Verb("score a checkpoint on the valid folder", _run_lightning),
    "test": Verb("score a checkpoint on the test folder", _run_lightning),
    "predict": Verb("write masks for a folder of images or volumes", _run_lightning),
    "score": Verb("score masks of anyone against the true ones, or two predictions against each other", _run_score),
    "report": Verb("show a run on one page: scores, cases, curves, data, configuration", _run_report),
    "prepare": Verb("turn a public download into a data set, by a recipe", _run_prepare),
    "check": Verb("check a data set before anything is trained on it", _run_check),
    "split": Verb("split a folder into train, valid and test, or into folds, by patient", _run_split),
    "augment": Verb("write variants of the training pictures beside them", _run_augment),
    "phantom": Verb("draw a data set of thorax phantoms to try things on", _run_phantom),
    "import-config": Verb("convert a train_eval_infer.config of the original", _run_import_config),
    "import-keras": Verb("turn a Keras file of the original into a checkpoint", _run_import_keras),
    "export": Verb("write the network of a checkpoint as ONNX, proven equal, or as a Keras file", _run_export),
    "demo": Verb(
        "draw phantoms, train on them, test, report, export, predict, and show where all of it lies", _run_demo
    ),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        args: What follows the program's name; taken from the process where none is given.

    Returns:
        Exit status: 0 done; 1 there are findings; 2 the user can mend it; 3 the run failed; 128 and the signal's number
        after a signal.
    """
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    threading.excepthook = _in_thread
    try:
        return _dispatch(words)
    except SystemExit as leaving:  # --help and --print_config; and Lightning, after an interrupt outside of training
        if isinstance(leaving.__context__, KeyboardInterrupt):
            say("flexunet: interrupted")
            return 130
        return leaving.code if isinstance(leaving.code, int) else 0
    except BaseException as error:
        status = _exit_status(error)
        if debug or status is None:
            raise
        say(f"flexunet: {_one_line(error)}")
        return status


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in {"-h", "--help", "help"}:
        sys.stdout.write(_help())
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"flexunet {__version__}\n")
        return 0
    name, *rest = words
    if name not in VERBS:
        close = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"did you mean `{close[0]}`?" if close else "`flexunet --help` lists the verbs"
        raise UserError(f"there is no verb `{name}`; {hint}")
    trusted = _take_option(rest, "--trust")
    return VERBS[name].run(name, rest, trusted) or 0


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        f"flexunet {__version__}: train, score and deploy U-Nets for medical image segmentation\n\n"
        f"usage: flexunet VERB [options]\n\n{verbs}\n\n"
        "options of every verb:\n"
        "  --help           explain the verb\n"
        "  --debug          show the stack trace of an error\n"
        "  --trust PACKAGE  let class paths name that package; repeatable\n"
    )


def _take_option(words: list[str], option: str) -> list[str]:
    """Remove an option wherever it stands, and return its values.

    Raises:
        UserError: If the option stands last, without a value.
    """
    values = [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
    words[:] = [word for word in words if not word.startswith(f"{option}=")]
    while option in words:
        at = words.index(option)
        if at + 1 == len(words):
            raise UserError(f"{option} needs a value")
        values.append(words[at + 1])
        del words[at : at + 2]
    return values


def _exit_status(error: BaseException) -> int | None:
    """Return the exit status that an error stands for, or None for one that is our mistake."""
    if isinstance(error, RunInterrupted):
        return 128 + error.signum
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, RunFailedError | MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return 3
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return 3
    if (isinstance(error, RuntimeError) and "DataLoader worker" in str(error)) or _is_of_lost_process(error):
        return 3
    if isinstance(error, UserError | argparse.ArgumentError) or type(error).__name__ == "MisconfigurationException":
        return 2
    if isinstance(error, ValueError | TypeError) and _raised_by(error).startswith("lightning."):
        return 2  # a setting that Lightning refuses while it sets a run up
    if isinstance(error, OSError) and error.filename is not None:
        return 2
    return None


def _is_of_lost_process(error: BaseException) -> bool:
    """Tell whether another process of a distributed run is gone: NCCL has classes for it, gloo has none."""
    return type(error).__name__ in {"DistBackendError", "DistNetworkError"} or "/gloo/transport/" in str(error)


def _raised_by(error: BaseException) -> str:
    """Return the name of the module that raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))


def _one_line(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, argparse.ArgumentError):
        return " ".join(error.message.split())
    if isinstance(error, OSError) and error.strerror is not None:
        return _of_file(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, MemoryError):
        inner = lines[-1].partition("Error: ")[2] or lines[-1]  # raised in a worker, it has the trace before it
        return f"memory ran out ({inner}); lower data.num_workers or data.batch_size, or --workers"
    if _is_of_lost_process(error):
        return "another process of this run is gone; its own lines, or who killed it, tell why; resume with --ckpt_path"
    if isinstance(error, RuntimeError) and "DataLoader worker" in lines[0]:
        return f"{lines[0]} Probably memory ran out; lower data.num_workers or data.batch_size"
    if lines[0].startswith("Caught ") and "worker process" in lines[0]:
        # raised in a worker: torch puts the trace into the message, and the error itself stands last
        return lines[-1].partition(": ")[2]
    return " ".join(lines)


def _in_thread(given: threading.ExceptHookArgs) -> None:
    """Print what a thread died of; but a full disk is said by the main thread, which cannot write either."""
    if not (isinstance(given.exc_value, OSError) and given.exc_value.errno in DISK_FULL):
        threading.__excepthook__(given)


def _of_file(error: OSError) -> str:
    what = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror)
    if error.errno not in DISK_FULL:
        return f"{what}; look at the path and who may write there"
    places = [Path(error.filename).absolute(), *Path(error.filename).absolute().parents] if error.filename else [Path()]
    free = shutil.disk_usage(next(place for place in places if place.exists())).free
    return f"{what}; {free / 1e6:.0f} MB are free there; make room and run it again"
