"""Caches of decoded samples: in memory that all workers of a loader share, or in a file that outlives the run."""

import errno
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.common.files import sha256_of, written_in_place

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps it; it can be small in containers
_CRC_BYTES = 4

Decoded = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class Cache(Protocol):
    """Keeps image and class indices of samples at the network's size."""

    def get(self, index: int) -> Decoded | None:
        """Return image ``(H, W, C)`` and class indices ``(H, W)`` of a sample, or None where it has none."""
        ...

    def put(self, index: int, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
        """Keep a sample."""
        ...


class RamCache:
    """Keeps image and class indices of each sample at the network's size, a byte each, once they were read.

    The memory is shared: with forked and with spawned workers there is one copy, ``samples * H * W * (C + 1)`` bytes
    once all were read. Samples of several sizes take as much as the largest. Under DDP each process has its own.

    Args:
        samples: Number of samples.
        shape: Height, width and channels, of the largest where they differ.

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
        self.sizes = torch.zeros((samples, 2), dtype=torch.int32).share_memory_()  # type: ignore[no-untyped-call]

    def get(self, index: int) -> Decoded | None:
        """Return image ``(H, W, C)`` and class indices ``(H, W)`` of a sample, or None before they were put."""
        if not self.ready[index]:
            return None
        height, width = self.sizes[index].tolist()
        return self.images[index, :height, :width].numpy(), self.masks[index, :height, :width].numpy()

    def put(self, index: int, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
        """Keep a sample; two workers that do so at once write the same."""
        height, width = mask.shape
        self.sizes[index] = torch.tensor([height, width])
        self.images[index, :height, :width] = torch.tensor(image)
        self.masks[index, :height, :width] = torch.tensor(mask)
        self.ready[index] = 1


class DiskCache:
    """Reads samples from a file of plain bytes that is mapped into memory: the system keeps what is used of it.

    Args:
        path: The file, one record of ``H * W * (C + 1)`` bytes per sample, image before mask, and its CRC-32.
        samples: Number of samples.
        shape: Height, width and channels.
    """

    def __init__(self, path: Path, samples: int, shape: tuple[int, int, int]) -> None:
        self.path = path
        self.samples = samples
        self.shape = shape
        self._records: NDArray[np.uint8] | None = None
        self._verified = np.zeros(samples, dtype=bool)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_records": None}  # a worker maps the file itself: pickled, a map is a copy

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        height, width, channels = self.shape
        return self.samples * (height * width * (channels + 1) + _CRC_BYTES)

    def is_complete(self) -> bool:
        """Tell whether the file is there; it is moved into place when it is written to the end."""
        return self.path.is_file() and self.path.stat().st_size == self.size

    def get(self, index: int) -> Decoded | None:
        """Return image ``(H, W, C)`` and class indices ``(H, W)`` of a sample.

        Raises:
            DataError: If the record is not as it was written.
        """
        if self._records is None:
            self._records = np.memmap(self.path, np.uint8, "r", shape=(self.samples, self.size // self.samples))
        height, width, channels = self.shape
        record, check = np.split(self._records[index], [-_CRC_BYTES])
        if not self._verified[index]:  # once in each process
            if zlib.crc32(record.data) != int.from_bytes(check.tobytes(), "little"):
                raise DataError(f"{self.path}: is damaged; remove it, and it is written again")
            self._verified[index] = True
        image, mask = np.split(record, [height * width * channels])
        return image.reshape(self.shape), mask.reshape(height, width)

    def put(self, index: int, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
        """Do nothing: the file was complete before it was read."""

    def fill(self, samples: Iterable[Decoded]) -> None:
        """Write the file, unless another process has done so in the meantime.

        Args:
            samples: Image and class indices of each, in order; not touched where the file is there.

        Raises:
            UserError: If the folder cannot be written to.
            OSError: If the disk is full.
        """
        try:
            self.path.parent.mkdir(exist_ok=True)
            with FileLock(self.path.with_suffix(".lock")):
                if self.is_complete():
                    return
                for left in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # of a process that was killed
                    left.unlink()
                with written_in_place(self.path) as temporary, temporary.open("wb") as file:
                    for image, mask in samples:  # written, not mapped: a full disk is an error then, not a crash
                        record = image.tobytes() + mask.tobytes()
                        file.write(record + zlib.crc32(record).to_bytes(_CRC_BYTES, "little"))
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}:
                raise UserError(f"{self.path.parent}: cannot be written to; set data.cache to ram or none") from error
            raise


def content_key(files: Sequence[Path], settings: object) -> str:
    """Return a name for what files hold, in their order, read with some settings.

    Args:
        files: The files.
        settings: Whatever changes what is made of them; its ``repr`` counts.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.sha256(repr((settings, len(files))).encode())
    for path in files:
        digest.update(bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()[:32]


def _shared(shape: tuple[int, ...]) -> torch.Tensor:
    # a new storage, since share_memory_ would first fill memory of its own and copy it
    storage = torch.UntypedStorage._new_shared(int(np.prod(shape)))  # type: ignore[no-untyped-call]
    strides = torch.empty(shape, dtype=torch.uint8, device="meta").stride()
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape, strides)
