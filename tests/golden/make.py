"""Writes network.json: what the original's network makes of an image, computed by TensorFlow, as text.

Run as ``.venv-peer/bin/python tests/golden/make.py``. metrics.json holds logits, labels and the values that the
original's own code gives for them.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from peer import build, tf_keras

SPEC = {
    "in_channels": 3,
    "num_classes": 3,
    "base_filters": 2,
    "base_kernels": [5, 3],
    "num_layers": 3,
    "dilation": [2, 1],
    "dropout_rate": 0.04,
    "normalization": True,
    "activation": "relu",
    "input_normalize": True,
}
SIZE = (8, 12)


def main():
    model = build(tf_keras, SPEC, SIZE)
    rng = np.random.default_rng(137)
    for weight in model.weights:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) == 4 else 1
        values = rng.normal(0, (2 / fan_in) ** 0.5 if len(weight.shape) == 4 else 0.2, weight.shape)
        values = values + 1 if "gamma" in weight.name else np.abs(values) + 0.2 if "variance" in weight.name else values
        weight.assign(np.round(values, 3))  # few digits: the file is read by people too
    image = rng.integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
    probabilities = model.predict(image.astype(np.float32), verbose=0)
    layers = [[array.tolist() for array in layer.get_weights()] for layer in model.layers if layer.weights]
    layers = [[np.round(array, 3).tolist() for array in layer] for layer in layers]
    content = {
        "spec": SPEC,
        "layers": layers,
        "image": image.tolist(),
        "probabilities": np.round(probabilities.astype(float), 6).tolist(),
    }
    lines = ",\n".join(f'"{key}": {json.dumps(value, separators=(",", ":"))}' for key, value in content.items())
    Path(__file__).with_name("network.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
