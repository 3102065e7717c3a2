"""From a Keras file of the original to a checkpoint, and back."""

import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from flexunet_pl import FlexUNet, load_model
from flexunet_pl.checkpoint import read_checkpoint
from flexunet_pl.commands.import_config import read_config
from flexunet_pl.common.errors import ModelFileError
from flexunet_pl.interop.keras.arguments import arguments_of_arrays, arguments_of_description, collect_arguments
from flexunet_pl.interop.keras.file import read_keras_file
from flexunet_pl.interop.keras.weights import build_keras_model, load_keras_weights, save_keras_weights
from flexunet_pl.prepare.phantom import PHANTOM_MAP

_CONFIG = """
[model]
image_width = 64
image_height = 64
num_classes = {classes}
base_filters = 2
base_kernels = (5, 5)
num_layers = 3
dropout_rate = 0.04
dilation = (3, 3)
input_normalize = False
[mask]
rgb_map = {rgb_map}
[image]
color_order = "{order}"
"""
_MAP = "{(0,0,0):0,(255,0,0):1,(0,255,0):2,(0,0,255):3}"
_ARGUMENTS = {"base_filters": 2, "base_kernels": (5, 5), "num_layers": 3}


def _config(folder, classes=4, rgb_map=_MAP, order="RGB"):
    path = folder / "train_eval_infer.config"
    path.write_text(_CONFIG.format(classes=classes, rgb_map=rgb_map, order=order))
    return path


def _assert_same(one, two, image):
    # the sums of pixels in channels-last memory, which loaded networks use, run in another order
    torch.testing.assert_close(one(image), two(image), rtol=1e-4, atol=1e-3)


@pytest.fixture
def original(tmp_path):
    """A network of four classes and its weights; their shapes tell neither dilation nor scaling."""
    network = FlexUNet(3, 4, **_ARGUMENTS, dilation=(3, 3), input_normalize=False).eval()
    save_keras_weights(network, tmp_path / "best_model.h5")
    return network


@pytest.fixture
def image():
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 3, 64, 64), dtype=np.uint8))


def test_with_the_configuration_the_checkpoint_is_the_same_network(original, tmp_path, image, flexunet):
    output = flexunet("import-keras", tmp_path / "best_model.h5", "--config", _config(tmp_path))
    assert "dilation" in output
    model = load_model(tmp_path / "best_model.ckpt")
    _assert_same(model, original, image)
    saved = read_checkpoint(tmp_path / "best_model.ckpt")["hyper_parameters"]
    assert saved["image_size"] == [64, 64]
    assert list(saved["rgb_map"].values()) == list(PHANTOM_MAP.to_dict().values())


def test_without_it_what_is_assumed_is_said(original, tmp_path, flexunet):
    output = flexunet("import-keras", tmp_path / "best_model.h5", "--output", tmp_path / "m.ckpt")
    lines = {line.split()[0]: line for line in output.splitlines()}
    for key in ("num_layers", "base_filters", "base_kernels", "num_classes", "normalization", "in_channels"):
        assert "(from the arrays)" in lines[key]
    for key in ("dilation", "input_normalize", "rgb_map", "image_size", "dropout_rate", "activation"):
        assert "(assumed: " in lines[key]
    network = read_checkpoint(tmp_path / "m.ckpt")["hyper_parameters"]["network"]["init_args"]
    assert (network["base_filters"], network["base_kernels"], network["num_layers"]) == (2, [5, 5], 3)
    assert (network["dilation"], network["input_normalize"]) == ([1, 1], True)


def test_a_whole_model_tells_dilation_scaling_activation_dropout_and_size(tmp_path):
    arguments = {"dilation": [2, 2], "dropout_rate": 0.03, "activation": "mish", "input_normalize": True}
    network = FlexUNet(1, 2, **_ARGUMENTS, **arguments)
    save_keras_weights(network, tmp_path / "m.keras", (32, 64))
    found = collect_arguments(read_keras_file(tmp_path / "m.keras"))
    assert {key: found[key][0] for key in arguments} == arguments
    assert found["image_size"] == ([32, 64], "from the file's description of its network")


@pytest.mark.parametrize("case", ["plain", "batchnorm"])
@pytest.mark.parametrize("name", ["keras2_best_model.h5", "keras3_best_model.h5", "keras3_model.keras"])
def test_golden_whole_models_tell_all_of_their_network(shared, case, name):
    folder = shared / "golden" / case
    spec = json.loads((folder / "spec.json").read_text())
    file = read_keras_file(folder / name)
    found = arguments_of_arrays(file) | arguments_of_description(file)
    keys = ("num_classes", "base_filters", "base_kernels", "num_layers", "dropout_rate", "dilation", "normalization")
    assert {key: found[key] for key in keys} == {key: spec[key] for key in keys}
    assert found["input_normalize"] == spec["input_normalize"]
    assert found["image_size"] == [spec["image_height"], spec["image_width"]]


