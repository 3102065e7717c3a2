"""Augmentation for CT slices, made of albumentations."""

from typing import Any

import albumentations
import cv2
import numpy as np
from albumentations.augmentations.geometric.distortion import BaseDistortion
from albumentations.core.transforms_interface import BaseTransformInitSchema
from numpy.typing import NDArray
from pydantic import Field


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


class RadialDistortion(BaseDistortion):
    """Barrel or pincushion distortion within a circle: a pixel at distance d takes the value from d * factor.

    The factor is ``sin(pi / 2 * d / radius) ** amount``, which is 1 at the rim; it is the reference's formula.

    Args:
        radius: Radius of the circle, as a share of the image's width.
        amount: Strength; above 0 barrel, below 0 pincushion.
        center: Centre of the circle as x and y, as shares of width and height.
        p: Probability.
    """

    class InitSchema(BaseTransformInitSchema):
        """What the arguments may be."""

        radius: float = Field(gt=0)
        amount: float
        center: tuple[float, float]

    def __init__(
        self, radius: float = 0.5, amount: float = 0.5, center: tuple[float, float] = (0.5, 0.5), p: float = 0.5
    ) -> None:
        super().__init__(cv2.INTER_LINEAR, cv2.INTER_NEAREST, keypoint_remapping_method="direct", p=p)
        self.radius = radius
        self.amount = amount
        self.center = center

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Return where each pixel of the result comes from."""
        height, width = params["shape"][:2]
        x, y = _grid(height, width)
        dx, dy = x - self.center[0] * width, y - self.center[1] * height
        share = np.hypot(dx, dy) / (self.radius * width)
        # at the centre itself the displacement is 0 whatever the factor
        factor = np.sin(np.pi / 2 * np.clip(share, 1e-6, 1)) ** self.amount
        return {
            "map_x": (x + (factor - 1) * dx).astype(np.float32),
            "map_y": (y + (factor - 1) * dy).astype(np.float32),
        }


class SmoothDistortion(BaseDistortion):
    """Distortion by the slopes of a smooth random field, as in the reference; image and mask share the field.

    Args:
        magnitude: Largest displacement along x and y, as a share of the image's longer side.
        sigma: Smoothness of the field: standard deviation of its Gaussian filter in pixels.
        p: Probability.
    """

    class InitSchema(BaseTransformInitSchema):
        """What the arguments may be."""

        magnitude: float = Field(ge=0)
        sigma: float = Field(gt=0)

    def __init__(self, magnitude: float = 0.02, sigma: float = 40.0, p: float = 0.5) -> None:
        super().__init__(cv2.INTER_LINEAR, cv2.INTER_NEAREST, keypoint_remapping_method="direct", p=p)
        self.magnitude = magnitude
        self.sigma = sigma

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw a field and return where each pixel of the result comes from."""
        height, width = params["shape"][:2]
        field = cv2.GaussianBlur(self.random_generator.standard_normal((height, width)), (0, 0), self.sigma)
        x, y = _grid(height, width)
        slopes = np.gradient(field)
        dy, dx = (self.magnitude * max(height, width) * slope / max(np.abs(slope).max(), 1e-12) for slope in slopes)
        return {"map_x": (x - dx).astype(np.float32), "map_y": (y - dy).astype(np.float32)}


def _grid(height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return x, y


class StrongCTAugmentation(albumentations.Compose):
    """Augmentation for few CT slices: wide shifts, scales and turns, smooth and elastic distortion, gamma, blur, noise.

    It does not flip either, unless it is told to; see `CTAugmentation`.

    Args:
        p: Probability of each of the steps.
        horizontal_flip: Probability of mirroring left and right.
    """

    def __init__(self, p: float = 0.4, horizontal_flip: float = 0.0) -> None:
        super().__init__(
            [
                *([albumentations.HorizontalFlip(p=horizontal_flip)] if horizontal_flip else []),
                albumentations.Affine(
                    translate_percent=(-0.1, 0.1),
                    scale=(0.8, 1.25),
                    rotate=(-20, 20),
                    shear=(-5, 5),
                    interpolation=cv2.INTER_LINEAR,
                    mask_interpolation=cv2.INTER_NEAREST,
                    p=p,
                ),
                albumentations.OneOf(
                    [
                        SmoothDistortion(magnitude=0.03, sigma=30, p=1),
                        albumentations.ElasticTransform(alpha=60, sigma=8, p=1),
                    ],
                    p=p,
                ),
                albumentations.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=p),
                albumentations.RandomGamma(gamma_limit=(70, 150), p=p),
                albumentations.GaussianBlur(sigma_limit=(0.5, 1.0), p=p / 2),
                albumentations.GaussNoise(std_range=(0.0, 0.06), per_channel=False, p=p),
            ]
        )
