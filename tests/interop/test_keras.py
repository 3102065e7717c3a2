"""Weights of Keras files: golden parity, round trips, and what is refused."""

import json
import zipfile

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from flexunet_pl import FlexUNet
from flexunet_pl.common.errors import ModelFileError, UserError
from flexunet_pl.interop.equivalents import ACTIVATIONS
from flexunet_pl.interop.keras.file import read_keras_file
from flexunet_pl.interop.keras.weights import FORMATS, build_keras_model, load_keras_weights, save_keras_weights
from flexunet_pl.models.blocks import make_activation

_FILES = (
    "keras2_best_model.h5",
    "keras2_weights.h5",
    "keras3_best_model.h5",
    "keras3.weights.h5",
    "keras3_model.keras",
)


def _network(**changes):
    arguments = {"base_filters": 2, "base_kernels": (5, 3), "num_layers": 3, "normalization": True} | changes
    network = FlexUNet(arguments.pop("in_channels", 3), arguments.pop("num_classes", 3), **arguments)
    for name, tensor in network.state_dict().items():
        if "running" in name or "bias" in name:
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return network.eval()


def _same(one, two):
    mine, other = one.state_dict(), two.state_dict()
    return all(torch.equal(mine[key], other[key]) for key in mine if "num_batches" not in key)


@pytest.fixture
def weights(tmp_path):
    """A legacy weight file, and the network it is of."""
    network = _network()
    save_keras_weights(network, tmp_path / "w.h5")
    return tmp_path / "w.h5", network


@pytest.mark.parametrize("name", _FILES)
@pytest.mark.parametrize("case", ["plain", "batchnorm"])
def test_golden_files_give_the_golden_probabilities(shared, case, name):
    folder = shared / "golden" / case
    spec = json.loads((folder / "spec.json").read_text())
    keys = (
        "base_filters",
        "base_kernels",
        "num_layers",
        "dilation",
        "dropout_rate",
        "normalization",
        "input_normalize",
    )
    network = FlexUNet(spec["image_channels"], spec["num_classes"], **{key: spec[key] for key in keys}).eval()
    load_keras_weights(network, folder / name)
    golden = np.load(folder / f"{name[:6]}_io.npz")
    with torch.no_grad():
        found = network(torch.from_numpy(golden["image"]).movedim(-1, 1)).softmax(dim=1).movedim(1, -1)
    assert found.shape == golden["probabilities"].shape
    np.testing.assert_allclose(found, golden["probabilities"], atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_layers": 1, "normalization": False},
        {"num_classes": 1, "activation": "mish"},
        {"in_channels": 1, "dilation": (3, 2), "input_normalize": False},
    ],
)
def test_the_keras_twin_computes_the_same(changes):
    network = _network(**changes)
    images = np.random.default_rng(1).integers(0, 256, (2, 24, 16, network.init_args["in_channels"]), dtype=np.uint8)
    with torch.no_grad():
        logits = network(torch.from_numpy(images).movedim(-1, 1))
    expected = (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)).movedim(1, -1)
    for size in ((24, 16), None):
        found = build_keras_model(network, size).predict(images, verbose=0)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_keras_twin_has_no_lambda():
    kinds = {type(layer).__name__ for layer in build_keras_model(_network(), (24, 16)).layers}
    assert "Rescaling" in kinds
    assert "Lambda" not in kinds


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_of_one_name_are_one_function(name):
    import keras

    x = torch.linspace(-8, 8, 101)
    found = keras.ops.convert_to_numpy(keras.activations.get(ACTIVATIONS[name])(x))
    np.testing.assert_allclose(found, make_activation(name)(x), atol=1e-5)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("changes", [{}, {"num_layers": 1}, {"num_layers": 5, "normalization": False}])
