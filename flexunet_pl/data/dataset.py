"""Images with their masks as a torch dataset."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.data.batch import Batch
from flexunet_pl.data.cache import Cache
from flexunet_pl.data.sampler import SampleKey
from flexunet_pl.data.transforms import Transform
from flexunet_pl.io.images import ImageReader, resize_image
from flexunet_pl.io.mask_colors import UnknownColors
from flexunet_pl.io.masks import read_mask, resize_mask
from flexunet_pl.io.pairs import Pair, size_mismatch
from flexunet_pl.rgb_map import RgbMap

# steps of albumentations that end the usual pipelines elsewhere
_LEAVING_UINT8 = frozenset({"Normalize", "ToFloat", "ToTensor3D", "ToTensorV2"})


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
        unknown: What colours are in masks that are no class; see `read_mask`.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        rgb_map: RgbMap,
        reader: ImageReader,
        transform: Transform | None = None,
        seed: int = 0,
        cache: Cache | None = None,
        unknown: UnknownColors = "error",
    ) -> None:
        self.pairs = list(pairs)
        self.rgb_map = rgb_map
        self.reader = reader
        self.transform = transform
        self.seed = seed
        self.cache = cache
        self.unknown = unknown

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        """Read one sample.

        Args:
            key: Which sample of which epoch; a number is one of the first, as samplers that are not ours give it
                (Lightning's own, for `trainer.overfit_batches`).

        Returns:
            Image and mask.

        Raises:
            DataError: If the transform changes the size, or see `_read`.
            UserError: If it leaves numbers other than uint8.
        """
        if isinstance(key, int):
            key = SampleKey(0, key)
        pair = self.pairs[key.index]
        image, mask = self._read(key.index)
        if self.transform is not None:
            shapes = image.shape, mask.shape
            image, mask = _transformed(self.transform, image, mask, (self.seed, key.epoch, key.index, key.repeat))
            _check_types(self.transform, image, mask)
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
        image, mask = self.reader.read(pair.image), read_mask(pair.mask, self.rgb_map, self.unknown)
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


def _check_types(transform: Transform, image: Any, mask: Any) -> None:
    """Refuse a transform after which images are no uint8: validation and prediction would never see such numbers.

    Raises:
        UserError: If it is one.
    """
    if isinstance(image, np.ndarray) and isinstance(mask, np.ndarray) and image.dtype == mask.dtype == np.uint8:
        return
    steps = [type(step).__name__ for step in getattr(transform, "transforms", [])]
    known = [step for step in steps if step in _LEAVING_UINT8]
    step = known[0] if known else type(transform).__name__
    kinds = " and ".join(str(getattr(array, "dtype", type(array).__name__)) for array in (image, mask))
    raise UserError(
        f"data.train_transform: {step} leaves image and mask as {kinds}, but the network is given uint8 in 0..255 and "
        "scales it itself, in validation and prediction too; take this step out"
    )


def _transformed(
    transform: Transform, image: NDArray[np.uint8], mask: NDArray[np.uint8], seed: tuple[int, ...]
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
