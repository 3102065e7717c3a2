"""Worker processes: do the same to many things in several, and end with the process that made them."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import TypeVar

from flexunet_pl.common.errors import RunFailedError, UserError

T = TypeVar("T")
R = TypeVar("R")


def end_with_parent(number: int = 0) -> None:
    """Have this worker end as soon as the process that made it is gone, however that ended.

    One that forkserver has started, and one that waits in a pool, would otherwise stay for ever: neither of them sees a
    parent that is killed.

    Args:
        number: Of the worker; all are alike.
    """
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_outlive, args=(parent,), daemon=True).start()


def _outlive(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def count_cores() -> int:
    """Count the cores that this process may use, which on shared machines are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_processes(
    function: Callable[[T], R], items: Sequence[T], workers: int | None = None, *, chunk: int = 1, few: int = 0
) -> Iterator[R]:
    """Call a function with each item and give the results in their order.

    Args:
        function: What to call; it must be picklable.
        items: The items.
        workers: Processes; 0 calls it in this one; by default as many as there are cores.
        chunk: Items that are handed to a process at a time.
        few: Number of items up to which it is called in this process, since starting others takes longer.

    Yields:
        The results.

    Raises:
        RunFailedError: If a process was lost.
        UserError: If the number of processes is negative.
    """
    count = count_cores() if workers is None else workers
    if count < 0:
        raise UserError(f"workers ({workers}) must not be negative; 0 does all in one process")
    if not count or len(items) <= few:
        yield from map(function, items)
        return
    # spawned: a progress bar runs a thread, which a fork would copy in the middle of anything
    with ProcessPoolExecutor(min(count, len(items)), get_context("spawn"), initializer=end_with_parent) as pool:
        try:
            yield from pool.map(function, items, chunksize=chunk)
        except BrokenProcessPool as error:
            raise RunFailedError("a worker process was lost; probably memory ran out: give --workers 1") from error
