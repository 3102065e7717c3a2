"""The verb `plan`, and that `fit` takes what it writes."""

import json
import shutil

import pytest
import yaml

from flexunet_pl.cli.main import main
from flexunet_pl.prepare.phantom import PHANTOM_MAP

TIMINGS = {
    "format": 1,
    "device": "cpu",
    "name": "",
    "cores": 2,
    "memory": 2**33,
    "precision": "32-true",
    "speedup": 1.0,
    "startup": 5.0,
    "augmentation": 0.05,
    "timings": [{"side": 96, "step": 0.01, "forward": 0.003, "memory": 4_000_000}],
}


@pytest.fixture
def timings(tmp_path):
    path = tmp_path / "timings.json"
    path.write_text(json.dumps(TIMINGS))
    return path


def test_two_plans_of_the_same_timings_are_the_same_bytes(flexunet, mistake, tmp_path, phantoms, timings):
    options = ["--minutes", 1, "--timings", timings, "--rgb-map", json.dumps(PHANTOM_MAP.to_dict())]
    said = [flexunet("plan", phantoms, "--out", tmp_path / name, *options) for name in ("a.yaml", "b.yaml")]
    texts = [(tmp_path / name).read_text().replace(name, "") for name in ("a.yaml", "b.yaml")]
    assert texts[0] == texts[1]
    assert "max_time: 00:00:00:52  # 1 minutes, less 5 s to start" in texts[0]
    assert "trachea" in said[0]
    assert "note: whether left and right matter" in said[0]
    assert "--overwrite" in mistake("plan", phantoms, "--out", tmp_path / "a.yaml", *options)


def test_fit_takes_a_plan_and_ends_when_its_steps_are_done(flexunet, tmp_path, phantoms, timings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "proposed from the masks" in flexunet("plan", phantoms, "--minutes", 1, "--timings", timings)
    config = yaml.safe_load((tmp_path / "plan.yaml").read_text())
    assert config["model"]["image_size"] == [96, 96]
    quick = ["--data.epoch_samples", 4, "--data.num_workers", 0, "--trainer.max_steps", 3]
    assert "val/dice" in flexunet("fit", "-c", "plan.yaml", *quick, "--trainer.enable_progress_bar", "false")
    assert (tmp_path / "runs" / "flexunet" / "version_0" / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.parametrize("like", ["nnunet", "original"])
def test_fit_takes_the_choices_of_others(flexunet, tmp_path, phantoms, timings, monkeypatch, like):
    monkeypatch.chdir(tmp_path)
    flexunet("plan", phantoms, "--minutes", 1, "--timings", timings, "--like", like)
    small = ["--model.image_size", "[128, 128]", "--data.num_workers", 0, "--data.batch_size", 1]
    small += ["--data.epoch_samples", 2, "--trainer.max_epochs", 1, "--epoch_change.num_images", 0]
    if like == "original":
        small += ["--model.network.init_args.base_filters", 2]
    assert "best checkpoint" in flexunet("fit", "-c", "plan.yaml", *small, "--trainer.enable_progress_bar", "false")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes", 0.01], "--minutes 0.01 is too short for 10 steps here; give"),
        (["--minutes", -1], "--minutes is -1; give how long the training may take"),
        (["--minutes", 1, "--group-regex", "("], "is no regular expression"),
        (["--minutes", 1, "--rgb-map", '{"a": [0, 0, 0], "b": [9, 9, 9]}'], "are no class of `rgb_map`"),
        ([], "minutes"),
    ],
)
def test_a_mistake_is_one_line(mistake, tmp_path, phantoms, timings, options, message):
    assert message in mistake("plan", phantoms, "--out", tmp_path / "p.yaml", "--timings", timings, *options)
    assert not (tmp_path / "p.yaml").exists()


def test_a_folder_that_is_not_split_is_said_with_the_remedy(mistake, tmp_path, phantoms, timings):
    shutil.copytree(phantoms / "train", tmp_path / "all")
    line = mistake("plan", tmp_path / "all", "--minutes", 1, "--timings", timings, "--out", tmp_path / "p.yaml")
    assert f"`flexunet split {tmp_path / 'all'} NEW` first" in line


def test_fit_without_a_network_says_that_a_plan_would_fit_better(workspace, mistake, phantoms):
    line = mistake("fit", "--data.root", phantoms)
    assert f"or `flexunet plan {phantoms} --minutes 10` writes a configuration for this data" in line


def test_fit_with_classes_but_no_network_says_so_and_goes_on(workspace, phantoms, capsys):
    main(["fit", "--data.root", str(phantoms), "--model.rgb_map", json.dumps(PHANTOM_MAP.to_dict()),
          "--model.image_size", "[100, 100]"])  # fmt: skip
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert first.startswith("note: no network is named, so the original's of 127 M weights is trained; `flexunet plan")
    assert "multiple of 128" in second
