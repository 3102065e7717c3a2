"""Tiles: how an image larger than the network's is cut and put together again."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_NARROWNESS = 8  # sides of a tile per width of the Gaussian
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Tiling:
    """A plan of overlapping tiles; what they say of a pixel is averaged with Gaussian weights.

    Args:
        size: Height and width of the image, in pixels.
        tile: Height and width of a tile, in pixels.
        overlap: Share of a tile's side that it has in common with the next, at least 0 and below 1.

    >>> plan = Tiling((96, 64), (64, 64), 0.25)
    >>> [(rows.start, columns.start) for rows, columns in plan.tiles()]
    [(0, 0), (32, 0)]
    >>> Tiling((40, 64), (64, 64)).margins  # smaller than a tile: it is grown
    ((12, 12), (0, 0))
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    overlap: float = 0.25

    @property
    def grown(self) -> tuple[int, int]:
        """Height and width of the image once no side is shorter than a tile's."""
        return max(self.size[0], self.tile[0]), max(self.size[1], self.tile[1])

    @property
    def margins(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pixels to add above and below, left and right; they repeat the image's edge."""
        above, left = ((grown - side) // 2 for grown, side in zip(self.grown, self.size, strict=True))
        return (above, self.grown[0] - self.size[0] - above), (left, self.grown[1] - self.size[1] - left)

    @property
    def inner(self) -> tuple[slice, slice]:
        """Rows and columns of the image within the grown one."""
        (above, _), (left, _) = self.margins
        return slice(above, above + self.size[0]), slice(left, left + self.size[1])

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """Weight of each pixel of a tile, shape of the tile: a Gaussian whose width is an eighth of the side."""
        lines = [
            np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / (2 * (n / _NARROWNESS) ** 2)).astype(np.float32)
            for n in self.tile
        ]
        weights: NDArray[np.float32] = lines[0][:, None] * lines[1][None]
        return np.maximum(weights, max(float(weights[weights > 0].min()), _LEAST_WEIGHT))

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """Yield rows and columns of each tile, in the grown image."""
        for top in self._starts(0):
            for left in self._starts(1):
                yield slice(top, top + self.tile[0]), slice(left, left + self.tile[1])

    def _starts(self, axis: int) -> list[int]:
        """Return where tiles begin: at equal steps, the last one at the end."""
        length, side = self.grown[axis], self.tile[axis]
        step = max(1, int(side * (1 - self.overlap)))
        return [min(i * step, length - side) for i in range(-(-(length - side) // step) + 1)]
