"""Slices with those beside them as channels, from `fit` to `predict`."""

import cv2
import numpy as np
import pytest
import torch

from flexunet_pl.io.images import read_image
from flexunet_pl.io.masks import read_mask
from flexunet_pl.prepare.phantom import PHANTOM_MAP

NINE = ["--model.in_channels", 3, "--data.neighbours", 1]


@pytest.fixture
def checkpoint(workspace, flexunet):
    flexunet("fit", "-c", "c.yaml", *NINE, "--trainer.max_epochs", 1)
    return workspace / "runs" / "flexunet" / "version_0" / "checkpoints" / "last.ckpt"


def test_the_checkpoint_knows_its_neighbours_and_every_verb_uses_them(
    workspace, flexunet, mistake, phantoms, checkpoint
):
    saved = torch.load(checkpoint, weights_only=True)["hyper_parameters"]
    assert (saved["neighbours"], saved["in_channels"]) == (1, 3)
    of_run = ["--ckpt_path", checkpoint]
    flexunet("test", *of_run, "--data.root", phantoms)
    flexunet("report", workspace / "runs" / "flexunet" / "version_0")
    images = phantoms / "test" / "images"
    written = ["--prediction.output_dir", "masks", "--prediction.overlay", "true"]
    flexunet("predict", *of_run, "--data.predict_dir", images, *written)
    overlay = read_image(workspace / "masks" / "overlays" / "005_01.png")[:64]
    plain = cv2.dilate(read_mask(workspace / "masks" / "005_01.png", PHANTOM_MAP), np.ones((3, 3))) == 0
    assert plain.any()
    assert np.array_equal(overlay[plain], read_image(images / "005_01.png")[plain]), "the slice itself is shown"
    assert len(list((workspace / "masks").glob("*.png"))) == 3
    flexunet("fit", "-c", "c.yaml", *NINE, "--trainer.max_epochs", 2, *of_run)
    assert (workspace / "runs" / "flexunet" / "version_0" / "epoch_change" / "film_strip.png").is_file()
    assert "takes slices with their neighbours" in mistake("export", checkpoint, "--output", "a.onnx")


def test_a_volume_is_predicted_with_the_slices_beside_each(workspace, flexunet, checkpoint):
    values = np.random.default_rng(0).integers(0, 256, (4, 32, 32)).astype(np.uint8)
    np.save(workspace / "v.npy", values)
    rules = ["--data.volume.window", "[0, 255]", "--prediction.probabilities", "true"]
    flexunet(
        "predict", "--ckpt_path", checkpoint, "--data.predict_dir", "v.npy", "--prediction.output_dir", "o", *rules
    )
    assert any((workspace / "o").iterdir())


def test_channels_that_do_not_count_the_neighbours_are_said(workspace, mistake):
    line = mistake("fit", "-c", "c.yaml", "--data.neighbours", 1, "--model.in_channels", 1)
    assert "data.neighbours 1 makes pictures of 3 slices: set it to 3, or to 9" in line
