"""What is wrong with a data set, judged from the scans of its pairs."""

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flexunet_pl.check.placement import Finding, misplaced_masks, turned_images
from flexunet_pl.check.scan import Scan
from flexunet_pl.io.patient_ids import copy_source, group_of
from flexunet_pl.rgb_map import RgbMap

NEAR_BITS = 6  # of 64, up to which two pictures' hashes count as near
_RANKED = 50  # look-alikes that are listed
SAME_LEVELS = 3.0  # mean difference of two thumbnails, in grey values, below which they are one picture


def find_faults(scans: Sequence[Scan], rgb_map: RgbMap, group_regex: re.Pattern[str] | None) -> list[Finding]:
    """Judge a data set.

    Args:
        scans: One per pair, of all splits.
        rgb_map: Classes and colours.
        group_regex: Finds the patient in a stem.

    Returns:
        The findings, by kind.
    """
    finders = (
        unusable(scans),
        absent_classes(scans, rgb_map),
        copies_across_splits(scans),
        copies_outside_of_train(scans),
        duplicates_across_splits(scans),
        groups_across_splits(scans, group_regex),
        turned_images([scan.pair for scan in scans]),
        misplaced_masks(scans),
        swapped_channels(scans, rgb_map),
    )
    return [finding for finder in finders for finding in finder]


def unusable(scans: Sequence[Scan]) -> Iterator[Finding]:
    """Name the files that cannot be read, or that the policy refuses."""
    for scan in scans:
        yield from (Finding("unusable file", error) for error in scan.errors)


def absent_classes(scans: Sequence[Scan], rgb_map: RgbMap) -> Iterator[Finding]:
    """Name the classes that no mask of a split shows."""
    shown: dict[str, Counter[int]] = defaultdict(Counter)
    for scan in scans:
        shown[scan.split].update(k for k, count in enumerate(scan.class_pixels) if count)
    for split, counts in shown.items():
        for k, name in enumerate(rgb_map.names[1:], start=1):
            if counts and not counts[k]:
                yield Finding("class absent", f"{split}: no mask shows `{name}`; split again, by patient and class")


def copies_across_splits(scans: Sequence[Scan]) -> Iterator[Finding]:
    """Name the augmented copies that lie in another split than their source or another copy of it."""
    by_source: dict[str, list[Scan]] = defaultdict(list)
    for scan in scans:
        by_source[copy_source(scan.pair.image.stem) or scan.pair.image.stem].append(scan)
    for source, group in sorted(by_source.items()):
        splits = sorted({scan.split for scan in group})
        copies = [scan for scan in group if copy_source(scan.pair.image.stem)]
        if len(splits) > 1 and copies:
            names = ", ".join(f"{scan.split}/{scan.pair.image.name}" for scan in group)
            yield Finding(
                "augmented copy across splits",
                f"{source}: its copies lie in {' and '.join(splits)} ({names}); augment after splitting, train alone",
            )


def copies_outside_of_train(scans: Sequence[Scan]) -> Iterator[Finding]:
    """Name the splits but train that hold augmented copies: a score on them is no score on pictures."""
    for split in dict.fromkeys(scan.split for scan in scans):
        names = [scan.pair.image.name for scan in scans if scan.split == split and copy_source(scan.pair.image.stem)]
        if names and split != "train":
            rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
            yield Finding(
                "augmented copy",
                f"{split}: {len(names)} pictures are augmented copies by their names ({', '.join(names[:5])}{rest}); "
                "keep them in train alone",
            )


def duplicates_across_splits(scans: Sequence[Scan]) -> Iterator[Finding]:
    """Name pictures that are in two splits: of equal pixels, or the same picture encoded again; each of them once."""
    first: dict[tuple[str, str], Scan] = {}  # by pixels and split
    named: set[int] = set()
    splits = list(dict.fromkeys(scan.split for scan in scans))
    for i, scan in enumerate(scans):
        twins = (first.get((scan.content_hash, split)) for split in splits if split != scan.split)
        twin = next((twin for twin in twins if twin is not None), None) if scan.content_hash else None
        if twin is not None:
            named.add(i)
            yield _duplicate(twin, scan, "the same pixels")
        first.setdefault((scan.content_hash, scan.split), scan)
    for i, j, difference in near_pairs(scans):
        if j not in named and difference < SAME_LEVELS and scans[i].content_hash != scans[j].content_hash:
            named.add(j)
            yield _duplicate(scans[i], scans[j], f"nearly the same picture, {difference:.1f} grey values apart")


