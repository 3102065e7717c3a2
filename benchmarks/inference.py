"""Seconds per image of the Chest-CT network (or of a checkpoint) in every engine, and the ratio to its Keras twin.

Run as ``python benchmarks/inference.py [CHECKPOINT] [--rounds N] [--threads N]``. One run, the same image, the same
threads; each engine in a process of its own, and all of them take turns. Keras runs on TensorFlow, in the environment
that ``make peer`` makes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WORKER = """
import os, sys, time
import numpy as np
kind, path, threads, height, width = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
image = np.random.default_rng(137).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
if kind == "keras":
    import tensorflow as tf
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    import keras
    model = keras.models.load_model(path, compile=False)
    pixels = image.astype(np.float32)
    run = lambda: model.predict(pixels, verbose=0)
elif kind.startswith("torch"):
    import torch
    from flexunet_pl.export.onnx_file import read_source
    from pathlib import Path
    torch.set_num_threads(threads)
    model, pixels = read_source(Path(path)).deployed(probabilities=True), torch.tensor(image)
    if "fast" in kind:  # as `flexunet predict` does
        from flexunet_pl.models.convolution_choice import ConvolutionTimings
        from flexunet_pl.models.fast_convolution import use_fast_convolutions
        model = model.to(memory_format=torch.channels_last)
        use_fast_convolutions(model, ConvolutionTimings().choose(model, pixels, training=False))
    def run():
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled="bf16" in kind):
            model(pixels)
elif kind.startswith("onnxruntime"):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    run = lambda: session.run(None, {"image": image})
else:
    import openvino as ov
    hint = "bf16" if "bf16" in kind else "f32"
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    compiled = ov.Core().compile_model(path, "CPU", settings)
    run = lambda: compiled(image)
run()
print("ready", flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    run()
    print(time.perf_counter() - began, flush=True)
"""
PEER = Path(__file__).parents[1] / ".venv-peer" / "bin" / "python"


def main() -> None:
    """Print seconds per image and the ratio to Keras, medians of interleaved repetitions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        checkpoint = given.checkpoint if given.checkpoint is not None else draw_checkpoint(place)
        models, size = write_models(checkpoint, place)
        workers = {kind: start(kind, path, given.threads, size) for kind, path in models.items()}
        seconds: dict[str, list[float]] = {kind: [] for kind in workers}
        for _ in range(given.rounds):
            for kind, worker in workers.items():
                seconds[kind].append(ask(worker))
        for worker in workers.values():
            worker.kill()
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    print(f"{size[0]}x{size[1]}, {given.threads} threads, median of {given.rounds} rounds")
    for kind, median in medians.items():
        ratio = f"{medians['keras'] / median:.2f} times as fast as Keras" if "keras" in medians else ""
        print(f"{kind:<18} {median:8.3f} s  {ratio}")


def draw_checkpoint(place: Path) -> Path:
    """Write a checkpoint of the Chest-CT network with random weights."""
    import torch

    from flexunet_pl.models import FlexUNet
    from flexunet_pl.models.build import network_spec

    network = FlexUNet(3, 4, 16, (9, 9), 8).eval()
    classes = {"background": [0, 0, 0], "trachea": [255, 0, 0], "heart": [0, 255, 0], "lung": [0, 0, 255]}
    saved = {"network": network_spec(network), "rgb_map": classes, "image_size": [512, 512], "in_channels": 3}
    weights = {f"network.{key}": value for key, value in network.state_dict().items()}
    path = place / "chest.ckpt"
    torch.save({"state_dict": weights, "hyper_parameters": saved, "pytorch-lightning_version": "2.6.6"}, path)
    return path


def write_models(checkpoint: Path, place: Path) -> tuple[dict[str, Path], tuple[int, int]]:
    """Write the checkpoint in every format; returns the file of each kind, and height and width."""
    import numpy as np

    from flexunet_pl.export.onnx_file import read_source, write_onnx
    from flexunet_pl.export.precision import write_int8
    from flexunet_pl.interop.keras.weights import save_keras_weights

    source = read_source(checkpoint)
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (*source.image_size, 3), dtype=np.uint8) for _ in range(2)]
    write_onnx(source, place / "fp32.onnx", probabilities=True)
    write_int8(place / "fp32.onnx", place / "int8.onnx", images, images[:1], source.rgb_map.names, 1.0)
    models = dict.fromkeys(("torch fp32", "torch fp32 fast", "torch bf16"), checkpoint)
    if PEER.exists():
        save_keras_weights(source.network, place / "twin.keras", source.image_size)
        models = {"keras": place / "twin.keras"} | models
    for engine in ("onnxruntime", "openvino"):
        models |= {f"{engine} {kind}": place / f"{kind}.onnx" for kind in ("fp32", "int8")}
    models["openvino bf16"] = place / "fp32.onnx"
    return models, source.image_size


def start(kind: str, path: Path, threads: int, size: tuple[int, int]) -> subprocess.Popen[str]:
    """Start a process that waits to be asked, once it has predicted an image."""
    program = PEER if kind == "keras" else sys.executable
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    command = [program, "-c", WORKER, kind, path, str(threads), *map(str, size)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)  # noqa: S603
    while (line := worker.stdout.readline()) and line.strip() != "ready":  # type: ignore[union-attr]
        pass
    return worker


def ask(worker: subprocess.Popen[str]) -> float:
    """Have a process predict an image; returns its seconds."""
    worker.stdin.write("go\n")  # type: ignore[union-attr]
    worker.stdin.flush()  # type: ignore[union-attr]
    return float(worker.stdout.readline())  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
