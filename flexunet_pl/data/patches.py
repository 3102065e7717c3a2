"""Patches of images at their own resolution, drawn around foreground or anywhere."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.rgb_map import IGNORED

_MARGIN = 1.5  # side of what is cut out, in sides of a patch: what turns and shifts into the patch is image too
_OFF_CENTRE = 0.25  # of a patch's side, at most: foreground is not to be expected in the middle


@dataclass(frozen=True)
class PatchCutter:
    """Cuts patches out of images and their masks.

    Attributes:
        size: Height and width of a patch, px.
        foreground_share: Share of the patches that lie around a pixel of a class other than the background, each class
            of the image as often as the others.
    """

    size: tuple[int, int]
    foreground_share: float

    def cut(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Cut a patch out, with a margin for what augmentation will move into it.

        Args:
            image: Shape ``(H, W, C)``, uint8.
            mask: Class indices, shape ``(H, W)``, uint8.
            rng: Decides where.

        Returns:
            Both, half as large again as a patch; where the image ends, its edge is repeated.
        """
        sides = [round(side * _MARGIN) for side in self.size]
        center = self._center(mask, rng)
        at = []
        for middle, side, length in zip(center, sides, mask.shape, strict=True):
            first = middle - side // 2
            if length >= side:  # then it stays within the image
                first = min(max(first, 0), length - side)
            at.append(np.arange(first, first + side).clip(0, length - 1))
        rows, columns = at
        return image[rows][:, columns], mask[rows][:, columns]

    def trim(self, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Take the margin off.

        Args:
            image: What `cut` has given, augmented.
            mask: Its mask.

        Returns:
            Image and mask of a patch's size.
        """
        top, left = ((have - want) // 2 for have, want in zip(mask.shape, self.size, strict=True))
        inner = slice(top, top + self.size[0]), slice(left, left + self.size[1])
        return image[inner], mask[inner]

    def _center(self, mask: NDArray[np.uint8], rng: np.random.Generator) -> tuple[int, int]:
        classes = np.unique(mask[(mask > 0) & (mask != IGNORED)])
        if len(classes) and rng.random() < self.foreground_share:
            where = np.argwhere(mask == rng.choice(classes))
            y, x = where[rng.integers(len(where))]
            off = [rng.integers(-round(_OFF_CENTRE * side), round(_OFF_CENTRE * side) + 1) for side in self.size]
            return int(y + off[0]), int(x + off[1])
        return int(rng.integers(mask.shape[0])), int(rng.integers(mask.shape[1]))