def test_a_configuration_of_another_network_is_refused(original, tmp_path, mistake):
    config = _config(tmp_path)
    config.write_text(config.read_text().replace("base_filters = 2", "base_filters = 16"))
    line = mistake("import-keras", tmp_path / "best_model.h5", "--config", config)
    assert "base_filters is 16 there, but 2 by the arrays" in line
    assert not (tmp_path / "best_model.ckpt").exists()


def test_where_file_and_configuration_differ_the_file_is_right_and_it_is_said(tmp_path, flexunet):
    save_keras_weights(FlexUNet(3, 4, **_ARGUMENTS), tmp_path / "m.keras", (64, 64))
    output = flexunet("import-keras", tmp_path / "m.keras", "--config", _config(tmp_path))
    assert (
        "dilation         [1, 1]  (from the file's description of its network; the configuration says [3, 3])" in output
    )


def test_the_size_is_the_file_s_where_the_configuration_differs(tmp_path):
    save_keras_weights(FlexUNet(3, 4, **_ARGUMENTS), tmp_path / "m.keras", (32, 32))
    size, source = collect_arguments(read_keras_file(tmp_path / "m.keras"), read_config(_config(tmp_path)))[
        "image_size"
    ]
    assert size == [32, 32]
    assert "the configuration says [64, 64]" in source


def test_a_network_for_bgr_is_turned_round(original, tmp_path, image, flexunet):
    flexunet("import-keras", tmp_path / "best_model.h5", "--config", _config(tmp_path, order="BGR"))
    model = load_model(tmp_path / "best_model.ckpt")
    _assert_same(model, lambda x: original(x.flip(1)), image)


