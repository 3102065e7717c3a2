"""Files of strangers decoded in a process of its own: one that hangs or breaks down takes nothing else with it.

Libraries in C can run without end, take all memory, or end the process; so it is given limits and can be ended. It goes
when the process that started it goes.
"""

import atexit
import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from flexunet_runtime.errors import DataError, NoImageError, TooLargeError, UserError
from flexunet_runtime.window import Window

MEMORY = 2 << 30  # bytes of address space
_IS_CHILD = "FLEXUNET_DECODER"  # in the environment
_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (UserError, DataError, NoImageError, TooLargeError, MemoryError)
}


class Decoder:
    """A process that decodes one file after another; it is started when it is first needed, and again when it broke.

    Args:
        seconds: Time for a file, after which the process is ended.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def image(
        self, content: bytes, channels: int, window: Window | None, max_pixels: int, at_once: int | None = None
    ) -> tuple[int, int, NDArray[np.uint8]]:
        """Decode an image; see `flexunet_runtime.images.decode_image`.

        Args:
            content: What the file holds.
            channels: As there.
            window: As there.
            max_pixels: As there.
            at_once: Most pixels that are decoded at once; of larger ones the size alone is told.

        Returns:
            Height and width by the header, and the image, or an empty array.
        """
        limits = [window.low, window.high] if window is not None else None
        options = {"channels": channels, "window": limits, "max_pixels": max_pixels, "at_once": at_once}
        header, values = self._ask("image", content, **options)
        height, width = header["size"]
        return int(height), int(width), values

    def frames(self, content: bytes, name: str) -> NDArray[Any]:
        """Decode the stored values of a DICOM object; see `flexunet_runtime.dicom.read_frames`."""
        return self._ask("frames", content, name=name)[1]

    def start(self) -> None:
        """Start the process before it is needed."""
        with self._lock:
            self._running()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and os.getpid() == self._owner:  # a process that was forked has but a copy
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what was not sent is lost with it
                    stream.close()  # type: ignore[union-attr]

    def __del__(self) -> None:
        """End the process with the one that uses it."""
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            here = str(Path(__file__).parents[1])
            path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
            alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", _IS_CHILD), "1")
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "flexunet_runtime.decoder"],  # the working folder may hold modules
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                env={**os.environ, **alone, "PYTHONPATH": path},
            )  # fmt: skip
        return self._process

    def _ask(self, what: str, content: bytes, **options: Any) -> tuple[dict[str, Any], NDArray[Any]]:
        """Have a file decoded.

        Raises:
            DataError: If it breaks the process, or takes too long; else what the child raised.
        """
        name = options.get("name", "image")
        with self._lock:
            process = self._running()
            until = time.monotonic() + self._seconds
            try:
                _send(process.stdin, {"what": what, **options}, content)  # type: ignore[arg-type]
                header, data = _receive(process.stdout, until)  # type: ignore[arg-type]
            except (OSError, EOFError, ValueError) as error:
                self.close()
                late = isinstance(error, TimeoutError)
                why = f"takes longer than {self._seconds:g} s to decode" if late else "breaks its decoder"
                raise DataError(f"{name}: {why}; refused, save it again") from error
        if "error" in header:
            raise _ERRORS.get(header["kind"], DataError)(header["error"])
        values = np.frombuffer(data, np.dtype(header["type"])) if "type" in header else np.empty(0)
        return header, values.reshape(header["shape"]) if "shape" in header else values


def shared_decoder() -> Decoder:
    """Return the one of this process, for files that are read rather than served."""
    return _decoder_of(os.getpid())  # a process that was forked has one of its own


@cache
def _decoder_of(process: int) -> Decoder:
    decoder = Decoder(60.0)
    atexit.register(lambda: decoder.close() if os.getpid() == process else None)
    return decoder


def is_child() -> bool:
    """Tell whether this is such a process."""
    return _IS_CHILD in os.environ


def _send(stream: IO[bytes], header: dict[str, Any], content: bytes | memoryview) -> None:
    text = json.dumps({**header, "bytes": len(content)}).encode()
    for part in (struct.pack("<I", len(text)) + text, content):
        left = memoryview(part)
        while left:
            left = left[stream.write(left) :]


def _receive(stream: IO[bytes], until: float | None = None) -> tuple[dict[str, Any], bytearray]:
    (length,) = struct.unpack("<I", _exactly(stream, 4, until))
    header: dict[str, Any] = json.loads(_exactly(stream, length, until))
    return header, _exactly(stream, header["bytes"], until)


def _exactly(stream: IO[bytes], count: int, until: float | None) -> bytearray:
    """Read so many bytes, until a time by the clock.

    Raises:
        EOFError: If the other process is gone.
        TimeoutError: If they do not come in time.
    """
    content = bytearray(count)
    view, got = memoryview(content), 0
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    while got < count:
        if until is not None and not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError
        more: int = stream.readinto(view[got:])  # type: ignore[attr-defined]
        if not more:
            raise EOFError
        got += more
    return content


def _answer(header: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes | memoryview]:
    from flexunet_runtime.dicom import decode_frames, read_object
    from flexunet_runtime.images import decode_image, decode_size

    told: dict[str, Any] = {}
    if header["what"] == "frames":
        name = header["name"]
        values = decode_frames(read_object(content, name, pixels=True), name)
    else:
        height, width = told["size"] = decode_size(content, header["max_pixels"])
        if header["at_once"] is not None and height * width > header["at_once"]:
            return told, b""
        window = Window.parse(header["window"])
        values = decode_image(content, header["channels"], window, header["max_pixels"])
    values = np.ascontiguousarray(values)
    told |= {"shape": values.shape, "type": values.dtype.str}
    return told, values.data.cast("B") if values.size else b""


def main() -> None:
    """Decode what comes on standard input until it ends."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, target = sys.stdin.buffer.raw, os.fdopen(os.dup(1), "wb", buffering=0)  # type: ignore[union-attr]
    os.dup2(2, 1)  # what libraries print must not stand among the answers
    while True:
        try:
            header, content = _receive(source)
        except (EOFError, OSError):
            return
        try:
            answer, data = _answer(header, bytes(content))
        except (UserError, MemoryError) as error:
            answer, data = {"kind": type(error).__name__, "error": str(error) or "memory ran out"}, b""
        except Exception as error:
            answer, data = {"kind": "DataError", "error": f"image: is damaged ({type(error).__name__})"}, b""
        _send(target, answer, data)


if __name__ == "__main__":
    main()
