"""The tables of scores: per_case.csv, summary.csv, summary.json and the console."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flexunet_pl.common.console import harmless
from flexunet_pl.common.files import written_in_place
from flexunet_pl.metrics.intervals import FEW_GROUPS
from flexunet_pl.metrics.per_case import ClassScore, Surfaces
from flexunet_pl.metrics.summary import MEANS, ClassSummary

_RATES = ("miss_rate", "false_alarm_rate", "dice_pooled", "lesion_recall", "false_lesions")


def write_per_case(path: Path, scores: Sequence[ClassScore]) -> None:
    """Write a line per case and class; values that are not defined are left empty.

    Args:
        path: The file.
        scores: The scores.
    """
    _write_csv(path, ClassScore._fields, scores)


def write_summary(folder: Path, summaries: Sequence[ClassSummary], facts: dict[str, Any]) -> None:
    """Write summary.csv and summary.json.

    Args:
        folder: Where to.
        summaries: One per class.
        facts: What else belongs to the result, such as the unit of the distances; in summary.json alone.
    """
    header = ["class", "present", "absent", "groups"]
    header += [f"{name}_{part}" for name in MEANS for part in ("mean", "low", "high", "median")]
    rows = []
    for summary in summaries:
        means = [value for name in MEANS for value in summary.means[name][:4]]
        counts = [summary.label, summary.present, summary.absent, summary.groups]
        rows.append([*counts, *means, *(getattr(summary, rate) for rate in _RATES)])
    _write_csv(folder / "summary.csv", [*header, *_RATES], rows)
    with written_in_place(folder / "summary.json") as temporary:
        temporary.write_text(to_json(to_plain(summaries, facts)), encoding="utf-8", errors="backslashreplace")


def to_plain(summaries: Sequence[ClassSummary], facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts and summaries as plain data, the latter by class under ``classes``."""
    classes = {s.label: {**s._asdict(), "means": {k: m._asdict() for k, m in s.means.items()}} for s in summaries}
    return {**facts, "classes": classes}


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
    table = Table("", title=title, title_justify="left")
    for summary in summaries:
        table.add_column(harmless(summary.label), justify="right")
    rows: dict[str, Callable[[ClassSummary], str]] = {
        "cases that show it": lambda s: f"{s.present} of {s.present + s.absent}",
        "Dice, mean": lambda s: _text(s.means["dice"].mean),
        "  95 % interval": lambda s: f"{_text(s.means['dice'].low)} .. {_text(s.means['dice'].high)}",
        "Dice, median": lambda s: _text(s.means["dice"].median),
        "Dice, pooled": lambda s: _text(s.dice_pooled),
        "IoU": lambda s: _text(s.means["iou"].mean),
        "precision": lambda s: _text(s.means["precision"].mean),
        "recall": lambda s: _text(s.means["recall"].mean),
        "missed": lambda s: _percent(s.miss_rate),
        "false alarms": lambda s: _percent(s.false_alarm_rate),
        "lesions found": lambda s: _percent(s.lesion_recall),
        "false lesions a case": lambda s: _text(s.false_lesions, 2),
    }
    if surfaces is not None:
        rows[f"HD95 ({unit})"] = lambda s: _text(s.means["hd95"].mean, 1)
        rows[f"borders within {surfaces.tolerance:g} {unit}"] = lambda s: _text(s.means["nsd"].mean)
    for name, cell in rows.items():
        table.add_row(name, *(cell(summary) for summary in summaries))
    console.print(table)
    console.print(
        "Means over the cases that show the class; a miss counts 0"
        + ("" if surfaces is None else ", and its HD95 is the diagonal of the image where nothing was predicted")
        + ". Pooled: over the pixels of all cases.",
        highlight=False,
    )
    fewest = min((s.groups for s in summaries if s.present), default=FEW_GROUPS)
    if fewest < FEW_GROUPS:
        console.print(
            f"The intervals are drawn over as few as {fewest} groups, so they are too narrow; read them with care.",
            highlight=False,
        )


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with (
        written_in_place(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([_defined(value, "") for value in row] for row in rows)


def _defined(value: Any, empty: Any = None) -> Any:
    """Replace NaN, which neither JSON nor a spreadsheet knows."""
    if isinstance(value, dict):
        return {key: _defined(v, empty) for key, v in value.items()}
    if isinstance(value, list):
        return [_defined(v, empty) for v in value]
    return empty if isinstance(value, float) and math.isnan(value) else value


def _text(value: float, digits: int = 4) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def _percent(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{share:.1%}"
