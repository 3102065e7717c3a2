"""Connections of a service: how many, for how long without a request, and under which names of the host."""

import asyncio
import ipaddress
import json
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from flexunet_runtime.batching import Limits

_LINES_PER_MINUTE = 60  # of the log

_Application = Callable[[Any, Any, Any], Awaitable[None]]


class LimitedProtocol(H11Protocol):
    """Closes connections that are too many, or that do not come forward with a whole head of a request."""

    limits: ClassVar[Limits]
    open_now: ClassVar[Counter[str]]  # connections by address

    _late: asyncio.TimerHandle | None = None
    _address = ""
    _seen: Any = None  # the request that was begun last

    def connection_made(self, transport: Any) -> None:
        """Count a connection, and close it if there are too many."""
        super().connection_made(transport)
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        self.open_now[self._address] += 1
        too_many = self.open_now.total() > self.limits.connections
        if too_many or self.open_now[self._address] > self.limits.of_address:
            transport.abort()
        else:
            self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take what comes; only a whole head ends the time for it, or each byte would begin it anew."""
        super().data_received(data)
        self._look_for_head()

    def on_response_complete(self) -> None:
        """Begin the time for the next head, which may have come already."""
        self._wait_for_head()
        super().on_response_complete()
        self._look_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_waiting()
        self.open_now[self._address] -= 1
        if not self.open_now[self._address]:
            del self.open_now[self._address]
        super().connection_lost(exc)

    def _look_for_head(self) -> None:
        if self.cycle is not self._seen:
            self._seen = self.cycle
            self._stop_waiting()

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._late = self.loop.call_later(self.limits.head_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def limited_protocol(limits: Limits) -> type[LimitedProtocol]:
    """Return the protocol of a service.

    Args:
        limits: How many connections there may be, in all and of one address.
    """
    return type("Protocol", (LimitedProtocol,), {"limits": limits, "open_now": Counter()})


class KnownHosts:
    """An ASGI application that answers under its own names alone.

    A web page can lead its own name to this machine (DNS rebinding) and so read what the service says; an address as
    such cannot be led anywhere.

    Args:
        app: The application.
        names: Further names, beside addresses, this machine's name and those of the loopback.
    """

    def __init__(self, app: _Application, names: Sequence[str] = ()) -> None:
        self._app = app
        self._names = {name.lower() for name in (*names, "localhost", socket.gethostname())}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, or refuse with 421."""
        hosts = [value.decode("latin-1") for key, value in scope.get("headers", ()) if key == b"host"]
        if scope["type"] == "http" and not all(map(self._is_known, hosts)):
            body = json.dumps({"error": "this service is not known by that name; see --allowed-hosts"}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 421, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)

    def _is_known(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        name = name.strip("[]").rstrip(".").lower()
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class FewLines(logging.Filter):
    """Lets so many lines a minute into a log, and then one that says that more came."""

    def __init__(self) -> None:
        super().__init__()
        self._since = 0.0
        self._count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is written."""
        now = time.monotonic()
        if now - self._since > 60:
            self._since, self._count = now, 0
        self._count += 1
        if self._count == _LINES_PER_MINUTE:
            record.msg, record.args, record.exc_info = (
                "more lines than are written come in; they are left out",
                (),
                None,
            )
        return self._count <= _LINES_PER_MINUTE