def test_a_round_trip_is_bit_exact(tmp_path, ending, changes):
    network = _network(**changes)
    save_keras_weights(network, tmp_path / f"w{ending}")
    other = _network(**changes)
    assert not _same(network, other)
    load_keras_weights(other, tmp_path / f"w{ending}")
    assert _same(network, other)


def test_layers_are_matched_by_order_whatever_their_numbers(weights, tmp_path):
    path, network = weights
    renamed = tmp_path / "renamed.h5"
    with h5py.File(path) as source, h5py.File(renamed, "w") as target:
        names = []
        for name in source.attrs["layer_names"]:
            old, _, number = name.decode().rpartition("_")
            new = f"{old}_{int(number) + 95}" if number.isdigit() else f"{name.decode()}_95"
            names.append(new)
            group = target.create_group(new)
            group.attrs["weight_names"] = [f"{new}/{i}" for i in range(len(source[name].attrs["weight_names"]))]
            for i, weight in enumerate(source[name].attrs["weight_names"]):
                group.create_dataset(f"{new}/{i}", data=source[name][weight][()])
        target.attrs["layer_names0"], target.attrs["layer_names1"] = names[:5], names[5:]  # as Keras splits long lists
    other = _network()
    load_keras_weights(other, renamed)
    assert _same(network, other)


def test_saving_replaces_the_file_only_when_it_is_complete(weights, monkeypatch):
    path, _ = weights
    before = path.read_bytes()
    monkeypatch.setattr(h5py.Group, "create_dataset", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_keras_weights(_network(), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 2}, r"w.h5: holds 11 convolutions but the network has 7"),
        ({"normalization": False}, r"holds 10 batch norms but the network has 0"),
        (
            {"num_classes": 5},
            r"head, layer `conv2d_10`: expected .*\(1, 1, 2, 5\) and \(5,\) but found .*\(1, 1, 2, 3\)",
        ),
        (
            {"base_kernels": (3, 3)},
            r"encoder level 0, layer `conv2d`: expected .*\(3, 3, 3, 2\).* found .*\(5, 3, 3, 2\)",
        ),
        ({"base_filters": 4}, r"encoder level 0"),
    ],
)
def test_a_file_of_another_network_is_refused_and_nothing_is_changed(weights, changes, message):
    network = _network(**changes)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ModelFileError, match=message):
        load_keras_weights(network, weights[0])
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_other_networks_have_no_keras_form(tmp_path):
    with pytest.raises(UserError, match="Conv2d has no Keras form"):
        save_keras_weights(nn.Conv2d(3, 2, 1), tmp_path / "w.h5")
    with pytest.raises(UserError, match="weights of its own"):
        save_keras_weights(_network(activation="prelu"), tmp_path / "w.h5")
    with pytest.raises(UserError, match="normalization `group` has no form in the original"):
        save_keras_weights(_network(normalization="group"), tmp_path / "w.h5")
    with pytest.raises(UserError, match="`leakyrelu` has no equal in Keras"):
        build_keras_model(_network(activation="leaky_relu"), (24, 16))
    with pytest.raises(UserError, match="unknown format"):
        save_keras_weights(_network(), tmp_path / "w.onnx")
    assert list(tmp_path.iterdir()) == []


def _edit(path, change):
    with h5py.File(path, "a") as file:
        change(file, file["conv2d_1/conv2d_1"])


def _external_link(file, group):
    del group["kernel:0"]
    group["kernel:0"] = h5py.ExternalLink("secret.h5", "/secret")


def _soft_link(file, group):
    del group["kernel:0"]
    group["kernel:0"] = h5py.SoftLink("/conv2d/conv2d/kernel:0")


def _external_storage(file, group):
    del group["kernel:0"]
    group.create_dataset("kernel:0", (5, 3, 2, 2), dtype="<f4", external=[("/etc/passwd", 0, 240)])


def _virtual(file, group):
    del group["kernel:0"]
    layout = h5py.VirtualLayout((5, 3, 2, 2), dtype="<f4")
    layout[...] = h5py.VirtualSource("secret.h5", "secret", (5, 3, 2, 2))
    group.create_virtual_dataset("kernel:0", layout)


