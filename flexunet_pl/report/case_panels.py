"""The section with the best, the median and the worst cases, as pictures."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.images import ImageReader, resize_image
from flexunet_pl.io.masks import read_mask, resize_mask
from flexunet_pl.io.overlays import draw_overlay, fit_size
from flexunet_pl.report.blocks import Picture, Section, Table, Text, picture
from flexunet_pl.report.run_folder import Run, TestRun
from flexunet_pl.rgb_map import IGNORED
from flexunet_runtime.masks import as_rgb
from flexunet_runtime.window import Window

_SIDE = 256  # px, longer side of a panel
_HEADER = 20  # px
_OF_EACH = 2  # cases
_WRONG = {"missed": (64, 128, 255), "invented": (255, 64, 64), "another class": (255, 200, 0)}
_WRONG_COLORS = "missed blue, invented red, another class yellow"


@dataclass(frozen=True, order=True)
class _Ranked:
    dice: float
    name: str


def case_section(run: Run, test: TestRun) -> Section:
    """Show image, truth, prediction and errors of the best, the median and the worst cases.

    Args:
        run: The run.
        test: Its test.
    """
    ranked = _rank(test)
    blocks: list[Text | Table | Picture] = []
    for title, chosen in _choose(ranked).items():
        for number, case in enumerate(chosen, start=1):
            panels = _draw(run, test, case.name)
            if panels is not None:
                caption = f"{title}: {case.name}, Dice {case.dice:.3f} ({_per_class(test, case.name)})"
                blocks.append(picture(f"case_{title}_{number}", caption, panels))
    if not blocks:
        why = "No case shows a class." if not ranked else (
            "The test's images or its predicted masks are not there any more; `flexunet test` writes them again."
        )  # fmt: skip
        return Section("Cases", [Text(why)])
    legend = f"Image, truth, prediction, errors ({_WRONG_COLORS}); ranked by the mean Dice of the classes that show."
    return Section("Best, median and worst cases", [Text(legend), *blocks])


def _rank(test: TestRun) -> list[_Ranked]:
    by_case: dict[str, list[float]] = {}
    for row in test.cases:
        if row["state"] in {"present", "missed"}:
            by_case.setdefault(row["case"], []).append(float(row["dice"]))
    return sorted(_Ranked(float(np.mean(values)), name) for name, values in by_case.items())


def _choose(ranked: list[_Ranked]) -> dict[str, list[_Ranked]]:
    count, used = len(ranked), set()
    middle = max(0, math.ceil(count / 2) - 1)
    chosen: dict[str, list[_Ranked]] = {}
    for title, order in (
        ("worst", range(count)),
        ("best", range(count - 1, -1, -1)),
        ("median", sorted(range(count), key=lambda i: abs(i - middle))),
    ):
        free = [i for i in order if i not in used][:_OF_EACH]
        used.update(free)
        chosen[title] = [ranked[i] for i in free]
    return {title: chosen[title] for title in ("best", "median", "worst")}


def _per_class(test: TestRun, name: str) -> str:
    rows = [row for row in test.cases if row["case"] == name and row["state"] != "absent"]
    return ", ".join(
        f"{row['label']} {float(row['dice']):.3f}" if row["state"] == "present" else f"{row['label']} {row['state']}"
        for row in rows
    )


def _draw(run: Run, test: TestRun, name: str) -> NDArray[np.uint8] | None:
    """Draw the four panels of a case, or nothing where its files are gone."""
    predicted_file = test.folder / "masks" / f"{name}.png"
    pair = test.pairs.get(name)
    if pair is None or not predicted_file.is_file():
        return None
    model = run.config["model"]
    channels = int(model.get("in_channels") or 3)
    neighbours = int((run.config.get("data") or {}).get("neighbours") or 0)
    reader = ImageReader((_SIDE, _SIDE), channels, Window.parse(model.get("image_window")), neighbours).alone
    try:
        image, truth, predicted = (
            reader.read(pair.image),
            read_mask(pair.mask, run.rgb_map),
            read_mask(predicted_file, run.rgb_map),
        )
    except DataError:
        return None
    size = fit_size(image.shape, _SIDE)
    image = resize_image(image, size)
    image = np.ascontiguousarray(as_rgb(image))
    truth, predicted = (resize_mask(mask, size) for mask in (truth, predicted))
    panels = {
        "image": image,
        "truth": draw_overlay(image, truth, run.rgb_map),
        "prediction": draw_overlay(image, predicted, run.rgb_map),
        "errors": draw_errors(image, truth, predicted),
    }
    return _side_by_side(panels)


def draw_errors(image: NDArray[np.uint8], truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw where a prediction differs from the truth: missed blue, invented red, another class yellow.

    Args:
        image: Shape ``(H, W, 3)``, uint8.
        truth: Class index per pixel, shape ``(H, W)``, uint8.
        predicted: The same of the prediction.

    Returns:
        Shape ``(H, W, 3)``, uint8.
    """
    dark = (image // 2).astype(np.uint8)
    predicted = np.where(truth == IGNORED, truth, predicted)
    where = {
        "missed": (truth > 0) & (predicted == 0),
        "invented": (truth == 0) & (predicted > 0),
        "another class": (truth > 0) & (predicted > 0) & (truth != predicted),
    }
    for name, pixels in where.items():
        dark[pixels] = _WRONG[name]
    return dark


def _side_by_side(panels: dict[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    height, width = next(iter(panels.values())).shape[:2]
    canvas = Image.new("RGB", (len(panels) * width, height + _HEADER))
    draw = ImageDraw.Draw(canvas)
    for number, (title, panel) in enumerate(panels.items()):
        draw.text((number * width + 6, 3), title, fill="white", font=ImageFont.load_default(size=13))
        canvas.paste(Image.fromarray(panel), (number * width, _HEADER))
    return np.asarray(canvas)
