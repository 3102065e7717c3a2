"""Our Keras files in TensorFlow, and TensorFlow's files here; skipped where `make peer` has not been run."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from flexunet_pl import FlexUNet
from flexunet_pl.interop.keras.weights import load_keras_weights, save_keras_weights

pytestmark = pytest.mark.slow

_PYTHON = Path(__file__).parents[2] / ".venv-peer" / "bin" / "python"
_BASE = {
    "in_channels": 3,
    "num_classes": 4,
    "base_filters": 4,
    "base_kernels": [5, 5],
    "num_layers": 3,
    "dilation": [1, 1],
    "dropout_rate": 0.04,
    "normalization": False,
    "activation": "relu",
    "input_normalize": True,
}
_CASES = {
    "plain": ({}, (32, 32)),
    "batchnorm": ({"normalization": True, "input_normalize": False}, (32, 32)),
    "dilated": ({"dilation": [3, 3]}, (32, 32)),
    "nonsquare": ({"base_kernels": [7, 3], "dilation": [1, 2]}, (24, 40)),
    "one_channel": ({"in_channels": 1}, (32, 32)),
    "one_class": ({"num_classes": 1}, (32, 32)),
    "mish": ({"activation": "mish"}, (32, 32)),
    "eight_levels": ({"num_layers": 8, "base_filters": 2, "base_kernels": [11, 11]}, (128, 128)),
}


def _network(case):
    torch.manual_seed(sorted(_CASES).index(case))
    network = FlexUNet(**_BASE | _CASES[case][0])
    for name, tensor in network.state_dict().items():
        if "running" in name or "bias" in name:
            tensor.copy_(torch.rand(tensor.shape) + 0.5 * ("var" in name))
    return network.eval()


def _probabilities(network, images):
    with torch.no_grad():
        logits = network(torch.from_numpy(images).movedim(-1, 1))
    result = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
    return result.movedim(1, -1).numpy()


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    if not _PYTHON.is_file():
        pytest.skip("TensorFlow is not installed beside us: make peer")
    folder = tmp_path_factory.getbasetemp().parent / "peer"  # which all test processes share
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _run_peer(made := tmp_path_factory.mktemp("peer"))
            made.rename(folder)
    return folder


def _run_peer(folder):
    for case, (_, size) in _CASES.items():
        network = _network(case)
        rng = np.random.default_rng(137)
        images = rng.integers(0, 256, (2, *size, network.init_args["in_channels"]), dtype=np.uint8)
        np.savez(folder / f"{case}.npz", images=images)
        (folder / f"{case}.json").write_text(json.dumps(network.init_args))
        for ending in ("h5", "weights.h5", "keras"):
            save_keras_weights(network, folder / f"{case}.{ending}", size)
    done = subprocess.run([_PYTHON, Path(__file__).with_name("peer.py"), folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("case", _CASES)
@pytest.mark.parametrize("way", ["h5_keras2", "h5_keras3", "weights_h5", "keras"])
def test_tensorflow_opens_our_files_and_computes_the_same(peer, case, way):
    images = np.load(peer / f"{case}.npz")["images"]
    expected = _probabilities(_network(case), images)
    found = np.load(peer / f"{case}_out.npz")[way]
    assert expected.std() > 0.01  # outputs that do not depend on the weights would prove nothing
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("case", _CASES)
@pytest.mark.parametrize("written", ["keras2.h5", "keras2.keras", "keras3.h5", "keras3.weights.h5", "keras3.keras"])
def test_what_tensorflow_writes_computes_the_same_here(peer, case, written):
    images = np.load(peer / f"{case}.npz")["images"]
    network = FlexUNet(**_BASE | _CASES[case][0]).eval()
    load_keras_weights(network, peer / f"{case}_{written}")
    expected = np.load(peer / f"{case}_out.npz")[f"written_{written.partition('.')[0]}"]
    np.testing.assert_allclose(_probabilities(network, images), expected, atol=1e-4)
