"""Images per second of the HTTP service against the bare engine, and its memory under many clients.

Run as ``python benchmarks/service.py [MODEL.onnx --image FILE] [--seconds N] [--soak MINUTES]``; without a model, on a
network of 256x256 with random weights. One machine for service and clients, the same image; bare engine and service
take turns.
"""

import argparse
import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BARE = """
import sys, time
import numpy as np
from flexunet_runtime import Model, read_image
model, image = Model(sys.argv[1]), read_image(sys.argv[2])
model.predict(image)
done, began = 0, time.perf_counter()
while time.perf_counter() - began < float(sys.argv[3]):
    model.predict(image)
    done += 1
print(done / (time.perf_counter() - began))
"""


class Server:
    """A service in a process of its own."""

    def __init__(self, model: Path, *options: str) -> None:
        command = [sys.executable, "-m", "flexunet_runtime.server", str(model.absolute()), "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603
        line = self.process.stderr.readline()  # type: ignore[union-attr]
        self.port = int(line.rpartition(":")[2])

    def status(self, key: str) -> int:
        """Return a figure of the process in bytes, or a number: VmRSS, Threads."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        words = next(line for line in text.splitlines() if line.startswith(f"{key}:")).split()
        return int(words[1]) * (1024 if words[-1] == "kB" else 1)

    def memory(self) -> int:
        """Return the bytes of the process and of those that it has started, and keep the most that was seen."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = 0
        for pid in (str(self.process.pid), *children):
            try:
                text = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            found += next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS")), 0)
        self.highest = max(self.highest, found)
        return found

    highest = 0

    def descriptors(self) -> int:
        """Return how many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def load(port: int, bodies: list[bytes], clients: int, seconds: float) -> tuple[Counter[int], list[float], list[float]]:
    """Send images from several clients; returns answers by status, seconds of those accepted and of those sent away."""
    end = time.perf_counter() + seconds

    def client(number: int) -> tuple[Counter[int], list[float], list[float]]:
        counts: Counter[int] = Counter()
        accepted, refused = [], []
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        turn = number
        while time.perf_counter() < end:
            began = time.perf_counter()
            connection.request("POST", "/mask", bodies[turn % len(bodies)], {"Content-Type": "image/png"})
            response = connection.getresponse()
            response.read()
            turn += 1
            took = time.perf_counter() - began
            counts[response.status] += 1
            (accepted if response.status == 200 else refused).append(took)
            if response.status == 503:
                time.sleep(float(response.headers["Retry-After"]))
        return counts, accepted, refused

    with ThreadPoolExecutor(clients) as pool:
        results = list(pool.map(client, range(clients)))
    counts = sum((of_client for of_client, _, _ in results), Counter())
    return counts, [s for _, took, _ in results for s in took], [s for _, _, took in results for s in took]


def percentile(values: list[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    return sorted(values)[int(share * (len(values) - 1))] if values else float("nan")


def main() -> None:
    """Print images per second and the ratio to the bare engine, medians of rounds, and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=float, default=0, help="minutes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.model is None or given.image is None:
            given.model, given.image = draw(Path(folder))
        measure(given)


def draw(folder: Path) -> tuple[Path, Path]:
    """Write a network of 256x256 with random weights, and an image."""
    import numpy as np
    import torch
    from PIL import Image

    from flexunet_pl.export.onnx_file import read_source, write_onnx
    from flexunet_pl.models import FlexUNet
    from flexunet_pl.models.build import network_spec

    network = FlexUNet(3, 4, 16, (5, 5), 5).eval()
    classes = {"background": [0, 0, 0], "trachea": [255, 0, 0], "heart": [0, 255, 0], "lung": [0, 0, 255]}
    saved = {"network": network_spec(network), "rgb_map": classes, "image_size": [256, 256], "in_channels": 3}
    weights = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": weights, "hyper_parameters": saved}, folder / "network.ckpt")
    write_onnx(read_source(folder / "network.ckpt"), folder / "model.onnx", probabilities=True)
    noise = np.random.default_rng(137).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "image.png")
    return folder / "model.onnx", folder / "image.png"


def measure(given: argparse.Namespace) -> None:
    """Print the figures."""
    body = given.image.read_bytes()
    server = Server(given.model)
    try:
        load(server.port, [body], 4, 2)
        idle = server.status("VmRSS")
        rates: dict[str, list[float]] = {"bare": [], "1": [], "4": [], "16": []}
        latency: dict[str, float] = {}
        for _ in range(given.rounds):
            words = [sys.executable, "-c", BARE, str(given.model.absolute()), str(given.image.absolute())]
            done = subprocess.run(  # noqa: S603
                [*words, str(given.seconds)], capture_output=True, text=True, check=True
            )
            rates["bare"].append(float(done.stdout))
            for clients in (1, 4, 16):
                counts, accepted, _ = load(server.port, [body], clients, given.seconds)
                rates[str(clients)].append(counts[200] / given.seconds)
                latency[str(clients)] = percentile(accepted, 0.95)
                if set(counts) != {200}:
                    print("  other answers:", dict(counts))
        bare = statistics.median(rates["bare"])
        for name, values in rates.items():
            rate = statistics.median(values)
            late = f"p95 {latency[name] * bare:5.1f} times the bare time" if name in latency else ""
            print(f"{name:>5} clients {rate:7.1f} images/s  {rate / bare:.2f} of bare  {late}")
        counts, accepted, refused = load(server.port, [body], 64, given.seconds)
        late, away = percentile(accepted, 0.95), percentile(refused, 0.95)
        memory = " ".join(f"{n} {b / 1e6:.0f}" for n, b in (("idle", idle), ("peak", server.status("VmHWM"))))
        share = counts[200] / given.seconds / bare
        print(
            f"   64 clients: {dict(counts)}, {share:.2f} of bare, p95 {late:.2f} s, sent away {away:.3f} s, MB {memory}"
        )
        for minute in range(round(given.soak)):
            counts, accepted, _ = load(server.port, [body], 4, 60)
            state = f"{server.status('VmRSS') / 1e6:.1f} MB, {server.descriptors()} descriptors"
            late = percentile(accepted, 0.95)
            print(
                f"  minute {minute + 1}: {dict(counts)}, p95 {late:.3f} s, {state}, {server.status('Threads')} threads"
            )
    finally:
        server.process.terminate()
        print(f"ended with status {server.process.wait(30)}")


if __name__ == "__main__":
    main()