def _objects(file, group):
    del group["kernel:0"]
    group.create_dataset("kernel:0", data=["__reduce__"], dtype=h5py.string_dtype())


def _huge(file, group):
    del group["kernel:0"]
    group.create_dataset("kernel:0", (1 << 40,), dtype="<f8", chunks=(1 << 10,))


def _never_stored(file, group):
    del group["kernel:0"]
    group.create_dataset("kernel:0", (5, 3, 2, 2), dtype="<f4")


def _missing(file, group):
    del group["kernel:0"]


def _not_finite(file, group):
    group["kernel:0"][0, 0, 0, 0] = np.nan


def _other_shape(file, group):
    del group["kernel:0"]
    group.create_dataset("kernel:0", data=np.zeros((5, 3, 2), "<f4"))


@pytest.mark.case("G6")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_external_link, "is a link"),
        (_soft_link, "is a link"),
        (_external_storage, "lies in another file"),
        (_virtual, "lies in another file"),
        (_objects, "something else than floating-point arrays"),
        (_huge, "which is too much"),
        (_never_stored, "its values are not in the file"),
        (_missing, "names `conv2d_1/kernel:0`, which is not in it"),
        (_not_finite, "`conv2d_1` holds values that are not finite"),
        (_other_shape, r"`conv2d_1` has arrays of shapes \(5, 3, 2\)"),
    ],
)
def test_what_is_no_plain_array_in_the_file_is_refused(weights, change, message):
    path, _ = weights
    with h5py.File(path.with_name("secret.h5"), "w") as secret:
        secret["secret"] = np.zeros((5, 3, 2, 2), "<f4")
    _edit(path, change)
    with pytest.raises(ModelFileError, match=message) as refused:
        read_keras_file(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither an HDF5 file"),
        (b"<html>404</html>", "neither an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "is damaged"),
        (b"PK\x05\x06" + b"\0" * 18, "must hold one model.weights.h5"),
    ],
)
def test_what_is_no_keras_file_is_refused(tmp_path, content, message):
    path = tmp_path / "w.h5"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        read_keras_file(path)


def test_a_cut_file_is_refused(weights):
    path, _ = weights
    content = path.read_bytes()
    for share in (0.3, 0.9, 0.999):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ModelFileError, match="is damaged"):
            read_keras_file(path)


def test_other_hdf5_and_missing_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(ModelFileError, match="holds no weights of a Keras network"):
        read_keras_file(tmp_path / "other.h5")
    with pytest.raises(ModelFileError, match="no such file"):
        read_keras_file(tmp_path / "none.h5")


@pytest.mark.case("G6")
def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(50_000_000))
    with pytest.raises(ModelFileError, match="unpacks to 50000000 bytes"):
        read_keras_file(path)


@pytest.mark.case("G5")
def test_a_lambda_is_never_run(tmp_path):
    import keras

    canary = tmp_path / "canary"

    def sing(x):
        canary.touch()
        return x

    model = keras.Sequential([keras.layers.Input((8, 8, 3)), keras.layers.Lambda(sing), keras.layers.Conv2D(2, 1)])
    canary.unlink()  # Keras runs it once to find the shape of the output
    for ending in ("h5", "keras"):
        model.save(tmp_path / f"m.{ending}")
        file = read_keras_file(tmp_path / f"m.{ending}")
        assert [layer["class_name"] for layer in file.description] == ["InputLayer", "Lambda", "Conv2D"]
        assert len(file.convolutions) == 1
    assert not canary.exists()


@pytest.mark.case("G7")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["hang_1.h5", "hang_2.h5"])
def test_a_file_on_which_the_library_hangs_is_given_up(shared, name):
    with pytest.raises(ModelFileError, match="gave no answer in 30 s"):
        read_keras_file(shared / "hostile" / name)
