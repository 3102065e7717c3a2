"""List the images of a folder, pair them with their masks by stem, check the pairs by their headers.

Stems that other file systems take for one, which tell neither case nor the two spellings of é apart, are one here too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.images import read_size
from flexunet_pl.io.pairing import PairingRule, plain, propose_rule
from flexunet_runtime.images import SUFFIXES

IMAGE_SUFFIXES = SUFFIXES
MASK_SUFFIXES = IMAGE_SUFFIXES | {".npz"}


class Pair(NamedTuple):
    """An image and its mask, which share a stem, or what a rule takes of it."""

    image: Path
    mask: Path

    def placed(self) -> tuple[tuple[str, Path, str], tuple[str, Path, str]]:
        """Return folder, file and name of both in a data set that is paired by stem."""
        alike = plain(self.mask.stem) == plain(self.image.stem)
        name = self.mask.name if alike else f"{self.image.stem}{self.mask.suffix}"
        return ("images", self.image, self.image.name), ("masks", self.mask, name)


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
        twin = by_stem.setdefault(plain(file.stem), file)
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


def survey_pairs(folder: Path, rule: PairingRule | None = None) -> Survey:
    """Pair the files of ``images/`` and ``masks/``, and list all that stands in the way.

    Args:
        folder: The folder that holds both.
        rule: How their names go together; by stem where none is given.

    Returns:
        The pairs and the problems.
    """
    problems: list[str] = []
    found = []
    for kind, suffixes in (("image", IMAGE_SUFFIXES), ("mask", MASK_SUFFIXES)):
        try:
            candidates = _candidates(folder / f"{kind}s", suffixes)
        except DataError as error:
            return Survey([], [str(error)])
        by_key: dict[str, Path] = {}
        for path in candidates:
            key = _key(path, kind, rule)
            if not path.is_file():
                problems.append(f"{path}: leads nowhere; correct the link or remove it")
            elif key is not None and by_key.setdefault(key, path) is not path:
                problems.append(_ambiguous(path, by_key[key]))
        found.append(by_key)
    images, masks = found
    if images and masks and not images.keys() & masks.keys():
        return Survey([], [*problems, _nothing_pairs(folder, images, masks)])
    for one, other, missing in ((images, masks, "mask"), (masks, images, "image")):
        where = folder / f"{missing}s"
        problems += [_lonely(one[stem], missing, where) for stem in sorted(one.keys() - other.keys())]
    if not images and not problems:
        problems.append(f"{folder / 'images'}: no image in this folder")
    return Survey(_pairs(images, masks), problems)


def list_pairs(folder: Path, rule: PairingRule | None = None) -> list[Pair]:
    """Pair the files of ``images/`` and ``masks/``, sorted by name.

    Args:
        folder: The folder that holds both.
        rule: How their names go together; by stem where none is given.

    Returns:
        The pairs, at least one.

    Raises:
        DataError: If a folder is missing or empty, a name stands twice, or a file has no partner.
    """
    # the reference pairs two unsorted listings by position
    images = _by_key(list_files(folder / "images"), "image", rule)
    masks = _by_key(list_files(folder / "masks", MASK_SUFFIXES), "mask", rule)
    if not images.keys() & masks.keys():
        raise DataError(_nothing_pairs(folder, images, masks))
    for one, other, missing in ((images, masks, "mask"), (masks, images, "image")):
        lonely = sorted(one.keys() - other.keys())
        if lonely:
            rest = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
            raise DataError(_lonely(one[lonely[0]], missing, folder / f"{missing}s", rest))
    return _pairs(images, masks)


def _by_key(files: list[Path], kind: str, rule: PairingRule | None) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files:
        key = _key(path, kind, rule)
        if key is not None and found.setdefault(key, path) is not path:
            raise DataError(_ambiguous(path, found[key]))
    return found


def _nothing_pairs(folder: Path, images: dict[str, Path], masks: dict[str, Path]) -> str:
    rule = propose_rule(images.values(), masks.values())
    if not images or not masks:
        kind = "masks" if images else "images"
        return f"{folder / kind}: no file of this folder fits the pairing rule"
    first = next(iter(images.values()))
    if rule is None:
        return _lonely(first, "mask", folder / "masks", f" (and {len(images) - 1} more)" if len(images) > 1 else "")
    return (
        f"{first}: no mask of that stem in {folder / 'masks'}, nor of any other image; they pair by the rule "
        f"`pairing: {rule}`"
    )


def _pairs(images: dict[str, Path], masks: dict[str, Path]) -> list[Pair]:
    found = (Pair(image, masks[key]) for key, image in images.items() if key in masks)
    return sorted(found, key=lambda pair: pair.image.stem)


def _key(path: Path, kind: str, rule: PairingRule | None) -> str | None:
    return plain(path.stem) if rule is None else rule.key(path, kind)


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


def check_pair(pair: Pair, channels: int = 3) -> None:
    """Check by their headers alone that an image and its mask can be read and have one size.

    Args:
        pair: The files.
        channels: Of images, as for `read_image`.

    Raises:
        DataError: If a header cannot be read, the policy refuses it, or the sizes differ.
    """
    image = read_size(pair.image, channels)
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
