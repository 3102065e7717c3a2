"""What is done with a mask behind the network: the same in predict, the runtime and the page."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from flexunet_pl.common.errors import ModelFileError
from flexunet_pl.models.load import read_saved_model
from flexunet_runtime import Model, read_image
from flexunet_runtime.postprocess import Step, find_parts, parse_steps, postprocess

NAMES = ("background", "lesion", "organ")


def random_mask(rng):
    """Patches of three classes, with holes and single pixels."""
    noise = ndimage.gaussian_filter(rng.standard_normal((3, *rng.integers(1, 40, 2))), (0, *rng.choice([0.4, 1.5], 2)))
    return noise.argmax(0).astype(np.uint8)


def by_scipy(mask, step):
    index, done = NAMES.index(step.label), mask.copy()
    chosen = mask == index
    if step.kind == "fill":
        done[ndimage.binary_fill_holes(chosen) & (mask == 0)] = index
        return done
    parts, count = ndimage.label(chosen, np.ones((3, 3)))
    areas = ndimage.sum_labels(chosen, parts, np.arange(1, count + 1))
    for number, area in enumerate(areas, start=1):
        if area < step.pixels if step.kind == "smallest" else number != areas.argmax() + 1:
            done[parts == number] = 0
    return done


STEPS = [Step("lesion", "largest"), Step("organ", "smallest", 5), Step("organ", "fill"), Step("lesion", "smallest", 9)]


@pytest.mark.parametrize("corners", [True, False])
def test_parts_are_those_of_scipy(corners):
    rng = np.random.default_rng(1)
    for _ in range(60):
        chosen = rng.random(rng.integers(1, 40, 2)) < rng.random()
        parts, areas = find_parts(chosen, corners=corners)
        expected, count = ndimage.label(chosen, np.ones((3, 3)) if corners else None)
        assert np.array_equal(parts, expected)
        assert np.array_equal(areas, np.bincount(expected.ravel(), minlength=count + 1))


def test_each_step_is_that_of_scipy():
    rng = np.random.default_rng(2)
    for _ in range(60):
        mask = random_mask(rng)
        before = mask.copy()
        for step in STEPS:
            assert np.array_equal(postprocess(mask, [step], NAMES), by_scipy(mask, step)), step
        assert np.array_equal(mask, before)


def test_the_page_does_the_same():
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    rng = np.random.default_rng(3)
    masks = [random_mask(rng) for _ in range(60)]
    plain = [step.plain() for step in STEPS]
    wrong = [{"class": "background", "do": "fill"}], [{"class": "lesion", "do": "erase"}], "fill", [{"class": "lesion"}]
    given = [{"mask": m.ravel().tolist(), "width": m.shape[1], "steps": plain, "names": NAMES} for m in masks]
    given += [{"mask": [0], "width": 1, "steps": steps, "names": NAMES} for steps in wrong]
    done = subprocess.run(
        ["node", str(Path(__file__).parent / "postprocess.mjs")],  # noqa: S607
        input=json.dumps(given), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    for mask, of_page in zip(masks, found, strict=False):
        assert postprocess(mask, STEPS, NAMES).ravel().tolist() == of_page
    for steps, why in zip(wrong, found[len(masks) :], strict=True):
        with pytest.raises(ValueError, match=why):
            parse_steps(steps, NAMES)


def test_predict_test_and_the_runtime_apply_what_the_checkpoint_says(lively, phantoms, tmp_path, monkeypatch, flexunet):
    monkeypatch.chdir(tmp_path)
    checkpoint = torch.load(lively, weights_only=True)
    steps = [Step("lung", "largest"), Step("heart", "smallest", 20), Step("lung", "fill")]
    checkpoint["hyper_parameters"]["postprocessing"] = [step.plain() for step in steps]
    torch.save(checkpoint, "stepped.ckpt")
    images = phantoms / "test" / "images"
    for name, source in (("plain", lively), ("stepped", "stepped.ckpt")):
        flexunet("predict", "--ckpt_path", source, "--data.predict_dir", images, "--prediction.output_dir", name)
    flexunet("test", "--ckpt_path", "stepped.ckpt", "--data.root", phantoms)
    flexunet("export", "stepped.ckpt", "--output", "model.onnx")
    model = Model("model.onnx")
    (tested,) = Path("runs").rglob("masks")
    names = read_saved_model("stepped.ckpt").rgb_map.names
    changed = 0
    for path in Path("plain").glob("*.png"):
        plain, stepped, of_test = (np.asarray(Image.open(place / path.name)) for place in
                                   (Path("plain"), Path("stepped"), tested))  # fmt: skip
        expected = postprocess(plain, steps, names)
        changed += int((expected != plain).sum())
        assert np.array_equal(stepped, expected)
        assert np.array_equal(of_test, expected)
        assert np.array_equal(model.predict(read_image(images / path.name)), expected)
    assert changed
    assert model.metadata["format"] == 3


def test_a_stranger_s_steps_are_refused(lively, tmp_path):
    for steps in ("fill", [{"class": "lung", "do": "smallest", "pixels": float("inf")}], [["lung"]], {"a": 1}):
        checkpoint = torch.load(lively, weights_only=True)
        checkpoint["hyper_parameters"]["postprocessing"] = steps
        torch.save(checkpoint, tmp_path / "a.ckpt")
        with pytest.raises(ModelFileError, match="postprocessing that is no list of steps"):
            read_saved_model(tmp_path / "a.ckpt")
