"""Pixels that do not count: the colour `ignore` of a map, and 255 of index masks."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from segmentation_models_pytorch import losses as smp_losses

from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.io.masks import read_mask, write_mask
from flexunet_pl.io.overlays import draw_overlay
from flexunet_pl.losses import DiceCELoss, FocalLoss, TverskyLoss, compute_loss, prepare_loss, weigh_classes
from flexunet_pl.metrics.calibration import calibration_error
from flexunet_pl.metrics.epoch import SegmentationScores
from flexunet_pl.metrics.per_case import Surfaces, measure_case
from flexunet_pl.prepare.phantom import PHANTOM_MAP, write_phantom
from flexunet_pl.rgb_map import IGNORED, RgbMap

GREY = (128, 128, 128)
MAP = RgbMap.parse({"background": [0, 0, 0], "ignore": list(GREY), "lesion": [255, 0, 0], "organ": [0, 0, 255]})
LOSSES = [
    DiceCELoss(),
    DiceCELoss(pooled=True),
    DiceCELoss(include_background=True, lambda_ce=0.5),
    FocalLoss(),
    TverskyLoss(),
    torch.nn.CrossEntropyLoss(),
    torch.nn.CrossEntropyLoss(label_smoothing=0.1),
    smp_losses.DiceLoss("multiclass"),
    smp_losses.JaccardLoss("multiclass"),
    smp_losses.TverskyLoss("multiclass"),
    smp_losses.FocalLoss("multiclass"),
    smp_losses.LovaszLoss("multiclass"),
    smp_losses.SoftCrossEntropyLoss(smooth_factor=0.0),
]


def batch():
    """Logits, and a mask of which two thirds of the first image and a corner of the second do not count."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.randint(0, 3, (2, 6, 8), generator=generator)
    mask[0, 2:] = IGNORED
    mask[1, :2, :3] = IGNORED
    return torch.randn(2, 3, 6, 8, generator=generator, requires_grad=True), mask


def test_ignore_is_no_class():
    assert MAP.names == ("background", "lesion", "organ")
    assert (len(MAP), MAP.ignored) == (3, GREY)
    assert RgbMap.parse(MAP.to_dict()) == MAP
    assert list(MAP.to_dict()) == ["background", "lesion", "organ", "ignore"]
    with pytest.raises(UserError, match="`lesion` and `ignore` have the same colour"):
        RgbMap.parse({"background": [0, 0, 0], "lesion": [1, 2, 3], "ignore": [1, 2, 3]})
    with pytest.raises(UserError, match="1 classes given"):
        RgbMap.parse({"background": [0, 0, 0], "ignore": [1, 2, 3]})


def test_masks_are_read_and_written_with_it(tmp_path):
    index = np.random.default_rng(5).integers(0, 4, (20, 30)).astype(np.uint8)
    index[index == 3] = IGNORED
    write_mask(tmp_path / "mask.png", index, MAP)
    assert np.array_equal(read_mask(tmp_path / "mask.png", MAP), index)
    assert np.array_equal(read_mask(tmp_path / "mask.png", MAP, "nearest"), index)
    assert (np.asarray(Image.open(tmp_path / "mask.png").convert("RGB"))[index == IGNORED] == GREY).all()
    np.savez_compressed(tmp_path / "mask.npz", mask=index)
    plain = RgbMap(MAP.names, MAP.colors)
    for rgb_map in (MAP, plain):
        assert np.array_equal(read_mask(tmp_path / "mask.npz", rgb_map), index)
    with pytest.raises(DataError, match=r"rgb_map no colour for them; name one, as in `ignore: \[128, 128, 128\]`"):
        write_mask(tmp_path / "other.png", index, plain)
    write_mask(tmp_path / "solid.png", np.full((20, 30), IGNORED, np.uint8), MAP)
    with pytest.raises(DataError, match=r"colour \[128, 128, 128\]"):
        read_mask(tmp_path / "solid.png", plain)


def test_an_overlay_does_not_show_it():
    image, index = np.full((8, 8, 1), 77, np.uint8), np.zeros((8, 8), np.uint8)
    index[2:5, 2:5] = IGNORED
    assert np.array_equal(draw_overlay(image, index, MAP), draw_overlay(image, np.zeros_like(index), MAP))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "loss", LOSSES, ids=lambda loss: f"{type(loss).__module__.split('.')[0]}.{type(loss).__name__}"
)
def test_no_loss_and_no_gradient_there(loss, weighted):
    if weighted:
        if not isinstance(loss, torch.nn.CrossEntropyLoss | DiceCELoss):
            pytest.skip("takes no class weights")
        weigh_classes(loss, [0.5, 1.0, 2.0])
    prepare_loss(loss)
    logits, mask = batch()
    value = compute_loss(loss, logits, mask)
    value.backward()
    ignored = (mask == IGNORED)[:, None].expand_as(logits)
    assert torch.isfinite(value)
    assert (logits.grad[ignored] == 0).all()
    assert (logits.grad[~ignored] != 0).any()
    other = logits.detach().masked_fill(ignored, 30.0)
    assert compute_loss(loss, other, mask).item() == pytest.approx(value.item(), rel=1e-6)
    nothing = torch.full_like(mask, IGNORED)
    logits.grad = None
    compute_loss(loss, logits, nothing).backward()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", [DiceCELoss(), DiceCELoss(pooled=True), FocalLoss(), TverskyLoss()])
