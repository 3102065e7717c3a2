"""The sections on how a network was trained: curves, film strip, data, and what was run."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray

from flexunet_pl.common.console import show_progress
from flexunet_pl.common.errors import DataError
from flexunet_pl.common.processes import map_processes
from flexunet_pl.io.film_strip import cut_strip
from flexunet_pl.io.images import read_image
from flexunet_pl.io.masks import read_mask
from flexunet_pl.report.blocks import Picture, Section, Table, Text, chart, picture
from flexunet_pl.report.run_folder import Run
from flexunet_pl.rgb_map import RgbMap

_CURVES = {
    "train_losses": "Loss.",
    "train_dice": "Dice, mean over the classes but the background.",
    "train_metrics": "dice_coef_multiclass: the original's score, which counts the background.",
    "learning_rate": "Learning rate.",
}
_FEW = 500  # masks, below which starting processes takes longer than reading


def curve_section(run: Run) -> Section:
    """Show the course of the training.

    Args:
        run: The run.
    """
    charts = [
        chart(name, caption, partial(_draw_curves, columns=run.curves[name], log=name == "learning_rate"))
        for name, caption in _CURVES.items()
        if name in run.curves
    ]
    return Section("Training", charts or [Text("The run has no curves yet.")])


def film_section(run: Run) -> Section:
    """Show what the network made of a few images at the beginning, in the middle and at the end.

    Args:
        run: The run.
    """
    path = run.folder / "epoch_change" / "film_strip.png"
    if not path.is_file():
        return Section(
            "Epoch by epoch", [Text("There is no film strip: epoch_change.num_images was 0, or no epoch ended.")]
        )
    try:
        strip = cut_strip(read_image(path))
    except (DataError, ValueError) as error:
        return Section("Epoch by epoch", [Text(f"The film strip cannot be shown: {error}", "warning")])
    caption = (
        "The images, their truth where there is one, and the prediction after the first, the middle and the last epoch."
    )
    return Section("Epoch by epoch", [picture("film_strip", caption, strip)])


def data_section(run: Run) -> Section:
    """Show how much there is of what, and what the network was given.

    Args:
        run: The run.
    """
    recorded = run.record.get("data") or {}
    pairs = {split: run.pairs(split) for split in ("train", "valid")}
    pairs["test"] = list(run.test.pairs.values()) if run.test is not None else run.pairs("test")
    blocks: list[Text | Table | Picture] = []
    rows = []
    counts = {}
    for split, files in pairs.items():
        known = recorded.get(split) or {}
        if not files and not known:
            continue
        try:
            counts[split] = _count([pair.mask for pair in files], run.rgb_map)
        except DataError as error:
            blocks.append(Text(f"The masks of {split} cannot be counted: {error}", "warning"))
        missing = "not trained on" if recorded else "not recorded"
        digest = f"{known['sha256'][:16]} ({known['hashed']})" if known else missing
        rows.append([split, str(known.get("pairs", len(files))), digest])
    if rows:
        blocks.append(Table(["", "images", "SHA-256"], rows, "The hash is of the files that were trained on."))
    if counts:
        caption = "Share of the images that show a class, and of all pixels, split by split."
        blocks.append(Table(*_balance(counts, run.rgb_map), caption))
    else:
        blocks.append(Text("The data are not where they were, so that classes cannot be counted."))
    samples = run.folder / "train_samples.png"
    if samples.is_file():
        caption = "The first training images as the network was given them, augmented, each beside its mask."
        try:
            blocks.append(picture("train_samples", caption, read_image(samples)))
        except DataError as error:
            blocks.append(Text(f"The training samples cannot be shown: {error}", "warning"))
    return Section("Data", blocks)


def run_section(run: Run) -> Section:
    """Show what was run, on what.

    Args:
        run: The run.
    """
    versions = run.record.get("versions") or {}
    facts = {
        "folder": str(run.folder),
        "seed": str(run.config.get("seed_everything")),
        "classes": ", ".join(run.rgb_map.names),
        "image size": "x".join(map(str, run.config["model"].get("image_size") or ())),
        "network": _class_path(run.config["model"].get("network")) or "flexunet_pl.models.FlexUNet",
        "parameters": f"{run.record['parameters']:,}" if "parameters" in run.record else "not recorded",
        "device": str(run.record.get("device", "not recorded")),
        "precision": str(run.record.get("precision", "not recorded")),
        **{name: str(number) for name, number in versions.items()},
    }
    rows = [[name, value] for name, value in facts.items()]
    return Section("What was run", [Table(["", ""], rows), Text(run.config_text, "code", "config.yaml")])


def _draw_curves(figure: Figure, columns: dict[str, list[float]], *, log: bool) -> None:
    axes = figure.subplots()
    epochs = np.asarray(columns.get("epoch", []))
    for name, values in columns.items():
        points = np.asarray(values)
        known = np.isfinite(points)
        if name != "epoch" and known.any():
            axes.plot(epochs[known], points[known], marker=".", label=name)
    axes.set_xlabel("epoch")
    if log:
        axes.set_yscale("log")
        for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            set_formatter(LogFormatter())  # the usual one writes formulas, which charts here show as they are
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(columns) > 2:
        axes.legend(frameon=False)


def _count(masks: Sequence[Path], rgb_map: RgbMap) -> NDArray[np.int64]:
    """Count the pixels of each class in each mask, shape (masks, K)."""
    counted = map_processes(partial(_count_one, rgb_map=rgb_map), masks, chunk=16, few=_FEW)
    rows = list(show_progress(counted, "counting classes", len(masks)))
    return np.asarray(rows, dtype=np.int64).reshape(len(masks), len(rgb_map))


def _count_one(mask: Path, rgb_map: RgbMap) -> list[int]:
    return [int(n) for n in np.bincount(read_mask(mask, rgb_map).ravel(), minlength=len(rgb_map))[: len(rgb_map)]]


def _balance(counts: dict[str, NDArray[np.int64]], rgb_map: RgbMap) -> tuple[list[str], list[list[str]]]:
    known = {split: of_split for split, of_split in counts.items() if len(of_split)}
    header = ["", *(f"{split}, {what}" for split in known for what in ("images", "pixels"))]
    rows = []
    for k, name in enumerate(rgb_map.names):
        cells = [
            f"{share:.2%}"
            for of_split in known.values()
            for share in (np.mean(of_split[:, k] > 0), of_split[:, k].sum() / of_split.sum())
        ]
        rows.append([name, *cells])
    return header, rows


def _class_path(network: Any) -> str:
    return str(network.get("class_path", "")) if isinstance(network, dict) else ""
