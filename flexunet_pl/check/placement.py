"""Whether masks lie on their images: turned by EXIF, mirrored, turned, or exchanged with another mask."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.check.scan import MOVES, Scan
from flexunet_pl.common.errors import DataError
from flexunet_pl.io.images import read_orientation
from flexunet_pl.io.pairs import Pair

BETTER = 1.25  # how many times as well a mask must fit elsewhere to be called misplaced
SURE = 1.2  # how many times as well masks must fit one way to tell it from another
ON_EDGES = 1.8  # times as strong as elsewhere, what edges under the borders of a data set must be to be believed
MOST = 0.7  # share of the masks that must agree
FEWEST = 8  # masks
_NAMES = tuple(MOVES)
_CHUNK = 1000  # scans compared at a time


@dataclass(frozen=True)
class Finding:
    """Something wrong.

    Attributes:
        kind: What kind of fault it is.
        message: The files, what is wrong, and the remedy.
    """

    kind: str
    message: str


def turned_images(pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Name the images that EXIF turns, and their masks not, or otherwise; by their headers."""
    found = []
    for pair in pairs:
        if pair.image.suffix.lower() == ".png" and pair.mask.suffix.lower() in {".png", ".npz"}:
            continue  # in the usual pair there is nothing to look for, and PNG would be read to its end
        try:
            ways = [read_orientation(path) if path.suffix.lower() != ".npz" else 1 for path in pair]
        except DataError:
            continue  # named elsewhere
        if ways[0] != ways[1]:
            found.append((pair, ways))
    if found:
        pair, ways = found[0]
        rest = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        yield Finding(
            "EXIF orientation",
            f"{pair.image}{rest}: EXIF turns it (orientation {ways[0]}), and its mask {pair.mask.name} not alike "
            f"({ways[1]}); where the mask was drawn on the picture as it is stored, it does not lie on it: save the "
            "picture turned and without EXIF, or remove its EXIF",
        )


def misplaced_masks(scans: Sequence[Scan]) -> Iterator[Finding]:
    """Name masks whose borders lie better on the edges of their image moved, or exchanged with another mask.

    That is judged only where most masks of the data set lie on edges, and better than moved so.
    """
    measured, fits, moved = _measured(scans)
    if len(measured) < FEWEST:
        return
    common = _common_move(fits, moved)
    if common is not None:
        way, better = common
        yield Finding(
            "misplaced mask",
            f"{better} of {len(measured)} masks fit their images better {_NAMES[way]}, such as "
            f"{measured[0].pair.mask}; move all masks so, or the images",
        )
        return
    judged = _judged(fits, moved)
    usual = float(np.median(fits))
    for scan, fit, fits_moved in zip(measured, fits, np.where(judged, moved, 0), strict=True):
        best = int(fits_moved.argmax())
        if fits_moved[best] > BETTER * fit and fits_moved[best] > 0.7 * usual:
            yield Finding(
                "misplaced mask",
                f"{scan.pair.mask}: fits its image better {_NAMES[best]} (edges under its borders are {fit:.1f} times "
                f"as strong as elsewhere, then {fits_moved[best]:.1f}); move the mask so",
            )
    for i, j in exchanged_pairs(measured) if judged[:2].all() else ():
        one, two = measured[i].pair, measured[j].pair
        yield Finding(
            "misplaced mask",
            f"{one.mask} and {two.mask}: each fits the image of the other better; exchange the two",
        )


def what_was_not_judged(scans: Sequence[Scan]) -> list[str]:
    """Say of which masks, and in which ways, it cannot be told whether they lie on their images.

    Args:
        scans: One per pair.

    Returns:
        Sentences, none where all was judged.
    """
    readable = sum(1 for scan in scans if scan.class_pixels)
    measured, fits, moved = _measured(scans)
    if len(measured) < FEWEST:
        why = f"{len(measured)} of {readable} have borders long enough and an image with edges, {FEWEST} are needed"
        return [f"whether masks lie on their images was not judged: {why}"]
    told = []
    if len(measured) < readable:
        told.append(
            f"whether they lie on their images was not judged of {readable - len(measured)} of {readable} masks: no "
            "border that is long enough, or no edge in the image"
        )
    if _common_move(fits, moved) is not None:
        return told
    unsure = [name for name, sure, of_way in zip(_NAMES, _judged(fits, moved), moved.T, strict=True)
              if not sure and of_way.any()]  # fmt: skip
    if unsure:
        ways = "mirrored or turned" if len(unsure) == len(MOVES) else ", ".join(unsure)
        told.append(f"whether masks are {ways} was not judged: they fit their images nearly as well so")
    return told


def _measured(scans: Sequence[Scan]) -> tuple[list[Scan], NDArray[np.float64], NDArray[np.float64]]:
    measured = [scan for scan in scans if scan.fit is not None]
    fits = np.array([scan.fit for scan in measured], np.float64)
    moved = np.array([scan.moved_fit for scan in measured], np.float64).reshape(-1, len(MOVES))
    return measured, fits, moved


def _common_move(fits: NDArray[np.float64], moved: NDArray[np.float64]) -> tuple[int, int] | None:
    """Return the way in which most masks fit better, and how many do; None where there is none."""
    better = (moved > SURE * fits[:, None]).sum(axis=0)
    most = int(better.argmax())
    usual = float(np.median(moved[:, most]))
    # lesions in dark lungs have no edges of their own: such masks fit better wherever else they are put
    lies_on_edges = usual > ON_EDGES and usual > BETTER * float(np.median(fits))
    return (most, int(better[most])) if better[most] >= MOST * len(fits) and lies_on_edges else None


def _judged(fits: NDArray[np.float64], moved: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell of each way whether most masks lie surely better as they are."""
    judged: NDArray[np.bool_] = (fits[:, None] > SURE * moved).mean(axis=0) >= MOST
    return judged


def exchanged_pairs(scans: Sequence[Scan]) -> Iterator[tuple[int, int]]:
    """Find masks that fit the images of each other better than their own, by the edges under their borders.

    Args:
        scans: Those with edges and borders.

    Yields:
        Positions of the two, the first below the second.
    """
    edges = np.stack([scan.edges for scan in scans if scan.edges is not None]).reshape(len(scans), -1)
    packed = np.stack([scan.borders for scan in scans if scan.borders is not None])
    lengths = np.array([np.bitwise_count(row).sum() for row in packed], dtype=np.float32)
    own = np.array([scan.fit for scan in scans], dtype=np.float32)
    better: set[tuple[int, int]] = set()
    for start in range(0, len(scans), _CHUNK):
        borders = np.unpackbits(packed[start : start + _CHUNK], axis=1).astype(np.float32)
        for first in range(0, len(scans), _CHUNK):
            image_edges = edges[first : first + _CHUNK].astype(np.float32) / 32
            fits = image_edges @ borders.T / lengths[start : start + _CHUNK]
            images, masks = np.nonzero(fits > BETTER * own[first : first + _CHUNK, None])
            better |= set(zip((images + first).tolist(), (masks + start).tolist(), strict=True))
    yield from sorted((i, j) for i, j in better if i < j and (j, i) in better)
