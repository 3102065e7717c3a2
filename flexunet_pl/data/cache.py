"""RamCache: decoded samples in memory that all workers of a loader share."""

import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from flexunet_pl.errors import UserError

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps it; it can be small in containers


class RamCache:
    """Keeps image and class indices of each sample at the network's size, a byte each, once they were read.

    The memory is shared: with forked and with spawned workers there is one copy, ``samples * H * W * (C + 1)`` bytes
    once all were read. Under DDP each process has its own.

    Args:
        samples: Number of samples.
        shape: Height, width and channels.

    Raises:
        UserError: If there is too little shared memory.
    """

    def __init__(self, samples: int, shape: tuple[int, int, int]) -> None:
        height, width, channels = shape
        self.size = samples * height * width * (channels + 1)
        if _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free < self.size:
            raise UserError(
                f"data.cache: ram needs {self.size / 2**30:.1f} GiB of shared memory, which {_SHARED_MEMORY} does not "
                "have; set it to none, or give the container more (--shm-size)"
            )
        self.images = _shared((samples, height, width, channels))
        self.masks = _shared((samples, height, width))
        self.ready = _shared((samples,))
        self.ready.zero_()

    def get(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """Return image ``(H, W, C)`` and class indices ``(H, W)`` of a sample, or None before they were put."""
        if not self.ready[index]:
            return None
        return self.images[index].numpy(), self.masks[index].numpy()

    def put(self, index: int, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
        """Keep a sample; two workers that do so at once write the same."""
        self.images[index] = torch.tensor(image)
        self.masks[index] = torch.tensor(mask)
        self.ready[index] = 1


def _shared(shape: tuple[int, ...]) -> torch.Tensor:
    # a new storage, since share_memory_ would first fill memory of its own and copy it
    storage = torch.UntypedStorage._new_shared(int(np.prod(shape)))  # type: ignore[no-untyped-call]
    strides = torch.empty(shape, dtype=torch.uint8, device="meta").stride()
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape, strides)
