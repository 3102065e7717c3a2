"""An HTTP service for an ONNX file that flexunet has exported: POST an image, get its mask. No torch.

python -m flexunet_server model.onnx --port 8080
curl --data-binary @slice.png http://127.0.0.1:8080/mask --output mask.png
"""

import argparse
import asyncio
import hashlib
import logging
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import uvicorn
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from flexunet_runtime import (
    Model,
    NoImageError,
    TooLargeError,
    UnusableError,
    decode_image,
    encode_mask,
    encode_overlay,
)

log = logging.getLogger("flexunet_server")

_HEAD_S = 10.0  # seconds that a client has for the head of a request
_CODERS = 2  # threads that decode and encode, beside the one that predicts
_TYPES = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})  # the last is curl's default


class Limits(NamedTuple):
    """What a service takes.

    Attributes:
        body_bytes: Of a request's body.
        body_s: Seconds in which it must have come.
        pixels: Of an image.
        requests: That are read, wait or are predicted at a time; more are sent away with 503.
        batch: Images of one size that are predicted at once.
    """

    body_bytes: int = 20_000_000
    body_s: float = 10.0
    pixels: int = 16_000_000
    requests: int = 20
    batch: int = 4


class Answer(NamedTuple):
    """What a model makes of an image.

    Attributes:
        mask: Class index per pixel, shape ``(H, W)``, uint8.
        probabilities: Shape ``(K, H, W)``, float32; None of models that give none.
    """

    mask: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None


