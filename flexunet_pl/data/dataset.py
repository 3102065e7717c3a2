"""Images with their masks as a torch dataset, and the order in which they are drawn."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from flexunet_pl.batch import Batch, PredictBatch
from flexunet_pl.data.cache import RamCache
from flexunet_pl.data.transforms import Transform
from flexunet_pl.errors import DataError
from flexunet_pl.image_io import ImageReader, read_mask, resize_image, resize_mask
from flexunet_pl.pairing import Pair, size_mismatch
from flexunet_pl.rgb_map import RgbMap


@dataclass(frozen=True)
class SampleKey:
    """Which sample to draw, in which epoch; with the seed it decides everything that is random about it.

    Attributes:
        epoch: Epoch, from 0.
        index: Position in the data set.
        counted: False for a sample that only keeps the processes in step and must not enter any score.
    """

    epoch: int
    index: int
    counted: bool = True


class Sample(TypedDict):
    """An image and its mask at the network's size.

    Attributes:
        image: Shape ``(H, W, C)``, uint8.
        mask: Class indices, shape ``(H, W)``, uint8.
        name: Stem of the files.
        counted: See `SampleKey`.
    """

    image: torch.Tensor
    mask: torch.Tensor
    name: str
    counted: bool


class SegmentationDataset(Dataset[Sample]):
    """Images and masks, read when asked for, resized and augmented.

    Args:
        pairs: The files.
        rgb_map: Classes and their colours.
        reader: How images are read.
        transform: Augmentation, or None.
        seed: Seed of the augmentation.
        cache: Keeps what was read, or None.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        rgb_map: RgbMap,
        reader: ImageReader,
        transform: Transform | None = None,
        seed: int = 0,
        cache: RamCache | None = None,
    ) -> None:
        self.pairs = list(pairs)
        self.rgb_map = rgb_map
        self.reader = reader
        self.transform = transform
        self.seed = seed
        self.cache = cache

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: SampleKey) -> Sample:
        """Read one sample.

        Args:
            key: Which sample of which epoch.

        Returns:
            Image and mask.

        Raises:
            DataError: If the transform changes the size, or see `_read`.
        """
        pair = self.pairs[key.index]
        image, mask = self._read(key.index)
        if self.transform is not None:
            shapes = image.shape, mask.shape
            image, mask = _transformed(self.transform, image, mask, (self.seed, key.epoch, key.index))
            if (image.shape, mask.shape) != shapes:
                raise DataError(
                    f"{pair.image}: the transform made it {image.shape[:2]} px, but it must keep {shapes[1]}; "
                    "end it with a crop or a resize to `model.image_size`"
                )
        # copies: the arrays may be read-only or strided, which torch does not share
        return Sample(image=torch.tensor(image), mask=torch.tensor(mask), name=pair.image.stem, counted=key.counted)

    def _read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read an image and its mask and resize them, or take them from the cache.

        Raises:
            DataError: If a file cannot be used, or the sizes differ.
        """
        if self.cache is not None and (kept := self.cache.get(index)) is not None:
            return kept
        pair = self.pairs[index]
        image, mask = self.reader.read(pair.image), read_mask(pair.mask, self.rgb_map)
        if image.shape[:2] != mask.shape:
            raise DataError(size_mismatch(pair, image.shape, mask.shape))
        image, mask = resize_image(image, self.reader.size), resize_mask(mask, self.reader.size)
        if self.cache is not None:
            self.cache.put(index, image, mask)
        return image, mask


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; the images stay channels-last in memory, which is what convolutions like best.

    Args:
        samples: The samples; those that are not counted stand last.

    Returns:
        The batch.
    """
    return Batch(
        image=torch.stack([s["image"] for s in samples]).permute(0, 3, 1, 2),
        mask=torch.stack([s["mask"] for s in samples]),
        name=[s["name"] for s in samples],
        counted=sum(s["counted"] for s in samples),
    )


def _transformed(
    transform: Transform, image: NDArray[np.uint8], mask: NDArray[np.uint8], seed: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Augment with random numbers that depend on the seed alone, not on the worker or on what came before."""
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    if hasattr(transform, "set_random_seed"):  # albumentations keeps generators of its own
        transform.set_random_seed(number)
        out = transform(image=image, mask=mask)
    else:
        with _global_generators(number):
            out = transform(image=image, mask=mask)
    return out["image"], out["mask"]


@contextmanager
def _global_generators(seed: int) -> Iterator[None]:
    """Seed the global generators for a while and put them back as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - a transform may use it
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


class EpochSampler(Sampler[SampleKey]):
    """Order of the samples, from seed and epoch alone, shared among processes.

    In training every process gets the same number of different samples; where the data set does not divide, a few sit
    out an epoch, others each time. In evaluation every sample is counted by exactly one process, and a process that
    runs short repeats its last one without counting it, since the processes must make the same number of steps.

    Args:
        size: Number of samples in the data set.
        seed: Seed of the order.
        train: Whether to shuffle and cut; else in order, and filled up.
        rank: Number of this process.
        world_size: Number of processes.

    Raises:
        DataError: If there are fewer training samples than processes.
    """

    def __init__(self, size: int, *, seed: int = 0, train: bool = False, rank: int = 0, world_size: int = 1) -> None:
        if train and size < world_size:
            raise DataError(f"{size} training images cannot be shared by {world_size} processes; lower trainer.devices")
        self.size = size
        self.seed = seed
        self.train = train
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.resume_from = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws; Lightning calls this."""
        self.epoch = epoch

    def resume(self, epoch: int, samples_done: int) -> None:
        """Go on within an epoch, behind the samples that an interrupted run has drawn."""
        self.set_epoch(epoch)
        self.resume_from = (epoch, samples_done)

    def __len__(self) -> int:
        rounded = self.size if self.train else self.size + self.world_size - 1
        return rounded // self.world_size

    def __iter__(self) -> Iterator[SampleKey]:
        order = np.arange(self.size)
        if self.train:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        mine = order[self.rank :: self.world_size][: len(self)]
        keys = [SampleKey(self.epoch, int(i)) for i in mine]
        keys += [SampleKey(self.epoch, int(order[-1]), counted=False)] * (len(self) - len(keys))
        epoch, done = self.resume_from
        return iter(keys[done if epoch == self.epoch else 0 :])


class PredictItem(TypedDict):
    """An image to predict.

    Attributes:
        image: Shape ``(H, W, C)`` at the network's size, uint8.
        path: The file.
        size: Height and width of the image in the file.
    """

    image: torch.Tensor
    path: str
    size: tuple[int, int]


class PredictDataset(Dataset[PredictItem]):
    """Images without masks, each with its own size.

    Args:
        paths: The files.
        reader: How images are read.
    """

    def __init__(self, paths: Sequence[Path], reader: ImageReader) -> None:
        self.paths = list(paths)
        self.reader = reader

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> PredictItem:
        """Read one image and resize it to the network's size."""
        image = self.reader.read(self.paths[index])
        height, width = image.shape[:2]
        resized = resize_image(image, self.reader.size)
        return PredictItem(image=torch.tensor(resized), path=str(self.paths[index]), size=(height, width))


def collate_predict(items: Sequence[PredictItem]) -> PredictBatch:
    """Stack images to predict.

    Args:
        items: The images.

    Returns:
        The batch.
    """
    return PredictBatch(
        image=torch.stack([i["image"] for i in items]).permute(0, 3, 1, 2),
        path=[i["path"] for i in items],
        size=[i["size"] for i in items],
    )
