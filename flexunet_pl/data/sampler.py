"""In which order samples are drawn: from seed and epoch alone, shared among processes, lesions more often if wanted."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from flexunet_pl.common.errors import DataError


@dataclass(frozen=True)
class SampleKey:
    """Which sample to draw, in which epoch; with the seed it decides everything that is random about it.

    Attributes:
        epoch: Epoch, from 0.
        index: Position in the data set.
        repeat: How often it was drawn in this epoch before.
        counted: False for a sample that only keeps the processes in step and must not enter any score.
    """

    epoch: int
    index: int
    repeat: int = 0
    counted: bool = True


class EpochSampler(Sampler[SampleKey]):
    """Order of the samples, from seed and epoch alone, shared among processes.

    In training every process gets the same number of samples, each as often as the others but for one; where the number
    does not divide, a few sit out an epoch, others each time. Where samples with foreground are to be drawn more often,
    they fill their share of the epoch, and others sit out in turn; an epoch stays as long as it was.

    In evaluation every sample is counted by exactly one process, and a process that runs short repeats its last one
    without counting it, since the processes must make the same number of steps.

    Args:
        size: Number of samples in the data set.
        seed: Seed of the order.
        train: Whether to shuffle and cut; else in order, and filled up.
        rank: Number of this process.
        world_size: Number of processes.
        foreground: Whether each sample shows foreground, shape ``(size,)``; None treats all alike.
        foreground_share: Share of an epoch's samples that are to show it; where they do anyway, nothing changes.
        length: Samples of a training epoch, of all processes together; those of the data set where None is given.

    Raises:
        DataError: If there are fewer training samples than processes.
    """

    def __init__(
        self,
        size: int,
        *,
        seed: int = 0,
        train: bool = False,
        rank: int = 0,
        world_size: int = 1,
        foreground: NDArray[np.bool_] | None = None,
        foreground_share: float = 0.0,
        length: int | None = None,
    ) -> None:
        self.length = length if length is not None and train else size
        if train and self.length < world_size:
            raise DataError(
                f"{self.length} training images cannot be shared by {world_size} processes; lower trainer.devices"
            )
        self.size = size
        self.seed = seed
        self.train = train
        self.rank = rank
        self.world_size = world_size
        self.foreground = foreground
        self.foreground_share = foreground_share
        self.epoch = 0
        self.resume_from = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws; Lightning calls this."""
        self.epoch = epoch

    def resume(self, epoch: int, samples_done: int) -> None:
        """Go on within an epoch, behind the samples that an interrupted run has drawn."""
        self.set_epoch(epoch)
        self.resume_from = (epoch, samples_done)

    def __len__(self) -> int:
        rounded = self.length if self.train else self.size + self.world_size - 1
        return rounded // self.world_size

    def __iter__(self) -> Iterator[SampleKey]:
        order = self._shuffled() if self.train else np.arange(self.size)
        drawn: Counter[int] = Counter()
        keys: list[SampleKey] = []
        for place, i in enumerate(order.tolist()):
            if place % self.world_size == self.rank and len(keys) < len(self):
                keys.append(SampleKey(self.epoch, i, drawn[i]))
            drawn[i] += 1
        keys += [SampleKey(self.epoch, int(order[-1]), counted=False)] * (len(self) - len(keys))
        epoch, done = self.resume_from
        return iter(keys[done if epoch == self.epoch else 0 :])

    def _shuffled(self) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = np.arange(self.size)
        parts = [(order, self.length)]
        if self.foreground is not None and self.foreground.any():
            wanted = round(self.foreground_share * self.length)
            if wanted * self.size > self.foreground.sum() * self.length:  # there are not so many anyway
                shown, empty = order[self.foreground], order[~self.foreground]
                parts = [(empty, self.length - wanted), (shown, wanted)]
        order = np.concatenate([_draw(rng, samples, count) for samples, count in parts if count])
        rng.shuffle(order)
        return order


def _draw(rng: np.random.Generator, samples: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return so many of the samples, each as often as the others but for one."""
    times, rest = divmod(count, len(samples))
    every = np.tile(samples, times)
    return np.concatenate([every, rng.permutation(samples)[:rest]]) if rest else every
