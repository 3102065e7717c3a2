"""What an exported model says of itself. The page in ``export/web`` reads it by the same rules and in the same words.

``tests/export/metadata_cases.json`` holds what both must make of it.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from flexunet_runtime.postprocess import Step, parse_steps

MAX_CLASSES = 256  # a mask has a byte per pixel
# of the first one the classes stand in an object, whose order not every reader keeps; the third has steps behind the
# network, which a reader of the second would leave out
FORMAT, WITHOUT_STEPS = 3, 2

_MOST_CHARACTERS = 1_000_000
_LONGEST_NAME = 200
_LARGEST_SIDE = 65_536
_DEEPEST = 100
_MOST_DIGITS = 300  # of a whole number
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
# control characters, ends of lines, changes of direction, halves of letters
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FOREIGN = "was not exported by flexunet: it does not name its classes"


@dataclass(frozen=True)
class Metadata:
    """What a model says of itself.

    Attributes:
        names: Of the classes, the background first.
        colors: Of the classes, R, G, B.
        image_size: Height and width of the network's images.
        fixed_size: Height and width that images must have; None for any.
        image_window: Values that become black and white in images of more than 8 bits.
        volume_window: The same in volumes and DICOM.
        postprocessing: What is done with a mask behind the network.
        content: All of it.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    image_size: tuple[int, int]
    fixed_size: tuple[int, int] | None
    image_window: tuple[float, float] | None
    volume_window: tuple[float, float] | None
    postprocessing: tuple[Step, ...]
    content: dict[str, Any]


def read_metadata(text: str) -> Metadata:
    """Read what an exported model says of itself.

    Args:
        text: The JSON that stands in the file under ``flexunet``.

    Returns:
        What it says.

    Raises:
        ValueError: If it is not what flexunet writes; the message is the end of a sentence about the file.
    """
    content = _parse(text)
    classes = _classes(content)
    if content.get("in_channels", 3) not in (1, 3) or isinstance(content.get("in_channels", 3), bool):
        raise ValueError("takes images of other channels than R, G, B or grey")
    size = _size(content, "image_size")
    if size is None:
        raise ValueError(f"has an image_size that is no height and width of 1 to {_LARGEST_SIDE}")
    names = tuple(name for name, _ in classes)
    return Metadata(
        names=names,
        colors=tuple((int(r), int(g), int(b)) for _, (r, g, b) in classes),
        image_size=size,
        fixed_size=_size(content, "fixed_size"),
        image_window=_window(content, "image_window"),
        volume_window=_window(content, "volume_window"),
        postprocessing=parse_steps(content.get("postprocessing"), names),
        content=content,
    )


def _classes(content: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    """Return names and colours.

    Raises:
        ValueError: If they are not what flexunet writes.
    """
    number = 1 if content.get("format") is None else content["format"]
    if not _is_whole(number, 1, math.inf) or number > FORMAT:
        raise ValueError("is of a format that this program does not know; update it")
    classes = content.get("classes") if number > 1 else _of_object(content.get("rgb_map"))
    if not isinstance(classes, list):
        raise ValueError(_FOREIGN)  # noqa: TRY004 - it is the file's fault
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise ValueError(f"names {len(classes)} classes; expected 2 to {MAX_CLASSES}")
    for item in classes:
        if not isinstance(item, list) or len(item) != 2:
            raise ValueError(_FOREIGN)
        name, color = item
        if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_NAME or _HARMFUL.search(name):
            raise ValueError(f"has a class whose name is no plain text of 1 to {_LONGEST_NAME} letters")
        if not isinstance(color, list) or len(color) != 3 or not all(_is_whole(level, 0, 255) for level in color):
            raise ValueError("has a class whose colour is not three whole numbers of 0 to 255")
    if len({name for name, _ in classes}) < len(classes):
        raise ValueError("names a class twice")
    return [(name, color) for name, color in classes]


def _parse(text: str) -> dict[str, Any]:
    if not text or len(text) > _MOST_CHARACTERS or _depth(text) > _DEEPEST:
        raise ValueError(_FOREIGN)
    try:
        content = json.loads(text, parse_constant=_refuse, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise ValueError(_FOREIGN) from error
    if not isinstance(content, dict) or not _is_of_numbers(content):
        raise ValueError(_FOREIGN)
    return content


def _depth(text: str) -> int:
    deepest = depth = 0
    for bracket in re.findall(r"[][{}]", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


def _is_of_numbers(value: Any) -> bool:
    """Tell whether all numbers are ones that a computer holds."""
    if isinstance(value, dict | list):
        return all(map(_is_of_numbers, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _of_object(rgb_map: Any) -> Any:
    return [[name, color] for name, color in rgb_map.items()] if isinstance(rgb_map, dict) else None


def _is_whole(value: Any, low: float, high: float) -> bool:
    # in JavaScript 1.0 is the same as 1
    number = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    return number and (isinstance(value, int) or value.is_integer())


def _size(content: dict[str, Any], key: str) -> tuple[int, int] | None:
    size = content.get(key)
    if size is None:
        return None
    if not isinstance(size, list) or len(size) != 2 or not all(_is_whole(n, 1, _LARGEST_SIDE) for n in size):
        article = "a" if key.startswith("f") else "an"
        raise ValueError(f"has {article} {key} that is no height and width of 1 to {_LARGEST_SIDE}")
    return int(size[0]), int(size[1])


def _window(content: dict[str, Any], key: str) -> tuple[float, float] | None:
    window = content.get(key)
    if window is None:
        return None
    numbers = isinstance(window, list) and len(window) == 2 and all(_is_finite(n) for n in window)
    if not numbers or not window[0] < window[1]:
        raise ValueError(f"has {'a' if key.startswith('v') else 'an'} {key} that is no lowest and highest value")
    return float(window[0]), float(window[1])


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300
