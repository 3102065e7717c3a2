"""The slices before and behind one, by the numbers that their files' names end in."""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from flexunet_pl.common.errors import DataError

_NUMBERED = re.compile(r"(.*?)(\d{1,12})")


def slices_around(path: Path, count: int) -> list[Path]:
    """Return a slice with those before and behind it, of the same patient and in the same folder.

    A name is the patient's, followed by the slice's number. The next slice is the one whose number is one step away,
    the smallest that lies between two slices of the patient. At a patient's borders, and where a slice is missing, the
    nearest one is repeated.

    Args:
        path: The slice.
        count: How many before it, and behind it.

    Returns:
        ``2 * count + 1`` files.

    Raises:
        DataError: If the name does not end in a number.
    """
    patient, number = _parse(path)
    numbers, step = _series(path.parent, path.parent.stat().st_mtime_ns, path.suffix.lower()).get(patient, ({}, 1))
    before, behind = [path], [path]
    for way, found in ((-step, before), (step, behind)):
        for k in range(1, count + 1):
            found.append(numbers.get(number + way * k, found[-1]))
    return [*before[:0:-1], path, *behind[1:]]


def check_numbered(images: Sequence[Path]) -> None:
    """Refuse images of which none has a neighbour.

    Args:
        images: The files.

    Raises:
        DataError: If a name does not end in a number, or no slice has another beside it.
    """
    if images and all(len(set(slices_around(path, 1))) == 1 for path in images):
        raise DataError(
            f"{images[0].parent}: no slice has a neighbour by its number, as in liver_10.png and liver_11.png; set "
            "data.neighbours to 0, or rename the files"
        )


def _parse(path: Path) -> tuple[str, int]:
    match = _NUMBERED.fullmatch(path.stem)
    if match is None:
        raise DataError(
            f"{path}: its name does not end in the number of a slice, by which data.neighbours finds those beside it; "
            "rename it, or set data.neighbours to 0"
        )
    return match[1], int(match[2])


@lru_cache(maxsize=64)
def _series(folder: Path, changed: int, suffix: str) -> dict[str, tuple[dict[int, Path], int]]:
    """Return the slices of a folder by patient and number, with each patient's step; anew where the folder changed."""
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _NUMBERED.fullmatch(path.stem)
        if match is not None and path.suffix.lower() == suffix and not path.name.startswith("."):
            found.setdefault(match[1], {})[int(match[2])] = path
    return {patient: (numbers, _step(list(numbers))) for patient, numbers in found.items()}


def _step(numbers: Sequence[int]) -> int:
    return min((two - one for one, two in pairwise(sorted(numbers))), default=1)
