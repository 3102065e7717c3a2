"""Compare two predictions of the same cases, case by case."""

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from flexunet_pl.common.cells import guard
from flexunet_pl.common.console import harmless
from flexunet_pl.common.files import written_in_place
from flexunet_pl.metrics.intervals import FEW_GROUPS, bootstrap_mean
from flexunet_pl.metrics.per_case import ClassScore

COMPARED = ("dice", "iou", "hd95", "nsd")


@dataclass(frozen=True)
class Difference:
    """How much a second prediction differs from a first one, over the cases that show a class.

    Attributes:
        label: Name of the class.
        score: Name of the score.
        mean: Mean of the second less the first, over the cases in which both are defined.
        low: Lower end of its 95 % interval over groups.
        high: Upper end.
        cases: Number of cases.
        groups: Number of groups that they belong to.
    """

    label: str
    score: str
    mean: float
    low: float
    high: float
    cases: int
    groups: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval does not hold 0, and is drawn over enough groups to be believed."""
        return self.groups >= FEW_GROUPS and not (np.isnan(self.low) or self.low <= 0 <= self.high)


def compare_cases(first: Sequence[ClassScore], second: Sequence[ClassScore], seed: int = 137) -> list[Difference]:
    """Compare the scores of two predictions.

    Args:
        first: Of all cases and classes.
        second: Of the same, in any order.
        seed: Seed of the intervals.

    Returns:
        One difference per class and score that was measured.
    """
    partner = {(score.case, score.label): score for score in second}
    pairs = [(one, partner[one.case, one.label]) for one in first if one.tp + one.fn]
    result = []
    for label in dict.fromkeys(one.label for one in first):
        for name in COMPARED:
            both = [
                (two.values[name] - one.values[name], one.group)
                for one, two in pairs
                if one.label == label and not np.isnan(two.values[name] - one.values[name])
            ]
            if both:
                values, groups = zip(*both, strict=True)
                interval = bootstrap_mean(values, groups, seed=seed)
                result.append(Difference(label, name, float(np.mean(values)), *interval, len(values), len(set(groups))))
    return result


def write_comparison(path: Path, differences: Sequence[Difference]) -> None:
    """Write a line per class and score.

    Args:
        path: The CSV file.
        differences: The lines.
    """
    with written_in_place(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Difference))
        writer.writerows(map(guard, astuple(difference)) for difference in differences)


def print_comparison(differences: Sequence[Difference], first: str, second: str) -> None:
    """Print the differences as a table.

    Args:
        differences: The rows.
        first: Name of the first prediction.
        second: Name of the second.
    """
    table = Table("class", "score", title=f"{second} less {first}", title_justify="left")
    for column in ("difference", "95 % interval", "cases", "groups"):
        table.add_column(column, justify="right")
    for d in differences:
        interval = f"[{d.low:+.4f}, {d.high:+.4f}]"
        mean = f"{d.mean:+.4f}{' *' if d.is_clear else ''}"
        table.add_row(harmless(d.label), d.score, mean, interval, f"{d.cases}", f"{d.groups}")
    console = Console()
    console.print(table)
    few = f"; not said of fewer than {FEW_GROUPS} groups, whose intervals are too narrow"
    console.print(f"* the interval does not hold 0{few}", highlight=False)
