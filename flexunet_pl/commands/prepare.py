"""The verb `prepare`: a download to a data set for training, by a recipe."""

import csv
import io
import shutil
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Literal

from flexunet_pl.commands.split import check_seed, write_split
from flexunet_pl.common.cells import unguard
from flexunet_pl.common.console import say, show_progress
from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.common.files import written_in_place
from flexunet_pl.common.processes import count_cores, map_processes
from flexunet_pl.io.dataset_facts import DatasetFacts, write_facts
from flexunet_pl.io.pairs import survey_pairs
from flexunet_pl.prepare.raw_files import RawFiles
from flexunet_pl.prepare.recipe import Recipe, read_recipe
from flexunet_pl.prepare.slices import CaseResult, write_case

_FEW = 3  # cases
_MOST_WORKERS = 4  # each holds a volume in memory
_LOG = "prepared.csv"
_COLUMNS = ("stem", "image", "mask", "source", "slices", "empty")


def prepare_data(
    recipe: str,
    *,
    raw: Path,
    out: Path,
    mode: Literal["link", "copy"] = "link",
    seed: int = 137,
    workers: int | None = None,
) -> int:
    """Turn a download into a data set: slices of 8 bits with colour-coded masks, split 80/15/5 by patient.

    The recipes chest-ct-subset, covid-19, lung-tumor, nbm and 3d-liver-tumor come with the package; data/recipes has
    their sources, licences and layouts, and is the place to look for how to write one. A run that was interrupted goes
    on where it stopped. A file that cannot be used is named and the rest goes on; the exit status is 1 then, and the
    split waits until it is corrected.

    Args:
        recipe: Name of a recipe, or path of a YAML file.
        raw: Folder of the download, or its zip archive.
        out: Folder to create: slices/ with all pictures, and train/, valid/, test/.
        mode: Whether train, valid and test are links to the slices or copies.
        seed: Seed of the split.
        workers: Processes; by default as many as there are cores, at most 4. A volume is held in memory by each.

    Returns:
        The exit status.

    Raises:
        UserError: If there is no such recipe, or the folder holds something else.
    """
    check_seed(seed)
    steps = read_recipe(recipe)
    if out.resolve().is_relative_to(raw.resolve()):
        raise UserError(f"{out}: lies in the download {raw}; name a folder outside of it")
    files = RawFiles(raw)
    cases, lonely = steps.find_cases(files.names)
    _claim(out, steps)
    if lonely:
        say(f"note: {len(lonely)} files have no partner and are passed over, such as {lonely[0]}")
    slices = out / "slices"
    done = _read_log(out / _LOG)
    sources = {case.stem: f"{files.fingerprint(case.image)}{files.fingerprint(case.mask)}" for case in cases}
    for stem, row in done.items():
        if sources.get(stem) != row["source"]:
            raise UserError(
                f"{out}: was prepared from other files: {row['image']} has changed or gone; name another folder"
            )
    _remove_halves(slices, steps, done)
    left = [case for case in cases if case.stem not in done]
    if done:
        say(f"going on: {len(cases) - len(left)} of {len(cases)} cases are done")
    write = partial(write_case, recipe=steps, raw=files, out=slices)
    count = min(_MOST_WORKERS, count_cores()) if workers is None else workers
    results = map_processes(write, left, count, few=_FEW)
    failed = 0
    for result in show_progress(results, "preparing", len(left)):
        if result.error:
            failed += 1
            say(f"flexunet: {result.error}")
        else:
            _log(out / _LOG, result, sources[result.case.stem])
    return _finish(out, steps, failed, mode, seed)


def _finish(out: Path, recipe: Recipe, failed: int, mode: Literal["link", "copy"], seed: int) -> int:
    rows = _read_log(out / _LOG)
    kept, empty = (sum(int(row[key]) for row in rows.values()) for key in ("slices", "empty"))
    say(f"{len(rows)} cases prepared, {failed} failed; {kept} slices, {empty} empty ones left out")
    if failed:
        say(f"the split waits: correct or remove what failed and run this again; {out / 'slices'} has the rest")
        return 1
    of_volumes = recipe.labels is not None
    percentiles = None if recipe.window is not None else recipe.percentiles or (0.0, 100.0)
    write_facts(out, DatasetFacts(recipe.window, percentiles) if of_volumes else DatasetFacts())
    if (out / "split.csv").exists():
        return _compare_split(out)
    for split in ("train", "valid", "test"):  # half of a split, from a run that was interrupted
        shutil.rmtree(out / split, ignore_errors=True)
    pairs = survey_pairs(out / "slices").pairs
    if not pairs:
        raise DataError(f"{out / 'slices'}: no slice was written: all of them are empty")
    write_split(out, pairs, [recipe.group_of(pair.image.stem) for pair in pairs], recipe.rgb_map, mode=mode, seed=seed)
    if recipe.keep_together != "patient":
        say("note: the files do not tell patients apart; neighbours stay together, but a patient may be on two sides")
    return 0


def _compare_split(out: Path) -> int:
    """Say that the split which is there stays, and what it lacks."""
    with (out / "split.csv").open(encoding="utf-8", newline="") as file:
        known = {unguard(row["image"]) for row in csv.DictReader(file)}
    new = [pair.image.name for pair in survey_pairs(out / "slices").pairs if pair.image.name not in known]
    if new:
        say(
            f"the split was drawn before {len(new)} slices came, such as {new[0]}: they are in slices/ alone; remove "
            f"{out / 'split.csv'} and run this again to draw it again"
        )
        return 1
    say("the split is there already and stays as it is")
    return 0


def _remove_halves(slices: Path, recipe: Recipe, done: dict[str, dict[str, str]]) -> None:
    """Remove slices of cases that were not written to the end, and what a kill has left."""
    for folder in (slices / "images", slices / "masks"):
        for path in folder.iterdir() if folder.is_dir() else ():
            if recipe.case_of(path.stem) not in done:
                path.unlink()


def _claim(out: Path, recipe: Recipe) -> None:
    """Make the folder, or see that it was made by the same recipe.

    Raises:
        UserError: If it holds something else.
    """
    mark = out / "recipe.yaml"
    if mark.is_file():
        if mark.read_text(encoding="utf-8") != recipe.text:
            raise UserError(f"{out}: was prepared by another recipe, or this one has changed; name another folder")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is not empty; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    with written_in_place(mark) as temporary:
        temporary.write_text(recipe.text, encoding="utf-8")


def _read_log(path: Path) -> dict[str, dict[str, str]]:
    """Read which cases are done, and take away a line that was cut by a crash.

    Raises:
        UserError: If the file is damaged otherwise.
    """
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        path.unlink()  # it has not even a header
        return {}
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        reader = csv.DictReader(io.StringIO(whole.decode("utf-8"), newline=""))
        rows = {row["stem"]: row for row in reader if None not in row.values()}
    except (UnicodeDecodeError, csv.Error, KeyError) as error:
        raise UserError(f"{path}: is damaged; remove it to prepare all again") from error
    if tuple(reader.fieldnames or ()) != _COLUMNS:
        raise UserError(f"{path}: is damaged; remove it to prepare all again")
    return rows


def _log(path: Path, result: CaseResult, source: str) -> None:
    rows: list[tuple[str | int, ...]] = [(*astuple(result.case), source, result.slices, result.empty)]
    if not path.exists():
        rows.insert(0, _COLUMNS)
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
