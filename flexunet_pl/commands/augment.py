"""The verb `augment`: variants of the training pictures, written beside them as the original does."""

import hashlib
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import albumentations
import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.console import say, show_progress
from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.common.processes import map_processes
from flexunet_pl.data.transforms import RadialDistortion, SmoothDistortion
from flexunet_pl.io.images import read_image, resize_image, write_image
from flexunet_pl.io.pairing import PairingRule
from flexunet_pl.io.pairs import Pair, list_pairs, size_mismatch
from flexunet_pl.io.patient_ids import copy_source
from flexunet_pl.prepare.place import check_new_folder, place_file

_FEW = 64  # pictures
_SHOWN = 160  # px, side of a picture in variants.png
_RADIUS = 0.5  # of the circle that is distorted, as a share of the width
_ELASTIC = 110.0  # what is left of the 1300 of the original, whose filter runs across the channels too
_Variant = tuple[str, Any]


def _affine(**options: Any) -> Any:
    return albumentations.Affine(**options, interpolation=1, mask_interpolation=0, p=1)


def _flip(*names: str) -> Callable[[float], Any]:
    return lambda _: albumentations.Compose([getattr(albumentations, name)(p=1) for name in names])


def _shear(slope: float) -> Any:
    degrees = -math.degrees(math.atan(slope))
    return _affine(shear={"x": (0, 0), "y": (degrees, degrees)})


@dataclass(frozen=True)
class _Kind:
    """A kind of variant.

    Attributes:
        name: Beginning of the files' names, which is the original's, so that `split` and `check` know a copy.
        usual: Strength where none is given.
        range: Lowest and highest strength.
        make: Transform of a strength.
    """

    name: str
    usual: float
    range: tuple[float, float]
    make: Callable[[float], Any]


_KINDS = {
    "hflip": _Kind("hflipped", 1, (1, 1), _flip("HorizontalFlip")),
    "vflip": _Kind("vflipped", 1, (1, 1), _flip("VerticalFlip")),
    "hvflip": _Kind("hvflipped", 1, (1, 1), _flip("HorizontalFlip", "VerticalFlip")),
    "rotate": _Kind("rotated_{}", 90, (-360, 360), lambda a: _affine(rotate=(a, a))),
    "shrink": _Kind("shrinked_{}", 0.8, (0.1, 1), lambda s: _affine(scale=(s, s))),
    "shear": _Kind("sheared_{}", 0.1, (-1, 1), _shear),
    "elastic": _Kind(
        "deformed_alpha_1300_sigmoid_{}",
        8,
        (1, 100),
        lambda s: albumentations.ElasticTransform(
            alpha=_ELASTIC, sigma=s, interpolation=1, mask_interpolation=0, noise_distribution="uniform", p=1
        ),
    ),
    "smooth": _Kind("distorted_{}", 0.02, (0, 0.5), lambda m: SmoothDistortion(magnitude=m, sigma=40, p=1)),
    "barrel": _Kind("barrdistorted_1000_0.5_{}", 0.5, (0, 1), lambda a: RadialDistortion(_RADIUS, a, p=1)),
    "pincushion": _Kind("pincdistorted_1000_0.5_{}", 0.5, (0, 1), lambda a: RadialDistortion(_RADIUS, -a, p=1)),
    "sharpen": _Kind("sharpened_{}", 1, (0, 1), lambda k: albumentations.Sharpen((k, k), (1.0, 1.0), p=1)),
    "brighten": _Kind(
        "brightened_{}_10.0",
        1.2,
        (0.1, 3),
        lambda f: albumentations.RandomBrightnessContrast((0.04, 0.04), (f - 1, f - 1), p=1),
    ),
}
_USUAL = ("shrink", "shear", "elastic", "smooth", "barrel", "pincushion", "sharpen", "brighten")


