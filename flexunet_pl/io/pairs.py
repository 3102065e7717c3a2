"""List the images of a folder, pair them with their masks by stem, check the pairs by their headers.

Stems that other file systems take for one, which tell neither case nor the two spellings of é apart, are one here too.
"""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.images import read_size
from flexunet_runtime.images import SUFFIXES

IMAGE_SUFFIXES = SUFFIXES
MASK_SUFFIXES = IMAGE_SUFFIXES | {".npz"}


class Pair(NamedTuple):
    """An image and its mask, which share a stem."""

    image: Path
    mask: Path


def list_files(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """List the images of a folder, sorted by name.

    Args:
        folder: The folder; sub-folders, hidden files and files of other suffixes are passed over.
        suffixes: Suffixes in lower case; those of the files may be in any case.

    Returns:
        The files, at least one.

    Raises:
        DataError: If the folder is missing or holds no such file, or two files share a stem.
    """
    files = [path for path in _candidates(folder, suffixes) if path.is_file()]
    if not files:
        raise DataError(f"{folder}: no image in this folder; expected files ending in {', '.join(sorted(suffixes))}")
    by_stem: dict[str, Path] = {}
    for file in files:
        twin = by_stem.setdefault(_key(file), file)
        if twin is not file:
            raise DataError(_ambiguous(file, twin))
    return files


@dataclass(frozen=True)
class Survey:
    """What pairs, and all that does not.

    Attributes:
        pairs: Sorted by name.
        problems: One line each, beginning with a path.
    """

    pairs: list[Pair]
    problems: list[str]


def survey_pairs(folder: Path) -> Survey:
    """Pair the files of ``images/`` and ``masks/`` by stem, and list all that stands in the way.

    Args:
        folder: The folder that holds both.

    Returns:
        The pairs and the problems.
    """
    problems: list[str] = []
    found = []
    for kind, suffixes in (("images", IMAGE_SUFFIXES), ("masks", MASK_SUFFIXES)):
        try:
            candidates = _candidates(folder / kind, suffixes)
        except DataError as error:
            return Survey([], [str(error)])
        by_stem: dict[str, Path] = {}
        for path in candidates:
            if not path.is_file():
                problems.append(f"{path}: leads nowhere; correct the link or remove it")
            elif by_stem.setdefault(_key(path), path) is not path:
                problems.append(_ambiguous(path, by_stem[_key(path)]))
        found.append(by_stem)
    images, masks = found
    for one, other, missing in ((images, masks, "mask"), (masks, images, "image")):
        where = folder / f"{missing}s"
        problems += [_lonely(one[stem], missing, where) for stem in sorted(one.keys() - other.keys())]
    if not images and not problems:
        problems.append(f"{folder / 'images'}: no image in this folder")
    return Survey(_pairs(images, masks), problems)


def list_pairs(folder: Path) -> list[Pair]:
    """Pair the files of ``images/`` and ``masks/`` by stem, sorted by name.

    Args:
        folder: The folder that holds both.

    Returns:
        The pairs, at least one.

    Raises:
        DataError: If a folder is missing or empty, a stem stands twice, or a file has no partner.
    """
    # the reference pairs two unsorted listings by position
    images = {_key(p): p for p in list_files(folder / "images")}
    masks = {_key(p): p for p in list_files(folder / "masks", MASK_SUFFIXES)}
    for one, other, missing in ((images, masks, "mask"), (masks, images, "image")):
        lonely = sorted(one.keys() - other.keys())
        if lonely:
            rest = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
            raise DataError(_lonely(one[lonely[0]], missing, folder / f"{missing}s", rest))
    return _pairs(images, masks)


def _pairs(images: dict[str, Path], masks: dict[str, Path]) -> list[Pair]:
    found = (Pair(image, masks[key]) for key, image in images.items() if key in masks)
    return sorted(found, key=lambda pair: pair.image.stem)


def _key(path: Path) -> str:
    return unicodedata.normalize("NFC", path.stem).casefold()


def _candidates(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}; expected one that holds images")
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".") and not p.is_dir()
    )


def _ambiguous(path: Path, twin: Path) -> str:
    return f"{path}: has the same stem as {twin.name}, so its mask is ambiguous; rename one"


def _lonely(path: Path, missing: str, where: Path, rest: str = "") -> str:
    return f"{path}{rest}: no {missing} of that stem in {where}; add it or remove this file"


def check_pair(pair: Pair) -> None:
    """Check by their headers alone that an image and its mask can be read and have one size.

    Args:
        pair: The files.

    Raises:
        DataError: If a header cannot be read, the policy refuses it, or the sizes differ.
    """
    image = read_size(pair.image)
    if pair.mask.suffix.lower() == ".npz":
        return
    mask = read_size(pair.mask)
    if image != mask:
        raise DataError(size_mismatch(pair, image, mask))


def size_mismatch(pair: Pair, image: tuple[int, ...], mask: tuple[int, ...]) -> str:
    """Say that an image and its mask have different sizes.

    Args:
        pair: The files.
        image: Height and width of the image, first.
        mask: Height and width of the mask.

    Returns:
        The sentence.
    """
    return (
        f"{pair.mask}: mask is {mask[0]}x{mask[1]} px (height x width) but its image is {image[0]}x{image[1]}; "
        "export both at the same size"
    )
