"""Loaders of data: their processes, their randomness, and where a resumed run goes on."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from flexunet_pl.common.processes import end_with_parent


@dataclass(frozen=True)
class Loaders:
    """Makes the loaders of a data module.

    Attributes:
        batch_size: Images per step and process.
        num_workers: Processes that read, besides each training process.
        start_method: How those start; None for the system's default.
        seed: Seed of the loaders' own generators.
    """

    batch_size: int
    num_workers: int
    start_method: Literal["fork", "spawn", "forkserver"] | None
    seed: int

    def load(self, dataset: Any, sampler: Any, collate: Any, batch_size: int | None = None) -> DataLoader[Any]:
        """Return a loader.

        Args:
            dataset: What is read.
            sampler: The order.
            collate: Makes a batch of samples.
            batch_size: By default that of the data module.
        """
        return DataLoader(
            dataset,
            batch_size=self.batch_size if batch_size is None else batch_size,
            sampler=sampler,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            multiprocessing_context=self.start_method if self.num_workers > 0 else None,
            worker_init_fn=end_with_parent,  # each sample seeds the generators again, so that workers need no seed
            pin_memory=torch.cuda.is_available(),
            # a generator of its own: the loader must not draw from the one that dropout uses
            generator=torch.Generator().manual_seed(self.seed),
        )


def position_in_training(trainer: Any) -> tuple[int, int]:
    """Return the epoch that training is in or will begin with, and how many of its batches are done."""
    epochs, batches = trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop.batch_progress
    mid_epoch = epochs.started > epochs.processed and not batches.is_last_batch
    return epochs.processed, batches.current.processed if mid_epoch else 0
