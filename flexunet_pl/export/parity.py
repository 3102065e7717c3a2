"""The proof that an exported file does what the checkpoint does: the same images through torch and each engine."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from flexunet_pl.common.console import harmless
from flexunet_pl.common.errors import RunFailedError
from flexunet_pl.common.files import written_in_place
from flexunet_pl.export.engines import Image, Measured, list_engines, run_engine
from flexunet_pl.export.onnx_file import Source
from flexunet_pl.metrics.per_case import measure_case

TOLERANCE = 1e-4  # of probabilities, and as the share of pixels whose class differs


@dataclass(frozen=True)
class Row:
    """An engine against torch.

    Attributes:
        engine: Its name.
        probability_difference: The largest one; NaN where the file gives no probabilities.
        pixels_differ: Share of the pixels of another class.
        dice: Dice of its masks with torch's, per class, mean over the images in which one of them shows it.
        load_s: Seconds to load the file.
        image_s: Seconds per image.
        peak_mb: Largest memory of its process, in 1e6 bytes.
    """

    engine: str
    probability_difference: float
    pixels_differ: float
    dice: dict[str, float]
    load_s: float
    image_s: float
    peak_mb: float


def prove_parity(source: Source, path: Path, images: Sequence[Image]) -> list[Row]:
    """Run images through torch and through each engine that is installed.

    Args:
        source: The checkpoint.
        path: The ONNX file.
        images: Shape ``(H, W, 3)``, uint8 each.

    Returns:
        A row per engine, torch first.

    Raises:
        RunFailedError: If an engine's masks have another size than the images.
    """
    torch_run = run_torch(source, images)
    runs = {"torch": torch_run} | {engine: run_engine(engine, path, images) for engine in list_engines()}
    for engine, run in runs.items():
        for mask, image in zip(run.masks, images, strict=True):
            if mask.shape != image.shape[:2]:
                raise RunFailedError(
                    f"not written: with {engine} an image of {image.shape[:2]} px gets a mask of {mask.shape}"
                )
    return [_compare(engine, run, torch_run, source.rgb_map.names) for engine, run in runs.items()]


def run_torch(source: Source, images: Sequence[Image]) -> Measured:
    """Run images through the graph in torch, in this process.

    Args:
        source: The checkpoint.
        images: Shape ``(H, W, 3)``, uint8 each.

    Returns:
        Results and measurements; the memory is not measured.
    """
    model = source.deployed(probabilities=True)
    masks, probabilities, seconds = [], [], []
    with torch.inference_mode():
        for image in images:
            began = time.perf_counter()
            mask, of_image = model(torch.tensor(image)[None])
            seconds.append(time.perf_counter() - began)
            masks.append(mask[0].numpy())
            probabilities.append(of_image[0].numpy())
    return Measured(masks, probabilities, float("nan"), float(np.median(seconds[1:] or seconds)), float("nan"))


def check_parity(rows: Sequence[Row], path: Path) -> None:
    """Refuse a file that does something else than the checkpoint.

    Args:
        rows: Of `prove_parity`.
        path: The file, for the message.

    Raises:
        RunFailedError: If probabilities or masks differ by more than the tolerance.
    """
    for row in rows:
        if row.probability_difference > TOLERANCE or row.pixels_differ > TOLERANCE:
            raise RunFailedError(
                f"{path}: not written: with {row.engine} probabilities differ by {row.probability_difference:.2g} and "
                f"{row.pixels_differ:.2%} of the pixels are of another class; the limit is {TOLERANCE:g} for both"
            )


def print_parity(rows: Sequence[Row], images: int, size: int) -> None:
    """Print the rows as a table.

    Args:
        rows: Of `prove_parity`.
        images: How many were compared.
        size: Bytes of the file.
    """
    table = Table("", *(row.engine for row in rows), title=f"parity on {images} images, file {size / 1e6:.1f} MB")
    table.title_justify = "left"
    table.add_row("largest difference of a probability", *(_text(r.probability_difference, ".1e") for r in rows))
    table.add_row("pixels of another class", *(f"{r.pixels_differ:.4%}" for r in rows))
    for name in rows[0].dice:
        table.add_row(f"Dice with torch, {harmless(name)}", *(_text(r.dice[name], ".4f") for r in rows))
    table.add_row("seconds to load", *(_text(r.load_s, ".2f") for r in rows))
    table.add_row("seconds per image", *(_text(r.image_s, ".3f") for r in rows))
    table.add_row("peak memory (MB)", *(_text(r.peak_mb, ".0f") for r in rows))
    Console().print(table)


def write_parity(rows: Sequence[Row], path: Path, facts: dict[str, Any]) -> None:
    """Write the rows as JSON.

    Args:
        rows: Of `prove_parity`.
        path: The file.
        facts: What else belongs to them.
    """
    plain = [{key: _plain(value) for key, value in asdict(row).items()} for row in rows]
    with written_in_place(path) as temporary:
        temporary.write_text(json.dumps({**facts, "engines": plain}, indent=1) + "\n", encoding="utf-8")


def mean_dice(masks: Sequence[Image], others: Sequence[Image], class_names: Sequence[str]) -> dict[str, float]:
    """Return the Dice of two sets of masks, per class but the background.

    Args:
        masks: Class indices, shape ``(H, W)`` each.
        others: The same of the other set.
        class_names: Names in class order.

    Returns:
        Means over the images in which one of the two shows the class; NaN where none does.
    """
    found: dict[str, list[float]] = {name: [] for name in class_names[1:]}
    for one, other in zip(masks, others, strict=True):
        for score in measure_case("", "", one, other, class_names, None):
            if not np.isnan(score.values["dice"]):
                found[score.label].append(score.values["dice"])
    return {name: float(np.mean(values)) if values else float("nan") for name, values in found.items()}


def _compare(engine: str, measured: Measured, reference: Measured, class_names: Sequence[str]) -> Row:
    differ = sum(int(np.count_nonzero(a != b)) for a, b in zip(measured.masks, reference.masks, strict=True))
    largest = float("nan")
    if measured.probabilities:
        pairs: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = list(
            zip(measured.probabilities, reference.probabilities, strict=True)
        )
        largest = max(float(np.abs(a - b).max()) for a, b in pairs)
    return Row(
        engine,
        largest,
        differ / sum(mask.size for mask in reference.masks),
        mean_dice(measured.masks, reference.masks, class_names),
        measured.load_s,
        measured.image_s,
        measured.peak_mb,
    )


def _text(value: float, form: str) -> str:
    return "-" if np.isnan(value) else format(value, form)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
