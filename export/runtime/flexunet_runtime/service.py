"""The service: its routes, its limits and what it counts."""

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flexunet_runtime.batching import LARGE, Answer, Batcher, Limits
from flexunet_runtime.budget import Budget
from flexunet_runtime.confidence import measure_confidence
from flexunet_runtime.decoder import Decoder
from flexunet_runtime.errors import ModelFileError, NoImageError, TooLargeError, UserError
from flexunet_runtime.masks import draw_overlay, encode_image, encode_mask
from flexunet_runtime.model import Model

_SURE = 0.8  # share of the time promised in which the expected answer must come: some take longer than expected
_CODERS = 2  # threads that encode, and processes that decode, beside the thread that predicts
# the last is curl's default
_TYPES = frozenset({"", "application/octet-stream", "application/dicom", "application/x-www-form-urlencoded"})


class Service:
    """The service: routes, limits and counts.

    Args:
        model: The model.
        limits: What it takes.
    """

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.leaving = False  # set when the service is to end
        with model.path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self._batcher = Batcher(model, limits)
        self._coders = ThreadPoolExecutor(_CODERS, thread_name_prefix="code")
        self._decoders = [Decoder(limits.decode_s) for _ in range(_CODERS)]
        self._free = deque(self._decoders)  # one for each thread that decodes
        self._decoding = ThreadPoolExecutor(_CODERS, thread_name_prefix="decode")
        self._pixels = Budget(limits.pixels)
        self._reading = Budget(limits.reading_bytes)
        self._inside = self._large = 0
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._registry = registry
        self._answered = Counter("flexunet_requests", "Requests answered", ["path", "status"], registry=registry)
        self._seconds = Histogram("flexunet_request_seconds", "Seconds per prediction asked for", registry=registry)
        self._batches = Histogram(
            "flexunet_batch_images", "Images that were predicted at once", buckets=range(1, 17), registry=registry
        )
        Gauge("flexunet_inside", "Requests that are read, wait or are predicted", registry=registry).set_function(
            lambda: self._inside
        )
        Gauge("flexunet_image_seconds", "Seconds that an image has lately taken", registry=registry).set_function(
            lambda: self._batcher.pace
        )
        self._batcher.sizes = self._batches.observe

    def app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/mask", self._counted(self._mask), methods=["POST"]),
            Route("/overlay", self._counted(self._overlay), methods=["POST"]),
            Route("/scores", self._counted(self._scores), methods=["POST"]),
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/model", self._describe),
            Route("/metrics", self._metrics),
        ]
        handlers: dict[Any, Any] = {HTTPException: self._refuse, Exception: self._fail}
        return Starlette(routes=routes, exception_handlers=handlers)

    def start(self) -> None:
        """Start the processes that decode, which else begin with the first images."""
        for decoder in self._decoders:
            decoder.start()

    def close(self) -> None:
        """End the processes that decode."""
        for decoder in self._decoders:
            decoder.close()

    def _counted(
        self, make: Callable[[NDArray[np.uint8], Answer], Response]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that predicts the image of a request and makes an answer of it."""

        async def endpoint(request: Request) -> Response:
            content = await self._body(request)  # those whose body does not come take no place of others
            if why := self._why_not():
                raise HTTPException(503, f"{why}; try again", {"Retry-After": "1"})
            self._inside += 1
            began = time.perf_counter()
            try:
                response = await self._answer(request, content, make)
            finally:
                self._inside -= 1
            self._seconds.observe(time.perf_counter() - began)
            self._answered.labels(request.url.path, response.status_code).inc()
            return response

        return endpoint

    def _why_not(self) -> str:
        """Return why one more request is not accepted; nothing where it is."""
        before = self._inside - self._large
        if self.leaving:
            return "the service is about to end"
        expected = (before + 1) * self._batcher.pace / _SURE
        if self._inside >= self.limits.requests or (before and expected > self.limits.wait_s):
            return "too many requests wait already"
        return ""

    async def _answer(
        self, request: Request, content: bytes, make: Callable[[NDArray[np.uint8], Answer], Response]
    ) -> Response:
        loop = asyncio.get_running_loop()
        taken = 0
        try:
            height, width, image = await loop.run_in_executor(self._decoding, self._decode, content, LARGE)
            if image.size:
                return await self._predict(request, image, make)
            # a large one takes many times its pixels, in floats by class: it waits for its turn, and not too many do
            if self._large >= self.limits.large:
                raise HTTPException(503, "too many large images wait already; try again", {"Retry-After": "1"})
            self._large += 1
            try:
                taken = await self._pixels.take(height * width)
                _, _, image = await loop.run_in_executor(self._decoding, self._decode, content, None)
                return await self._predict(request, image, make)
            finally:
                self._large -= 1
        except MemoryError as error:
            raise HTTPException(503, f"{error or 'memory ran out'}; try again", {"Retry-After": "1"}) from error
        except ModelFileError:  # no fault of the client
            raise
        except UserError as error:
            status = 413 if isinstance(error, TooLargeError) else 415 if isinstance(error, NoImageError) else 400
            raise HTTPException(status, str(error)) from error
        finally:
            self._pixels.give(taken)

    async def _predict(
        self, request: Request, image: NDArray[np.uint8], make: Callable[[NDArray[np.uint8], Answer], Response]
    ) -> Response:
        answer = await _unless_gone(request, self._batcher.predict(image))
        return await asyncio.get_running_loop().run_in_executor(self._coders, make, image, answer)

    def _decode(self, content: bytes, at_once: int | None) -> tuple[int, int, NDArray[np.uint8]]:
        """Decode an image in a process that can be ended; of a large one read the size alone, and give no pixel.

        Raises:
            TooLargeError: If a side is too long.
        """
        decoder = self._free.popleft()
        try:
            height, width, image = decoder.image(content, 3, self.model.window, self.limits.pixels, at_once)
        finally:
            self._free.append(decoder)
        if max(height, width) > self.limits.side:
            raise TooLargeError(f"image: {width}x{height} px is over the limit of {self.limits.side} a side; tile it")
        return height, width, image

    async def _body(self, request: Request) -> bytes:
        """Read a body within the limits.

        Raises:
            HTTPException: If it is too large, too slow, no image by its type, or the client is gone.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _TYPES and not kind.startswith("image/"):
            raise HTTPException(415, f"content type {kind[:80]!r}: send the bytes of the image file as they are")
        too_large = HTTPException(413, f"the body is over the limit of {self.limits.body_bytes / 1e6:g} MB")
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self.limits.body_bytes:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.body_s):
                async for part in request.stream():
                    if size + len(part) > self.limits.body_bytes:
                        raise too_large
                    if not self._reading.try_take(len(part)):
                        raise HTTPException(503, "too many bodies are being read; try again", {"Retry-After": "1"})
                    size += len(part)
                    parts.append(part)
        except TimeoutError as error:
            raise HTTPException(408, f"the body did not come within {self.limits.body_s:g} s") from error
        except ClientDisconnect as error:
            raise HTTPException(499, "the client is gone") from error
        finally:
            self._reading.give(size)
        if not size:
            raise HTTPException(400, "the body is empty; send the bytes of an image file")
        return b"".join(parts)

    def _mask(self, image: NDArray[np.uint8], answer: Answer) -> Response:
        return Response(encode_mask(answer.mask, self.model.colors), media_type="image/png")

    def _overlay(self, image: NDArray[np.uint8], answer: Answer) -> Response:
        return Response(encode_image(draw_overlay(image, answer.mask, self.model.colors)), media_type="image/png")

    def _scores(self, image: NDArray[np.uint8], answer: Answer) -> Response:
        classes: dict[str, dict[str, Any]] = {}
        for i, name in enumerate(self.model.names):
            here = answer.mask == i
            count = int(np.count_nonzero(here))
            classes[name] = {"pixels": count, "share": count / here.size}
            if answer.probabilities is not None:
                found = answer.probabilities[i]
                classes[name] |= {
                    "largest_probability": float(found.max()),
                    "mean_probability": float(found[here].mean()) if count else None,  # over the pixels of the class
                }
        height, width = answer.mask.shape
        scores = {"height": height, "width": width, "classes": classes, "model_sha256": self.sha256}
        if answer.probabilities is not None:
            confidence = measure_confidence(answer.probabilities, answer.mask)
            for name, dice in list(zip(self.model.names, confidence.expected_dice, strict=True))[1:]:
                classes[name]["expected_dice"] = float(dice)
            scores["trust"] = confidence.trust(never_empty=self.model.metadata.get("never_empty") is True)
        return JSONResponse(scores)

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _ready(self, request: Request) -> Response:
        state = {"status": "leaving" if self.leaving else "ready", "model": self.model.path.name}
        return JSONResponse(state | {"model_sha256": self.sha256}, 503 if self.leaving else 200)

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(self.model.metadata | {"model_sha256": self.sha256})

    async def _metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _refuse(self, request: Request, error: HTTPException) -> Response:
        path = request.url.path if request.url.path in {"/mask", "/overlay", "/scores"} else "other"
        self._answered.labels(path, error.status_code).inc()
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

    async def _fail(self, request: Request, error: Exception) -> Response:
        return await self._refuse(request, HTTPException(500, "the prediction failed; the service's log says why"))


async def _unless_gone(request: Request, work: Awaitable[Answer]) -> Answer:
    """Wait for an answer, and give it up where the client hangs up.

    Raises:
        HTTPException: If the client is gone.
    """
    answer = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # behind the body only one message comes: that the client is gone
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise HTTPException(499, "the client is gone")
        return await answer
    finally:
        answer.cancel()
        gone.cancel()
