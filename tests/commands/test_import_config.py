"""The YAML file that a configuration of the original becomes."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings

from flexunet_pl.commands.import_config import to_yaml
from flexunet_pl.interop.config.convert import convert
from tests.interop.test_config import configurations


@pytest.fixture
def config(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "projects" / "x" / "train_eval_infer.config"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_the_yaml_is_a_configuration_of_fit(config, flexunet):
    output = flexunet("import-config", config, "--output", "experiment.yaml")
    assert "note: " in output
    printed = yaml.safe_load(flexunet("fit", "-c", "experiment.yaml", "--print_config"))
    assert printed["model"]["image_size"] == [256, 512]
    assert printed["model"]["network"]["init_args"]["dilation"] == [3, 3]
    assert printed["model"]["scheduler"]["init_args"]["patience"] == 5
    assert printed["data"]["train_transform"] is None
    assert printed["trainer"]["gradient_clip_val"] == 0.5


def test_paths_stay_relative_to_the_folder_of_the_original_s_file(config, flexunet):
    flexunet("import-config", os.path.relpath(config), "--output", "experiment.yaml")
    made = yaml.safe_load(Path("experiment.yaml").read_text())
    assert made["data"]["root"] == os.path.normpath(config.parent / "../../../dataset/Some Thing")
    assert made["epoch_change"]["images"] == str(config.parent / "mini_test" / "images")
    assert made["prediction"]["output_dir"] == str(config.parent / "mini_test_output")


def test_a_folder_is_taken_with_what_lies_in_it(config, flexunet, phantoms):
    shutil.copytree(phantoms, config.parent / "dataset" / "lesions")
    (config.parent / "mini_test" / "images").mkdir(parents=True)
    said = flexunet("import-config", config.parent)
    made = yaml.safe_load((config.parent / "experiment.yaml").read_text())
    assert made["data"]["root"] == str(config.parent / "dataset" / "lesions")
    assert f"which is not there; {config.parent / 'dataset' / 'lesions'} is taken" in said
    assert made["epoch_change"]["images"] == made["data"]["predict_dir"] == str(config.parent / "mini_test" / "images")
    assert (
        f"# - data.root was {os.path.normpath(config.parent / '../../../dataset/Some Thing')}"
        in (config.parent / "experiment.yaml").read_text()
    )


def test_a_folder_without_data_or_with_two_of_a_kind_is_said(config, flexunet, mistake, phantoms):
    assert "holds nothing of its kind; set it before you train" in flexunet("import-config", config.parent)
    for name in ("a", "b"):
        shutil.copytree(phantoms, config.parent / name)
    assert "holds 2 of its kind" in flexunet("import-config", config.parent, "--overwrite")
    (config.parent / "a" / config.name).write_text("")
    (config.parent / "b" / config.name).write_text("")
    assert "data.root" in flexunet("import-config", config.parent, "--overwrite")  # the nearest one
    config.unlink()
    assert "holds 2 configurations" in mistake("import-config", config.parent)
    (config.parent / "c").mkdir()
    assert "no file train_eval_infer.config in this folder" in mistake("import-config", config.parent / "c")


def test_a_path_of_windows_is_kept_and_remarked_on(config, flexunet):
    text = config.read_text()
    config.write_text(text.replace('"../../../dataset/Some Thing', '"D:\\data\\x').replace("/images/", "\\images"))
    output = flexunet("import-config", config, "--output", "x.yaml")
    assert "data.root is D:/data/x, a path of another system; set it again" in output
    assert yaml.safe_load(Path("x.yaml").read_text())["data"]["root"] == "D:/data/x"


def test_the_yaml_says_where_values_came_from(config, flexunet):
    flexunet("import-config", config)
    text = (config.parent / "experiment.yaml").read_text()
    assert text.startswith("# flexunet fit -c experiment.yaml\n")
    assert "lr: 7.0e-05  # [model] learning_rate, line 18\n" in text
    assert "rgb_map:  # [mask] rgb_map, line 61; names from the comment beside it\n" in text
    assert "# - line 25: [dataset] class_name" in text
    assert list(yaml.safe_load(text))[:4] == ["seed_everything", "model", "data", "trainer"]


def test_nothing_is_overwritten(config, flexunet, mistake):
    flexunet("import-config", config)
    before = (config.parent / "experiment.yaml").read_text()
    assert "is there already" in mistake("import-config", config)
    assert (config.parent / "experiment.yaml").read_text() == before
    flexunet("import-config", config, "--overwrite", "--like-the-original")
    assert "patience: 10" in (config.parent / "experiment.yaml").read_text()


def test_mistakes_are_one_line(config, mistake, tmp_path):
    assert "no such file" in mistake("import-config", "none.config", "--output", "x.yaml")
    assert "did you mean `overwrite`?" in mistake("import-config", config, "--overwite")
    assert "no such folder" in mistake("import-config", config, "--output", "none/x.yaml")
    config.write_bytes(config.read_bytes().replace(b'"TensorFlowFlexUNet"', b'"\xe9"'))
    assert "line 4: [model] model: expected a string" in mistake("import-config", config)
    config.write_text("[model]\nlearning_rate = __import__('os').system('touch canary')\n")
    assert f"{config}, line " in mistake("import-config", config)
    assert not Path("canary").exists()
    assert not (config.parent / "experiment.yaml").exists()


@pytest.mark.parametrize("name", ["f\u3000o", "n\xa0b", "z\u200bw", "a: #b", "new\nline"])
def test_folders_of_any_name_are_kept(tmp_path, text, name, flexunet):
    folder = tmp_path / name / "a" / "b" / "c"
    folder.mkdir(parents=True)
    (folder / "c.config").write_text(text)
    flexunet("import-config", folder / "c.config", "--output", tmp_path / "x.yaml")
    assert yaml.safe_load((tmp_path / "x.yaml").read_text())["data"]["root"] == str(
        tmp_path / name / "dataset" / "Some Thing"
    )


def test_comments_in_any_encoding_are_passed_over(config, flexunet):
    config.write_bytes(config.read_bytes().replace(b"; tumour of something", b"; \x83\x8f\xe9 \x07"))
    flexunet("import-config", config, "--output", "x.yaml")
    assert yaml.safe_load(Path("x.yaml").read_text())["trainer"]["max_epochs"] == 80


@given(configurations())
@settings(max_examples=100, deadline=None)
def test_the_yaml_says_what_the_conversion_says(text):
    conversion = convert(text)
    assert yaml.safe_load(to_yaml(conversion, Path("a"), Path("b"))) == conversion.config


@given(configurations())
@settings(max_examples=5, deadline=None)
def test_generated_configurations_are_configurations_of_fit(tmp_path_factory, text):
    from flexunet_pl.cli.main import main

    path = tmp_path_factory.mktemp("c") / "x.yaml"
    path.write_text(to_yaml(convert(text), Path("a"), path))
    assert main(["fit", "-c", str(path), "--print_config"]) == 0


def test_the_augmentor_can_be_built(tmp_path, text, flexunet, phantoms, monkeypatch):
    from tests.interop.test_config import _AUGMENTOR

    monkeypatch.chdir(tmp_path)
    changes = {"generator      = False": "generator = True", "num_classes    = 3": "num_classes = 4"}
    changes |= {"num_layers     = 8": "num_layers = 2", "base_filters   = 16": "base_filters = 2"}
    changes |= {"image_width    = 512": "image_width = 64", "image_height   = 256": "image_height = 64"}
    changes |= {"{(0,0,0):0,(0,0,255):1,(255,0,0):2,  }": "{(0,0,0):0,(255,0,0):1,(0,255,0):2,(0,0,255):3}"}
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    Path("c.config").write_text(text + _AUGMENTOR)
    flexunet("import-config", "c.config", "--output", "x.yaml")
    # fmt: off
    flexunet("fit", "-c", "x.yaml", "--data.root", phantoms, "--data.num_workers", 0, "--trainer.max_epochs", 1,
             "--trainer.enable_progress_bar", "false", "--epoch_change.images", phantoms / "test" / "images")
    # fmt: on
    assert list(Path("runs").rglob("best.ckpt"))
