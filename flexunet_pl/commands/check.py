"""The verb `check`."""

import sys
from pathlib import Path
from typing import Any

from flexunet_pl.check.findings import find_faults, rank_look_alikes
from flexunet_pl.check.output import MARK, RESULTS, print_results, to_json, write_results
from flexunet_pl.check.placement import Finding
from flexunet_pl.check.scan import scan_pairs
from flexunet_pl.check.summary import summarise
from flexunet_pl.common.console import say, show_progress
from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.common.experiment_file import read_model_section
from flexunet_pl.common.files import check_results_folder
from flexunet_pl.io.checksums import NAME, find_changes, write_lock
from flexunet_pl.io.mask_colors import UnknownColors
from flexunet_pl.io.pairing import PairingRule
from flexunet_pl.io.pairs import Pair, survey_pairs
from flexunet_pl.io.patient_ids import group_of, parse_group_regex
from flexunet_pl.prepare.propose import propose_map
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.window import Window

SPLITS = ("train", "valid", "test")


def check_data(
    root: Path,
    rgb_map: dict[str, list[int]] | str | None = None,
    experiment: Path | None = None,
    group_regex: str | None = None,
    image_window: tuple[float, float] | None = None,
    image_size: tuple[int, int] = (512, 512),
    out: Path | None = None,
    json: bool = False,
    workers: int | None = None,
    unknown_colors: UnknownColors = "error",
    pairing: PairingRule = PairingRule(),  # noqa: B008 - it is frozen
    lock: bool = False,
) -> int:
    """Check a data set: files, pairs, colours, classes, copies and patients across splits, masks in the wrong place.

    Exit status: 0 for a data set without findings, 1 for one with some, 2 where it cannot be checked.

    Args:
        root: Folder that holds train, valid and test, or images and masks themselves.
        rgb_map: Ordered mapping of class names to colours, the background first; by default that of the experiment,
            or else one that is proposed from the colours of the masks.
        experiment: Configuration of flexunet fit, to take rgb_map, image_size and image_window from.
        group_regex: Regular expression that finds the patient in a file's name, such as ^([0-9]+)_.
        image_window: Lowest and highest value of 16-bit and float images.
        image_size: Height and width of training, for the memory of the cache.
        out: Folder for statistics.png, samples.png, class_weights.yaml and check.json, and look_alikes.png.
        json: Whether to print the result as JSON on standard output, and nothing else there.
        workers: Processes; by default as many as there are cores.
        unknown_colors: What a region of a mask is whose colour is no class: error, background, or nearest, the class
            of the nearest colour.
        pairing: How the names of images and masks go together, such as {image: "(.+)", mask: "(.+)_mask"}; by stem
            where none is given, and a rule is proposed where that pairs nothing.
        lock: Whether to write data.lock, the SHA-256 of each file, which fit, validate, test and check compare from
            then on; `sha256sum -c data.lock` does too.

    Returns:
        The exit status.

    Raises:
        DataError: If there is no pair at all.
        UserError: If an option is wrong.
    """
    groups = parse_group_regex(group_regex)
    model = read_model_section(experiment)
    rgb_map = rgb_map if rgb_map is not None else model.get("rgb_map")
    window = Window.parse(image_window if image_window is not None else model.get("image_window"), "image-window")
    size = model.get("image_size") or image_size
    _check_size(size)
    if out is not None and out.name in {"images", "masks"}:
        raise UserError(f"{out}: is named like a folder of the data; name another one for the pictures")
    if out is not None:
        check_results_folder(out, MARK, RESULTS)
    pairs, problems = _survey(root, pairing)
    if not pairs:
        raise DataError(problems[0].message if problems else f"{root}: holds no images")
    if groups is not None and not any(group_of(pair.image, groups) for _, pair in pairs):
        raise UserError(
            f"group-regex `{group_regex}` finds a patient in none of the names, such as {pairs[0][1].image.name}"
        )
    known = RgbMap.parse(rgb_map) if rgb_map is not None else propose_map([pair.mask for _, pair in pairs])
    scans = list(show_progress(scan_pairs(pairs, known, window, workers, unknown_colors), "checking", len(pairs)))
    of_files = [pair for _, pair in pairs]
    changes = [] if lock else find_changes(root, of_files)
    findings = [*problems, *(Finding("changed file", line) for line in changes), *find_faults(scans, known, groups)]
    look_alikes = rank_look_alikes(scans)
    summary = summarise(scans, findings, look_alikes, known, (size[0], size[1]), groups)
    if rgb_map is None:
        say(f"note: no rgb_map was given; proposed from the masks: {known.to_dict()}")
    if out is not None:
        write_results(out, summary, scans, look_alikes, known, window)
    if json:
        sys.stdout.write(to_json(summary))
    else:
        print_results(summary)
    if lock:
        _lock(root, of_files, findings)
    return 1 if findings else 0


def _lock(root: Path, pairs: list[Pair], findings: list[Finding]) -> None:
    broken = sum(finding.kind in {"pairing", "unusable file"} for finding in findings)
    if broken:
        say(f"{root / NAME}: not written: {broken} of the findings are files that cannot be used; correct them first")
    else:
        say(f"{root / NAME} written, with {write_lock(root, pairs)} files")


def _check_size(size: Any) -> None:
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise UserError(f"image-size is {size}; expected height and width, such as [512, 512]")


def _survey(root: Path, rule: PairingRule | None) -> tuple[list[tuple[str, Pair]], list[Finding]]:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; name the one that holds train, valid and test")
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    pairs: list[tuple[str, Pair]] = []
    findings: list[Finding] = []
    expected = SPLITS[:2] if folders else ()  # a test folder may be kept elsewhere
    findings += [
        Finding("pairing", f"{root / split}: no such folder; `flexunet split` makes all three")
        for split in expected
        if split not in folders
    ]
    for split, folder in (folders or {"all": root}).items():
        survey = survey_pairs(folder, rule)
        pairs += [(split, pair) for pair in survey.pairs]
        findings += [Finding("pairing", problem) for problem in survey.problems]
    return pairs, findings