def _duplicate(one: Scan, two: Scan, how: str) -> Finding:
    return Finding(
        "duplicate across splits",
        f"{one.pair.image} and {two.pair.image}: {how}, in {one.split} and {two.split}; keep one of them",
    )


def near_pairs(scans: Sequence[Scan]) -> Iterator[tuple[int, int, float]]:
    """Find pictures of different splits that look alike; neighbouring slices of one patient do too.

    Args:
        scans: One per pair.

    Yields:
        Positions of the two, the first below the second, and the mean difference of their thumbnails in grey values.
    """
    hashes = np.array([scan.perceptual_hash or 0 for scan in scans], dtype=np.uint64)
    usable = np.array([scan.perceptual_hash is not None for scan in scans], dtype=bool)
    splits = np.array([scan.split for scan in scans])
    for i in range(len(scans) - 1):
        if not usable[i]:
            continue
        bits = np.bitwise_count(hashes[i + 1 :] ^ hashes[i])
        for offset in np.flatnonzero((bits <= NEAR_BITS) & usable[i + 1 :] & (splits[i + 1 :] != splits[i])):
            one, two = scans[i].thumbnail, scans[i + 1 + int(offset)].thumbnail
            if one is not None and two is not None:
                yield i, i + 1 + int(offset), float(np.abs(one.astype(np.int16) - two).mean())


@dataclass(frozen=True)
class LookAlike:
    """Two pictures of different splits that look alike.

    Attributes:
        one: The first.
        two: The second.
        difference: Mean difference of their thumbnails in grey values.
    """

    one: Scan
    two: Scan
    difference: float


def rank_look_alikes(scans: Sequence[Scan]) -> list[LookAlike]:
    """Return some pictures of different splits that look alike, the most alike first.

    That is no fault in itself: slices of the same height look alike in two patients, and neighbours in one do.

    Args:
        scans: One per pair.
    """
    pairs = (LookAlike(scans[i], scans[j], difference) for i, j, difference in near_pairs(scans))
    return heapq.nsmallest(_RANKED, pairs, key=lambda pair: pair.difference)


def groups_across_splits(scans: Sequence[Scan], group_regex: re.Pattern[str] | None) -> Iterator[Finding]:
    """Name the patients whose pictures lie in more than one split."""
    splits: dict[str, Counter[str]] = defaultdict(Counter)
    for scan in scans:
        group = group_of(scan.pair.image, group_regex)
        if group is not None:
            splits[group][scan.split] += 1
    for group, counts in sorted(splits.items()):
        if len(counts) > 1:
            where = ", ".join(f"{count} in {split}" for split, count in counts.items())
            yield Finding("group across splits", f"group `{group}`: {where}; a score on its other slices says nothing")


def swapped_channels(scans: Sequence[Scan], rgb_map: RgbMap) -> Iterator[Finding]:
    """Name masks that were saved with red and blue exchanged, where the exchanged colours are on the map too."""
    swapped = [rgb_map.colors.index(c[::-1]) if c[::-1] in rgb_map.colors else -1 for c in rgb_map.colors]
    if -1 in swapped or swapped == list(range(len(swapped))):
        return
    measured = [scan for scan in scans if scan.class_pixels]
    if len(measured) < 8:
        return
    pixels = np.array([scan.class_pixels for scan in measured], dtype=np.float64)
    shares = np.log10(pixels / pixels.sum(axis=1, keepdims=True) + 1e-4)
    grey = np.where(pixels > 0, np.array([scan.class_grey for scan in measured]), np.nan) / 64
    features = np.stack([shares, grey], axis=-1)
    usual = np.nanmedian(features, axis=0)
    straight = np.nanmean(np.abs(features - usual), axis=(1, 2))
    exchanged = np.nanmean(np.abs(features[:, swapped] - usual), axis=(1, 2))
    for scan, one, two in zip(measured, straight, exchanged, strict=True):
        if two < 0.5 * one:
            yield Finding(
                "channels exchanged",
                f"{scan.pair.mask}: its classes fit those of the other masks better with red and blue exchanged; it "
                "was probably saved as BGR, save it as RGB",
            )