def augment_data(
    src: Path,
    out: Path,
    variants: list[str] = list(_USUAL),  # noqa: B006 - shown by --help, and not changed
    mode: Literal["copy", "link"] = "copy",
    seed: int = 137,
    workers: int | None = None,
    pairing: PairingRule = PairingRule(),  # noqa: B008 - it is frozen
) -> None:
    """Write variants of the training pictures beside them, as the original does; valid and test stay as they are.

    fit augments each picture again in every epoch, which serves most data sets better: this verb is for comparing with
    the original, and for other tools. Image and mask are moved by the same field, and no colour of a mask is changed;
    what comes in from outside of a picture is black. variants.png shows each of them.

    Args:
        src: Folder that holds train, and maybe valid and test.
        out: Folder to create.
        variants: Any of hflip, vflip, hvflip, rotate, shrink, shear, elastic, smooth, barrel, pincushion, sharpen and
            brighten, with a strength where the usual one does not do, as in rotate:180 or shrink:0.7. Flips and turns
            are not among the usual ones, since the body has sides.
        mode: Whether the pictures themselves are copied or linked to.
        seed: Seed of the fields.
        workers: Processes; by default as many as there are cores.
        pairing: How the names of images and masks go together, such as {image: "(.+)", mask: "(.+)_mask"}; by stem
            where none is given.

    Raises:
        DataError: If a picture cannot be read.
        UserError: If there is no such variant, or the folder is not empty.
    """
    parsed = _parse(variants)
    check_new_folder(src, out)
    train = list_pairs(src / "train", pairing)
    copies = [pair for pair in train if copy_source(pair.image.stem)]
    if copies:
        raise DataError(f"{copies[0].image}: is a copy of this kind already; augment the pictures alone")
    splits = {split: list_pairs(src / split, pairing) for split in ("train", "valid", "test") if (src / split).is_dir()}
    for split, pairs in splits.items():
        for pair in pairs:
            for kind, path, name in pair.placed():
                place_file(path, out / split / kind / name, mode)
    write = partial(_write_variants, variants=parsed, out=out / "train", seed=seed)
    done = map_processes(write, train, workers, chunk=4, few=_FEW)
    try:
        for _ in show_progress(done, "augmenting", len(train)):
            pass
    except UserError:
        shutil.rmtree(out)  # which was new or empty: half of a data set is of no use
        raise
    _draw(train[len(train) // 2], parsed, out / "variants.png", seed)
    say(f"{len(train)} training pictures, {len(train) * len(parsed)} variants; see {out / 'variants.png'}")


def _parse(words: Sequence[str]) -> list[tuple[str, float]]:
    parsed: list[tuple[str, float]] = []
    for word in words:
        name, colon, strength = word.partition(":")
        if name not in _KINDS:
            raise UserError(f"variants: there is no `{name}`; use {', '.join(_KINDS)}")
        kind = _KINDS[name]
        low, high = kind.range
        try:
            value = round(float(strength), 4) if colon else float(kind.usual)
        except ValueError as error:
            raise UserError(f"variants: `{word}` has no number; one that does is {name}:{kind.usual:g}") from error
        if not low <= value <= high:
            raise UserError(f"variants: `{word}` is out of range; {name} takes {low:g} to {high:g}")
        if (name, value) in parsed:
            raise UserError(f"variants: `{word}` stands twice")
        parsed.append((name, value))
    return parsed


def _write_variants(pair: Pair, variants: Sequence[tuple[str, float]], out: Path, seed: int) -> None:
    image, mask = _read(pair)
    for name, strength in variants:
        varied, of_mask = _apply(pair, name, strength, image, mask, seed)
        # with a decimal point always: in rotated_90_001_02 it could not be told where the number ends
        stem = f"{_KINDS[name].name.format(float(strength))}_{pair.image.stem}"
        write_image(out / "masks" / f"{stem}.png", of_mask)
        write_image(out / "images" / f"{stem}.png", varied)


def _read(pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    if pair.mask.suffix.lower() == ".npz":
        raise DataError(f"{pair.mask}: only pictures are augmented; save the mask as one")
    image, mask = read_image(pair.image), read_image(pair.mask)
    if image.shape != mask.shape:
        raise DataError(size_mismatch(pair, image.shape[:2], mask.shape[:2]))
    return image, mask


def _apply(
    pair: Pair, name: str, strength: float, image: NDArray[np.uint8], mask: NDArray[np.uint8], seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    transform = _KINDS[name].make(strength)
    words = f"{seed} {name} {strength} {pair.image.stem}".encode()
    transform.set_random_seed(int.from_bytes(hashlib.sha256(words).digest()[:4], "big"))
    out = transform(image=image, mask=mask)
    return np.ascontiguousarray(out["image"]), np.ascontiguousarray(out["mask"])


def _draw(pair: Pair, variants: Sequence[tuple[str, float]], path: Path, seed: int) -> None:
    image, mask = _read(pair)
    shown = [(image, mask), *(_apply(pair, name, strength, image, mask, seed) for name, strength in variants)]
    size = (_SHOWN, _SHOWN)
    columns = [np.vstack([resize_image(one, size), resize_image(two, size)]) for one, two in shown]
    write_image(path, np.hstack(columns))
