"""Networks for each fold, what is done behind them, and what becomes of both."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from flexunet_pl.cli import lightning
from flexunet_pl.models.load import read_saved_model
from flexunet_pl.prepare.phantom import PHANTOM_MAP, write_phantom
from flexunet_runtime import Model


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """A root with three folds of six patients."""
    from flexunet_pl.cli.main import main

    place = tmp_path_factory.mktemp("folds")
    write_phantom(place / "all", patients=6, slices=2, size=64, seed=137)
    for kind in ("images", "masks"):
        (place / "flat" / kind).mkdir(parents=True)
        for path in sorted((place / "all").glob(f"*/{kind}/*.png")):
            path.rename(place / "flat" / kind / path.name)
    words = ["--folds", "3", "--group-regex", "^([0-9]+)_", "--rgb-map", json.dumps(PHANTOM_MAP.to_dict())]
    assert main(["split", str(place / "flat"), str(place / "root"), *words]) == 0
    return place / "root"


def test_folds_are_trained_gone_on_with_and_predict_as_one(workspace, folds, flexunet, mistake, monkeypatch):
    started = []
    real = lightning.run

    def stopped(verb, args, *more, **kwargs):
        started.append(args[args.index("--data.fold") + 1])
        if len(started) == 2:
            raise KeyboardInterrupt
        return real(verb, args, *more, **kwargs)

    monkeypatch.setattr("flexunet_pl.commands.folds.run", stopped)
    config = yaml.safe_load((workspace / "c.yaml").read_text())
    config["data"]["root"] = str(folds / "fold_1")
    (workspace / "c.yaml").write_text(yaml.safe_dump(config))
    command = ("folds", "-c", "c.yaml", "--out", "five")
    from flexunet_pl.cli.main import main

    assert main(list(command)) == 130
    said = flexunet(*command)
    assert started == ["0", "1", "1", "2"]
    assert "fold 0: is done" in said
    assert sorted(path.parts[1] for path in Path("five").glob("*/checkpoints/best.ckpt")) == [
        "fold_0", "fold_1", "fold_2",
    ]  # fmt: skip
    assert len({yaml.safe_load(p.read_text())["data"]["fold"] for p in Path("five").glob("*/config.yaml")}) == 3
    assert "has no fold 7" in mistake(*command, "--folds", "[7]")
    assert "holds no folds" in mistake(*command, "--root", workspace)
    (workspace / "c.yaml").write_text(yaml.safe_dump(config) + "\n# changed\n")
    assert "begun with another configuration" in mistake(*command)

    said = flexunet("postprocess", "five", "--group-regex", "^([0-9]+)_")
    found = json.loads(Path("five/postprocessing.json").read_text())
    assert (found["cases"], found["groups"]) == (12, 6)
    assert "calibration error" in said
    saved = [read_saved_model(path) for path in sorted(Path("five").glob("*/checkpoints/best.ckpt"))]
    assert {one.temperature for one in saved} == {found["calibration"]["temperature"]}
    assert read_saved_model("five").temperature == pytest.approx(found["calibration"]["temperature"])
    assert torch.load("five/fold_0/checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]["temperature"] == 1
    flexunet("predict", "--ckpt_path", "five", "--data.predict_dir", folds / "fold_0" / "valid" / "images",
             "--prediction.output_dir", "masks")  # fmt: skip
    flexunet("export", "five", "--to", "onnx")
    model = Model("five.onnx")
    for path in (folds / "fold_0" / "valid" / "images").glob("*.png"):
        mask = np.asarray(Image.open(Path("masks") / path.name))
        assert np.array_equal(model.predict(model.read(path)), mask)


def test_a_network_outside_of_its_run_is_not_judged(lively, mistake):
    assert "does not lie in the folder of its run" in mistake("postprocess", lively)
