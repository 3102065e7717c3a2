"""What an augmentation is, and the ready ones by name; those are made of albumentations, which takes time to import."""

from importlib import import_module
from typing import Any, Protocol

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


PRESETS = {"ct_light": "CTAugmentation", "ct_strong": "StrongCTAugmentation"}


def make_preset(name: str) -> Transform:
    """Make the augmentation of that name, one of `PRESETS`."""
    transform: Transform = getattr(import_module("flexunet_pl.data.transforms"), PRESETS[name])()
    return transform
