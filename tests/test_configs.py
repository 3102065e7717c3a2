"""Every configuration that is shipped: it is read, it holds the reference's parameters, its network can be built."""

from pathlib import Path

import pytest
import torch
import yaml

from flexunet_pl import load_model
from flexunet_pl.cli.main import main
from flexunet_pl.models.build import build_network

CONFIGS = Path(__file__).parents[1] / "configs"
REFERENCE = {  # kernels, learning rate, clip, reducer factor, input_normalize, dropout, classes
    "chest-ct-subset": (11, 7e-5, 0.5, 0.5, True, 0.05, 4),
    "covid-19": (9, 7e-5, 0.4, 0.4, False, 0.04, 4),
    "3d-liver-tumor": (9, 5e-5, 0.4, 0.4, False, 0.04, 3),
    "lung-tumor": (9, 5e-5, 0.4, 0.4, False, 0.04, 2),
    "nbm": (9, 7e-5, 0.4, 0.4, False, 0.04, 2),
}


def resolved(capsys, *args):
    assert main(["fit", *args, "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def experiment(capsys, name):
    files = [CONFIGS / "default.yaml", CONFIGS / "experiment" / f"{name}.yaml"]
    return resolved(capsys, *(word for file in files for word in ("-c", str(file))))


def test_there_is_one_for_each_experiment_of_the_reference_and_its_data():
    assert {p.stem for p in (CONFIGS / "experiment").iterdir()} == {*REFERENCE, "chest-ct-subset-smp"}
    assert {p.stem for p in (CONFIGS / "data").iterdir()} == set(REFERENCE)


@pytest.mark.parametrize("name", REFERENCE)
def test_an_experiment_has_the_reference_s_parameters(capsys, name):
    config = experiment(capsys, name)
    kernel, rate, clip, factor, normalize, dropout, classes = REFERENCE[name]
    model, network = config["model"], config["model"]["network"]["init_args"]
    assert network == {
        "base_filters": 16,
        "base_kernels": [kernel, kernel],
        "num_layers": 8,
        "dilation": [1, 1],
        "dropout_rate": dropout,
        "normalization": False,
        "activation": "relu",
        "input_normalize": normalize,
    }
    assert (model["image_size"], config["data"]["batch_size"]) == ([512, 512], 2)
    assert len(model["rgb_map"]) == classes
    assert next(iter(model["rgb_map"].values())) == [0, 0, 0]
    assert model["optimizer"]["class_path"] == "torch.optim.Adam"
    assert (model["optimizer"]["init_args"]["lr"], model["optimizer"]["init_args"]["eps"]) == (rate, 1e-7)
    assert (model["scheduler"]["init_args"]["factor"], model["scheduler"]["init_args"]["patience"]) == (factor, 4)
    trainer = config["trainer"]
    assert (trainer["gradient_clip_val"], trainer["gradient_clip_algorithm"]) == (clip, "value")
    assert (trainer["max_epochs"], config["early_stopping"]["patience"], config["seed_everything"]) == (100, 10, 137)
    with torch.device("meta"):
        built = build_network("flexunet_pl.FlexUNet", {**network, "in_channels": 3, "num_classes": classes})
    assert built.size_factor == 128


@pytest.mark.parametrize("name", REFERENCE)
def test_an_experiment_s_first_comment_is_its_command(name):
    first = (CONFIGS / "experiment" / f"{name}.yaml").read_text().splitlines()[0]
    assert first == f"# flexunet fit -c configs/default.yaml -c configs/experiment/{name}.yaml"


def test_default_yaml_writes_out_the_defaults_of_the_command_line(capsys):
    without, with_file = resolved(capsys), resolved(capsys, "-c", str(CONFIGS / "default.yaml"))
    assert without.pop("model") == {**with_file.pop("model"), "loss": None}  # cross-entropy, either way
    assert without == with_file


def test_the_class_count_reaches_networks_of_every_package(workspace, flexunet):
    config = yaml.safe_load((workspace / "c.yaml").read_text())
    config["model"]["network"] = {"class_path": "monai.networks.nets.BasicUNet", "init_args": {"spatial_dims": 2}}
    (workspace / "c.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    flexunet("fit", "-c", "c.yaml", "--trainer.max_epochs", 1)
    network = load_model("runs/flexunet/version_0/checkpoints/best.ckpt")
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 32, 32)


def test_another_network_trains_by_class_path_alone(workspace, flexunet, phantoms):
    config = CONFIGS / "experiment" / "chest-ct-subset-smp.yaml"
    flexunet("fit", "-c", CONFIGS / "default.yaml", "-c", config, "--data.root", phantoms, "--data.num_workers", 0,
             "--model.network.init_args.encoder_name", "resnet18", "--model.image_size", "[32, 32]",
             "--trainer.max_epochs", 1, "--trainer.enable_progress_bar", "false")  # fmt: skip
    checkpoint = "runs/chest-ct-subset-smp/version_0/checkpoints/best.ckpt"
    out = flexunet("test", "--ckpt_path", checkpoint, "--data.root", phantoms, "--data.num_workers", 0,
                   "--trainer.logger", "false")  # fmt: skip
    assert "lung" in out
