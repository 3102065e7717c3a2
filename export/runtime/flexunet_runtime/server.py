"""An HTTP service for an ONNX file that flexunet has exported: POST an image, get its mask. No torch.

python -m flexunet_runtime.server model.onnx --port 8080
curl --data-binary @slice.png http://127.0.0.1:8080/mask --output mask.png
"""

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import uvicorn

from flexunet_runtime.batching import Limits
from flexunet_runtime.choice import add_engine_options, open_model
from flexunet_runtime.cli import explained_status
from flexunet_runtime.connections import FewLines, KnownHosts, limited_protocol
from flexunet_runtime.console import say
from flexunet_runtime.errors import UserError
from flexunet_runtime.service import Service

_GRACE_S = 7  # seconds for what is in flight when the service is to end


class _Server(uvicorn.Server):
    """Says in `/ready` that it is about to end before it closes its doors."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._service.leaving = True
        super().handle_exit(sig, frame)


def serve(service: Service, host: str, port: int, names: Sequence[str] = ()) -> None:
    """Serve until SIGTERM or SIGINT; what is in flight is finished first, for some seconds.

    Args:
        service: The service.
        host: Address to listen at.
        port: Port; 0 takes a free one.
        names: Names of the host under which it answers, beside addresses and the loopback's.
    """
    handler = logging.StreamHandler()
    handler.addFilter(FewLines())
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    config = uvicorn.Config(
        KnownHosts(service.app(), names), host=host, port=port, http=limited_protocol(service.limits), ws="none",
        lifespan="off", log_config=None, log_level="warning", access_log=False, server_header=False,
        timeout_keep_alive=10, timeout_graceful_shutdown=_GRACE_S,
    )  # fmt: skip
    for signum in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them once more when all is done
        signal.signal(signum, lambda *_: None)
    _allow_files(service.limits.connections + 200)
    service.start()
    with socket.create_server((host, port), backlog=config.backlog) as listening:
        # head and body of an answer leave apart; connections take this over, which asyncio sets only on its own sockets
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = listening.getsockname()
        say(f"flexunet_server: {service.model.path} at http://{address[0]}:{address[1]}")
        try:
            _Server(config, service).run(sockets=[listening])
        finally:
            service.close()


def _allow_files(count: int) -> None:
    """Raise the limit of open files so that connections do not use it up."""
    try:
        import resource
    except ImportError:  # Windows has none
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> int:
    """Run the command line.

    Returns:
        The exit status: 0 after a signal, 2 where the service could not be begun, 70 after an error of ours.
    """
    limits = Limits()
    parser = argparse.ArgumentParser(prog="flexunet_server", description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="ONNX file that flexunet export has written")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens it to the network; there is no login")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default: 8080)")
    parser.add_argument(
        "--allowed-hosts", nargs="+", default=(), metavar="NAME",
        help="names of this host that requests may bear, beside addresses and localhost",
    )  # fmt: skip
    add_engine_options(parser)
    parser.add_argument("--max-body-mb", type=float, default=limits.body_bytes / 1e6, help="(default: 20)")
    parser.add_argument("--max-megapixels", type=float, default=limits.pixels / 1e6, help="of an image (default: 4.2)")
    parser.add_argument("--max-side", type=int, default=limits.side, help="of an image, in pixels (default: 10000)")
    parser.add_argument(
        "--max-wait", type=float, default=limits.wait_s, metavar="SECONDS",
        help="in which what is accepted should be answered; then 503 (default: 2)",
    )  # fmt: skip
    parser.add_argument("--max-requests", type=int, default=limits.requests, help="at a time; then 503 (default: 100)")
    parser.add_argument("--max-connections", type=int, default=limits.connections, help="at a time (default: 500)")
    parser.add_argument(
        "--max-connections-of-address", type=int, default=limits.of_address,
        help="of one client, or of the proxy before it (default: 250)",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=limits.batch, help="images predicted at once (default: 4)")
    parser.add_argument("--debug", action="store_true", help="show where in the program an error arose")
    given = parser.parse_args()
    chosen = replace(
        limits, body_bytes=int(given.max_body_mb * 1e6), pixels=int(given.max_megapixels * 1e6), side=given.max_side,
        wait_s=given.max_wait, requests=given.max_requests, batch=given.batch, connections=given.max_connections,
        of_address=given.max_connections_of_address,
    )  # fmt: skip
    if min(vars(chosen).values()) <= 0:
        parser.error("limits must be above 0")
    status = explained_status("flexunet_server", lambda: _serve(given, chosen), debug=given.debug)
    sys.stderr.flush()
    if status == 0:
        os._exit(0)  # a prediction of a large image, which cannot be called off, would be waited for
    return status


def _serve(given: argparse.Namespace, limits: Limits) -> int:
    model = open_model("flexunet_server", given.model, given.engine, given.threads, given.precision)
    model.predict(np.zeros((*(model.fixed_size or model.image_size), 3), np.uint8))  # the first one is slow
    try:
        serve(Service(model, limits), given.host, given.port, given.allowed_hosts)
    except OSError as error:
        raise UserError(f"cannot listen at {given.host}:{given.port} ({error.strerror})") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
