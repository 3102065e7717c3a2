"""Augmentation: what a transform is, and the defaults for CT slices."""

from typing import Any, Protocol

import albumentations
import cv2
import numpy as np
from numpy.typing import NDArray


class Transform(Protocol):
    """What turns an image and its mask into others of the same kind; any albumentations pipeline is one."""

    def __call__(self, *, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> dict[str, Any]:
        """Transform image and mask alike.

        Args:
            image: Shape ``(H, W, C)``, uint8.
            mask: Class indices, shape ``(H, W)``, uint8.

        Returns:
            ``image`` and ``mask`` of the same shapes and types.
        """
        ...


class CTAugmentation(albumentations.Compose):
    """Default augmentation for axial CT slices: a small shift, scale and turn, contrast, noise.

    There are no flips and no quarter turns: the body has sides (the heart points left, the liver lies right, apex and
    base differ), and a network that sees mirrored anatomy learns to place organs that no patient has. Turn flips on,
    by `horizontal_flip`, where the target has no side, as for bone lesions.

    Args:
        max_shift: Largest shift, as a share of the image's side.
        max_zoom: Largest change of scale; 0.1 gives 0.9 to 1.1.
        max_rotation: Largest turn, in degrees.
        contrast: Largest change of brightness and contrast, as a share.
        noise: Largest standard deviation of the noise, as a share of the range.
        horizontal_flip: Probability of mirroring left and right.
        p: Probability of each of the three steps.
    """

    def __init__(
        self,
        max_shift: float = 0.06,
        max_zoom: float = 0.1,
        max_rotation: float = 10.0,
        contrast: float = 0.15,
        noise: float = 0.04,
        horizontal_flip: float = 0.0,
        p: float = 0.5,
    ) -> None:
        super().__init__(
            [
                albumentations.HorizontalFlip(p=horizontal_flip),
                albumentations.Affine(
                    translate_percent=(-max_shift, max_shift),
                    scale=(1 - max_zoom, 1 + max_zoom),
                    rotate=(-max_rotation, max_rotation),
                    interpolation=cv2.INTER_LINEAR,
                    mask_interpolation=cv2.INTER_NEAREST,
                    p=p,
                ),
                albumentations.RandomBrightnessContrast(brightness_limit=contrast, contrast_limit=contrast, p=p),
                albumentations.GaussNoise(std_range=(0.0, noise), per_channel=False, p=p),
            ]
        )
