"""The verb `score`: masks of anyone against the truth, and two predictions against each other."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.console import say, show_progress
from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.common.experiment_file import read_model_section
from flexunet_pl.common.files import check_results_folder
from flexunet_pl.common.processes import map_processes
from flexunet_pl.io.cases import case_name
from flexunet_pl.io.mask_colors import UnknownColors
from flexunet_pl.io.masks import read_mask
from flexunet_pl.io.pairing import PairingRule
from flexunet_pl.io.pairs import MASK_SUFFIXES, list_files
from flexunet_pl.io.patient_ids import group_of, parse_group_regex
from flexunet_pl.io.volume_files import volume_suffix
from flexunet_pl.io.volumes import Volume, check_same_grid, read_volume
from flexunet_pl.metrics.compare import compare_cases, print_comparison, write_comparison
from flexunet_pl.metrics.per_case import ClassScore, Surfaces, make_surfaces, measure_case
from flexunet_pl.metrics.summary import summarise_cases
from flexunet_pl.metrics.tables import print_summary, to_json, to_plain, write_per_case, write_summary
from flexunet_pl.prepare.propose import propose_map
from flexunet_pl.rgb_map import IGNORED, RgbMap

_FEW = 100  # cases, below which starting processes takes longer than measuring


@dataclass(frozen=True)
class _Case:
    name: str
    group: str
    predicted: Path
    truth: Path


def score_masks(
    *,
    pred: list[Path],
    target: Path,
    rgb_map: dict[str, list[int]] | str | None = None,
    experiment: Path | None = None,
    group_regex: str | None = None,
    spacing_mm: tuple[float, float] | None = None,
    tolerance: float = 2.0,
    surfaces: bool = True,
    out: Path | None = None,
    json: bool = False,
    workers: int | None = None,
    unknown_colors: UnknownColors = "error",
    pairing: PairingRule = PairingRule(),  # noqa: B008 - it is frozen
) -> None:
    """Score the masks of a folder against the true ones, class by class, whoever made them.

    Every case is measured at the size of its masks. A mean is over the cases that show the class, a miss counts 0, and
    its interval is drawn over patients. Give --pred twice to compare two predictions of the same cases. Label volumes
    (NIfTI, MHA, NRRD, whose values are the numbers of the classes) are scored in three dimensions, in mm.

    Args:
        pred: Folder of predicted masks, named as the true ones; a second one is compared with the first.
        target: Folder of true masks: pictures, or label volumes.
        rgb_map: Ordered mapping of class names to colours, the background first; by default that of the experiment,
            or else one that is proposed from the colours of the true masks.
        experiment: Configuration of flexunet fit, to take rgb_map from.
        group_regex: Regular expression that finds the patient in a file's name, such as ^([0-9]+)_; by default every
            picture is a patient of its own, which makes the intervals too narrow where it is not.
        spacing_mm: Distance of rows and of columns; by default distances are in pixels. Volumes know theirs.
        tolerance: Distance of two borders that counts as none in the normalised surface distance, in mm or pixels.
        surfaces: Whether to measure the distances of borders, which takes most of the time.
        out: Folder for per_case.csv, summary.csv and summary.json, and comparison.csv.
        json: Whether to print the summary as JSON on standard output, and nothing else there.
        workers: Processes; by default as many as there are cores.
        unknown_colors: What a region of a mask is whose colour is no class: error, background, or nearest, the class
            of the nearest colour.
        pairing: How the names of predictions (as the images) and true masks go together, such as {image: "(.+)", mask:
            "(.+)_mask"}; by stem where none is given.

    Raises:
        DataError: If a true mask has no prediction, or a mask cannot be read.
        UserError: If an option is wrong.
    """
    _check_options(pred, out)
    compared = make_surfaces(spacing_mm, tolerance)
    truths = _by_rule(_list_masks(target), pairing, "mask")
    in_mm = _is_volume(next(iter(truths.values())))
    if in_mm and spacing_mm is not None:
        raise UserError("spacing-mm is for pictures; volumes know theirs")
    classes = _classes(rgb_map, experiment, list(truths.values()))
    measured = compared if surfaces else None
    unit = "mm" if in_mm or spacing_mm is not None else "px"
    results, printed = [], []
    for number, folder in enumerate(pred):
        cases = _pair(folder, truths, group_regex, pairing)
        scores, accuracy = _measure(cases, classes, measured, workers, unknown_colors)
        summaries = summarise_cases(scores)
        facts = {"pred": str(folder), "target": str(target), "cases": len(cases), "unit": unit, "tolerance": tolerance,
                 "dice_coef_multiclass": accuracy}  # fmt: skip
        if out is not None:
            place = out if len(pred) == 1 else out / "ab"[number]
            place.mkdir(parents=True, exist_ok=True)
            write_per_case(place / "per_case.csv", scores)
            write_summary(place, summaries, facts)
        if json:
            printed.append(to_plain(summaries, facts))
        else:
            print_summary(summaries, f"{folder} against {target}, {len(cases)} cases", measured, unit)
            say(f"dice_coef_multiclass {accuracy:.4f} (the reference's kind of score; it counts the background)")
        results.append(scores)
    if len(pred) == 2:
        comparison = compare_cases(results[0], results[1])
        if out is not None:
            write_comparison(out / "comparison.csv", comparison)
        if json:
            printed.append({"comparison": [asdict(difference) for difference in comparison]})
        else:
            print_comparison(comparison, str(pred[0]), str(pred[1]))
    if json:
        sys.stdout.write(to_json(printed if len(printed) > 1 else printed[0]))


def _check_options(pred: list[Path], out: Path | None) -> None:
    if len(pred) not in {1, 2}:
        raise UserError(f"--pred was given {len(pred)} times; give it once, or twice to compare")
    if out is not None:
        for place in (out,) if len(pred) == 1 else (out / "a", out / "b"):
            check_results_folder(place, "summary.json", ("per_case.csv", "summary.csv"))
        if len(pred) == 2:
            check_results_folder(out, "a/summary.json", ("comparison.csv",))


def _is_volume(path: Path) -> bool:
    return volume_suffix(path) is not None


def _list_masks(folder: Path) -> dict[str, Path]:
    """List the masks of a folder and of those below it by name: label volumes, or pictures.

    Raises:
        DataError: If there are both, or two of one name.
    """
    inside = [Path(place) / name for place, _, names in sorted(os.walk(folder)) for name in sorted(names)]
    volumes: dict[str, Path] = {}
    for path in inside:
        if _is_volume(path) and not path.name.startswith(".") and ".uncertainty." not in path.name:
            name = (path.parent / case_name(path)).relative_to(folder).as_posix()
            if volumes.setdefault(name, path) is not path:
                raise DataError(f"{path}: has the same name as {volumes[name].name}; remove one")
    beside = [path for path in inside if path.parent == folder and path.suffix.lower() in MASK_SUFFIXES]
    if volumes and beside:
        raise DataError(
            f"{folder}: holds pictures and volumes, such as {beside[0].name}; score them one after the other"
        )
    if volumes:
        return volumes
    nested = sorted({path.parent for path in inside if path.suffix.lower() in MASK_SUFFIXES} - {folder})
    if beside or not nested:
        return {path.stem: path for path in list_files(folder, MASK_SUFFIXES)}
    return {
        f"{place.relative_to(folder).as_posix()}/{path.stem}": path
        for place in nested
        for path in list_files(place, MASK_SUFFIXES)
    }


def _by_rule(masks: dict[str, Path], rule: PairingRule, kind: str) -> dict[str, Path]:
    """Name masks by what a rule takes of their stems.

    Raises:
        DataError: If it takes the same of two, or fits none.
    """
    if rule == PairingRule():
        return masks
    found: dict[str, Path] = {}
    for name, path in masks.items():
        key = rule.key(Path(f"{Path(name).name}.png"), kind)
        if key is not None and found.setdefault((Path(name).parent / key).as_posix(), path) is not path:
            raise DataError(f"{path}: the pairing rule takes the same of its name as of another one")
    if not found:
        raise DataError(f"{next(iter(masks.values())).parent}: no file fits the pairing rule")
    return found


def _classes(rgb_map: dict[str, list[int]] | str | None, experiment: Path | None, truths: Sequence[Path]) -> RgbMap:
    given = rgb_map if rgb_map is not None else read_model_section(experiment).get("rgb_map")
    if given is not None:
        return RgbMap.parse(given)
    if _is_volume(truths[0]):
        raise UserError("label volumes have no colours: name the classes with --rgb-map, or give --experiment")
    proposed = propose_map(list(truths))
    say(f"note: no rgb_map was given; proposed from the masks: {proposed.to_dict()}")
    return proposed


def _pair(folder: Path, truths: Mapping[str, Path], group_regex: str | None, rule: PairingRule) -> list[_Case]:
    regex = parse_group_regex(group_regex)
    predicted = _by_rule(_list_masks(folder), rule, "image")
    lost = [path for name, path in truths.items() if name not in predicted]
    if lost:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        raise DataError(f"{lost[0]}{more}: has no prediction in {folder}; a score must not leave cases out")
    cases = []
    for name, path in truths.items():
        group = group_of(path, regex)
        if group is None and regex is not None:
            raise UserError(f"{path}: the group-regex finds no patient in this name; correct the expression")
        if _is_volume(predicted[name]) != _is_volume(path):
            raise DataError(
                f"{predicted[name]}: only one of this and {path} is a volume; give both as one or the other"
            )
        cases.append(_Case(name, name if group is None else group, predicted[name], path))
    return cases


def _measure(
    cases: Sequence[_Case], rgb_map: RgbMap, surfaces: Surfaces | None, workers: int | None, unknown: UnknownColors
) -> tuple[list[ClassScore], float]:
    measure = partial(_measure_files, rgb_map=rgb_map, surfaces=surfaces, unknown=unknown)
    results = map_processes(measure, cases, workers, chunk=8, few=_FEW)
    done = list(show_progress(results, "scoring", len(cases)))
    return [score for scores, _ in done for score in scores], float(np.mean([accuracy for _, accuracy in done]))


def _measure_files(
    case: _Case, rgb_map: RgbMap, surfaces: Surfaces | None, unknown: UnknownColors
) -> tuple[list[ClassScore], float]:
    if _is_volume(case.truth):
        volumes = read_volume(case.predicted), read_volume(case.truth)
        check_same_grid(case.predicted, *volumes)
        paths = (case.predicted, case.truth)
        predicted, truth = (_as_index(p, v, rgb_map) for p, v in zip(paths, volumes, strict=True))
        if surfaces is not None:
            surfaces = replace(surfaces, spacing=volumes[1].spacing_mm[::-1])
    else:
        predicted, truth = (read_mask(path, rgb_map, unknown) for path in (case.predicted, case.truth))
    if predicted.shape != truth.shape:
        raise DataError(
            f"{case.predicted}: is {predicted.shape[0]}x{predicted.shape[1]} px (height x width) but the true mask is "
            f"{truth.shape[0]}x{truth.shape[1]}; predict at the size of the image"
        )
    # with certain predictions the reference's score is this
    counted = truth != IGNORED
    right = np.count_nonzero((predicted == truth) & counted)
    accuracy = (2 * right + 1) / (2 * np.count_nonzero(counted) + 1)
    return measure_case(case.name, case.group, predicted, truth, rgb_map.names, surfaces), float(accuracy)


def _as_index(path: Path, volume: Volume, rgb_map: RgbMap) -> NDArray[np.uint8]:
    found = np.unique(volume.values)
    if not np.isin(found, (*range(len(rgb_map)), IGNORED)).all():
        raise DataError(
            f"{path}: has the values {found[:8].tolist()}; a label volume has the numbers of the classes, 0 to "
            f"{len(rgb_map) - 1}, and {IGNORED} where a voxel does not count"
        )
    return volume.values.astype(np.uint8)