def test_one_class_stays_one_class(tmp_path, phantoms, image, flexunet, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = FlexUNet(3, 1, **_ARGUMENTS, dilation=(3, 3), input_normalize=False).eval()
    save_keras_weights(network, "one.h5")
    flexunet("import-keras", "one.h5", "--config", _config(tmp_path, classes=1, rgb_map="{(0,0,0):0,(0,0,255):1}"))
    _assert_same(load_model("one.ckpt"), network, image)
    images = phantoms / "test" / "images"
    options = ("--data.num_workers", 0, "--trainer.enable_progress_bar", "false")
    flexunet(
        "predict", "--ckpt_path", "one.ckpt", "--data.predict_dir", images, "--prediction.output_dir", "out", *options
    )
    flexunet("export", "one.ckpt", "--to", "h5", "--output", "again.h5")
    other = FlexUNet(3, 1, **_ARGUMENTS, dilation=(3, 3), input_normalize=False).eval()
    load_keras_weights(other, "again.h5")
    _assert_same(other, network, image)


def test_the_checkpoint_is_one_like_any_other(original, tmp_path, phantoms, flexunet, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flexunet("import-keras", "best_model.h5", "--config", _config(tmp_path), "--output", "m.ckpt")
    options = ("--data.num_workers", 0, "--trainer.enable_progress_bar", "false")
    images = phantoms / "test" / "images"
    flexunet(
        "predict", "--ckpt_path", "m.ckpt", "--data.predict_dir", images, "--prediction.output_dir", "out", *options
    )
    assert len(list((tmp_path / "out").glob("*.png"))) == len(list(images.iterdir()))
    assert "calibration error" in flexunet("test", "--ckpt_path", "m.ckpt", "--data.root", phantoms, *options)
    fit = ("--data.root", phantoms, *options, "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.0)
    output = flexunet("fit", "--ckpt_path", "m.ckpt", *fit, "--trainer.max_epochs", 1)
    assert "a new one starts from them" in output
    trained = load_model(next((tmp_path / "runs").rglob("best.ckpt")))
    first = load_model("m.ckpt").state_dict()
    assert all(torch.equal(value, first[key]) for key, value in trained.state_dict().items())
    assert (tmp_path / "runs").is_dir()


def test_fine_tuning_keeps_what_is_given_and_says_what_is_not_used(original, tmp_path, phantoms, flexunet, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flexunet("import-keras", "best_model.h5", "--config", _config(tmp_path), "--output", "m.ckpt")
    flexunet("import-config", "train_eval_infer.config", "--output", "x.yaml")
    fit = ("fit", "-c", "x.yaml", "--ckpt_path", "m.ckpt", "--data.root", phantoms, "--data.num_workers", 0)
    quiet = ("--trainer.max_epochs", 1, "--trainer.enable_progress_bar", "false")
    output = flexunet(*fit, *quiet)
    assert [line for line in output.splitlines() if "note: model" in line] == []
    output = flexunet(*fit, *quiet, "--model.image_size", "[512, 512]", "--print_config")
    assert "image_size:\n  - 512" in output
    output = flexunet(*fit, *quiet, "--model.image_size", "[128, 128]", "--model.network.init_args.base_filters", 16)
    assert "note: model.network.init_args.base_filters is 2, from the checkpoint; 16 is not used" in output
    best = max((tmp_path / "runs").rglob("best.ckpt"))
    assert read_checkpoint(best)["hyper_parameters"]["image_size"] == [128, 128]


def test_a_folder_of_pictures_that_is_gone_is_named_with_its_key(original, tmp_path, phantoms, mistake, flexunet):
    config = _config(tmp_path)
    config.write_text(config.read_text() + "[infer]\nimages_dir = './mini_test/images'\n")
    flexunet("import-config", config, "--output", tmp_path / "x.yaml")
    line = mistake("fit", "-c", tmp_path / "x.yaml", "--data.root", phantoms, "--data.num_workers", 0)
    assert "mini_test/images: no such folder; set `epoch_change.images`" in line


@pytest.mark.parametrize("form", ["keras", "weights.h5", "h5"])
def test_export_gives_back_the_same_arrays(original, tmp_path, form, flexunet):
    flexunet("import-keras", tmp_path / "best_model.h5", "--config", _config(tmp_path), "--output", tmp_path / "m.ckpt")
    flexunet("export", tmp_path / "m.ckpt", "--to", form)
    one, two = read_keras_file(tmp_path / "best_model.h5"), read_keras_file(tmp_path / f"m.{form}")
    for a, b in zip(one.convolutions + one.upsamplings, two.convolutions + two.upsamplings, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a.arrays, b.arrays, strict=True))


def test_export_chooses_the_format_by_the_name_and_overwrites_nothing(original, tmp_path, flexunet, mistake):
    flexunet("import-keras", tmp_path / "best_model.h5", "--output", tmp_path / "m.ckpt")
    flexunet("export", tmp_path / "m.ckpt", "--output", tmp_path / "x.weights.h5")
    with h5py.File(tmp_path / "x.weights.h5") as file:
        assert "layers" in file
    assert "is there already" in mistake(
        "export", tmp_path / "m.ckpt", "--to", "weights.h5", "--output", tmp_path / "x.weights.h5"
    )
    flexunet("export", tmp_path / "m.ckpt", "--to", "weights.h5", "--output", tmp_path / "x.weights.h5", "--overwrite")
    assert "let it end in .h5" in mistake(
        "export", tmp_path / "m.ckpt", "--to", "h5", "--output", tmp_path / "y.weights.h5"
    )
    assert "name a format" in mistake("export", tmp_path / "m.ckpt")
    assert "caffe does not fit; expected" in mistake("export", tmp_path / "m.ckpt", "--to", "caffe")
    assert "no such file" in mistake("export", tmp_path / "none.ckpt", "--to", "h5")
    assert "unknown format" in mistake("export", tmp_path / "m.ckpt", "--output", tmp_path / "x.pt")


def test_a_trained_checkpoint_leaves_for_keras(trained, tmp_path, flexunet):
    source = shutil.copy(trained / "checkpoints" / "best.ckpt", tmp_path / "best.ckpt")
    flexunet("export", source, "--to", "keras", "--output", tmp_path / "m.keras")
    found = collect_arguments(read_keras_file(tmp_path / "m.keras"))
    assert (found["num_classes"][0], found["image_size"][0], found["dropout_rate"][0]) == (4, [32, 32], 0.2)
    other = FlexUNet(**load_model(source).init_args)
    load_keras_weights(other, tmp_path / "m.keras")
    model, image = load_model(source), torch.rand(1, 3, 32, 32) * 255
    _assert_same(other.eval(), model, image)


def _file(tmp_path, change):
    save_keras_weights(FlexUNet(3, 4, **_ARGUMENTS), tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        change(file)
    return tmp_path / "m.h5"


def _replace(name, shape):
    def change(file):
        del file[f"{name}/{name}/kernel:0"]
        file[f"{name}/{name}"].create_dataset("kernel:0", data=np.zeros(shape, "<f4"))

    return change


def _without_last_layer(file):
    file.attrs["layer_names"] = file.attrs["layer_names"][:-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_last_layer, "holds 10 convolutions, 2 transposed ones and 0 batch norms, which no FlexUNet has"),
        (_replace("conv2d_2", (3, 3, 2, 5)), "its levels have 2, 5, 8 filters"),
        (_replace("conv2d_3", (3, 3, 4, 9)), "encoder level 1, layer `conv2d_3`: expected"),
    ],
)
def test_arrays_of_another_network_are_refused_by_name(tmp_path, mistake, change, message):
    assert message in mistake("import-keras", _file(tmp_path, change))
    assert not (tmp_path / "m.ckpt").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "os.system"}, "describes an activation that a FlexUNet does not have: 'os.system'"),
        ({"activation": {"class_name": "ReLU", "config": {}}}, "an activation"),
        ({"activation": []}, "an activation"),
        ({"dilation_rate": [2.0, 2.0]}, "a dilation"),
        ({"dilation_rate": [True, True]}, "a dilation"),
        ({"dilation_rate": [10**9, 10**9]}, "dilation"),
        ({"dilation_rate": "x"}, "dilation"),
    ],
)
def test_a_description_of_another_network_is_refused(tmp_path, change, message):
    file = read_keras_file(_file(tmp_path, lambda file: None))
    layer = {"class_name": "Conv2D", "config": {"activation": "relu", "dilation_rate": [1, 1]} | change}
    described = type(file)(**{**vars(file), "description": (layer,)})
    with pytest.raises(ModelFileError, match=message):
        arguments_of_description(described)


