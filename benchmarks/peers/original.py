"""The original's network with its own training, in TensorFlow, cut to so many minutes; runs in what `make peer` makes.

    python benchmarks/peers/original.py FOLDER MINUTES SEED

FOLDER holds imagesTr, labelsTr and imagesTs (NAME_0000.png and NAME.png), network.keras without training, and
training.json with learning_rate and clipvalue. Masks go to labelsTs. It trains as the original does: cross-entropy over
pixels, Adam, two images a step, gradients clipped by value. Left out is what the original does before it starts
(turned and bent copies of its images) and what needs more epochs than minutes hold (a rate that falls).
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}

import keras
import numpy as np
import tensorflow as tf

BATCH = 2
NUMBER = len("_0000")  # which nnU-Net adds to the name of an image


def main() -> None:
    """Train, predict."""
    folder, minutes, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    keras.utils.set_random_seed(seed)
    network = keras.saving.load_model(folder / "network.keras", compile=False)
    (_, height, width, channels) = network.input_shape
    given = json.loads((folder / "training.json").read_text())
    network.compile(
        keras.optimizers.Adam(given["learning_rate"], epsilon=1e-7, clipvalue=given["clipvalue"]),
        loss="sparse_categorical_crossentropy",
    )
    paths = sorted((folder / "imagesTr").iterdir())
    images = np.stack([read(path, (height, width), channels, "bilinear") for path in paths])
    labels = [folder / "labelsTr" / f"{path.stem[:-NUMBER]}.png" for path in paths]
    masks = np.stack([read(path, (height, width), 1, "nearest") for path in labels])
    rng, order, steps, began = np.random.default_rng(seed), [], 0, time.monotonic()
    while time.monotonic() - began < 60 * minutes:
        if len(order) < BATCH:
            order = list(rng.permutation(len(images)))
        batch = [order.pop() for _ in range(BATCH)]
        network.train_on_batch(images[batch], masks[batch])
        steps += 1
    print(f"the original: {steps} steps of {BATCH} images of {height}x{width}")
    (folder / "labelsTs").mkdir(exist_ok=True)
    for path in sorted((folder / "imagesTs").iterdir()):
        size = tf.io.decode_png(path.read_bytes()).shape[:2]
        found = network.predict_on_batch(read(path, (height, width), channels, "bilinear")[None])[0].argmax(axis=-1)
        mask = tf.cast(tf.image.resize(found[..., None], size, "nearest"), tf.uint8)
        tf.io.write_file(str(folder / "labelsTs" / f"{path.stem[:-NUMBER]}.png"), tf.io.encode_png(mask))


def read(path: Path, size: tuple[int, int], channels: int, method: str) -> np.ndarray:
    """Read a picture as float32 of height, width and channels, 0 to 255."""
    found = tf.image.resize(tf.io.decode_png(path.read_bytes(), channels), size, method)
    return np.asarray(found, np.float32)


if __name__ == "__main__":
    main()
