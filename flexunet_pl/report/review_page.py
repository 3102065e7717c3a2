"""The page of a review: labels that look wrong and images to label next, to be gone through by the keyboard."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray
from PIL import Image

from flexunet_pl.common.files import written_in_place
from flexunet_pl.io.decisions import FORMAT
from flexunet_pl.io.images import resize_image
from flexunet_pl.io.masks import resize_mask
from flexunet_pl.io.overlays import draw_overlay, fit_size
from flexunet_pl.report.case_panels import draw_errors
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.masks import as_rgb

_SIDE = 320  # px, longer side of a picture
_QUALITY = 85  # of JPEG


@dataclass(frozen=True)
class Item:
    """A case on the page.

    Attributes:
        name: Of the case; decisions name it.
        text: Why it stands there.
        pictures: JPEG files by title, as base64.
    """

    name: str
    text: str
    pictures: dict[str, str]


def draw_item(
    name: str,
    text: str,
    image: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    rgb_map: RgbMap,
    label: NDArray[np.uint8] | None = None,
) -> Item:
    """Draw a case: the image, its label where it has one, the prediction, and where the two differ.

    Args:
        name: Of the case.
        text: Why it stands there.
        image: Shape ``(H, W, C)``, uint8.
        predicted: Class index per pixel, shape ``(H, W)``, uint8.
        rgb_map: The classes.
        label: The same of its label.

    Returns:
        The case for the page.
    """
    size = fit_size(image.shape, _SIDE)
    small = np.ascontiguousarray(as_rgb(resize_image(image, size)))
    of_network = resize_mask(predicted, size)
    pictures = {"image": small}
    if label is not None:
        of_label = resize_mask(label, size)
        pictures["label"] = draw_overlay(small, of_label, rgb_map)
    pictures["prediction"] = draw_overlay(small, of_network, rgb_map)
    if label is not None:
        pictures["difference"] = draw_errors(small, of_label, of_network)
    return Item(name, text, {title: _jpeg(picture) for title, picture in pictures.items()})


def _jpeg(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=_QUALITY)
    return base64.b64encode(file.getvalue()).decode()


def write_review(path: Path, title: str, rgb_map: RgbMap, labels: Sequence[Item], images: Sequence[Item]) -> None:
    """Write the page, which needs nothing but itself.

    Args:
        path: The file.
        title: Its title.
        rgb_map: The classes.
        labels: Cases whose label may be wrong, the most suspicious first; these are decided on.
        images: Cases without a label, those to label first before the others.
    """
    environment = Environment(loader=PackageLoader("flexunet_pl.report", "."), autoescape=True, trim_blocks=True)
    classes = list(zip(rgb_map.names[1:], rgb_map.colors[1:], strict=True))
    page = environment.get_template("review.html.j2").render(
        title=title, classes=classes, labels=labels, images=images, format=FORMAT, key=f"flexunet: {title}"
    )
    with written_in_place(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
