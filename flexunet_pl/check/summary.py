"""What a data set holds, summed over its scans, as plain data."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from flexunet_pl.check.findings import LookAlike
from flexunet_pl.check.placement import Finding, what_was_not_judged
from flexunet_pl.check.scan import Scan
from flexunet_pl.io.patient_ids import copy_source, group_of
from flexunet_pl.rgb_map import RgbMap


def summarise(
    scans: Sequence[Scan],
    findings: Sequence[Finding],
    look_alikes: Sequence[LookAlike],
    rgb_map: RgbMap,
    size: tuple[int, int],
    group_regex: re.Pattern[str] | None = None,
) -> dict[str, Any]:
    """Sum up a data set.

    Args:
        scans: One per pair.
        findings: What is wrong with it.
        look_alikes: Pictures across splits that look alike, ranked.
        rgb_map: Classes and colours.
        size: Height and width that the network is trained at, for the memory of the cache.
        group_regex: Finds the patient in a stem.

    Returns:
        ``rgb_map``; per split the number of pairs, of empty masks and augmented copies, groups, sizes, modes, pixels
        and images per class, and pixels off the map; ``cache_bytes``; ``class_weights``; ``look_alikes``;
        ``not_judged``; ``findings``.
    """
    splits = list(dict.fromkeys(scan.split for scan in scans))
    return {
        "rgb_map": rgb_map.to_dict(),
        "splits": {split: _of_split([s for s in scans if s.split == split], rgb_map, group_regex) for split in splits},
        # a decoded image of three channels and the class indices of its mask, a byte each
        "cache_bytes": len(scans) * size[0] * size[1] * 4,
        "class_weights": class_weights(scans, rgb_map),
        "look_alikes": [
            {
                "images": [str(found.one.pair.image), str(found.two.pair.image)],
                "splits": [found.one.split, found.two.split],
                "grey_levels": round(found.difference, 2),
            }
            for found in look_alikes
        ],
        "not_judged": what_was_not_judged(scans),
        "findings": [asdict(finding) for finding in findings],
    }


def class_weights(scans: Sequence[Scan], rgb_map: RgbMap) -> dict[str, float]:
    """Weigh classes by the inverse square root of their share of the pixels, so that their mean is 1.

    Args:
        scans: One per pair; those of train are used, or all where there is no train.
        rgb_map: Classes.

    Returns:
        A weight per class, 0 for one that is never shown.
    """
    used = [scan for scan in scans if scan.split == "train"] or list(scans)
    pixels = _total(used, len(rgb_map))
    raw = [(sum(pixels) / count) ** 0.5 if count else 0.0 for count in pixels]
    mean = sum(raw) / max(1, sum(1 for weight in raw if weight))
    return {name: round(weight / mean, 4) if mean else 0.0 for name, weight in zip(rgb_map.names, raw, strict=True)}


def _of_split(scans: list[Scan], rgb_map: RgbMap, group_regex: re.Pattern[str] | None) -> dict[str, Any]:
    measured = [scan for scan in scans if scan.class_pixels]
    pixels = _total(measured, len(rgb_map))
    images = [sum(1 for scan in measured if scan.class_pixels[k]) for k in range(len(rgb_map))]
    return {
        "pairs": len(scans),
        "unusable": sum(1 for scan in scans if scan.errors),
        "empty_masks": sum(1 for scan in measured if not any(scan.class_pixels[1:])),
        "augmented_copies": sum(1 for scan in scans if copy_source(scan.pair.image.stem)),
        "groups": _count(g for scan in scans if (g := group_of(scan.pair.image, group_regex)) is not None),
        "sizes": _count(f"{scan.size[0]}x{scan.size[1]}" for scan in scans if scan.size),
        "image_modes": _count(scan.image_mode for scan in scans if scan.image_mode),
        "mask_modes": _count(scan.mask_mode for scan in scans if scan.mask_mode),
        "pixels": dict(zip(rgb_map.names, pixels, strict=True)),
        "ignored_pixels": sum(scan.size[0] * scan.size[1] for scan in measured if scan.size) - sum(pixels),
        "images": dict(zip(rgb_map.names, images, strict=True)),
        "off_map_share": sum(scan.off_map for scan in measured) / max(1, sum(pixels)),
        "far_pixels": sum(count for scan in measured for _, count in scan.far_colors),
    }


def _total(scans: Sequence[Scan], classes: int) -> list[int]:
    return [sum(scan.class_pixels[k] for scan in scans if scan.class_pixels) for k in range(classes)]


def _count(values: Any) -> dict[str, int]:
    return dict(Counter(values).most_common())
