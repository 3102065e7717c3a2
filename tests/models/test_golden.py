"""The network computes what the original's does: golden numbers in text, from TensorFlow."""

import json
from pathlib import Path

import numpy as np
import torch

from flexunet_pl import FlexUNet
from flexunet_pl.interop.keras.file import KerasFile, KerasLayer
from flexunet_pl.interop.keras.weights import fill_network

GOLDEN = Path(__file__).parents[1] / "golden" / "network.json"


def as_file(layers):
    """The layers by kind, as a Keras file has them; transposed convolutions have kernels of 2x2."""
    named = [KerasLayer(str(i), tuple(np.asarray(a, np.float32) for a in arrays)) for i, arrays in enumerate(layers)]
    norms = tuple(layer for layer in named if len(layer.arrays) == 4)
    up = tuple(layer for layer in named if len(layer.arrays) == 2 and layer.arrays[0].shape[:2] == (2, 2))
    convolutions = tuple(layer for layer in named if layer not in (*norms, *up))
    return KerasFile(GOLDEN, convolutions, up, norms, ())


def test_the_network_gives_the_probabilities_of_the_original():
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    network = FlexUNet(**golden["spec"]).eval()
    fill_network(network, as_file(golden["layers"]))
    image = torch.tensor(golden["image"], dtype=torch.uint8).movedim(-1, 1)
    with torch.no_grad():
        found = network(image).softmax(dim=1).movedim(1, -1)
    expected = torch.tensor(golden["probabilities"])
    assert expected.std(dim=(0, 1, 2)).min() > 0.01, "outputs that do not depend on the image would prove nothing"
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
