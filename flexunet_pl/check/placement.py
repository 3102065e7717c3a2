"""Whether masks lie on their images: turned by EXIF, mirrored, or exchanged with another mask."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flexunet_pl.check.scan import FLIPS, Scan
from flexunet_pl.common.errors import DataError
from flexunet_pl.io.images import read_orientation
from flexunet_pl.io.pairs import Pair

BETTER = 1.25  # how many times as well a mask must fit elsewhere to be called misplaced
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
    """Name masks whose borders lie better on the edges of their image mirrored, or exchanged with another mask.

    That is judged only where most masks of the data set lie on edges, and better than their mirror images.
    """
    measured = [scan for scan in scans if scan.fit is not None]
    fits = np.array([scan.fit for scan in measured])
    mirrored = np.array([scan.flipped_fit for scan in measured]).reshape(-1, len(FLIPS))
    for flip, of_flip in zip(FLIPS, mirrored.T, strict=True):
        better = int(np.count_nonzero(of_flip > 1.2 * fits))
        if len(measured) >= 8 and better >= 0.7 * len(measured):
            yield Finding(
                "misplaced mask",
                f"{better} of {len(measured)} masks fit their images better mirrored {flip}, such as "
                f"{measured[0].pair.mask}; mirror the masks, or the images",
            )
            return
    if len(measured) < 8 or (fits > 1.2 * mirrored.max(axis=1)).mean() < 0.7:
        return
    usual = float(np.median(fits))
    for scan, fit, flipped in zip(measured, fits, mirrored, strict=True):
        best = int(flipped.argmax())
        if flipped[best] > BETTER * fit and flipped[best] > 0.7 * usual:
            yield Finding(
                "misplaced mask",
                f"{scan.pair.mask}: fits its image better mirrored {FLIPS[best]} (edges under its borders are "
                f"{fit:.1f} times as strong as elsewhere, then {flipped[best]:.1f}); mirror the mask",
            )
    for i, j in exchanged_pairs(measured):
        one, two = measured[i].pair, measured[j].pair
        yield Finding(
            "misplaced mask",
            f"{one.mask} and {two.mask}: each fits the image of the other better; exchange the two",
        )


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
