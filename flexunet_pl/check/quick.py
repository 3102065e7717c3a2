"""What of the check costs nothing, for the start of a training: names, and files of equal content."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from flexunet_pl.check.findings import copies_across_splits, duplicates_across_splits
from flexunet_pl.check.placement import Finding, turned_images
from flexunet_pl.check.scan import Scan
from flexunet_pl.common.files import sha256_of
from flexunet_pl.io.pairs import Pair


def quick_check(pairs: Mapping[str, Sequence[Pair]]) -> list[Finding]:
    """Find augmented copies and equal image files on both sides of a split.

    Args:
        pairs: Those of each split.

    Returns:
        The findings.
    """
    by_size: dict[int, set[str]] = defaultdict(set)
    for split, of_split in pairs.items():
        for pair in of_split:
            by_size[pair.image.stat().st_size].add(split)
    scans = [
        Scan(split, pair, content_hash=sha256_of(pair.image) if len(by_size[pair.image.stat().st_size]) > 1 else "")
        for split, of_split in pairs.items()
        for pair in of_split
    ]
    everything = [pair for of_split in pairs.values() for pair in of_split]
    return [*turned_images(everything), *copies_across_splits(scans), *duplicates_across_splits(scans)]
