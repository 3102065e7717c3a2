"""The table of scores that validate, test, score and report show."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flexunet_pl.metrics.counts import SCORES

NOTE = "Means are over the cases that show the class; a miss counts 0. Pooled: over the pixels of all cases."
NOTE_ON_DISTANCES = "HD95 of a miss is the diagonal of the image."


def score_rows(
    classes: Iterable[Mapping[str, Any]], unit: str = "px", tolerance: float | None = None
) -> dict[str, list[str]]:
    """Lay scores out, a row per score and a column per class.

    Args:
        classes: What is known of each class, as `to_plain` and `epoch_classes` give it.
        unit: Unit of the distances.
        tolerance: Largest distance of two borders that counts as none; None where borders were not compared.

    Returns:
        The cells by the name of their row; scores of which nothing is known are left out.
    """
    rows: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "cases that show it": lambda c: f"{c['present']} of {c['present'] + c['absent']}",
    }
    for name, score in SCORES.items():
        rows |= _mean_rows(name, score.label, 4)
        if name == "dice":
            rows["Dice, median"] = lambda c: _number(c["means"]["dice"]["median"], 4)
            rows["Dice, pooled"] = lambda c: _number(c["dice_pooled"], 4)
    rows["missed"] = lambda c: _share(c["miss_rate"])
    rows["false alarms"] = lambda c: _share(c["false_alarm_rate"])
    rows["lesions found"] = lambda c: _share(c["lesion_recall"])
    rows["false lesions a case"] = lambda c: _number(c["false_lesions"], 2)
    if tolerance is not None:
        rows |= _mean_rows("hd95", f"HD95 ({unit})", 1)
        rows |= _mean_rows("nsd", f"borders within {tolerance:g} {unit}", 4)
    known = list(classes)
    made = {}
    for label, cell in rows.items():
        try:
            made[label] = [cell(of_class) for of_class in known]
        except KeyError:  # the scores of an epoch have neither median nor lesions
            continue
    return made


def epoch_classes(scores: Mapping[str, float], class_names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Arrange the scores of an epoch by class, for `score_rows`.

    Args:
        scores: As `summarise_counts` returns them.
        class_names: Names of the classes, without the background.

    Returns:
        What is known of each class, by name; a score that is not defined is None.
    """
    rates = ("dice_pooled", "miss_rate", "false_alarm_rate")
    return {
        name: {
            "means": {key: {"mean": scores.get(f"{key}/{name}")} for key in SCORES},
            **{rate: scores.get(f"{rate}/{name}") for rate in rates},
        }
        for name in class_names
    }


def _mean_rows(name: str, label: str, digits: int) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """Make the rows of a mean and of its 95 % interval."""

    def interval(of_class: Mapping[str, Any]) -> str:
        low, high = (_number(of_class["means"][name][end], digits) for end in ("low", "high"))
        return "n/a" if low == "n/a" else f"{low} .. {high}"

    return {
        label: lambda c: _number(c["means"][name]["mean"], digits),
        f"  95 % of {label.partition(' within')[0]}": interval,
    }


def _number(value: float | None, digits: int) -> str:
    return f"{value:.{digits}f}" if value is not None and _is_defined(value) else "n/a"


def _share(value: float | None) -> str:
    return f"{value:.1%}" if value is not None and _is_defined(value) else "n/a"


def _is_defined(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
