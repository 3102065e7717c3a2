"""What a normal client of the HTTP service gets while hostile ones of every kind are connected.

Run as ``python benchmarks/hostile.py [--seconds N]``: latencies of one normal client when it is alone and when others
send images that are slow to decode or large, heads and bodies that do not come, and other hosts' names; memory; and how
long the service takes to end.
"""

import argparse
import contextlib
import http.client
import io
import socket
import statistics
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from service import Server, draw, percentile


def scans(count: int = 3000) -> bytes:
    """Return a progressive JPEG of many scans: each is a pass over all pixels."""
    buffer = io.BytesIO()
    Image.new("L", (2000, 2000)).save(buffer, format="JPEG", progressive=True)
    content = buffer.getvalue()
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * count + content[-2:]


def frames(count: int = 60_000) -> bytes:
    """Return a TIFF of many frames."""
    entries = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    size = len(directory) + 4
    first = 16
    parts = [b"II*\0" + struct.pack("<I", first) + bytes(8)]
    for number in range(count):
        following = first + (number + 1) * size if number + 1 < count else 0
        parts.append(directory + struct.pack("<I", following))
    return b"".join(parts)


def png(height: int, width: int) -> bytes:
    """Return a black picture."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width), np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def ask(port: int, body: bytes, host: str | None = None) -> int:
    """Return the status of a prediction."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/mask", body, {"Host": host} if host else {})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def drip(port: int, head: bytes, stop: threading.Event) -> None:
    """Send a byte now and then, for as long as the other side listens."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(head)
        while not stop.wait(3):
            raw.sendall(b"x")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, image = draw(Path(folder))
        measure(model, image.read_bytes(), given.seconds)


def measure(model: Path, body: bytes, seconds: float) -> None:
    """Print latencies, memory and the time to end."""
    server = Server(model)
    threading.Thread(target=lambda: [None for _ in server.process.stderr], daemon=True).start()  # type: ignore[union-attr]
    port, stop = server.port, threading.Event()
    for _ in range(5):
        ask(port, body)
    idle = server.memory()
    quiet = latencies(port, body, seconds)
    answers: dict[str, Counter[str]] = {}

    def repeat(name: str, work: Callable[[], object], pause: float = 0.0) -> None:
        counts = answers.setdefault(name, Counter())
        while not stop.is_set():
            try:
                counts[str(work())] += 1
            except OSError as error:
                counts[type(error).__name__] += 1
            stop.wait(pause)

    bodies = {
        "3,000 scans": scans(),
        "60,000 frames": frames(),
        "500,000 x 1": png(1, 500_000),
        "4 megapixels": png(2048, 2048),
        "16 megapixels": png(4000, 4000),
    }
    announced = b"POST /mask HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    work = [(name, partial(ask, port, content), 0.5) for name, content in bodies.items() for _ in range(2)]
    work += [("4 megapixels", partial(ask, port, bodies["4 megapixels"]), 0.5)] * 18
    work += [("another name", lambda: ask(port, body, "evil.example"), 0.05)]
    work += [("head by the byte", lambda: drip(port, b"GET /health HT", stop), 0.1)] * 100
    work += [("body by the byte", lambda: drip(port, announced, stop), 0.1)] * 100
    threads = [threading.Thread(target=repeat, args=one, daemon=True) for one in work]
    for thread in threads:
        thread.start()
    time.sleep(3)
    threading.Thread(target=repeat, args=("memory", server.memory, 0.1), daemon=True).start()
    loud = latencies(port, body, seconds)
    peak = server.memory()
    for name, values in (("alone", quiet), ("among hostile ones", loud)):
        print(
            f"{name:>20}: median {statistics.median(values):.3f} s, p95 {percentile(values, 0.95):.3f} s, {len(values)}"
        )
    print(f"p95 among hostile clients {percentile(loud, 0.95) / percentile(quiet, 0.95):.2f} times the quiet one")
    print(f"memory: idle {idle / 1e6:.0f} MB, most {server.highest / 1e6:.0f} MB, now {peak / 1e6:.0f} MB")
    for name, counts in answers.items():
        if name != "memory":
            print(f"{name:>20}: {dict(counts)}")
    began = time.perf_counter()
    server.process.terminate()
    status = server.process.wait(60)
    print(f"ended with status {status} after {time.perf_counter() - began:.1f} s")
    stop.set()


def latencies(port: int, body: bytes, seconds: float) -> list[float]:
    """Return the seconds of a normal client's requests; one that is sent away counts with its next tries."""
    found = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        while ask(port, body) != 200:
            time.sleep(0.1)
        found.append(time.perf_counter() - began)
    return found


if __name__ == "__main__":
    main()
