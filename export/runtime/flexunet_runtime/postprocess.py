"""What is done with a mask behind the network: small parts of a class removed, holes filled.

The page in ``export/web`` does the same; a test compares the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST, SMALLEST, FILL = "largest", "smallest", "fill"
_MOST_STEPS = 1000
_LARGEST_AREA = 2**31


@dataclass(frozen=True)
class Step:
    """A step, done for one class.

    Attributes:
        label: Name of the class.
        kind: ``largest`` keeps the largest connected part alone; ``smallest`` removes parts of fewer pixels; ``fill``
            gives the class the background that it encloses.
        pixels: Of ``smallest``: the fewest that a part has which stays; 0 of the others.
    """

    label: str
    kind: str
    pixels: int = 0

    def plain(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {"class": self.label, "do": self.kind, **({"pixels": self.pixels} if self.kind == SMALLEST else {})}


def parse_steps(value: Any, names: Sequence[str]) -> tuple[Step, ...]:
    """Read steps from plain data, as a checkpoint and a model file hold them.

    Args:
        value: A list of mappings ``{"class": name, "do": kind, "pixels": number}``, or None.
        names: Of the classes, the background first, which no step is for.

    Returns:
        The steps.

    Raises:
        ValueError: If it is something else; the message is the end of a sentence about the file.
    """
    if value is None:
        return ()
    wrong = ValueError("has a postprocessing that is no list of steps for its classes")
    if not isinstance(value, list) or len(value) > _MOST_STEPS:
        raise wrong
    steps = []
    for item in value:
        if not isinstance(item, dict) or item.get("do") not in (LARGEST, SMALLEST, FILL):
            raise wrong
        pixels = item.get("pixels", 0)
        whole = type(pixels) is int or (isinstance(pixels, float) and pixels.is_integer())
        if item.get("class") not in names[1:] or not whole or not 0 <= pixels <= _LARGEST_AREA:
            raise wrong
        steps.append(Step(item["class"], item["do"], int(pixels)))
    return tuple(steps)


def postprocess(mask: NDArray[np.uint8], steps: Sequence[Step], names: Sequence[str]) -> NDArray[np.uint8]:
    """Apply steps to a mask, one after the other.

    Args:
        mask: Class index per pixel, shape ``(H, W)``, uint8.
        steps: The steps; pixels that they remove become background.
        names: Of the classes.

    Returns:
        A mask of the same shape; the same one where there is nothing to do.
    """
    for step in steps:
        index = names.index(step.label)
        chosen = mask == index
        if not chosen.any():
            continue
        mask = mask.copy()
        if step.kind == FILL:
            parts, areas = find_parts(~chosen, corners=False)
            rim = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
            inside = np.ones(len(areas), dtype=bool)
            inside[rim] = False
            inside[0] = False
            mask[inside[parts] & (mask == 0)] = index
        else:
            parts, areas = find_parts(chosen, corners=True)
            areas[0] = 0
            kept = areas >= step.pixels if step.kind == SMALLEST else np.arange(len(areas)) == areas.argmax()
            mask[chosen & ~kept[parts]] = 0
    return mask


def find_parts(chosen: NDArray[np.bool_], *, corners: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the connected parts of a picture, in the order of their first pixels, by rows.

    Args:
        chosen: The pixels, shape ``(H, W)``.
        corners: Whether pixels that touch at a corner are connected.

    Returns:
        Number of the part of each pixel, shape ``(H, W)``, 0 for the others; and pixels of each part, by number.
    """
    height, width = chosen.shape
    steps = np.diff(np.pad(chosen, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)  # of runs of pixels, by rows
    ends = np.nonzero(steps == -1)[1]
    # runs of the row above that touch a run: those between the first that ends behind its start and the last that
    # starts before its end
    reach, wide = int(corners), width + 3
    above = (rows - 1) * wide
    first = np.searchsorted(rows * wide + ends, above + starts - reach, side="right")
    behind = np.searchsorted(rows * wide + starts, above + ends + reach, side="left")
    counts = np.maximum(behind - first, 0)
    lower = np.repeat(np.arange(len(rows)), counts)
    upper = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    parent = np.arange(len(rows))
    while True:  # each run takes the least number of those that it touches, and then that of its own number
        before = parent.copy()
        least = np.minimum(parent[lower], parent[upper])
        np.minimum.at(parent, parent[lower], least)
        np.minimum.at(parent, parent[upper], least)
        parent = parent[parent]
        if np.array_equal(parent, before):
            break
    _, numbers = np.unique(parent, return_inverse=True)
    numbers = numbers.reshape(-1) + 1
    change = np.zeros((height, width + 1), dtype=np.int64)
    change[rows, starts] = numbers
    change[rows, ends] -= numbers
    areas = np.bincount(numbers, weights=ends - starts, minlength=int(numbers.max(initial=0)) + 1).astype(np.int64)
    areas[0] = chosen.size - int(areas.sum())
    return change.cumsum(axis=1)[:, :-1], areas
