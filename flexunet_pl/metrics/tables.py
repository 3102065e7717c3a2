"""The tables of scores: per_case.csv, summary.csv, summary.json and the console."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flexunet_pl.common.cells import guard
from flexunet_pl.common.console import harmless
from flexunet_pl.common.files import written_in_place
from flexunet_pl.metrics.intervals import FEW_GROUPS
from flexunet_pl.metrics.per_case import MEASURED, ClassScore, Surfaces
from flexunet_pl.metrics.score_table import NOTE, NOTE_ON_DISTANCES, score_rows
from flexunet_pl.metrics.summary import ClassSummary

_PARTS = ("mean", "low", "high", "median")
_RATES = ("miss_rate", "false_alarm_rate", "dice_pooled", "lesion_recall", "false_lesions")


def write_per_case(path: Path, scores: Sequence[ClassScore]) -> None:
    """Write a line per case and class; values that are not defined are left empty.

    Args:
        path: The file.
        scores: The scores.
    """
    head, tail = ("case", "group", "label", "state", "tp", "fp", "fn"), ("lesions", "lesions_found", "false_lesions")
    rows = (
        [getattr(s, n) for n in head] + [s.values[n] for n in MEASURED] + [getattr(s, n) for n in tail] for s in scores
    )
    _write_csv(path, (*head, *MEASURED, *tail), rows)


def write_summary(folder: Path, summaries: Sequence[ClassSummary], facts: dict[str, Any]) -> None:
    """Write summary.csv and summary.json.

    Args:
        folder: Where to.
        summaries: One per class.
        facts: What else belongs to the result, such as the unit of the distances; in summary.json alone.
    """
    header = ["class", "present", "absent", "groups"]
    header += [f"{name}_{part}" for name in MEASURED for part in _PARTS]
    rows = []
    for summary in summaries:
        means = [getattr(summary.means[name], part) for name in MEASURED for part in _PARTS]
        counts = [summary.label, summary.present, summary.absent, summary.groups]
        rows.append([*counts, *means, *(getattr(summary, rate) for rate in _RATES)])
    _write_csv(folder / "summary.csv", [*header, *_RATES], rows)
    with written_in_place(folder / "summary.json") as temporary:
        temporary.write_text(to_json(to_plain(summaries, facts)), encoding="utf-8", errors="backslashreplace")


def to_plain(summaries: Sequence[ClassSummary], facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts and summaries as plain data, the latter by class under ``classes``."""
    return {**facts, "classes": {summary.label: asdict(summary) for summary in summaries}}


def to_json(content: Any) -> str:
    """Return plain data as JSON, indented; values that are not defined are null."""
    return json.dumps(_defined(content), indent=1, ensure_ascii=False) + "\n"


def print_summary(summaries: Sequence[ClassSummary], title: str, surfaces: Surfaces | None, unit: str) -> None:
    """Print the summaries as a table, and below it what the numbers are.

    Args:
        summaries: One per class.
        title: Title of the table.
        surfaces: How borders were compared; None where they were not.
        unit: Unit of the distances.
    """
    console = Console()
    tolerance = surfaces.tolerance if surfaces is not None else None
    classes = to_plain(summaries, {})["classes"]
    console.print(make_table(title, classes, score_rows(classes.values(), unit, tolerance)))
    console.print(NOTE if surfaces is None else f"{NOTE} {NOTE_ON_DISTANCES}", highlight=False)
    fewest = min((s.groups for s in summaries if s.present), default=FEW_GROUPS)
    if fewest < FEW_GROUPS:
        console.print(
            f"The intervals are drawn over as few as {fewest} groups, so they are too narrow; read them with care.",
            highlight=False,
        )


def make_table(title: str, columns: Iterable[str], rows: Mapping[str, Sequence[str]]) -> Table:
    """Make a table for the console.

    Args:
        title: Its title.
        columns: Names of the columns behind that of the rows' names.
        rows: The cells of each row, by its name.

    Returns:
        A table for rich.
    """
    table = Table("", title=title, title_justify="left")
    for column in columns:
        table.add_column(harmless(column), justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with (
        written_in_place(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(map(guard, header))
        writer.writerows([guard(_defined(value, "")) for value in row] for row in rows)


def _defined(value: Any, empty: Any = None) -> Any:
    """Replace NaN, which neither JSON nor a spreadsheet knows."""
    if isinstance(value, dict):
        return {key: _defined(v, empty) for key, v in value.items()}
    if isinstance(value, list):
        return [_defined(v, empty) for v in value]
    return empty if isinstance(value, float) and math.isnan(value) else value
