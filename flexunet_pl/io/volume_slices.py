"""Slices of volumes as pictures for the network, and back."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.arrays import read_array, read_array_shape
from flexunet_pl.io.cases import Case
from flexunet_pl.io.images import ImageReader
from flexunet_pl.io.volumes import Volume, read_volume, read_volume_shape
from flexunet_runtime.window import Window, parse_percentiles, stretch


@dataclass(frozen=True)
class SliceRules:
    """How a volume is cut into pictures.

    Attributes:
        axis: 0, 1, 2 for axial, coronal and sagittal slices, whatever the order in the file; in .npy and .h5 files,
            which do not say how the patient lies, the axis of the array.
        window: Lowest and highest value, such as -160 and 240 HU, mapped to 0 and 255, also of 16-bit images; or
            `slice`, each slice from its own lowest to its own highest value, as in the original. By default that of the
            data set that was trained on, or model.image_window; where neither is known, it must be given.
        percentiles: The same as percentiles of each volume's values, such as 0.5 and 99.5, where there is no window.
        rotation: Degrees by which each slice is turned counterclockwise for the network; the mask is turned back.
        dataset: Path of the array in an HDF5 file; by default the only one of three dimensions.
    """

    axis: Literal[0, 1, 2] = 0
    window: tuple[float, float] | Literal["slice"] | None = None
    percentiles: tuple[float, float] | None = None
    rotation: Literal[0, 90, 180, 270] = 0
    dataset: str | None = None

    def __post_init__(self) -> None:
        if self.window != "slice":
            Window.parse(self.window, "data.volume.window")
        parse_percentiles(self.percentiles, "data.volume.percentiles")


def count_slices(case: Case, rules: SliceRules) -> int:
    """Return how many pictures a case has, 1 for an image; of a volume the header alone is read.

    Args:
        case: The case.
        rules: How volumes are cut.

    Returns:
        The number.

    Raises:
        DataError: If the header cannot be read.
    """
    if not case.is_volume:
        return 1
    shape = read_array_shape(case.path, rules.dataset) if case.is_array else read_volume_shape(case.path)
    return int(shape[rules.axis])


def read_case(case: Case, rules: SliceRules) -> Volume:
    """Read a volume.

    Args:
        case: A volume.
        rules: Where the values are in an HDF5 file.

    Returns:
        The volume; one without a geometry has voxels of 1 mm.

    Raises:
        DataError: If it cannot be read.
    """
    if not case.is_array:
        return read_volume(case.path)
    return Volume(read_array(case.path, rules.dataset))


def cut_slice(values: NDArray[Any], number: int, rules: SliceRules, reader: ImageReader) -> NDArray[np.uint8]:
    """Make a picture of a slice, and of those beside it where the reader wants them; at the ends they are repeated.

    Args:
        values: Those of the volume, shape ``(D, H, W)``.
        number: Which slice along the axis of the rules.
        rules: How the volume is cut.
        reader: How pictures are made: their channels and window.

    Returns:
        The picture, shape ``(H, W, channels)``, uint8.
    """
    beside = range(number - reader.neighbours, number + reader.neighbours + 1)
    wanted = np.clip(beside, 0, values.shape[rules.axis] - 1)
    slices = [stretch(np.take(values, i, axis=rules.axis), reader.window) for i in wanted]
    turned = [np.rot90(picture, rules.rotation // 90)[..., None] for picture in slices]
    return np.concatenate([np.repeat(picture, reader.slice_channels, axis=2) for picture in turned], axis=2)


def join_slices(masks: list[NDArray[Any]], rules: SliceRules) -> NDArray[Any]:
    """Put what was predicted of all slices back together.

    Args:
        masks: One per slice, as the picture lies.
        rules: How the volume was cut.

    Returns:
        Values of the volume's shape ``(D, H, W)``.
    """
    return np.stack([np.rot90(mask, -(rules.rotation // 90)) for mask in masks], axis=rules.axis)


def percentile_window(name: str, values: NDArray[Any], percentiles: tuple[float, float]) -> Window:
    """Find the values of a volume that become black and white.

    Args:
        name: Of the volume, for messages.
        values: All of it.
        percentiles: Which of its values.

    Returns:
        The window.

    Raises:
        DataError: If both are one value.
    """
    low, high = np.percentile(values, percentiles)
    if not low < high:
        raise DataError(f"{name}: all its voxels are {low:g}; export it again or remove it")
    return Window(float(low), float(high))


class SliceReader:
    """Reads pictures of images and volumes; keeps the volume that was read last, because its slices come in a row.

    Args:
        reader: How images are read.
        rules: How volumes are cut.
    """

    def __init__(self, reader: ImageReader, rules: SliceRules) -> None:
        if rules.window == "slice":
            self.reader = replace(reader, window=None)
        else:
            self.reader = reader if rules.window is None else replace(reader, window=Window.parse(rules.window))
        self.rules = rules
        self._kept: tuple[Path, tuple[NDArray[Any], Window | None] | DataError] | None = None

    def read(self, case: Case, number: int) -> NDArray[np.uint8]:
        """Read a picture at its own size.

        Args:
            case: The case.
            number: Which of its slices; 0 for an image.

        Returns:
            The picture, shape ``(H, W, channels)``, uint8.

        Raises:
            DataError: If the file cannot be read; for a volume it is raised for each of its slices.
        """
        if not case.is_volume:
            return self.reader.read(case.path)
        if self._kept is None or self._kept[0] != case.path:
            self._kept = None  # before the next one is read: two need not fit the memory
            try:
                values = read_case(case, self.rules).values
                self._kept = case.path, (values, self._window(case, values))
            except DataError as error:
                self._kept = case.path, error
        kept = self._kept[1]
        if isinstance(kept, DataError):
            raise kept
        return cut_slice(kept[0], number, self.rules, replace(self.reader, window=kept[1]))

    def _window(self, case: Case, values: NDArray[Any]) -> Window | None:
        """Return the window of a volume.

        Raises:
            DataError: If its percentiles are one value.
        """
        if self.rules.window is not None or self.rules.percentiles is None:
            return self.reader.window
        return percentile_window(str(case.path), values, self.rules.percentiles)
