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
from flexunet_pl.data.augmentation import Transform
from flexunet_pl.data.batch import Batch
from flexunet_pl.data.cache import Cache
from flexunet_pl.data.cutmix import paste_box
from flexunet_pl.data.patches import PatchCutter
from flexunet_pl.data.sampler import SampleKey
from flexunet_pl.io.images import ImageReader, resize_image
from flexunet_pl.io.mask_colors import UnknownColors
from flexunet_pl.io.masks import read_mask, resize_mask
from flexunet_pl.io.pairs import Pair, size_mismatch
from flexunet_pl.rgb_map import RgbMap

_OF_CUTTING, _OF_MIXING = 1, 2  # further numbers of a seed, so that one decision does not follow from another
_OTHER_DRAWS = 2**16  # from here on count the draws of what is mixed in: it is augmented in a way of its own
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
        at_own_size: Whether images and masks keep their own size.
        patches: Cuts patches out of them, or None; then they keep their own size too.
        cutmix: Probability that a box of a sample is another's.
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
        *,
        at_own_size: bool = False,
        patches: PatchCutter | None = None,
        cutmix: float = 0.0,
    ) -> None:
        self.pairs = list(pairs)
        self.rgb_map = rgb_map
        self.reader = reader
        self.transform = transform
        self.seed = seed
        self.cache = cache
        self.unknown = unknown
        self.at_own_size = at_own_size or patches is not None
        self.patches = patches
        self.cutmix = cutmix

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
        image, mask = self._augmented(key)
        rng = np.random.default_rng((self.seed, key.epoch, key.index, key.repeat, _OF_MIXING))
        if self.cutmix and rng.random() < self.cutmix:
            other = SampleKey(
                key.epoch, int(rng.integers(len(self))), int(rng.integers(_OTHER_DRAWS, 2 * _OTHER_DRAWS))
            )
            image, mask = paste_box(image, mask, self._augmented(other), rng)
        name = self.pairs[key.index].image.stem
        # copies: the arrays may be read-only or strided, which torch does not share
        return Sample(image=torch.tensor(image), mask=torch.tensor(mask), name=name, counted=key.counted)

    def _augmented(self, key: SampleKey) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read a sample and augment it, by random numbers that its key decides.

        Raises:
            DataError: If the transform changes the size, or see `_read`.
            UserError: If it leaves numbers other than uint8.
        """
        image, mask = self._read(key.index)
        seed = (self.seed, key.epoch, key.index, key.repeat)
        if self.patches is not None:
            image, mask = self.patches.cut(image, mask, np.random.default_rng((*seed, _OF_CUTTING)))
        if self.transform is not None:
            shapes = image.shape, mask.shape
            image, mask = _transformed(self.transform, image, mask, seed)
            _check_types(self.transform, image, mask)
            if (image.shape, mask.shape) != shapes:
                raise DataError(
                    f"{self.pairs[key.index].image}: the transform made it {image.shape[:2]} px, but it must keep "
                    f"{shapes[1]}; end it with a crop or a resize to `model.image_size`"
                )
        return (image, mask) if self.patches is None else self.patches.trim(image, mask)

    def _read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read an image and its mask and resize them, unless they keep their size; or take them from the cache.

        Raises:
            DataError: If a file cannot be used, or the sizes differ.
        """
        if self.cache is not None and (kept := self.cache.get(index)) is not None:
            return kept
        pair = self.pairs[index]
        image, mask = self.reader.read(pair.image), read_mask(pair.mask, self.rgb_map, self.unknown)
        if image.shape[:2] != mask.shape:
            raise DataError(size_mismatch(pair, image.shape, mask.shape))
        if not self.at_own_size:
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