class Batcher:
    """Predicts on one thread of its own; what came while it was busy goes together, where sizes agree.

    Args:
        model: The model.
        limits: How many images, and pixels, may go together.
    """

    def __init__(self, model: Model, limits: Limits) -> None:
        self._model = model
        self._limits = limits
        self._waiting: deque[tuple[NDArray[np.uint8], asyncio.Future[Answer]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._task: asyncio.Task[None] | None = None
        self.sizes: Callable[[int], None] = lambda size: None  # is told how many went together

    async def predict(self, image: NDArray[np.uint8]) -> Answer:
        """Return what the model makes of an image, shape ``(H, W, 3)``, uint8."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((image, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while batch := self._next():
            images = np.stack([image for image, _ in batch])
            try:
                outputs = await asyncio.get_running_loop().run_in_executor(self._thread, self._model.apply, images)
            except Exception as error:  # an engine's own kinds; who waits must be told, and the next batch be served
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            self.sizes(len(batch))
            found = outputs.get("probabilities")
            for i, (_, future) in enumerate(batch):
                if not future.done():
                    future.set_result(Answer(outputs["mask"][i], found[i] if found is not None else None))

    def _next(self) -> list[tuple[NDArray[np.uint8], "asyncio.Future[Answer]"]]:
        """Take the one that has waited longest, and others of its size; those that nobody waits for are dropped."""
        alive = [item for item in self._waiting if not item[1].done()]
        most = min(self._limits.batch, max(1, self._limits.pixels // alive[0][0][..., 0].size)) if alive else 0
        batch = [item for item in alive if item[0].shape == alive[0][0].shape][:most]
        taken = {id(future) for _, future in batch}
        self._waiting = deque(item for item in alive if id(item[1]) not in taken)
        return batch


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
        self._decoded = asyncio.Semaphore(2 * limits.batch)  # one batch is predicted, the next one is made ready
        self._inside = 0
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

    def _counted(
        self, make: Callable[[NDArray[np.uint8], Answer], Response]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that predicts the image of a request and makes an answer of it."""

        async def endpoint(request: Request) -> Response:
            if self.leaving or self._inside >= self.limits.requests:
                why = "the service is about to end" if self.leaving else "too many requests wait already"
                raise HTTPException(503, f"{why}; try again", {"Retry-After": "1"})
            self._inside += 1
            began = time.perf_counter()
            try:
                response = await self._answer(request, make)
            finally:
                self._inside -= 1
            self._seconds.observe(time.perf_counter() - began)
            self._answered.labels(request.url.path, response.status_code).inc()
            return response

        return endpoint

    async def _answer(self, request: Request, make: Callable[[NDArray[np.uint8], Answer], Response]) -> Response:
        content = await self._body(request)
        loop = asyncio.get_running_loop()
        async with self._decoded:
            try:
                image = await loop.run_in_executor(
                    self._coders, decode_image, content, self.model.window, self.limits.pixels
                )
                answer = await _unless_gone(request, self._batcher.predict(image))
            except UnusableError as error:
                status = {TooLargeError: 413, NoImageError: 415}.get(type(error), 400)
                raise HTTPException(status, str(error)) from error
            return await loop.run_in_executor(self._coders, make, image, answer)

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
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.body_s):
                async for part in request.stream():
                    size += len(part)
                    if size > self.limits.body_bytes:
                        raise too_large
                    parts.append(part)
        except TimeoutError as error:
            raise HTTPException(408, f"the body did not come within {self.limits.body_s:g} s") from error
        except ClientDisconnect as error:
            raise HTTPException(499, "the client is gone") from error
        if not size:
            raise HTTPException(400, "the body is empty; send the bytes of an image file")
        return b"".join(parts)

    def _mask(self, image: NDArray[np.uint8], answer: Answer) -> Response:
        return Response(encode_mask(answer.mask, self.model.colors), media_type="image/png")

    def _overlay(self, image: NDArray[np.uint8], answer: Answer) -> Response:
        return Response(encode_overlay(image, answer.mask, self.model.colors), media_type="image/png")

    def _scores(self, image: NDArray[np.uint8], answer: Answer) -> Response:
        classes = {}
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
        return JSONResponse({"height": height, "width": width, "classes": classes, "model_sha256": self.sha256})

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


class _Protocol(H11Protocol):
    """Drops a client that does not come forward with a whole head of a request."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(_HEAD_S, self._drop)

    def data_received(self, data: bytes) -> None:
        self._late.cancel()
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._late = self.loop.call_later(_HEAD_S, self._drop)

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        super().connection_lost(exc)

    def _drop(self) -> None:
        self.transport.close()


class _Server(uvicorn.Server):
    """Says in `/ready` that it is about to end before it closes its doors."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._service.leaving = True
        super().handle_exit(sig, frame)


def serve(service: Service, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; what is in flight is finished first.

    Args:
        service: The service.
        host: Address to listen at.
        port: Port; 0 takes a free one.
    """
    config = uvicorn.Config(
        service.app(), host=host, port=port, http=_Protocol, ws="none", lifespan="off", log_level="warning",
        access_log=False, server_header=False, timeout_keep_alive=10, timeout_graceful_shutdown=10,
    )  # fmt: skip
    for signum in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them once more when all is done
        signal.signal(signum, lambda *_: None)
    with socket.create_server((host, port), backlog=config.backlog) as listening:
        # head and body of an answer leave apart; connections take this over, which asyncio sets only on its own sockets
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = listening.getsockname()
        sys.stderr.write(f"flexunet_server: {service.model.path} at http://{address[0]}:{address[1]}\n")
        _Server(config, service).run(sockets=[listening])


def main() -> int:
    """Run the command line; returns 0, or 2 where the service could not be begun."""
    limits = Limits()
    parser = argparse.ArgumentParser(prog="flexunet_server", description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="ONNX file that flexunet export has written")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens it to the network; there is no login")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default: 8080)")
    parser.add_argument("--engine", default="onnxruntime", choices=("onnxruntime", "openvino"))
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"), help="of OpenVINO")
    parser.add_argument("--threads", type=int, help="of a prediction; by default those of the machine")
    parser.add_argument("--max-body-mb", type=float, default=limits.body_bytes / 1e6, help="(default: 20)")
    parser.add_argument("--max-megapixels", type=float, default=limits.pixels / 1e6, help="of an image (default: 16)")
    parser.add_argument("--max-requests", type=int, default=limits.requests, help="at a time; then 503 (default: 20)")
    parser.add_argument("--batch", type=int, default=limits.batch, help="images predicted at once (default: 4)")
    given = parser.parse_args()
    chosen = Limits(
        int(given.max_body_mb * 1e6), limits.body_s, int(given.max_megapixels * 1e6), given.max_requests, given.batch
    )
    if min(chosen) <= 0:
        parser.error("limits must be above 0")
    try:
        model = Model(given.model, given.engine, given.threads, given.precision)
        model.predict(np.zeros((*(model.fixed_size or model.image_size), 3), np.uint8))  # the first one is slow
    except UnusableError as error:
        sys.stderr.write(f"flexunet_server: {error}\n")
        return 2
    try:
        serve(Service(model, chosen), given.host, given.port)
    except OSError as error:
        sys.stderr.write(f"flexunet_server: cannot listen at {given.host}:{given.port} ({error.strerror})\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
