"""Converted configurations as YAML files for people: in order, with a comment where each value came from."""

import os
from pathlib import Path, PureWindowsPath

from flexunet_pl.common.commented_yaml import commented_lines, printable
from flexunet_pl.common.console import say
from flexunet_pl.common.errors import UserError
from flexunet_pl.common.files import check_input, check_output, written_in_place
from flexunet_pl.interop.config.convert import convert
from flexunet_pl.interop.config.experiment_folder import find_config, locate_paths
from flexunet_pl.interop.config.settings import Conversion

_MAX_BYTES = 4 << 20
_ORDER = ("seed_everything", "model", "data", "trainer", "early_stopping", "epoch_change", "prediction")


def import_config(
    config: Path, output: Path | None = None, overwrite: bool = False, like_the_original: bool = False
) -> None:
    """Convert a train_eval_infer.config of the original into a configuration for flexunet fit.

    What was not carried over, or not as it stands, is listed on the console and at the top of the result.

    Args:
        config: The original's file, or the folder of an experiment; relative paths in it are relative to its folder.
            In a folder, where they lead nowhere, the data set and mini_test are looked for in the experiment's folder.
        output: The YAML file to write; by default experiment.yaml in the folder of the original's file.
        overwrite: Whether to replace a file of that name.
        like_the_original: Whether values that cannot be read become the original's defaults, as they do there in
            silence, and the learning-rate reducer waits for 10 epochs, as it does there.

    Raises:
        UserError: If the file cannot be converted, or the output exists.
    """
    source = find_config(config) if config.is_dir() else config
    check_input(source)
    target = output if output is not None else source.with_name("experiment.yaml")
    check_output(target, source, overwrite=overwrite)
    conversion = read_config(source, like_the_original=like_the_original)
    if config.is_dir():
        locate_paths(conversion, config)
    with written_in_place(target) as temporary:
        temporary.write_text(to_yaml(conversion, source=source, target=target), encoding="utf-8")
    for remark in conversion.remarks:
        say(f"note: {remark}")
    say(f"{target} written; next: flexunet fit -c {target}")


def read_config(path: Path, *, like_the_original: bool = False) -> Conversion:
    """Convert a file of the original, and make its paths absolute.

    Args:
        path: The file, in UTF-8; comments may hold other bytes.
        like_the_original: See `import_config`.

    Returns:
        The conversion.

    Raises:
        UserError: If the file is missing or cannot be converted.
    """
    check_input(path)
    if path.stat().st_size > _MAX_BYTES:
        raise UserError(f"{path}: is no configuration: it has {path.stat().st_size} bytes")
    text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    conversion = convert(text, like_the_original=like_the_original, name=str(path))
    for key in conversion.paths:
        *parents, last = key.split(".")
        node = conversion.config
        for parent in parents:
            node = node[parent]
        if PureWindowsPath(node[last]).drive and os.name != "nt":
            conversion.remarks.append(f"{key} is {node[last]}, a path of another system; set it again")
        else:
            # relative to the file's folder there, to the working folder here: absolute is right in both
            node[last] = os.path.normpath(path.absolute().parent / node[last])
    return conversion


def to_yaml(conversion: Conversion, source: Path, target: Path) -> str:
    """Write a conversion as YAML.

    Args:
        conversion: What to write.
        source: The original's file.
        target: The file that the text is for.

    Returns:
        The text.
    """
    head = [
        f"# flexunet fit -c {printable(target.name)}",
        f"# made from {printable(source.name)}; behind each value: where it came from",
        "# paths are absolute: where folders have moved, make this file again with `flexunet import-config`",
    ]
    if conversion.remarks:
        head += [
            "#",
            "# Not carried over, or not as it stood:",
            *(f"# - {printable(remark)}" for remark in conversion.remarks),
        ]
    ordered = {key: conversion.config[key] for key in _ORDER if key in conversion.config}
    lines = [*head, *commented_lines(ordered, conversion.origins)]
    return "".join(f"{line}\n" for line in lines)
