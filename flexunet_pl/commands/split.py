"""The verb `split`: a folder of images and masks to train, valid and test, or to folds, by patient."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from flexunet_pl.common.cells import guard
from flexunet_pl.common.console import say, show_progress
from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.common.files import sha256_of, written_in_place
from flexunet_pl.io.decisions import read_rejected, without_rejected
from flexunet_pl.io.mask_colors import UnknownColors
from flexunet_pl.io.masks import read_mask
from flexunet_pl.io.pairing import PairingRule
from flexunet_pl.io.pairs import Pair, survey_pairs
from flexunet_pl.io.patient_ids import copy_source, group_of, parse_group_regex
from flexunet_pl.prepare.assign import assign_folds, assign_splits
from flexunet_pl.prepare.place import check_new_folder, place_file
from flexunet_pl.prepare.propose import propose_map
from flexunet_pl.rgb_map import RgbMap


def split_data(
    src: Path,
    out: Path,
    group_regex: str | None = None,
    rgb_map: dict[str, list[int]] | str | None = None,
    folds: int | None = None,
    mode: Literal["copy", "link"] = "copy",
    seed: int = 137,
    unknown_colors: UnknownColors = "error",
    pairing: PairingRule = PairingRule(),  # noqa: B008 - it is frozen
    decisions: Path | None = None,
) -> None:
    """Split a folder that holds images and masks into train, valid and test: 80, 15 and 5 %, by patient.

    No patient is on two sides, augmented copies stay with the picture that they were made from, and the classes are
    spread evenly. The same files are split alike on every machine. split.csv lists where each file went, with hashes.

    Args:
        src: Folder that holds images and masks.
        out: Folder to create.
        group_regex: Regular expression that finds the patient in a file's name, such as ^([0-9]+)_; by default every
            picture is a patient of its own.
        rgb_map: Ordered mapping of class names to colours; by default proposed from the masks.
        folds: Makes that many folds instead, for fit --data.fold 0 and so on; in each, one part is valid, the rest
            train.
        mode: Whether files are copied or linked to; within folds they are always linked.
        seed: Seed of the draw.
        unknown_colors: What a region of a mask is whose colour is no class: error, background, or nearest, the class
            of the nearest colour.
        pairing: How the names of images and masks go together, such as {image: "(.+)", mask: "(.+)_mask"}; by stem
            where none is given. In the split all masks are named as their images.
        decisions: File that the page of `flexunet review` saved; what was rejected there is left out.

    Raises:
        DataError: If the files do not pair, or a mask cannot be read.
        UserError: If the output is there already, or there are too few patients.
    """
    check_new_folder(src, out)
    check_seed(seed)
    if folds is not None and folds < 2:
        raise UserError(f"folds ({folds}) must be at least 2")
    regex = parse_group_regex(group_regex)
    pairs = _pairs(src, pairing)
    if decisions is not None:
        pairs = without_rejected(pairs, read_rejected(decisions))
    groups = [_group(pair, regex) for pair in pairs]
    known = RgbMap.parse(rgb_map) if rgb_map is not None else None
    write_split(out, pairs, groups, known, folds, mode, seed, unknown_colors)


def write_split(
    out: Path,
    pairs: Sequence[Pair],
    groups: Sequence[str],
    rgb_map: RgbMap | None = None,
    folds: int | None = None,
    mode: Literal["copy", "link"] = "copy",
    seed: int = 137,
    unknown: UnknownColors = "error",
) -> None:
    """Draw a split and write it.

    Args:
        out: Folder to write train, valid and test or the folds to, and split.csv, which is written last.
        pairs: The files.
        groups: What each must stay together with.
        rgb_map: Classes to spread evenly; by default proposed from the masks.
        folds: Makes that many folds instead.
        mode: Whether files are copied or linked to; within folds they are always linked.
        seed: Seed of the draw.
        unknown: What colours are in masks that are no class; see `read_mask`.

    Raises:
        DataError: If a mask cannot be read.
        UserError: If there are too few groups.
    """
    for pair in pairs:
        _check_names(pair)
    labels = _labels(pairs, rgb_map, unknown)
    if folds is None:
        places = assign_splits(labels, groups, seed)
        folders = [out / place for place in places]
    else:
        places = [str(fold) for fold in assign_folds(labels, groups, folds, seed)]
        folders = [out] * len(pairs)
    for folder, pair in show_progress(zip(folders, pairs, strict=True), "writing", len(pairs)):
        for kind, path, name in pair.placed():
            place_file(path, folder / kind / name, mode)
    for fold in range(folds or 0):
        _link_fold(out, fold, pairs, places)
    _write_manifest(out / "split.csv", pairs, groups, places)
    for place in sorted(set(places)):
        members = [group for group, p in zip(groups, places, strict=True) if p == place]
        say(f"{place}: {len(members)} images in {len(set(members))} groups")


def check_seed(seed: int) -> None:
    """Check that numbers can be drawn with a seed.

    Args:
        seed: The seed.

    Raises:
        UserError: If they cannot.
    """
    if not 0 <= seed < 1 << 32:
        raise UserError(f"seed ({seed}) must be at least 0 and below 2**32")


def _check_names(pair: Pair) -> None:
    for path in pair:
        try:
            path.name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"{path}: its name is not in UTF-8; rename it") from error


def _pairs(src: Path, rule: PairingRule | None) -> list[Pair]:
    survey = survey_pairs(src, rule)
    if survey.problems:
        more = f" (and {len(survey.problems) - 1} more; see `flexunet check`)" if len(survey.problems) > 1 else ""
        raise DataError(survey.problems[0] + more)
    return survey.pairs


def _labels(pairs: Sequence[Pair], rgb_map: RgbMap | None, unknown: UnknownColors) -> list[str]:
    """Name the classes that each mask shows."""
    known = rgb_map if rgb_map is not None else propose_map([pair.mask for pair in pairs])
    masks = show_progress(pairs, "reading masks", len(pairs))
    return [",".join(map(str, np.unique(read_mask(pair.mask, known, unknown)))) for pair in masks]


def _link_fold(out: Path, fold: int, pairs: Sequence[Pair], places: Sequence[str]) -> None:
    for place, pair in zip(places, pairs, strict=True):
        folder = out / f"fold_{fold}" / ("valid" if int(place) == fold else "train")
        for kind, _, name in pair.placed():
            place_file(out / kind / name, folder / kind / name, "link")


def _group(pair: Pair, regex: re.Pattern[str] | None) -> str:
    found = group_of(pair.image, regex)
    if found is None and regex is not None:
        raise UserError(f"{pair.image}: the group-regex finds no patient in this name; correct the expression")
    return found if found is not None else copy_source(pair.image.stem) or pair.image.stem


def _write_manifest(path: Path, pairs: Sequence[Pair], groups: Sequence[str], places: Sequence[str]) -> None:
    with written_in_place(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["place", "group", "image", "mask", "image_sha256", "mask_sha256"])
        for pair, group, place in zip(pairs, groups, places, strict=True):
            hashes = [sha256_of(p) for p in pair]
            writer.writerow(map(guard, [place, group, pair.image.name, pair.placed()[1][2], *hashes]))
