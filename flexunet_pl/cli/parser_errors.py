"""What a parser says of a mistake, as one line that names the key or file and the remedy."""

import difflib
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from flexunet_pl.common.class_paths import trust_hint
from flexunet_pl.common.class_positions import POSITIONS
from flexunet_pl.common.errors import UserError
from flexunet_pl.common.yaml import read_yaml

_UNKNOWN = re.compile(
    r"unrecognized arguments: (?:--)?(\S+)|does not accept option '([^']+)'|[Kk]ey ['\"]([^'\"]+)['\"] is not expected"
)


def explain_parser_error(message: str, known: Iterable[str]) -> str:
    """Turn a parser's message into one line: the key, what is wrong, the remedy.

    Args:
        message: What jsonargparse says, often a list of all that it tried.
        known: Keys that exist, to suggest one.

    Returns:
        The line.
    """
    flat = re.sub(r"^.*Call to compute_fn of link .*? failed: ", "", " ".join(message.split()))
    if unknown := _UNKNOWN.search(flat):
        key = next(group for group in unknown.groups() if group)
        close = difflib.get_close_matches(key, known, n=1)
        return f"{key}: there is no such key; " + (f"did you mean `{close[0]}`?" if close else "see --help")
    key = match[1] if (match := re.search(r'key "([^"]+)"', flat)) else "command line"
    problems = re.findall(r"Problem with given class_path '([^']+)': (.*?)(?= - | Given value|$)", flat)
    if "NestedArg(key=" in flat and (
        not problems or problems[-1][0] == "torch.nn.Module"
    ):  # only the key's type is known
        return f"{key}: name its class before its arguments, as in `--{key} CLASS_PATH`"
    if denied := re.search(r"Importing '([\w.]+)' is not allowed", flat):
        position = next((p for name, p in POSITIONS.items() if f"{key}.".startswith(f"{name}.")), None)
        rule = position.rule if position is not None else "only plain values stand there"
        return f"{key}: `{denied[1]}` was not imported: {rule}{trust_hint(denied[1], position)}"
    value = match[1] if (match := re.search(r".*(?:Given value|Got value): (.*)$", flat)) else None
    if problems:
        class_path, problem = problems[-1]
        return f"{key}: class_path {class_path}: {problem}"
    if value is not None and (types := re.search(r"Subtypes: \[(.*?)\] Errors|Expected an? (.*?)\. Got", flat)):
        expected = re.sub(r"<class '([\w.]+\.)?(\w+)'>|typing\.", r"\2", types[1] or types[2]).replace(
            "NoneType", "null"
        )
        return f"{key}: {value} does not fit; expected {expected}"
    return flat.removeprefix("Parser ")


def model_keys(args: Sequence[str]) -> set[str]:
    """List the settings of the model that a command line and its configuration files name.

    Args:
        args: The command line.

    Returns:
        Names below `model`, such as ``image_size``.

    Raises:
        UserError: If a configuration file is no YAML of keys; one line with the file, the place and the problem.
    """
    keys = {arg.removeprefix("--model.").partition("=")[0] for arg in args if arg.startswith("--model.")}
    files = [value for option, value in pairwise(args) if option in {"-c", "--config"}]
    files += [arg.removeprefix("--config=") for arg in args if arg.startswith("--config=")]
    for path in map(Path, files):
        if path.is_file():
            content = read_yaml(path)
            if not isinstance(content, dict):
                raise UserError(f"{path}: holds no keys; expected `key: value` lines, as in configs/default.yaml")
            model = content.get("model")
            keys |= set(model) if isinstance(model, dict) else set()
    return {key.partition(".")[0] for key in keys}
