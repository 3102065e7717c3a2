"""Do the same to many things, in several processes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from flexunet_pl.errors import RunFailedError, UserError

T = TypeVar("T")
R = TypeVar("R")


def map_processes(function: Callable[[T], R], items: Sequence[T], workers: int, chunk: int = 1) -> Iterator[R]:
    """Call a function with each item and give the results in their order.

    Args:
        function: What to call; it must be picklable.
        items: The items.
        workers: Processes; 0 calls it in this one.
        chunk: Items that are handed to a process at a time.

    Yields:
        The results.

    Raises:
        RunFailedError: If a process was lost.
        UserError: If the number of processes is negative.
    """
    if workers < 0:
        raise UserError(f"workers ({workers}) must not be negative; 0 does all in one process")
    if not workers:
        yield from map(function, items)
        return
    # spawned: a progress bar runs a thread, which a fork would copy in the middle of anything
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(function, items, chunksize=chunk)
        except BrokenProcessPool as error:
            raise RunFailedError("a worker process was lost; probably memory ran out: give --workers 1") from error
