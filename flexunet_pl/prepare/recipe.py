"""Recipe: how the files of a download become slices with masks, read from YAML."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.common.yaml import read_yaml_text
from flexunet_pl.rgb_map import IGNORED, RgbMap
from flexunet_runtime.window import Window

_FIELDS = {"patient": "(?P<patient>[^/]+?)", "name": "(?P<name>[^/]+?)", "slice": "(?P<slice>[0-9]+)"}
_NOTES = {"title", "source", "license", "original_split"}  # for the reader
_KEYS = _NOTES | {"images", "masks", "labels", "rgb_map", "window", "percentiles", "keep_together", "drop_empty"}


@dataclass(frozen=True)
class Case:
    """An image with its mask, as pictures or as volumes.

    Attributes:
        stem: What the names of its slices begin with.
        image: Name of the image in the download; a folder of DICOM files ends with a slash.
        mask: Name of the mask.
    """

    stem: str
    image: str
    mask: str


@dataclass(frozen=True)
class Recipe:
    """How the files of a download become slices with masks.

    Attributes:
        name: Of the recipe.
        text: The YAML.
        images: Names of the images, with ``{patient}``, ``{slice}`` or ``{name}`` for what varies.
        masks: The same for the masks.
        rgb_map: Classes and their colours: those to write, and for pictures those of the source.
        labels: Class index of each value of a label volume; None where the source has pictures.
        window: Lowest and highest value of a volume that are told apart.
        percentiles: The same as percentiles of each volume.
        keep_together: "patient", or how many consecutive slices stay on one side of a split where patients are unknown.
        drop_empty: Whether slices without a class but the background are left out.
    """

    name: str
    text: str
    images: tuple[str, ...]
    masks: tuple[str, ...]
    rgb_map: RgbMap
    labels: dict[int, int] | None = None
    window: Window | None = None
    percentiles: tuple[float, float] | None = None
    keep_together: str | int = "patient"
    drop_empty: bool = False

    def group_of(self, stem: str) -> str:
        """Return what a slice must stay together with: its patient, or its neighbours.

        Args:
            stem: Of a slice that was made by this recipe.
        """
        if isinstance(self.keep_together, int):
            numbers = re.findall(r"[0-9]+", stem)
            return f"{int(numbers[-1]) // self.keep_together:05d}" if numbers else stem
        numbered = self.labels is not None or all("{slice}" in pattern for pattern in self.images)
        return stem.rpartition("_")[0] if numbered else stem

    def case_of(self, stem: str) -> str:
        """Return the stem of the case that a slice was made of.

        Args:
            stem: Of a slice that was made by this recipe.
        """
        return stem.rpartition("_")[0] if self.labels is not None else stem

    def find_cases(self, names: Sequence[str]) -> tuple[list[Case], list[str]]:
        """Pair images with masks.

        Args:
            names: Of all files of the download.

        Returns:
            The cases, and the names that have no partner.

        Raises:
            DataError: If there is no case, or two files are the same one's image or mask.
        """
        folders = sorted({f"{parent}/" for name in names for parent in _parents(name)})
        found: list[dict[tuple[str, ...], tuple[str, str]]] = []
        for patterns in (self.images, self.masks):
            matches: dict[tuple[str, ...], tuple[str, str]] = {}
            for name in [*names, *folders]:
                match = _first_match(patterns, name)
                if match is None:
                    continue
                key = tuple(f"{k}={v}" for k, v in sorted(match.groupdict().items()))
                if key in matches:
                    raise DataError(f"{name}: is as good a file for this place as {matches[key][1]}; remove one")
                matches[key] = (_stem(self.name, match), name)
            found.append(matches)
        images, masks = found
        cases = [Case(images[key][0], images[key][1], masks[key][1]) for key in sorted(images.keys() & masks.keys())]
        twins = {case.stem: case for case in cases}
        for case in cases:
            if twins[case.stem] is not case:
                raise DataError(f"{case.image}: would be written to the place of {twins[case.stem].image}; rename one")
        if not cases:
            raise DataError(
                f"no image with its mask was found; recipe {self.name} looks for {' or '.join(self.images)} and "
                f"{' or '.join(self.masks)}, at any depth"
            )
        lonely = [one[key][1] for one, other in ((images, masks), (masks, images)) for key in one.keys() - other.keys()]
        return cases, sorted(lonely)


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _first_match(patterns: Sequence[str], name: str) -> re.Match[str] | None:
    return next((match for pattern in patterns if (match := _compiled(pattern).fullmatch(name))), None)


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", pattern)
    fixed, fields = parts[::2], parts[1::2]
    body = re.escape(fixed[0])
    for at, (field, text) in enumerate(zip(fields, fixed[1:], strict=True)):
        body += (f"(?P={field})" if field in fields[:at] else _FIELDS[field]) + re.escape(text)
    return re.compile(f"(?:.*/)?{body}")


def _stem(recipe: str, match: re.Match[str]) -> str:
    values = match.groupdict()
    if "name" in values:
        return str(values["name"])
    words = [values.get("patient", recipe)]
    if "slice" in values:
        words.append(f"{int(values['slice']):03d}")
    return "_".join(words)


def list_recipes() -> dict[str, Path]:
    """Return the recipes that come with the package, by name."""
    package = Path(__file__).parent.parent
    places = (package / "recipes", package.parent / "data" / "recipes")  # installed, or run from a clone
    return {path.parent.name: path for place in places for path in sorted(place.glob("*/recipe.yaml"))}


def read_recipe(name: str) -> Recipe:
    """Read a recipe.

    Args:
        name: Of one that comes with the package, or path of a YAML file.

    Returns:
        The recipe.

    Raises:
        UserError: If there is none, or it is wrong; the message names the key.
    """
    known = list_recipes()
    path = known.get(name, Path(name))
    if not path.is_file():
        raise UserError(f"{name}: no such recipe; there are {', '.join(known)}, or give the path of a YAML file")
    content, text = read_yaml_text(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no keys; see the recipes in data/recipes")
    try:
        return _parse(path, name if name in known else path.stem, text, content)
    except (ValueError, TypeError, UserError) as error:
        raise UserError(f"{path}: {error}") from error


def _parse(path: Path, name: str, text: str, content: dict[str, Any]) -> Recipe:
    """Turn the content of a file into a recipe.

    Raises:
        ValueError: If a key is missing, unknown, or has a value that does not fit.
        TypeError: If one has a value of the wrong kind.
    """
    unknown, missing = sorted(map(str, content.keys() - _KEYS)), sorted({"images", "masks", "rgb_map"} - content.keys())
    if unknown or missing:
        raise ValueError(f"unknown keys {unknown}, missing keys {missing}; known are {', '.join(sorted(_KEYS))}")
    rgb_map = RgbMap.parse(content["rgb_map"])
    together = content.get("keep_together", "patient")
    if together != "patient" and not (_is_whole(together) and together > 0):
        raise ValueError(f"keep_together is {together!r}; expected `patient` or a number of slices")
    images, drop_empty = _patterns("images", content["images"]), content.get("drop_empty", False)
    if not isinstance(drop_empty, bool):
        raise TypeError(f"drop_empty is {drop_empty!r}; expected true or false, without quotes")
    if together == "patient" and content.get("labels") is None and not all("{patient}" in p for p in images):
        raise ValueError("keep_together is patient, but images has no {patient}; give a number of neighbours")
    percentiles = _range("percentiles", content.get("percentiles"))
    if percentiles is not None and not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ValueError(f"percentiles is {list(percentiles)}; expected two of 0 to 100")
    return Recipe(
        name=name,
        text=text,
        images=images,
        masks=_patterns("masks", content["masks"]),
        rgb_map=rgb_map,
        labels=_labels(content.get("labels"), rgb_map),
        window=Window.parse(content.get("window")),
        percentiles=percentiles,
        keep_together=together,
        drop_empty=drop_empty,
    )


def _patterns(key: str, value: Any) -> tuple[str, ...]:
    patterns = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ValueError(f"{key} is {value!r}; expected a name, or a list of names")
    wrong = [field for pattern in patterns for field in re.findall(r"\{(\w*)\}", pattern) if field not in _FIELDS]
    if wrong:
        raise ValueError(f"{key}: there is no field {{{wrong[0]}}}; use {', '.join(f'{{{f}}}' for f in _FIELDS)}")
    return patterns


def _range(key: str, value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    numbers = [float(number) for number in value] if isinstance(value, list) else []
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)) or not numbers[0] < numbers[1]:
        raise ValueError(f"{key} is {value!r}; expected two numbers, the lower one first")
    return float(value[0]), float(value[1])


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _labels(value: Any, rgb_map: RgbMap) -> dict[int, int] | None:
    if value is None:
        return None
    names = rgb_map.with_ignored.names
    if not isinstance(value, dict) or set(value) != set(names):
        raise ValueError(f"labels is {value!r}; expected the label value of each of {', '.join(names)}")
    labels: dict[int, int] = {}
    for name, values in value.items():
        for number in values if isinstance(values, list) else [values]:
            if not _is_whole(number) or number in labels:
                raise ValueError(f"labels.{name} is {values!r}; expected whole numbers, each of one class alone")
            labels[number] = rgb_map.names.index(name) if name in rgb_map.names else IGNORED
    return labels