@pytest.mark.parametrize(
    "shape", [[10**9, 10**9], [0, 0], [True, True], [30, 32], ["a", 32], [10**400, 32], [None, 32]]
)
def test_a_size_that_cannot_be_is_refused(tmp_path, shape):
    layers = ({"class_name": "InputLayer", "config": {"batch_shape": [None, *shape, 3]}}, _CONV)
    file = read_keras_file(_file(tmp_path, lambda file: None))
    with pytest.raises(ModelFileError, match="describes an image size"):
        arguments_of_description(type(file)(**{**vars(file), "description": layers}))


@pytest.mark.parametrize("rate", [-1, float("nan"), 10**400, "x", True])
def test_a_dropout_rate_that_cannot_be_is_refused(tmp_path, rate):
    layers = (_CONV, *({"class_name": "Dropout", "config": {"rate": r}} for r in (0, rate)))
    file = read_keras_file(_file(tmp_path, lambda file: None))
    with pytest.raises(ModelFileError, match="describes a dropout rate"):
        arguments_of_description(type(file)(**{**vars(file), "description": layers}))


_CONV = {"class_name": "Conv2D", "config": {"activation": "relu", "dilation_rate": [1, 1]}}


def test_the_input_is_never_overwritten(original, tmp_path, mistake):
    path = tmp_path / "best_model.h5"
    before = path.read_bytes()
    assert "is the input itself" in mistake("import-keras", path, "--output", path, "--overwrite")
    assert path.read_bytes() == before


@pytest.mark.parametrize("verb", ["import-config", "import-keras", "export"])
@pytest.mark.parametrize("path", ["", ".", "/", "none"])
def test_a_path_that_is_no_file_is_one_line(verb, path, mistake):
    line = mistake(verb, path)
    assert "is no file" in line or "no such file" in line or "no file train_eval_infer.config" in line


def test_an_address_is_no_file(mistake):
    assert "is an address; download the file first" in mistake("export", "https://example.org/a.ckpt", "--to", "onnx")


def test_a_scaling_that_is_not_ours_is_refused(tmp_path):
    import keras

    model = build_keras_model(FlexUNet(3, 4, **_ARGUMENTS), (32, 32))
    config = model.get_config()
    config["layers"][1]["config"]["scale"] = 0.5
    keras.Model.from_config(config).save(tmp_path / "m.keras")
    with pytest.raises(ModelFileError, match=r"a scaling of the input, other than by 1/255, .*: 0\.5"):
        arguments_of_description(read_keras_file(tmp_path / "m.keras"))


def test_names_and_colours_made_up_are_distinct(tmp_path):
    for classes in (1, 2, 3, 33):
        save_keras_weights(FlexUNet(3, classes, **_ARGUMENTS), tmp_path / "m.h5")
        rgb_map, source = collect_arguments(read_keras_file(tmp_path / "m.h5"))["rgb_map"]
        assert "assumed" in source
        assert len({tuple(color) for color in rgb_map.values()}) == len(rgb_map) == max(2, classes)
