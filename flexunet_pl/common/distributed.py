"""Bring together what the processes of a run have found."""

from typing import Any, TypeVar

import torch
from lightning.pytorch import Trainer

T = TypeVar("T")


def leave_group() -> None:
    """Leave the processes of a run together, where there are several; all must call it.

    The threads of a group that is left to the end of the interpreter can abort it.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def gather(trainer: Trainer, own: T) -> list[T]:
    """Give each process what all of them have; all must call it.

    Args:
        trainer: The trainer.
        own: What this process has; it must be picklable.

    Returns:
        One item per process.
    """
    if trainer.world_size == 1:
        return [own]
    parts: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(parts, own)
    return parts
