"""Requests that wait are predicted together; large images apart from the others."""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_runtime.model import Model

LARGE = 1_000_000  # pixels
_NICE = 5  # a quarter of the time where others want it


@dataclass(frozen=True)
class Limits:
    """What a service takes.

    Attributes:
        body_bytes: Of a request's body.
        head_s: Seconds in which the head of a request must have come as a whole.
        body_s: Seconds in which its body must have come as a whole.
        decode_s: Seconds in which it must be decoded.
        pixels: Of an image; and of all large images that are decoded or predicted at a time.
        side: Height and width of an image, at most.
        wait_s: Seconds in which what is accepted should be answered, large images aside; where those before it would
            take longer, a request is sent away with 503. One that finds nobody before it is always accepted.
        requests: That have come, and wait or are predicted at a time; more are sent away too.
        large: Of them with large images, at most.
        batch: Images of one size that are predicted at once.
        connections: At a time, those that say nothing included; more are closed.
        of_address: Connections of one address at a time.
        reading_bytes: Of bodies that are being read, all together.
    """

    body_bytes: int = 20_000_000
    head_s: float = 10.0
    body_s: float = 10.0
    decode_s: float = 5.0
    pixels: int = 4_200_000  # 2048x2048
    side: int = 10_000
    wait_s: float = 2.0
    requests: int = 100
    large: int = 5
    batch: int = 4
    connections: int = 500
    of_address: int = 250
    reading_bytes: int = 100_000_000


@dataclass(frozen=True)
class Answer:
    """What a model makes of an image.

    Attributes:
        mask: Class index per pixel, shape ``(H, W)``, uint8.
        probabilities: Shape ``(K, H, W)``, float32; None of models that give none.
    """

    mask: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None


_NEWEST = 0.2  # weight of the last batch in the pace


class Batcher:
    """Predicts in two lanes: large images take seconds, in which small ones must not wait for them.

    Args:
        model: The model.
        limits: How many images, and pixels, may go together.
    """

    def __init__(self, model: Model, limits: Limits) -> None:
        self._small = _Lane(lambda: model, limits)
        self._large = _Lane(model.on_one_thread, limits, nice=_NICE)
        self.sizes: Callable[[int], None] = lambda size: None  # is told how many went together

    @property
    def pace(self) -> float:
        """Seconds that an image has lately taken, large ones aside; 0 before the first."""
        return self._small.pace

    async def predict(self, image: NDArray[np.uint8]) -> Answer:
        """Return what the model makes of an image, shape ``(H, W, 3)``, uint8."""
        lane = self._small if image.shape[0] * image.shape[1] <= LARGE else self._large
        return await lane.predict(image, self.sizes)


class _Lane:
    """Predicts on one thread of its own; what came while it was busy goes together, where sizes agree.

    Args:
        open_model: Gives the model, on that thread, when the first image comes.
        limits: How many images, and pixels, may go together.
        nice: By how much others go before it.
    """

    def __init__(self, open_model: Callable[[], Model], limits: Limits, nice: int = 0) -> None:
        self._open = cache(open_model)
        self._limits = limits
        self._waiting: deque[tuple[NDArray[np.uint8], asyncio.Future[Answer]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict", initializer=partial(_be_nice, nice))
        self._task: asyncio.Task[None] | None = None
        self._sizes: Callable[[int], None] = lambda size: None
        self.pace = 0.0  # seconds an image, over the last few batches

    async def predict(self, image: NDArray[np.uint8], sizes: Callable[[int], None]) -> Answer:
        """Return what the model makes of an image, and tell how many went together."""
        self._sizes = sizes
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((image, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        began = time.perf_counter()
        while batch := self._next():
            images = np.stack([image for image, _ in batch])
            try:
                outputs = await asyncio.get_running_loop().run_in_executor(self._thread, self._apply, images)
            except Exception as error:  # an engine's own kinds; who waits must be told, and the next batch be served
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            self._sizes(len(batch))
            began, before = time.perf_counter(), began  # what the house does between two batches is part of their pace
            seconds = (began - before) / len(batch)
            self.pace = seconds if not self.pace else self.pace + _NEWEST * (seconds - self.pace)
            found = outputs.get("probabilities")
            for i, (_, future) in enumerate(batch):
                if not future.done():
                    future.set_result(Answer(outputs["mask"][i], found[i] if found is not None else None))

    def _apply(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return self._open().apply(images)

    def _next(self) -> list[tuple[NDArray[np.uint8], "asyncio.Future[Answer]"]]:
        """Take the one that has waited longest, and others of its size; those that nobody waits for are dropped."""
        alive = [item for item in self._waiting if not item[1].done()]
        most = min(self._limits.batch, max(1, self._limits.pixels // alive[0][0][..., 0].size)) if alive else 0
        batch = [item for item in alive if item[0].shape == alive[0][0].shape][:most]
        taken = {id(future) for _, future in batch}
        self._waiting = deque(item for item in alive if id(item[1]) not in taken)
        return batch


def _be_nice(nice: int) -> None:
    if nice and hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)  # on Linux each thread has a priority
