"""An HTTP service for an ONNX file that flexunet has exported: POST an image, get its mask. No torch.

python -m flexunet_runtime.server model.onnx --port 8080
curl --data-binary @slice.png http://127.0.0.1:8080/mask --output mask.png
"""

import argparse
import signal
import socket
import sys
from typing import Any

import numpy as np
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from flexunet_runtime.batching import Limits
from flexunet_runtime.engines import ENGINES
from flexunet_runtime.errors import UserError
from flexunet_runtime.model import Model
from flexunet_runtime.service import Service

_HEAD_S = 10.0  # seconds that a client has for the head of a request


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
    parser.add_argument("--engine", default="onnxruntime", choices=ENGINES)
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
    if min(vars(chosen).values()) <= 0:
        parser.error("limits must be above 0")
    try:
        model = Model(given.model, given.engine, given.threads, given.precision)
        model.predict(np.zeros((*(model.fixed_size or model.image_size), 3), np.uint8))  # the first one is slow
    except UserError as error:
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