def test_the_loss_is_that_of_the_image_without_those_pixels(loss):
    logits, mask = batch()
    mask = mask[1:].clone()
    mask[mask == IGNORED] = 0
    whole = compute_loss(loss, logits[1:], mask)
    wider = torch.nn.functional.pad(logits[1:], (0, 4), value=3.0)
    assert compute_loss(loss, wider, torch.nn.functional.pad(mask, (0, 4), value=IGNORED)).item() == pytest.approx(
        whole.item(), rel=1e-6
    )


def test_a_loss_that_knows_of_no_such_pixels_is_refused_by_name():
    class Plain(torch.nn.Module):
        def forward(self, logits, mask):
            return torch.nn.functional.cross_entropy(logits, mask.clamp(max=2))

    logits, mask = batch()
    assert compute_loss(Plain(), logits, mask.clamp(max=2)).ndim == 0
    with pytest.raises(UserError, match=r"model\.loss: Plain counts every pixel"):
        compute_loss(Plain(), logits, mask)


def test_scores_are_those_of_the_image_without_those_pixels():
    logits, mask = batch()
    wide = torch.nn.functional.pad(logits.detach(), (0, 5), value=2.0)
    truth = torch.where(mask == IGNORED, 0, mask)
    scores, without = SegmentationScores(["b", "x", "y"]), SegmentationScores(["b", "x", "y"])
    scores.update(wide, torch.nn.functional.pad(truth, (0, 5), value=IGNORED), torch.tensor(1.0))
    without.update(logits.detach(), truth, torch.tensor(1.0))
    assert scores.compute() == pytest.approx(without.compute())


def test_cases_are_measured_without_those_pixels():
    truth = np.zeros((30, 30), np.uint8)
    truth[5:15, 5:15] = 1
    predicted = truth.copy()
    predicted[20:29, 20:29] = 1  # an invented one
    truth[18:, 18:] = IGNORED
    (score,) = measure_case("a", "a", predicted, truth, ["background", "lesion"], Surfaces())
    assert (score.tp, score.fp, score.fn, score.false_lesions) == (100, 0, 0, 0)
    assert score.values["dice"] == score.values["nsd"] == 1
    p = np.stack([predicted == 0, predicted == 1]).astype(np.float32)
    assert calibration_error(p, truth) == 0


@pytest.fixture(scope="module")
def scribbles(tmp_path_factory):
    """Phantoms of which half of the pixels of the training masks do not count."""
    root = tmp_path_factory.mktemp("scribbles") / "data"
    write_phantom(root, patients=6, slices=3, size=64, seed=137)
    rgb_map = RgbMap.parse({**PHANTOM_MAP.to_dict(), "ignore": list(GREY)})
    for path in sorted((root / "train" / "masks").iterdir()):
        index = read_mask(path, rgb_map)
        index[:, ::2] = IGNORED
        write_mask(path, index, rgb_map)
    return root, rgb_map


def test_every_verb_takes_them(scribbles, workspace, flexunet, monkeypatch):
    root, rgb_map = scribbles
    config = yaml.safe_load((workspace / "c.yaml").read_text())
    config["model"] |= {"rgb_map": rgb_map.to_dict(), "loss": {"class_path": "flexunet_pl.losses.DiceCELoss"}}
    (workspace / "scribbles.yaml").write_text(yaml.safe_dump(config))
    said = flexunet("check", root, "--rgb-map", json.dumps(rgb_map.to_dict()), "--out", workspace / "checked")
    assert "no class" not in said
    found = json.loads((workspace / "checked" / "check.json").read_text())["splits"]["train"]
    assert found["ignored_pixels"] == 12 * 64 * 32
    assert sum(found["pixels"].values()) == 12 * 64 * 32
    assert set(
        yaml.safe_load((workspace / "checked" / "class_weights.yaml").read_text())["model"]["class_weights"]
    ) == {*PHANTOM_MAP.names}
    flexunet("fit", "-c", workspace / "scribbles.yaml", "--data.root", root, "--data.foreground_share", "0.5")
    checkpoint = next(workspace.rglob("last.ckpt"))
    flexunet("test", "--ckpt_path", checkpoint, "--data.root", root)
    flexunet("export", checkpoint, "--to", "onnx", "--output", workspace / "model.onnx")
    flexunet("predict", "--ckpt_path", checkpoint, "--data.predict_dir", root / "test" / "images",
             "--prediction.output_dir", workspace / "predicted")  # fmt: skip
    for path in (workspace / "predicted").glob("*.png"):
        assert not (np.asarray(Image.open(path).convert("RGB")) == GREY).all(axis=2).any()
    truth = root / "test" / "masks"
    flexunet("score", "--pred", workspace / "predicted", "--target", truth, "--rgb-map", json.dumps(rgb_map.to_dict()),
             "--out", workspace / "scored")  # fmt: skip
    with (workspace / "scored" / "per_case.csv").open() as file:
        assert {row["label"] for row in csv.DictReader(file)} == set(PHANTOM_MAP.names[1:])
