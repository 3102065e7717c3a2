"""The verb `plan`."""

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flexunet_pl.common.commented_yaml import commented_lines, printable
from flexunet_pl.common.console import say
from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.common.experiment_file import read_model_section
from flexunet_pl.common.files import check_output, written_in_place
from flexunet_pl.io.mask_colors import UnknownColors
from flexunet_pl.io.pairing import PairingRule
from flexunet_pl.io.pairs import survey_pairs
from flexunet_pl.io.patient_ids import parse_group_regex
from flexunet_pl.planning.plan import Peer, Plan, describe_plan
from flexunet_pl.prepare.propose import propose_map
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.window import Window

_ORDER = ("seed_everything", "model", "data", "trainer", "checkpoint", "early_stopping")


def plan_training(
    root: Path,
    *,
    minutes: float,
    out: Path = Path("plan.yaml"),
    rgb_map: dict[str, list[int]] | str | None = None,
    experiment: Path | None = None,
    group_regex: str | None = None,
    image_window: tuple[float, float] | None = None,
    unknown_colors: UnknownColors = "error",
    pairing: PairingRule = PairingRule(),  # noqa: B008 - it is frozen
    timings: Path | None = None,
    like: Peer | None = None,
    overwrite: bool = False,
) -> None:
    """Write a configuration for flexunet fit that makes the most of so many minutes, on this data and this machine.

    It reads the images and masks of train and valid, times a few steps, and writes why behind each value. The timings
    are kept beside the plan, in a file ending in .timings.json; given back, they give the same plan again.

    Args:
        root: Folder that holds train and valid, as flexunet split makes them.
        minutes: How long flexunet fit may take, from the key press to its end.
        out: The YAML file to write.
        rgb_map: Ordered mapping of class names to colours, the background first; by default that of the experiment,
            or else one that is proposed from the colours of the masks.
        experiment: Configuration of flexunet fit, to take rgb_map from.
        group_regex: Regular expression that finds the patient in a file's name, such as ^([0-9]+)_.
        image_window: Lowest and highest value of 16-bit and float images.
        unknown_colors: What a region of a mask is whose colour is no class: error, background, or nearest, the class
            of the nearest colour.
        pairing: How the names of images and masks go together, such as {image: "(.+)", mask: "(.+)_mask"}; by stem
            where none is given.
        timings: Timings that an earlier plan has left; by default they are taken anew.
        like: Whose choices to write down instead, for a comparison: nnunet, those of nnU-Net in two dimensions; or
            original, those of TensorFlow-FlexUNet. Only the time and the precision are of this machine then.
        overwrite: Whether to replace a plan of that name.

    Raises:
        DataError: If the data cannot be used.
        UserError: If an option is wrong, or the minutes or the memory are too few.
    """
    began = time.perf_counter()
    from flexunet_pl import callbacks, task  # noqa: F401 - what `fit` loads before its first step, which takes seconds
    from flexunet_pl.planning.choices import make_plan
    from flexunet_pl.planning.data_facts import describe_data, read_data_facts
    from flexunet_pl.planning.machine import describe_machine, measure_machine, read_machine
    from flexunet_pl.planning.peers import make_peer_plan

    startup = time.perf_counter() - began
    if not 0 < minutes < 60 * 24 * 365:
        raise UserError(f"--minutes is {minutes:g}; give how long the training may take, such as 10")
    check_output(out, root, overwrite=overwrite)
    _check_split(root)
    groups = parse_group_regex(group_regex)
    given = rgb_map if rgb_map is not None else read_model_section(experiment).get("rgb_map")
    known = RgbMap.parse(given) if given is not None else _propose(root, pairing)
    window = Window.parse(image_window, "image-window")
    data = read_data_facts(root, known, groups, window, unknown_colors, pairing)
    kept = out.with_suffix(".timings.json")
    if timings is not None:
        machine = read_machine(timings)
    else:
        machine = measure_machine(len(known), 1 if data.is_grey else 3, max(data.size), startup)
    if like is None:
        plan = make_plan(root.absolute(), known, data, machine, minutes)
    else:
        plan = make_peer_plan(like, root.absolute(), known, data, machine, minutes)
    _put_reading(plan, image_window, unknown_colors, pairing)
    if timings is None:
        machine.save(kept)
    with written_in_place(out) as temporary:
        temporary.write_text(_to_yaml(plan.config, plan.reasons, out, root, minutes), encoding="utf-8")
    rows = [*describe_data(data), *describe_machine(machine), *describe_plan(plan)]
    width = max(len(name) for name, _ in rows)
    sys.stdout.writelines(f"{printable(name):<{width}}  {printable(text)}\n" for name, text in rows)
    for question in plan.open_questions:
        say(f"note: {question}")
    if given is None:
        say(f"note: no rgb_map was given; proposed from the masks: {known.to_dict()}")
    say(f"{out} written" + (f", and {kept}" if timings is None else "") + f"; next: flexunet fit -c {out}")


def _check_split(root: Path) -> None:
    if (root / "images").is_dir() and not (root / "train").is_dir():
        raise DataError(
            f"{root}: is not split; make a folder with train and valid by `flexunet split {root} NEW` first"
        )


def _put_reading(
    plan: Plan, image_window: tuple[float, float] | None, unknown_colors: UnknownColors, pairing: PairingRule
) -> None:
    """Have the training read the files as the plan has read them."""
    if image_window is not None:
        plan.put("model.image_window", list(image_window), "as the plan was told")
    if unknown_colors != "error":
        plan.put("data.unknown_colors", unknown_colors, "as the plan was told")
    if pairing != PairingRule():
        plan.put("data.pairing", asdict(pairing), "as the plan was told")


def _propose(root: Path, pairing: PairingRule) -> RgbMap:
    survey = survey_pairs(root / "train", pairing)
    if not survey.pairs:
        raise DataError(survey.problems[0] if survey.problems else f"{root / 'train'}: holds no images")
    return propose_map([pair.mask for pair in survey.pairs])


def _to_yaml(config: dict[str, Any], reasons: dict[str, str], out: Path, root: Path, minutes: float) -> str:
    head = [
        f"# flexunet fit -c {printable(out.name)}",
        f"# {minutes:g} minutes on {printable(root.name)}; behind each value: why",
    ]
    ordered = {key: config[key] for key in _ORDER if key in config}
    return "".join(f"{line}\n" for line in [*head, *commented_lines(ordered, reasons)])
