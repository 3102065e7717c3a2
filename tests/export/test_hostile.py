"""The HTTP service among hostile clients: each is refused or closed, and a normal one is served meanwhile."""

import asyncio
import contextlib
import http.client
import io
import json
import logging
import os
import signal
import socket
import struct
import tempfile
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.dicom import picture, write_object
from tests.export.conftest import noise
from tests.export.test_kit import write_model

pytest.importorskip("uvicorn")
import uvicorn

from flexunet_runtime import Model
from flexunet_runtime.batching import Limits
from flexunet_runtime.budget import Budget
from flexunet_runtime.connections import FewLines, KnownHosts, limited_protocol
from flexunet_runtime.decoder import Decoder
from flexunet_runtime.errors import DataError
from flexunet_runtime.service import Service


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """A service in this process, with short times and few places."""
    limits = Limits(
        head_s=0.5, body_s=1.5, decode_s=3, connections=60, of_address=50, requests=4, reading_bytes=3_000_000,
        pixels=2_000_000, side=3000,
    )  # fmt: skip
    model = Model(write_model(tmp_path_factory.mktemp("model") / "m.onnx"))
    service = Service(model, limits)
    config = uvicorn.Config(
        KnownHosts(service.app(), ["clinic"]), http=limited_protocol(limits), log_level="critical", lifespan="off",
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(20)
    service.close()
    listening.close()


def ask(port, body, host="localhost", path="/mask"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST" if body is not None else "GET", path, body, {"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


GOOD = encoded(Image.fromarray(noise(30, 40, 3)))


def scans(count):
    """A progressive JPEG with its last scan again and again."""
    content = encoded(Image.new("L", (900, 900)), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * count + content[-2:]


def frames(count):
    """A TIFF of many frames of a pixel."""
    entries = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    size = len(directory) + 4
    ends = [16 + (number + 1) * size for number in range(count - 1)]
    listed = b"".join(directory + struct.pack("<I", end) for end in (*ends, 0))
    return b"II*\0" + struct.pack("<I", 16) + bytes(8) + listed


def text_chunks(count):
    """A PNG with many compressed texts."""
    content = encoded(Image.new("L", (9, 9)))
    body = b"zTXt" + b"k\0\0" + zlib.compress(bytes(100_000))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return content[:33] + chunk * count + content[33:]


def dicom(**elements):
    """A radiograph with elements of one's own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        write_object(path, "1.2.840.10008.5.1.4.1.1.1.1", **picture(np.zeros((9, 9)), **elements))
        return path.read_bytes()


BODIES = {
    "3,000 scans": (lambda: scans(3000), 400, "scans, over the limit of 100"),
    "20,000 frames": (lambda: frames(20_000), 400, "holds several frames"),
    "two frames": (lambda: frames(2), 400, "holds several frames"),
    "a side too long": (lambda: encoded(Image.new("L", (3001, 5))), 413, "over the limit of 3000 a side"),
    "a column": (lambda: encoded(Image.new("L", (1, 100_000))), 413, "over the limit of 3000 a side"),
    "too many pixels": (lambda: encoded(Image.new("L", (2000, 2000))), 413, "over the limit of 2 megapixels"),
    "texts that unpack to megabytes": (lambda: text_chunks(800), 400, "Decompressed data too large|text"),
    "DICOM of terabytes": (lambda: dicom(Rows=65_535, Columns=65_535), 413, "over the limit of 2 megapixels"),
    "DICOM without pixels": (lambda: dicom(PixelData=b""), 400, "is damaged"),
    "DICOM of many pictures": (lambda: dicom(NumberOfFrames=9999), 400, "holds 9999 pictures"),
    "a page": (lambda: b"<html>", 415, "is no PNG, JPEG, TIFF, BMP or DICOM image"),
    "nothing": (lambda: b"", 400, "the body is empty"),
}  # fmt: skip


@pytest.mark.case("H3")
@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_would_hold_the_service_up_is_refused_at_once(port, kind):
    make, status, reason = BODIES[kind]
    got, said = ask(port, make())
    assert got == status, said
    assert any(part in json.loads(said)["error"] for part in reason.split("|")), said
    assert ask(port, GOOD)[0] == 200


@pytest.mark.case("H3")
@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True), ("LOCALHOST:8080", True), ("127.0.0.1:80", True), ("[::1]:80", True),
        ("192.168.1.9", True),
        ("clinic:8080", True), ("clinic.", True), ("evil.example", False), ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False), ("", False), ("clinic@evil.example", False), ("0x7f.1", False),
    ],
)  # fmt: skip
def test_only_known_names_and_addresses_are_answered(port, host, known):
    status, said = ask(port, None, host, "/model")
    assert status == (200 if known else 421)
    assert known or b"classes" not in said


@contextlib.contextmanager
def connections(port, count, first=b""):
    """Connections that say little."""
    opened = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                opened.append(socket.create_connection(("127.0.0.1", port)))
                opened[-1].sendall(first)
        yield opened
    finally:
        for one in opened:
            one.close()


@pytest.mark.case("H3")
@pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHost: x"])
def test_a_head_that_does_not_come_as_a_whole_is_given_up(port, first):
    with connections(port, 1, first) as (slow,):
        slow.settimeout(5)
        began, closed = time.monotonic(), False
        while not closed and time.monotonic() - began < 4:
            try:
                slow.sendall(b"x")  # a byte now and then wins no time
                slow.settimeout(0.1)
                closed = slow.recv(10) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
        assert closed
        assert time.monotonic() - began < 3


@pytest.mark.case("H3")
def test_connections_beyond_the_limit_are_closed_and_the_others_served(port):
    head = b"POST /mask HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    with connections(port, 45, head):
        assert ask(port, GOOD)[0] == 200
    time.sleep(0.2)
    with connections(port, 80, head) as opened:
        time.sleep(0.3)
        closed = 0
        for one in opened:
            one.setblocking(False)  # noqa: FBT003 - the socket's own
            with contextlib.suppress(BlockingIOError):
                try:
                    closed += one.recv(10) == b""
                except ConnectionError:
                    closed += 1
        assert closed >= 30 - (80 - len(opened))
    time.sleep(0.2)
    assert ask(port, GOOD)[0] == 200


@pytest.mark.case("H3")
def test_bodies_that_do_not_come_take_no_place_of_others(port):
    head = b"POST /mask HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
    with connections(port, 40, head + bytes(50_000)) as opened:
        assert [ask(port, GOOD)[0] for _ in range(5)] == [200] * 5
        opened[0].settimeout(5)
        assert b"408" in opened[0].recv(100)


@pytest.mark.case("H3")
def test_bodies_are_bounded_all_together(port):
    head = b"POST /mask HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    with connections(port, 6, head + bytes(900_000)) as opened:
        time.sleep(0.5)
        refused = 0
        for one in opened:
            one.settimeout(0.1)
            with contextlib.suppress(OSError):
                refused += b"503" in one.recv(100)
        assert refused >= 2


@pytest.fixture
def decoder():
    made = Decoder(1.0)
    made.start()
    yield made
    made.close()


def decodes(decoder):
    height, width, image = decoder.image(GOOD, 3, None, 10_000)
    with Image.open(io.BytesIO(GOOD)) as expected:
        return (height, width) == (30, 40) and np.array_equal(image, np.asarray(expected))


@pytest.mark.case("H3")
def test_a_decoder_that_hangs_is_ended_and_started_anew(decoder):
    os.kill(decoder._process.pid, signal.SIGSTOP)
    with pytest.raises(DataError, match="takes longer than 1 s to decode"):
        decoder.image(GOOD, 3, None, 10_000)
    assert decodes(decoder)


@pytest.mark.case("H3")
def test_a_decoder_that_breaks_is_started_anew(decoder):
    os.kill(decoder._process.pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (decoder._process.pid, signal.SIGKILL)).start()
    with pytest.raises(DataError, match="breaks its decoder"):
        decoder.image(GOOD, 3, None, 10_000)
    assert decodes(decoder)
    os.kill(decoder._process.pid, signal.SIGKILL)
    decoder._process.wait()
    assert decodes(decoder)


@pytest.mark.case("H3")
def test_the_log_does_not_grow():
    few, record = FewLines(), logging.LogRecord("x", logging.ERROR, "", 0, "accept failed", (), None)
    assert sum(few.filter(record) for _ in range(100_000)) == 60
    assert "left out" in record.getMessage()


@pytest.mark.case("H3")
def test_a_budget_is_given_in_turn_and_never_twice():
    async def run():
        budget, held, most = Budget(10), 0, 0

        async def use(part):
            nonlocal held, most
            taken = await budget.take(part)
            held += taken
            most = max(most, held)
            await asyncio.sleep(0.001)
            held -= taken
            budget.give(taken)

        tasks = [asyncio.create_task(use(part)) for part in (4, 9, 3, 12, 1, 7) * 5]
        await asyncio.sleep(0)
        for task in tasks[5::7]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most <= 10
        assert budget.try_take(10)
        assert not budget.try_take(1)

    asyncio.run(run())
