"""Opens and writes Keras files with TensorFlow, the way the original does; runs in an environment of its own.

Run as ``python peer.py FOLDER``: for each ``<case>.json`` with the arguments of a network there are ``<case>.npz`` with
images and ``<case>.{h5,weights.h5,keras}`` with its weights. Writes ``<case>_out.npz`` with the probabilities that each
way of opening them gives, and ``<case>_<writer>.<ending>`` with other weights, whose probabilities are in it too.
"""

import json
import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
import tf_keras


def mish(x):  # a function of the original's own
    return x * tf.math.tanh(tf.math.softplus(x))


def build(lib, spec, size):
    """The original's network, from the facts about it."""
    layers = lib.layers
    activation = mish if spec["activation"] == "mish" else spec["activation"]
    levels = range(spec["num_layers"])
    kernels = [tuple(max(k - 2 * i, 3) for k in spec["base_kernels"]) for i in levels]
    dilations = [tuple(max(d - i, 1) for d in spec["dilation"]) for i in levels]

    def block(x, i):
        for half in range(2):
            x = layers.Conv2D(
                spec["base_filters"] * 2**i,
                kernels[i],
                dilation_rate=dilations[i],
                activation=activation,
                padding="same",
            )(x)
            if spec["normalization"]:
                x = layers.BatchNormalization()(x)
            if half == 0:
                x = layers.Dropout(spec["dropout_rate"] * i)(x)
        return x

    inputs = layers.Input((*size, spec["in_channels"]))
    x = layers.Lambda(lambda pixels: pixels / 255)(inputs) if spec["input_normalize"] else inputs
    skips = []
    for i in levels:
        x = block(x, i)
        skips.append(x)
        if i < levels[-1]:
            x = layers.MaxPooling2D(2)(x)
    for i in reversed(levels[:-1]):
        x = layers.Conv2DTranspose(spec["base_filters"] * 2**i, 2, strides=2, padding="same")(x)
        x = block(layers.concatenate([x, skips[i]]), i)
    head = "sigmoid" if spec["num_classes"] == 1 else "softmax"
    return lib.Model(inputs, layers.Conv2D(spec["num_classes"], 1, activation=head)(x))


def randomise(model, seed):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        spread = rng.normal(0, 0.2, weight.shape)
        weight.assign(np.abs(spread) + 0.5 if "variance" in weight.name else spread)


def main(folder):
    for number, config in enumerate(sorted(folder.glob("*.json"))):
        case, spec = config.stem, json.loads(config.read_text())
        images = np.load(folder / f"{case}.npz")["images"].astype(np.float32)
        size = images.shape[1:3]
        out = {}
        for lib, name in ((keras, "keras3"), (tf_keras, "keras2")):
            model = build(lib, spec, size)
            model.load_weights(folder / f"{case}.h5")
            out[f"h5_{name}"] = model.predict(images, verbose=0)
        model = build(keras, spec, size)
        model.load_weights(folder / f"{case}.weights.h5")
        out["weights_h5"] = model.predict(images, verbose=0)
        model = keras.models.load_model(folder / f"{case}.keras", safe_mode=True)
        out["keras"] = model.predict(images, verbose=0)
        for lib, name, endings in (
            (keras, "keras3", ("h5", "weights.h5", "keras")),
            (tf_keras, "keras2", ("h5", "keras")),
        ):
            model = build(lib, spec, size)
            model.compile(optimizer="adam", loss="categorical_crossentropy")
            randomise(model, number)
            out[f"written_{name}"] = model.predict(images, verbose=0)
            for ending in endings:
                target = folder / f"{case}_{name}.{ending}"
                model.save_weights(target) if ending == "weights.h5" else model.save(target)
        np.savez(folder / f"{case}_out.npz", **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
