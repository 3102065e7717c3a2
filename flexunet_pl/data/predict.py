"""Images and slices of volumes to predict, as a torch dataset."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from flexunet_pl.common.errors import DataError
from flexunet_pl.data.batch import PredictBatch
from flexunet_pl.io.cases import Case
from flexunet_pl.io.images import ImageReader, resize_image
from flexunet_pl.io.volume_slices import SliceReader, SliceRules


class PredictItem(NamedTuple):
    """A picture to predict.

    Attributes:
        image: Shape ``(H, W, C)``, uint8: at the network's size, or at its own where it is to be tiled; None where the
            file cannot be used.
        path: The file.
        slice: Number of the slice, 0 for an image.
        size: Height and width of the picture in the file.
        problem: Why the file cannot be used.
    """

    image: torch.Tensor | None
    path: str
    slice: int
    size: tuple[int, int] = (0, 0)
    problem: str = ""


class PredictDataset(Dataset[PredictItem]):
    """Pictures without masks, each with its own size; a file that cannot be used is an item that says why.

    Args:
        pictures: Case and number of the slice of each; those of a volume in a row.
        reader: How images are read.
        rules: How volumes are cut.
        tiled: Whether pictures that are larger than the network's size keep their own.
        at_own_size: Whether all do.
    """

    def __init__(
        self,
        pictures: Sequence[tuple[Case, int]],
        reader: ImageReader,
        rules: SliceRules | None = None,
        tiled: bool = False,
        at_own_size: bool = False,
    ) -> None:
        self.pictures = list(pictures)
        self.source = SliceReader(reader, rules if rules is not None else SliceRules())
        self.tiled = tiled
        self.at_own_size = at_own_size

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> PredictItem:
        """Read one picture."""
        case, number = self.pictures[index]
        try:
            image = self.source.read(case, number)
        except DataError as error:
            return PredictItem(None, str(case.path), number, problem=str(error))
        height, width = image.shape[:2]
        size = self.source.reader.size
        larger = height > size[0] or width > size[1]
        if not (self.at_own_size or (self.tiled and larger)):
            image = resize_image(image, size)
        return PredictItem(torch.tensor(image), str(case.path), number, (height, width))


def collate_predict(items: Sequence[PredictItem]) -> PredictBatch:
    """Stack pictures to predict.

    Args:
        items: The pictures.

    Returns:
        The batch, without those that cannot be used; it may be empty.
    """
    usable = [(i, i.image) for i in items if i.image is not None]
    images = [image for _, image in usable]
    return PredictBatch(
        image=torch.stack(images).permute(0, 3, 1, 2) if images else torch.empty(0, 1, 1, 1, dtype=torch.uint8),
        path=[i.path for i, _ in usable],
        slice=[i.slice for i, _ in usable],
        size=[i.size for i, _ in usable],
        problems=[i.problem for i in items if i.image is None],
        unusable=[i.path for i in items if i.image is None],
    )
