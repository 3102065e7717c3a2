"""What a report is made of: sections of texts, tables and pictures, whatever it is written as."""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

_INK = "#010203"  # stands for the colour of the text around a chart, which is dark or light
_COLORED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: Plain text.
        kind: ``text``; ``warning``, which is set off; or ``code``, which keeps its lines and is folded away.
        title: What a folded text is.
    """

    text: str
    kind: str = "text"
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: One cell per column.
        rows: Cells, the first of each row names it.
        caption: What the numbers are.
        shades: Between 0 and 1, how dark each cell behind the first column is; empty for none.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    shades: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        name: Of its file, without a suffix.
        caption: What is to be seen.
        png: The picture.
        svg: The same as a drawing in the colour of the text around it, where it is a chart.
        wide: Whether it needs the whole width.
    """

    name: str
    caption: str
    png: bytes
    svg: str = ""
    wide: bool = True


@dataclass(frozen=True)
class Section:
    """A part of the report with a title of its own."""

    title: str
    blocks: Sequence[Text | Table | Picture]


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font does not have: the page's own font has them
        yield


def chart(
    name: str, caption: str, draw: Callable[[Figure], None], size: tuple[float, float] = (6, 3.4), *, wide: bool = False
) -> Picture:
    """Draw a chart as PNG, dark on white, and as SVG in the colour of the text around it.

    Args:
        name: Of its file.
        caption: What is to be seen.
        draw: Called with an empty figure.
        size: Width and height in inches.
        wide: Whether it needs the whole width.
    """
    png, svg = io.BytesIO(), io.StringIO()
    plain: Any = {"text.parse_math": False, "axes.unicode_minus": False}  # a name of a class may hold a dollar
    inked: Any = dict.fromkeys(_COLORED, _INK) | plain | {"svg.fonttype": "none", "svg.hashsalt": name}
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (plain, {"fname": png, "format": "png", "dpi": 110}),
        (inked, {"fname": svg, "format": "svg", "transparent": True, "metadata": {"Date": None, "Creator": None}}),
    ]
    for settings, options in kinds:
        with mpl.rc_context(settings), _quiet():
            figure = Figure(figsize=size, layout="constrained")
            draw(figure)
            figure.savefig(**options)
    drawing = svg.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(_INK, "currentColor")
    return Picture(name, caption, png.getvalue(), drawing, wide)


def picture(name: str, caption: str, pixels: NDArray[np.uint8], *, wide: bool = True) -> Picture:
    """Make a picture of pixels.

    Args:
        name: Of its file.
        caption: What is to be seen.
        pixels: Shape ``(H, W, 3)``, uint8.
        wide: Whether it needs the whole width.
    """
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, format="PNG", optimize=True)
    return Picture(name, caption, png.getvalue(), wide=wide)
