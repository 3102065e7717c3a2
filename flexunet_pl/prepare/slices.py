"""Write the slices of one case: pictures as they are, volumes cut into axial pictures of 8 bits."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import DataError
from flexunet_pl.common.files import written_in_place
from flexunet_pl.io.images import read_image, write_image
from flexunet_pl.io.masks import read_mask, shows_foreground, write_mask
from flexunet_pl.io.pairs import Pair, size_mismatch
from flexunet_pl.io.volume_slices import percentile_window
from flexunet_pl.io.volumes import Volume, check_same_grid, read_volume
from flexunet_pl.prepare.raw_files import RawFiles
from flexunet_pl.prepare.recipe import Case, Recipe
from flexunet_runtime.window import Window


@dataclass(frozen=True)
class CaseResult:
    """What became of a case.

    Attributes:
        case: The case.
        slices: Number of slices written.
        empty: Number of slices left out, since they show the background alone.
        error: What is wrong with it, or "".
    """

    case: Case
    slices: int = 0
    empty: int = 0
    error: str = ""


def write_case(case: Case, recipe: Recipe, raw: RawFiles, out: Path) -> CaseResult:
    """Write the slices of a case.

    Args:
        case: The case.
        recipe: How its files are read.
        raw: The download.
        out: Folder to write images/ and masks/ to.

    Returns:
        What became of it; a case that cannot be used is no exception, its error is in the result.
    """
    try:
        with raw.local(case.image) as image, raw.local(case.mask) as mask:
            try:
                if recipe.labels is None:
                    return _write_picture(case, recipe, image, mask, out)
                return _write_volume(case, recipe, image, mask, out)
            except DataError as error:
                # what is unpacked lies in a temporary place, which would tell the user nothing
                text = str(error).replace(str(image), str(raw.root / case.image))
                return CaseResult(case, error=text.replace(str(mask), str(raw.root / case.mask)))
    except DataError as error:
        return CaseResult(case, error=str(error))


def _write_picture(case: Case, recipe: Recipe, image: Path, mask: Path, out: Path) -> CaseResult:
    size, index = read_image(image).shape[:2], read_mask(mask, recipe.rgb_map)
    if size != index.shape:
        raise DataError(size_mismatch(Pair(image, mask), size, index.shape))
    if recipe.drop_empty and not shows_foreground(index):
        return CaseResult(case, empty=1)
    write_mask(out / "masks" / f"{case.stem}.png", index, recipe.rgb_map)
    target = out / "images" / f"{case.stem}{image.suffix.lower()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_in_place(target) as temporary:  # the file itself: a JPEG saved again would lose a little
        shutil.copyfile(image, temporary)
    return CaseResult(case, slices=1)


def _write_volume(case: Case, recipe: Recipe, image: Path, mask: Path, out: Path) -> CaseResult:
    volume, labels = read_volume(image), read_volume(mask)
    check_same_grid(mask, labels, volume)
    index = _class_indices(mask, labels.values, recipe.labels or {})
    window = _window(image, volume, recipe)
    kept = [z for z in range(len(index)) if not recipe.drop_empty or shows_foreground(index[z])]
    for z in kept:
        name = f"{case.stem}_{z:03d}.png"
        write_mask(out / "masks" / name, index[z], recipe.rgb_map)
        write_image(out / "images" / name, window.apply(volume.values[z]))
    return CaseResult(case, slices=len(kept), empty=len(index) - len(kept))


def _class_indices(mask: Path, values: NDArray[np.number], labels: dict[int, int]) -> NDArray[np.uint8]:
    found, inverse = np.unique(values, return_inverse=True)
    strange = [value for value in found.tolist() if value not in labels]
    if strange:
        raise DataError(
            f"{mask}: has the values {strange[:8]} that the recipe's `labels` do not name; they are {sorted(labels)}"
        )
    classes = np.array([labels[value] for value in found.tolist()], dtype=np.uint8)
    return classes[inverse].reshape(values.shape)


def _window(image: Path, volume: Volume, recipe: Recipe) -> Window:
    return recipe.window or percentile_window(str(image), volume.values, recipe.percentiles or (0.0, 100.0))
