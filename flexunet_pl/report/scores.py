"""The sections on what was reached: scores, their spread, and what the original says of itself."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flexunet_pl.metrics.intervals import FEW_GROUPS
from flexunet_pl.metrics.score_table import NOTE, NOTE_ON_DISTANCES, score_rows
from flexunet_pl.report.blocks import Picture, Section, Table, Text, chart
from flexunet_pl.report.original import find_original
from flexunet_pl.report.run_folder import Run, TestRun
from flexunet_pl.rgb_map import RgbMap


def score_section(run: Run, test: TestRun) -> Section:
    """Show the scores class by class, with intervals.

    Args:
        run: The run.
        test: Its test.
    """
    classes: Mapping[str, Any] = test.summary["classes"]
    tolerance = test.summary.get("tolerance")
    rows = score_rows(classes.values(), str(test.summary.get("unit", "px")), tolerance)
    note = NOTE if tolerance is None else f"{NOTE} {NOTE_ON_DISTANCES}"
    blocks: list[Text | Table | Picture] = [
        Text(f"{test.summary['cases']} cases of {test.root}, by {test.checkpoint}{_measured_at(test)}."),
        Table(
            ["", *classes],
            [[name, *cells] for name, cells in rows.items()],
            f"{note} The background is no class. 95 % intervals are drawn over patients, where "
            "scores.group_regex names them, or else over pictures.",
        ),
    ]
    fewest = min((c["groups"] for c in classes.values() if c["present"]), default=FEW_GROUPS)
    if fewest < FEW_GROUPS:
        few = f"Only {fewest} groups show the rarest class: the intervals are too narrow. Read them with care."
        blocks.append(Text(few, "warning"))
    calibration = test.summary.get("calibration_error")
    if calibration is not None:
        blocks.append(Text(f"Calibration error over the pixels of foreground: {calibration:.3f}."))
    return Section("Scores on the test data", blocks)


def _measured_at(test: TestRun) -> str:
    size = test.summary.get("measured_at")  # tests of before do not say it
    return f", measured at {size}" if size else ""


def original_section(run: Run, test: TestRun) -> Section:
    """Put the original's kind of score beside ours, with the warning what it measures.

    Args:
        run: The run.
        test: Its test.
    """
    original = find_original(run.rgb_map)
    ours = {k: test.summary.get(k) for k in ("categorical_crossentropy", "dice_coef_multiclass")}
    header, rows = ["", "this run"], [[name, _text(value, 4)] for name, value in ours.items()]
    rows += [[f"Dice, {name}", _text(c["means"]["dice"]["mean"], 4)] for name, c in test.summary["classes"].items()]
    blocks: list[Text | Table | Picture] = [
        Text(
            "dice_coef_multiclass is the score that the original reports. It is a soft pixel accuracy that counts the "
            "background: it is near 1 wherever the target is small, whatever the network does to it. Do not compare it "
            "with a Dice.",
            "warning",
        )
    ]
    caption = ""
    if original is not None:
        header.append(f"the original, {original.dataset}")
        for row, value in zip(rows, (original.cross_entropy, original.accuracy, *original.dice), strict=True):
            row.append(_text(value, 4))
        caption = (
            f"The original's experiment {original.dataset} has the same classes; its Dice is measured on its published "
            "pictures. The data are the same only if yours are that data set."
        )
    return Section("The original's numbers, and what they measure", [*blocks, Table(header, rows, caption)])


def spread_section(run: Run, test: TestRun) -> Section:
    """Show how Dice and HD95 spread over the cases, and what was taken for what.

    Args:
        run: The run.
        test: Its test.
    """
    blocks: list[Text | Table | Picture] = [
        chart(
            "dice_histogram",
            "Dice of each case that shows the class.",
            lambda f: _histograms(f, run.rgb_map, test, "dice"),
            (6, max(3.4, 0.7 * len(run.rgb_map))),
        ),
    ]
    unit = test.summary.get("unit", "px")
    if any(row["hd95"] for row in test.cases):
        caption = f"HD95 in {unit} of each case that shows the class; smaller is better."
        size = (6, max(3.4, 0.7 * len(run.rgb_map)))
        blocks.append(chart("hd95_histogram", caption, lambda f: _histograms(f, run.rgb_map, test, "hd95"), size))
    confusion = np.asarray(test.summary.get("confusion") or [], dtype=float)
    if confusion.size:
        shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        names = run.rgb_map.names
        rows = [[name, *(f"{share:.1%}" for share in row)] for name, row in zip(names, shares, strict=True)]
        caption = "Of the pixels of each true class (row), the share that was predicted as each class (column)."
        blocks.append(Table(["", *names], rows, caption, shares.tolist()))
    return Section("Spread and confusion", blocks)


def trust_section(run: Run, test: TestRun) -> Section:
    """Show whether probabilities are as often right as they say, and what is left where doubtful cases are looked at.

    Args:
        run: The run.
        test: Its test.
    """
    certain, right, pixels = np.asarray(test.summary.get("reliability") or np.zeros((3, 1)), dtype=float)
    blocks: list[Text | Table | Picture] = []
    if pixels.any():
        caption = "Share of right pixels by how certain they are, of the foreground. On the dashed line both are equal."
        blocks.append(chart("reliability", caption, lambda f: _reliability(f, certain, right, pixels), (5, 4)))
    risk = test.summary.get("risk") or []
    if len(risk) > 1:
        caption = (
            f"Mean of 1 - Dice over the cases that are trusted most (area {test.summary['aurc']:.3f}); others would "
            "be looked at by a human. confidence.csv lists how far each can be trusted."
        )
        blocks.append(chart("risk_coverage", caption, lambda f: _risk(f, risk), (5, 4)))
    return Section(
        "Trust", blocks or [Text("The test was made before trust was measured; `flexunet test` measures it.")]
    )


def _reliability(
    figure: Figure, certain: NDArray[np.float64], right: NDArray[np.float64], pixels: NDArray[np.float64]
) -> None:
    axes = figure.subplots()
    shown = pixels > 0
    axes.plot([0, 1], [0, 1], color="0.5", linestyle="--")
    axes.plot(certain[shown] / pixels[shown], right[shown] / pixels[shown], marker="o")
    axes.set(xlabel="probability", ylabel="share of right pixels", xlim=(0, 1), ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)


def _risk(figure: Figure, risk: list[float]) -> None:
    axes = figure.subplots()
    axes.plot(np.arange(1, len(risk) + 1) / len(risk), risk)
    axes.set(xlabel="share of cases trusted", ylabel="mean of 1 - Dice", xlim=(0, 1), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)


def _histograms(figure: Figure, rgb_map: RgbMap, test: TestRun, column: str) -> None:
    rows = [row for row in test.cases if row[column] and row["state"] in {"present", "missed"}]
    top = 1.0 if column == "dice" else max((float(row[column]) for row in rows), default=1.0)
    axes = figure.subplots(len(rgb_map) - 1, 1, sharex=True, squeeze=False)[:, 0]
    for name, color, ax in zip(rgb_map.names[1:], rgb_map.colors[1:], axes, strict=True):
        values = [float(row[column]) for row in rows if row["label"] == name]
        ax.hist(values, bins=20, range=(0, top or 1), color=tuple(c / 255 for c in color), edgecolor="0.5")
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.spines[["top", "right"]].set_visible(False)
        if values:
            ax.axvline(float(np.mean(values)), color="0.5", linestyle="--")
    axes[-1].set_xlabel(
        "Dice (dashed: mean)" if column == "dice" else f"HD95, {test.summary.get('unit', 'px')} (dashed: mean)"
    )


def _text(value: float | None, digits: int) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.{digits}f}"
