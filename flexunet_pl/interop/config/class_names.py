"""Class names from the comments beside a ``rgb_map``, such as ``Liver:blue, tumor:red``."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from flexunet_pl.rgb_map import Color

BACKGROUND = "background"

# what people call a colour, and the colours that they call so
_COLORS: dict[str, tuple[Color, ...]] = {
    "black": ((0, 0, 0),),
    "white": ((255, 255, 255),),
    "red": ((255, 0, 0), (180, 20, 20)),
    "green": ((0, 255, 0), (0, 128, 0)),
    "lime": ((0, 255, 0),),
    "blue": ((0, 0, 255), (0, 0, 128)),
    "navy": ((0, 0, 128),),
    "yellow": ((255, 255, 0),),
    "cyan": ((0, 255, 255),),
    "aqua": ((0, 255, 255),),
    "magenta": ((255, 0, 255),),
    "mazenta": ((255, 0, 255),),  # seen in the wild
    "fuchsia": ((255, 0, 255),),
    "orange": ((255, 165, 0), (255, 128, 0)),
    "purple": ((128, 0, 128), (160, 32, 240)),
    "violet": ((238, 130, 238), (128, 0, 255)),
    "pink": ((255, 192, 203), (255, 105, 180)),
    "brown": ((165, 42, 42), (139, 69, 19)),
    "maroon": ((128, 0, 0),),
    "olive": ((128, 128, 0),),
    "teal": ((0, 128, 128),),
    "gray": ((128, 128, 128),),
    "grey": ((128, 128, 128),),
}
_NEAR = 80  # largest distance between a colour and what its word stands for
_WORD = re.compile(rf"[:=]\s{{0,8}}(?:(?:dark|light)[_ -]?)?({'|'.join(_COLORS)})\b", re.IGNORECASE)
_ENDS = re.compile(r"[,;:={}\[\]]")  # what ends the text before a name
_LONGEST = 64  # characters of a name


def name_classes(colors: Sequence[Color], comments: Iterable[str]) -> tuple[list[str], bool]:
    """Name the classes of a map after the ``name:colour`` pairs in comments, where the colour word fits one class.

    Args:
        colors: Colour of each class, the background first.
        comments: What stands beside the map, free text.

    Returns:
        A name per class, ``class_<index>`` where no pair fits, and whether a comment gave any of them.
    """
    names = [BACKGROUND, *(f"class_{i}" for i in range(1, len(colors)))]
    found: dict[int, str] = {}
    for comment in comments:
        for name, word in _pairs(comment):
            index = _nearest(word, colors)
            if index:
                found[index] = name
    counts = Counter(found.values())
    for index, name in found.items():
        if name and counts[name] == 1 and name not in names:
            names[index] = name
    return names, any(names[index] == name for index, name in found.items())


def _pairs(comment: str) -> Iterator[tuple[str, str]]:
    """Find the names that stand before a colour's word, and the words."""
    end = 0
    for match in _WORD.finditer(comment):
        before = _ENDS.split(comment[end : match.start()])[-1]
        name = re.sub(r"\W+", "_", before.strip()).strip("_")
        if name and not name[0].isdigit() and len(name) <= _LONGEST:
            yield name, match[1].lower()
        end = match.end()


def _nearest(word: str, colors: Sequence[Color]) -> int | None:
    """Return the class whose colour a word stands for, None where there is none or more than one."""
    near = [
        i
        for i, color in enumerate(colors)
        if any(sum((a - b) ** 2 for a, b in zip(color, meant, strict=True)) <= _NEAR**2 for meant in _COLORS[word])
    ]
    exact = [i for i in near if colors[i] in _COLORS[word]]
    best = exact if len(exact) == 1 else near
    return best[0] if len(best) == 1 else None
