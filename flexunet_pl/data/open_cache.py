"""The cache of a split, filled where it is on the disk."""

from pathlib import Path
from typing import Literal

from flexunet_pl.common.console import say, show_progress
from flexunet_pl.data.cache import Cache, DiskCache, RamCache, content_key
from flexunet_pl.data.dataset import SegmentationDataset
from flexunet_pl.data.loaders import Loaders
from flexunet_pl.data.sampler import SampleKey
from flexunet_pl.io.images import read_size


def open_cache(
    kind: Literal["none", "ram", "disk"], root: Path | None, split: str, dataset: SegmentationDataset, loaders: Loaders
) -> Cache | None:
    """Open a cache for the samples of a split; one on the disk is written first, where it is not there yet.

    Args:
        kind: Where it is.
        root: Root of the data set.
        split: Name of the split.
        dataset: Reads the samples.
        loaders: Make the loader that fills it.

    Returns:
        The cache, or None.
    """
    size = dataset.reader.size
    if dataset.at_own_size:
        sizes = [read_size(pair.image, dataset.reader.slice_channels) for pair in dataset.pairs]
        size = max(height for height, _ in sizes), max(width for _, width in sizes)
    shape = (*size, dataset.reader.channels)
    if kind == "ram":
        return RamCache(len(dataset), shape)
    if kind == "none" or root is None:
        return None
    settings = (dataset.reader, dataset.rgb_map, dataset.unknown)
    key = content_key([path for pair in dataset.pairs for path in pair], settings)
    cache = DiskCache(root / ".flexunet_cache" / f"{split}-{key}.bin", len(dataset), shape)
    if not cache.is_complete():
        say(f"writing {cache.path}, {cache.size / 2**20:.0f} MiB; it may be deleted at any time")
        order = [SampleKey(0, i) for i in range(len(dataset))]
        plain = SegmentationDataset(dataset.pairs, dataset.rgb_map, dataset.reader, unknown=dataset.unknown)
        loader = loaders.load(plain, order, list)
        samples = (s for batch in show_progress(loader, "caching", len(loader)) for s in batch)
        cache.fill((s["image"].numpy(), s["mask"].numpy()) for s in samples)
    return cache
