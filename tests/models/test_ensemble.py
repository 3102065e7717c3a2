"""Several checkpoints as one network: predict, test, export and load_model average their probabilities."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flexunet_pl import SegmentationTask, load_model
from flexunet_pl.common.checkpoint_set import checkpoint_files
from flexunet_pl.common.errors import ModelFileError, UserError
from flexunet_pl.export import onnx_file
from flexunet_pl.export.onnx_file import read_source
from flexunet_pl.io.masks import read_mask
from flexunet_pl.models import Ensemble, FlexUNet
from flexunet_pl.models.load import read_saved_model
from flexunet_pl.prepare.phantom import PHANTOM_MAP
from flexunet_runtime import Model, read_image


@pytest.fixture(scope="module")
def folds(tmp_path_factory, lively):
    """Three runs whose networks differ, and say every class."""
    folder = tmp_path_factory.mktemp("folds")
    for number in range(3):
        checkpoint = torch.load(lively, weights_only=True)
        generator = torch.Generator().manual_seed(number)
        for key, w in checkpoint["state_dict"].items():
            if key.startswith("network."):
                checkpoint["state_dict"][key] = w + 0.3 * w.std() * torch.randn(w.shape, generator=generator)
        path = folder / f"fold_{number}" / "checkpoints" / "best.ckpt"
        path.parent.mkdir(parents=True)
        torch.save(checkpoint, path)
    return folder


def members(folds):
    return [load_model(path) for path in checkpoint_files(folds)]


@pytest.fixture
def images(tmp_path):
    """Of the network's size, and of another."""
    rng = np.random.default_rng(3)
    (tmp_path / "images").mkdir()
    for name, size in (("same", (32, 32)), ("other", (45, 70))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path / "images"


def test_a_source_is_a_file_a_list_or_a_folder(folds, tmp_path):
    files = [folds / f"fold_{n}" / "checkpoints" / "best.ckpt" for n in range(3)]
    assert checkpoint_files(folds) == checkpoint_files(files) == checkpoint_files(",".join(map(str, files))) == files
    assert checkpoint_files(f"[{files[0]}, '{files[1]}',\"{files[2]}\"]") == files
    assert checkpoint_files(folds / "fold_1") == checkpoint_files(files[1].parent) == [files[1]]
    assert checkpoint_files("runs/none.ckpt") == [Path("runs/none.ckpt")]
    with pytest.raises(ModelFileError, match="a folder without a checkpoint"):
        checkpoint_files(tmp_path)
    with pytest.raises(ModelFileError, match="40 checkpoints; 1 to 32"):
        checkpoint_files([files[0]] * 40)


def test_one_module_gives_the_mean_of_the_probabilities(folds):
    ensemble = load_model(folds)
    image = torch.randint(0, 256, (2, 3, 32, 32))
    with torch.inference_mode():
        expected = torch.stack([member(image).softmax(1) for member in members(folds)]).mean(0)
        assert torch.allclose(ensemble(image).softmax(1), expected, atol=1e-6)
    assert isinstance(ensemble, Ensemble)
    assert load_model([folds / "fold_0", folds / "fold_2"]).init_args["members"] == ensemble.init_args["members"][:2]


def test_a_single_logit_and_a_scaled_network_are_members_too():
    torch.manual_seed(1)
    one = FlexUNet(3, 1, 4, (3, 3), 2).eval()
    image = torch.randint(0, 256, (1, 3, 8, 8)).float()
    both = Ensemble([one, torch.nn.Conv2d(3, 1, 1)])
    with torch.inference_mode():
        foreground = (one(image).sigmoid() + both.members[1](image).sigmoid()) / 2
        assert torch.allclose(both(image).softmax(1)[:, 1:], foreground, atol=1e-6)


@pytest.mark.parametrize("name", ["same", "other"])
def test_predict_onnx_and_the_members_own_predictions_agree(folds, images, tmp_path, flexunet, name):
    flexunet("predict", "--ckpt_path", folds, "--data.predict_dir", images, "--prediction.output_dir", tmp_path / "all",
             "--prediction.probabilities", "true")  # fmt: skip
    each = []
    for number, file in enumerate(checkpoint_files(folds)):
        flexunet("predict", "--ckpt_path", file, "--data.predict_dir", images,
                 "--prediction.output_dir", tmp_path / str(number), "--prediction.probabilities", "true")  # fmt: skip
        each.append(np.load(tmp_path / str(number) / "probabilities" / f"{name}.npz")["probabilities"])
    together = np.load(tmp_path / "all" / "probabilities" / f"{name}.npz")["probabilities"]
    mask = read_mask(tmp_path / "all" / f"{name}.png", PHANTOM_MAP)
    assert np.abs(together - np.mean(each, axis=0)).max() < 1e-6
    assert np.array_equal(mask, np.mean(each, axis=0).argmax(0))
    flexunet("export", "--ckpt_path", folds, "--output", tmp_path / "all.onnx")
    model = Model(tmp_path / "all.onnx")
    image = read_image(images / f"{name}.png")
    assert np.abs(model.probabilities(image) - np.mean(each, axis=0)).max() < 1e-4
    assert np.array_equal(model.predict(image), mask)
    parity = json.loads((tmp_path / "all.parity.json").read_text())
    assert all(row["pixels_differ"] == 0 for row in parity["engines"])
    assert parity["network"]["class_path"] == "flexunet_pl.models.Ensemble"


def test_the_scores_of_a_test_are_those_of_the_masks_of_predict(folds, phantoms, tmp_path, monkeypatch, flexunet):
    monkeypatch.chdir(tmp_path)
    flexunet("test", "--ckpt_path", folds, "--data.root", phantoms, "--trainer.logger.save_dir", tmp_path / "runs")
    flexunet("predict", "--ckpt_path", folds, "--data.predict_dir", phantoms / "test" / "images",
             "--prediction.output_dir", tmp_path / "predicted")  # fmt: skip
    (masks,) = (tmp_path / "runs").rglob("masks")
    for path in masks.iterdir():
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(tmp_path / "predicted" / path.name)))


