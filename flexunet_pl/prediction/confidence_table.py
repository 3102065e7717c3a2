"""confidence.csv: how far each mask of a prediction can be trusted, the least trusted first."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flexunet_pl.common.cells import guard, unguard
from flexunet_pl.common.files import written_in_place
from flexunet_runtime.confidence import Confidence

NAME = "confidence.csv"


def describe(confidence: Confidence, class_names: Sequence[str]) -> str:
    """Return the Dice to be expected of each class but the background, as a text."""
    values = zip(class_names[1:], confidence.expected_dice[1:], strict=True)
    return "expected Dice: " + ", ".join(f"{name} {value:.2f}" for name, value in values)


class ConfidenceTable:
    """Collects how far masks can be trusted, line by line, so that a prediction which is gone on with has all of them.

    Args:
        folder: The output folder.
        class_names: Names in class order.
        rank: Number of this process.
        again: Whether all is predicted again.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], rank: int, *, again: bool) -> None:
        self._folder = folder
        self._path = folder / (f"confidence_{rank}.csv" if rank else NAME)
        per_class = [f"{what}/{name}" for name in class_names[1:] for what in ("expected_dice", "agreement")]
        self._header = ["case", "trust", "flagged", *per_class]
        if again and not rank:
            for path in folder.glob("confidence*.csv"):
                path.unlink()

    def add(self, case: str, confidence: Confidence, trust: float) -> None:
        """Add a case, and how far it can be trusted, 0..1."""
        values = zip(confidence.expected_dice[1:], confidence.agreement[1:], strict=True)
        cells = [f"{value:.4f}" if np.isfinite(value) else "" for pair in values for value in pair]
        begun = self._path.is_file()
        with self._path.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if not begun:
                writer.writerow(map(guard, self._header))
            writer.writerow([guard(case), f"{trust:.4f}", "", *cells])

    def finish(self, flag_below: float | None) -> list[str]:
        """Bring the lines of all processes together, the least trusted first, and flag some.

        Args:
            flag_below: Trust below which a case is for a human; None flags none.

        Returns:
            Names of the cases that are flagged.
        """
        lines: dict[str, list[str]] = {}
        paths = sorted(self._folder.glob("confidence*.csv"))
        for path in paths:
            with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                lines |= {row[0]: row for row in list(csv.reader(file))[1:] if len(row) == len(self._header)}
        rows = sorted(lines.values(), key=lambda row: (float(row[1]), row[0]))
        for row in rows:
            row[2] = "yes" if flag_below is not None and float(row[1]) < flag_below else ""
        if rows:
            with (
                written_in_place(self._folder / NAME) as temporary,
                temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
            ):
                csv.writer(file, lineterminator="\n").writerows([[guard(cell) for cell in self._header], *rows])
        for path in paths:
            if path.name != NAME:
                path.unlink()
        return [unguard(row[0]) for row in rows if row[2]]
