"""The command `flexunet`: the table of verbs, and how a run ends."""

import difflib
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from flexunet_pl import __version__
from flexunet_pl.cli.exit_status import end_of_thread, exit_status, one_line
from flexunet_pl.cli.function_parser import run_function
from flexunet_pl.cli.startup import shorten_start
from flexunet_pl.common.console import say
from flexunet_pl.common.errors import UserError


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        summary: What it does, in one line.
        function: Module and name of the function that does it, which is imported when it is called; it returns an exit
            status, or nothing for 0. None for the verbs of Lightning.
    """

    summary: str
    function: str | None = None


VERBS = {
    "fit": Verb("train a network on a folder of images and colour-coded masks"),
    "validate": Verb("score a checkpoint on the valid folder"),
    "test": Verb("score a checkpoint on the test folder"),
    "predict": Verb("write masks for a folder of images or volumes"),
    "score": Verb(
        "score masks of anyone against the true ones, or two predictions against each other",
        "flexunet_pl.commands.score:score_masks",
    ),
    "report": Verb(
        "show a run on one page: scores, cases, curves, data, configuration", "flexunet_pl.commands.report:write_report"
    ),
    "prepare": Verb("turn a public download into a data set, by a recipe", "flexunet_pl.commands.prepare:prepare_data"),
    "check": Verb("check a data set before anything is trained on it", "flexunet_pl.commands.check:check_data"),
    "split": Verb(
        "split a folder into train, valid and test, or into folds, by patient", "flexunet_pl.commands.split:split_data"
    ),
    "plan": Verb(
        "write a configuration that makes the most of so many minutes, on this data and this machine",
        "flexunet_pl.commands.plan:plan_training",
    ),
    "folds": Verb("train a network for each fold; several predict as one", "flexunet_pl.commands.folds:train_folds"),
    "postprocess": Verb(
        "decide by validation what is done behind a network, and how certain it is",
        "flexunet_pl.commands.postprocess:postprocess_runs",
    ),
    "review": Verb(
        "rank labels that look wrong, and images by what they would teach", "flexunet_pl.commands.review:review_data"
    ),
    "augment": Verb("write variants of the training pictures beside them", "flexunet_pl.commands.augment:augment_data"),
    "phantom": Verb("draw a data set of thorax phantoms to try things on", "flexunet_pl.prepare.phantom:write_phantom"),
    "import-config": Verb(
        "convert a train_eval_infer.config of the original", "flexunet_pl.commands.import_config:import_config"
    ),
    "import-keras": Verb(
        "turn a Keras file of the original into a checkpoint", "flexunet_pl.commands.import_keras:import_keras"
    ),
    "export": Verb(
        "write the network of a checkpoint as ONNX, proven equal, or as a Keras file",
        "flexunet_pl.commands.export:export_model",
    ),
    "demo": Verb(
        "draw phantoms, train on them, test, report, export, predict, and show where all of it lies",
        "flexunet_pl.commands.demo:run_demo",
    ),
}


# what the extra `train` brings, by the names under which it is imported
_OF_TRAINING = {
    "albumentations", "cv2", "lightning", "monai", "onnx", "onnxruntime", "onnxscript", "segmentation_models_pytorch",
    "tensorboard", "torch", "torchmetrics", "torchvision",
}  # fmt: skip


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        args: What follows the program's name; taken from the process where none is given.

    Returns:
        Exit status: 0 done; 1 there are findings, or a part failed; 2 the user can correct it; 3 the run failed; 70 a
        error in flexunet itself; 128 and the signal's number after a signal.
    """
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    threading.excepthook = end_of_thread
    shorten_start()
    try:
        return _dispatch(words)
    except SystemExit as leaving:  # --help and --print_config; and Lightning, after an interrupt outside of training
        if isinstance(leaving.__context__, KeyboardInterrupt):
            say("flexunet: interrupted")
            return 130
        return leaving.code if isinstance(leaving.code, int) else 0
    except BaseException as error:
        if debug:
            raise
        say(f"flexunet: {one_line(error)}")
        return exit_status(error)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in {"-h", "--help", "help"}:
        sys.stdout.write(_help())
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"flexunet {__version__}\n")
        return 0
    name, *rest = words
    if name == "--completion":
        from flexunet_pl.cli.completion import completion

        shell = rest[0] if rest else ""
        sys.stdout.write(completion(shell, {verb: VERBS[verb].summary for verb in VERBS}, _help_page))
        return 0
    if name not in VERBS:
        close = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"did you mean `{close[0]}`?" if close else "`flexunet --help` lists the verbs"
        raise UserError(f"there is no verb `{name}`; {hint}")
    if rest in (["-h"], ["--help"]):
        sys.stdout.write(_help_page(name))
        return 0
    return _run(name, rest)


def _run(name: str, rest: list[str]) -> int:
    trusted = _take_option(rest, "--trust")
    try:
        if VERBS[name].function is None:
            from flexunet_pl.cli.lightning import run

            return run(name, rest, trusted)
        module, _, function = str(VERBS[name].function).partition(":")
        status = run_function(getattr(import_module(module), function), name, rest)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _OF_TRAINING:
            raise
        raise UserError(f"{name} needs {package}, which is not installed: pip install 'flexunet-pl[train]'") from error
    return status if isinstance(status, int) else 0


def _help_page(name: str) -> str:
    from flexunet_pl.cli.help_pages import help_page

    return help_page(name, lambda: _run(name, ["--help"]))


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        f"flexunet {__version__}: train, score and deploy U-Nets for medical image segmentation\n\n"
        f"usage: flexunet VERB [options]\n\n{verbs}\n\n"
        "options of every verb:\n"
        "  --help           explain the verb\n"
        "  --debug          show the stack trace of an error\n"
        "  --trust PACKAGE  let class paths name that package; repeatable\n\n"
        "completion in the shell: flexunet --completion bash|zsh|fish\n"
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