def test_a_folder_is_gone_on_with_only_by_the_same_checkpoints(folds, images, tmp_path, flexunet, mistake):
    place = ("--data.predict_dir", images, "--prediction.output_dir", tmp_path / "masks")
    flexunet("predict", "--ckpt_path", folds, *place)
    assert "2 were there already" in flexunet("predict", "--ckpt_path", folds, *place)
    assert "overwrite" in mistake("predict", "--ckpt_path", folds / "fold_0", *place)


def test_what_does_not_go_together_is_named(folds, tmp_path, mistake, phantoms, trained):
    other = torch.load(folds / "fold_1" / "checkpoints" / "best.ckpt", weights_only=True)
    other["hyper_parameters"]["image_size"] = [64, 64]
    torch.save(other, tmp_path / "other.ckpt")
    with pytest.raises(ModelFileError, match=r"other.ckpt: its image_size is \[64, 64\] but that of .* is \[32, 32\]"):
        read_saved_model([folds / "fold_0", tmp_path / "other.ckpt"])
    other["hyper_parameters"] |= {"image_size": [32, 32], "network": None}
    torch.save(other, tmp_path / "other.ckpt")
    with pytest.raises(ModelFileError, match=r"other.ckpt: does not know how its network was built"):
        read_saved_model([folds / "fold_0", tmp_path / "other.ckpt"])
    assert "a training starts from one" in mistake("fit", "--ckpt_path", folds, "--data.root", phantoms)
    assert "name an --output" in mistake("export", f"{folds / 'fold_0'},{folds / 'fold_1'}", "--to", "onnx")
    assert "FlexUNet" in mistake("export", folds, "--output", tmp_path / "a.keras")


def test_an_onnx_file_of_too_many_weights_is_refused_with_the_remedy(folds, tmp_path, monkeypatch):
    source = read_source(folds)
    monkeypatch.setattr(onnx_file, "_MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"take fewer checkpoints, or --precision fp16"):
        onnx_file.write_onnx(source, tmp_path / "model.onnx", probabilities=True)


def test_temperature_changes_probabilities_and_no_mask(folds, images, tmp_path, flexunet):
    for number, temperature in enumerate((1.0, 2.0, 4.5)):
        path = folds / f"fold_{number}" / "checkpoints" / "best.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["hyper_parameters"]["temperature"] = temperature
        (tmp_path / "hot").mkdir(exist_ok=True)
        torch.save(checkpoint, tmp_path / "hot" / f"{number}.ckpt")
    assert read_saved_model(tmp_path / "hot").temperature == pytest.approx(9 ** (1 / 3))
    for name, source in (("cold", folds), ("warm", tmp_path / "hot")):
        flexunet("predict", "--ckpt_path", source, "--data.predict_dir", images,
                 "--prediction.output_dir", tmp_path / name, "--prediction.probabilities", "true")  # fmt: skip
    flexunet("export", tmp_path / "hot", "--output", tmp_path / "hot.onnx")
    for image in ("same", "other"):
        assert (tmp_path / "cold" / f"{image}.png").read_bytes() == (tmp_path / "warm" / f"{image}.png").read_bytes()
        files = [tmp_path / name / "probabilities" / f"{image}.npz" for name in ("cold", "warm")]
        cold, warm = (np.load(file)["probabilities"] for file in files)
        expected = cold ** (9 ** (-1 / 3))
        assert np.abs(warm - expected / expected.sum(0)).max() < 1e-6
        of_file = Model(tmp_path / "hot.onnx").probabilities(read_image(images / f"{image}.png"))
        assert np.abs(of_file - warm).max() < 1e-4
    task = SegmentationTask.load_from_checkpoint(tmp_path / "hot")
    assert task.temperature == pytest.approx(9 ** (1 / 3))
