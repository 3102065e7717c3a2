"""What a plan must know of a data set: sizes, patients, classes and how small they are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.console import show_progress
from flexunet_pl.common.errors import DataError
from flexunet_pl.common.processes import map_processes
from flexunet_pl.data.splits import list_split, split_folder
from flexunet_pl.io.images import read_image
from flexunet_pl.io.mask_colors import UnknownColors
from flexunet_pl.io.masks import read_mask
from flexunet_pl.io.neighbours import check_numbered
from flexunet_pl.io.pairing import PairingRule
from flexunet_pl.io.pairs import Pair, size_mismatch
from flexunet_pl.io.patient_ids import copy_source, group_of
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.window import Window

_FEW = 64  # pairs, below which starting processes takes longer than reading
_MOST = 2000  # pairs that are read, evenly chosen: more change no decision
_SMALL = 0.05  # share of a class's pixels that lie in its smallest components: a pixel beside a mask is no lesion


@dataclass(frozen=True)
class PairFacts:
    """What is known of an image and its mask.

    Attributes:
        size: Height and width, px.
        is_grey: Whether all channels are equal.
        grey: 5th and 95th percentile of the values, 0..255.
        pixels: Of each class.
        components: Area of each connected component, px, by class.
    """

    size: tuple[int, int]
    is_grey: bool
    grey: tuple[float, float]
    pixels: tuple[int, ...]
    components: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ClassFacts:
    """What is known of a class.

    Attributes:
        share: Of all pixels of the training masks.
        images: Training images that show it.
        smallest: Area of its small components, px: 5 % of its pixels lie in components of this size or less; 0 where
            there is none.
    """

    share: float
    images: int
    smallest: int


@dataclass(frozen=True)
class DataFacts:
    """What is known of a data set.

    Attributes:
        images: Number of images in train and valid.
        read: Number of training images that were read, evenly chosen where there are many; what is counted below is
            counted in these.
        patients: Number of patients in train and valid; None where names do not tell.
        size: Median height and width of the training images, px.
        one_size: Whether all have it.
        is_grey: Whether all channels of all images are equal.
        grey: Lowest 5th and highest 95th percentile of the training images' values, 0..255.
        classes: By name, in the map's order, the background first.
        without_foreground: Training images that show the background alone.
        is_numbered: Whether names say which slices lie beside each other.
    """

    images: Mapping[str, int]
    read: int
    patients: Mapping[str, int] | None
    size: tuple[int, int]
    one_size: bool
    is_grey: bool
    grey: tuple[float, float]
    classes: Mapping[str, ClassFacts]
    without_foreground: int
    is_numbered: bool


def read_data_facts(
    root: Path,
    rgb_map: RgbMap,
    groups: re.Pattern[str] | None = None,
    window: Window | None = None,
    unknown: UnknownColors = "error",
    pairing: PairingRule | None = None,
) -> DataFacts:
    """Read a data set.

    Args:
        root: Folder that holds train and valid.
        rgb_map: Classes and colours.
        groups: Finds the patient in a file's name.
        window: Lowest and highest value of 16-bit and float images.
        unknown: What colours are in masks that are no class; see `read_mask`.
        pairing: How the names of images and masks go together.

    Returns:
        What is known of it.

    Raises:
        DataError: If a file cannot be used, there are too few, or a class is in no training mask.
    """
    pairs = {split: list_split(split_folder(root, split), pairing) for split in ("train", "valid")}
    chosen = _evenly(pairs["train"])
    read = partial(_read_pair, rgb_map=rgb_map, window=window, unknown=unknown)
    found = list(show_progress(map_processes(read, chosen, chunk=8, few=_FEW), "reading", len(chosen)))
    if len(pairs["train"]) < 2:
        raise DataError(f"{root / 'train'}: holds one image, of which nothing general can be learnt; add others")
    classes = {name: _of_class(found, k) for k, name in enumerate(rgb_map.names)}
    if not all(facts.images for facts in classes.values()):
        missing = next(name for name, facts in classes.items() if not facts.images)
        raise DataError(
            f"{root / 'train'}: no mask shows `{missing}`, so it cannot be learnt; take it out of rgb_map, or split "
            "again with `flexunet split`, which spreads the classes"
        )
    sizes = np.array([facts.size for facts in found])
    size = np.median(sizes, axis=0)
    return DataFacts(
        images={split: len(of_split) for split, of_split in pairs.items()},
        read=len(found),
        patients=_count_patients(pairs, groups),
        size=(int(size[0]), int(size[1])),
        one_size=bool((sizes == sizes[0]).all()),
        is_grey=all(facts.is_grey for facts in found),
        grey=(min(facts.grey[0] for facts in found), max(facts.grey[1] for facts in found)),
        classes=classes,
        without_foreground=sum(not any(facts.pixels[1:]) for facts in found),
        is_numbered=_is_numbered([pair.image for pair in pairs["train"]]),
    )


def _is_numbered(images: Sequence[Path]) -> bool:
    try:
        check_numbered(images)
    except DataError:
        return False
    return True


def _evenly(pairs: Sequence[Pair]) -> list[Pair]:
    return [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), _MOST)).astype(int))]


def _read_pair(pair: Pair, rgb_map: RgbMap, window: Window | None, unknown: UnknownColors) -> PairFacts:
    image, mask = read_image(pair.image, window=window), read_mask(pair.mask, rgb_map, unknown)
    if image.shape[:2] != mask.shape:
        raise DataError(size_mismatch(pair, image.shape, mask.shape))
    low, high = np.percentile(image, (5, 95))
    return PairFacts(
        size=mask.shape,
        is_grey=bool((image == image[..., :1]).all()),
        grey=(float(low), float(high)),
        pixels=tuple(np.bincount(mask.ravel(), minlength=len(rgb_map))[: len(rgb_map)].tolist()),
        components=tuple(_areas(mask == k) if k else () for k in range(len(rgb_map))),
    )


def _areas(of_class: NDArray[np.bool_]) -> tuple[int, ...]:
    statistics = cv2.connectedComponentsWithStats(of_class.astype(np.uint8), connectivity=8)[2]
    return tuple(statistics[1:, cv2.CC_STAT_AREA].tolist())


def _of_class(found: Sequence[PairFacts], k: int) -> ClassFacts:
    total = sum(sum(facts.pixels) for facts in found)
    areas = np.sort([area for facts in found for area in facts.components[k]]).astype(np.int64)
    covered = np.cumsum(areas)
    return ClassFacts(
        share=sum(facts.pixels[k] for facts in found) / total,
        images=sum(facts.pixels[k] > 0 for facts in found),
        smallest=int(areas[np.searchsorted(covered, _SMALL * covered[-1])]) if len(areas) else 0,
    )


def _count_patients(pairs: Mapping[str, Sequence[Pair]], groups: re.Pattern[str] | None) -> dict[str, int] | None:
    """Count patients, and refuse a split in which one is on two sides.

    Raises:
        DataError: If there is such a patient.
    """
    if groups is None:
        return None
    found = {
        split: {group_of(pair.image, groups) or copy_source(pair.image.stem) or pair.image.stem for pair in of}
        for split, of in pairs.items()
    }
    if both := sorted(found["train"] & found["valid"]):
        raise DataError(f"patient {both[0]} is in train and valid; split again with `flexunet split --group-regex`")
    return {split: len(of_split) for split, of_split in found.items()}


def describe_data(data: DataFacts) -> list[tuple[str, str]]:
    """Return what is known of a data set, in rows."""
    patients = f" of {data.patients['train']} and {data.patients['valid']} patients" if data.patients else ""
    return [
        ("data", f"{data.images['train']} images to train on, {data.images['valid']} to validate{patients}"),
        ("size", "x".join(map(str, data.size)) + ("" if data.one_size else ", the median")),
        *(
            (name, f"{of.share:.2%} of the pixels, in {of.images} images, small parts of {of.smallest} px")
            for name, of in list(data.classes.items())[1:]
        ),
    ]
