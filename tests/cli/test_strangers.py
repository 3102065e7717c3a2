"""Files of strangers: whatever a configuration or a checkpoint names, nothing is run, fetched, imported or written."""

import json
import shutil
import sys
import time

import pytest
import torch
import yaml

from flexunet_pl.cli.main import main
from flexunet_pl.common.errors import ModelFileError
from flexunet_pl.data.datamodule import SegmentationDataModule
from flexunet_pl.models.load import load_model
from flexunet_pl.task import SegmentationTask

VERBS = ("fit", "validate", "test", "predict", "export")
ADDRESS = "http://127.0.0.1:9/canary"

# what runs, reads, fetches or writes: class path and arguments
CALLS = [
    ("torch.utils.collect_env.run", {"command": "touch canary"}),
    ("torch.distributed.run.main", {"args": ["--no-python", "touch", "canary"]}),
    ("torch.distributed.launcher.api.elastic_launch", {"config": None, "entrypoint": "touch"}),
    ("torch.load", {"f": "evil.pt", "weights_only": False}),
    ("torch.serialization.load", {"f": "evil.pt", "weights_only": False}),
    ("torch.jit.load", {"f": "evil.pt"}),
    ("torch.package.PackageImporter", {"file_or_buffer": "evil.pt"}),
    ("torch.hub.load", {"repo_or_dir": ".", "model": "evil", "source": "local"}),
    ("torch.hub.download_url_to_file", {"url": ADDRESS, "dst": "canary"}),
    ("torch.hub.load_state_dict_from_url", {"url": ADDRESS}),
    ("torch.utils.cpp_extension.load_inline", {"name": "evil", "cpp_sources": ""}),
    ("torch.utils.model_zoo.load_url", {"url": ADDRESS}),
    ("torch.save", {"obj": 1, "f": "canary"}),
    ("torch.utils.tensorboard.SummaryWriter", {"log_dir": "canary"}),
    ("monai.apps.utils.download_url", {"url": ADDRESS, "filepath": "canary"}),
    ("monai.apps.utils.extractall", {"filepath": "evil.zip", "output_dir": "canary"}),
    ("monai.bundle.run", {"config_file": "evil.yaml"}),
    ("monai.bundle.ConfigParser", {"config": "evil.yaml"}),
    ("monai.utils.optional_import", {"module": "canary_module"}),
    ("monai.data.CacheDataset", {"data": []}),
    ("torchvision.datasets.utils.download_url", {"url": ADDRESS, "root": "canary"}),
    ("torchvision.datasets.MNIST", {"root": "canary", "download": True}),
    ("segmentation_models_pytorch.from_pretrained", {"pretrained_model_name_or_path": "evil"}),
    ("albumentations.load", {"filepath_or_buffer": "evil.yaml"}),
    ("lightning.pytorch.cli.LightningCLI", {"args": ["fit"]}),
    ("lightning.pytorch.Trainer", {"default_root_dir": "canary"}),
    ("flexunet_pl.cli.main.main", {"args": ["phantom", "canary"]}),
    ("flexunet_pl.prepare.phantom.write_phantom", {"root": "canary"}),
    ("os.system", {"command": "touch canary"}),
    ("subprocess.Popen", {"args": ["touch", "canary"]}),
    ("builtins.exec", {"source": "open('canary', 'w')"}),
    ("canary_module.Net", {}),
]
OF_A_MODEL = [
    *[("optimizer", path, arguments) for path, arguments in CALLS],
    *[("scheduler", path, arguments) for path, arguments in CALLS[::3]],
    *[("loss", path, arguments) for path, arguments in CALLS[1::3]],
    *[("network", path, arguments) for path, arguments in CALLS[2::3]],
]
OF_A_NETWORK = [
    ("network", "monai.networks.nets.HoVerNet", {"pretrained_url": ADDRESS}),
    ("network", "monai.networks.nets.EfficientNetBN", {"model_name": "efficientnet-b0", "pretrained": True}),
    ("network", "monai.networks.nets.Transchex", {}),
    ("network", "segmentation_models_pytorch.Unet", {"encoder_name": "tu-hf-hub:who/what"}),
    ("network", "segmentation_models_pytorch.Unet", {"encoder_name": "../evil"}),
    ("network", "torch.fx.GraphModule", {}),
    ("network", "torch.nn.DataParallel", {}),
]
OF_A_CONFIGURATION = [
    ("model.loss", "monai.losses.PerceptualLoss", {"spatial_dims": 2}),
    ("model.loss", "monai.losses.DiceLoss", {"other_act": "torch.nn.init.zeros_"}),
    ("model.scheduler", "torch.optim.lr_scheduler.LambdaLR", {"lr_lambda": "torch.optim.lr_scheduler.partial"}),
    ("model.optimizer", "torch.optim.SGD", {"lr": {"class_path": "torch.load", "init_args": {"f": "evil.pt"}}}),
    ("data.train_transform", "albumentations.Lambda", {"image": "torch.load"}),
    ("data.train_transform", "albumentations.FDA", {"reference_images": ["evil.png"]}),
    ("data.train_transform", "albumentations.TextImage", {"font_path": "evil.ttf"}),
    ("data.train_transform", "torch.utils.collect_env.run", {"command": "touch canary"}),
    ("trainer.callbacks", "lightning.pytorch.callbacks.LambdaCallback", {"setup": "flexunet_pl.losses.weigh_classes"}),
    ("trainer.callbacks", "torch.save", {"obj": 1, "f": "canary"}),
    ("trainer.logger", "lightning.pytorch.loggers.WandbLogger", {}),
    ("trainer.logger", "lightning.pytorch.loggers.MLFlowLogger", {"tracking_uri": ADDRESS}),
    ("trainer.logger", "lightning.pytorch.loggers.CSVLogger", {"save_dir": ADDRESS}),
    ("trainer.plugins", "lightning.pytorch.plugins.TorchCheckpointIO", {}),
    ("trainer.strategy", "lightning.pytorch.strategies.DeepSpeedStrategy", {"config": "evil.json"}),
    ("trainer.profiler", "torch.save", {"obj": 1, "f": "canary"}),
    ("trainer.accelerator", "subprocess.Popen", {"args": ["touch", "canary"]}),
    ("data.root", "os.system", {"command": "touch canary"}),
]  # fmt: skip

_watched: list[str] | None = None


def _watch(event, arguments):
    if _watched is None:
        return
    if event in {"subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "socket.connect"}:
        _watched.append(event)
    elif event == "import" and arguments[0] == "canary_module":
        _watched.append("import of the canary")


sys.addaudithook(_watch)


@pytest.fixture
def refuses(workspace, mistake, trained, phantoms, monkeypatch):
    """Run a verb on a configuration or a checkpoint of a stranger; it must be refused, and nothing else happen."""
    (workspace / "canary_module.py").write_text("open('canary', 'w')\nclass Net: ...\n")
    monkeypatch.syspath_prepend(workspace)
    best = trained / "checkpoints" / "best.ckpt"
    images = phantoms / "test" / "images"

    def run(verb, named, *, config=None, checkpoint=best):
        global _watched
        arguments = {
            "fit": ["-c", "c.yaml", "--data.root", phantoms],
            "validate": ["--data.root", phantoms],
            "test": ["--data.root", phantoms],
            "predict": ["--data.predict_dir", images, "--prediction.output_dir", "masks"],
            "export": [checkpoint, "--output", "model.onnx"],
        }[verb]
        if config is not None:
            (workspace / "evil.yaml").write_text(yaml.safe_dump(config))
            arguments += ["-c", "evil.yaml"]
        if verb != "export" and (verb != "fit" or config is None):
            arguments += ["--ckpt_path", checkpoint]
        before = {path.name for path in workspace.iterdir()}
        _watched = []
        try:
            line = mistake(verb, *arguments)
        finally:
            seen, _watched = _watched, None
        assert seen == []
        assert {path.name for path in workspace.iterdir()} == before
        for name in named:
            assert name in line, line
        assert len(line) < 1200
        assert "canary_module" not in sys.modules
        return line

    return run


@pytest.fixture
def poisoned(workspace, trained):
    """Write the trained checkpoint with one of its settings replaced."""
    state = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)

    def write(key, class_path, arguments):
        spec = {"class_path": class_path, "init_args": arguments}
        path = workspace / "evil.ckpt"
        torch.save({**state, "hyper_parameters": {**state["hyper_parameters"], key: spec}}, path)
        return path

    return write


def nested(key, class_path, arguments):
    section, _, name = key.partition(".")
    spec = {"class_path": class_path, "init_args": arguments}
    return {section: {name: [spec] if name in {"callbacks", "plugins"} else spec}}


CONFIGURATIONS = [(f"model.{key}", *rest) for key, *rest in OF_A_MODEL + OF_A_NETWORK] + OF_A_CONFIGURATION
CHECKPOINTS = OF_A_MODEL + OF_A_NETWORK


@pytest.mark.parametrize("i", range(0, len(CONFIGURATIONS), 4))
def test_a_configuration_runs_nothing(refuses, i):
    key, class_path, arguments = CONFIGURATIONS[i]
    verb = VERBS[i // 4 % 4]
    refuses(verb, [key], config=nested(key, class_path, arguments))


@pytest.mark.parametrize("i", range(2, len(CHECKPOINTS), 5))
def test_a_checkpoint_runs_nothing(refuses, poisoned, i):
    verb = VERBS[i // 5 % 5]
    refuses(verb, ["evil.ckpt"], checkpoint=poisoned(*CHECKPOINTS[i]))


@pytest.mark.parametrize("i", range(0, len(CHECKPOINTS), 7))
def test_a_checkpoint_runs_nothing_from_python(poisoned, workspace, i):
    key, class_path, arguments = CHECKPOINTS[i]
    path = poisoned(key, class_path, arguments)
    for load in (load_model, SegmentationTask.load_from_checkpoint):
        try:
            load(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017 - a class that is no function is passed over
    assert not (workspace / "canary").exists()


@pytest.mark.parametrize("key", ["logger", "callbacks", "plugins", "profiler", "strategy"])
def test_an_environment_variable_names_no_class(flexunet, workspace, monkeypatch, key):
    monkeypatch.setenv(
        f"PL_TRAINER_{key.upper()}", "{'class_path': 'os.system', 'init_args': {'command': 'touch canary'}}"
    )
    monkeypatch.setenv("PL_FIT__MODEL__OPTIMIZER", "torch.utils.collect_env.run")
    flexunet("fit", "-c", "c.yaml", "--trainer.max_epochs", 1)
    assert not (workspace / "canary").exists()


RUNS = "!!python/object/apply:os.system ['touch canary']"


@pytest.mark.parametrize("file", ["config.yaml", "hparams.yaml"])
def test_a_run_folder_of_a_stranger_runs_nothing(trained, workspace, capsys, file):
    shutil.copytree(trained, workspace / "run")
    (workspace / "run" / file).write_text(f"model: {RUNS}\n")
    status = main(["report", "run"])
    assert status == (2 if file == "config.yaml" else 0)  # hparams.yaml is for TensorBoard, and nothing reads it
    main(["fit", "-c", f"run/{file}"])
    assert file in capsys.readouterr().err
    assert not (workspace / "canary").exists()


@pytest.mark.parametrize("verb", [["prepare", "evil.yaml", "--raw", "raw", "--out", "out"], ["fit", "-c", "evil.yaml"]])
def test_a_recipe_and_a_configuration_hold_plain_values(workspace, mistake, verb):
    (workspace / "raw").mkdir()
    (workspace / "evil.yaml").write_text(f"name: {RUNS}\n")
    assert "evil.yaml" in mistake(*verb)
    assert not (workspace / "canary").exists()


@pytest.mark.parametrize(
    "key", ["model.network", "model.loss", "trainer.callbacks", "trainer.logger", "data.volume", "model", "data"]
)
@pytest.mark.parametrize("address", [ADDRESS, "simplecache::http://127.0.0.1:9/x", "ftp://127.0.0.1/x"])
def test_an_address_in_a_configuration_is_not_fetched(refuses, key, address):
    section, _, name = key.partition(".")
    refuses("fit", [], config={section: {name: address} if name else address})


@pytest.mark.parametrize("class_path", ["monai.networks.nets.EfficientNetBN", "monai.networks.nets.MILModel"])
@pytest.mark.parametrize("switch", [1, True, "yes", [0], {"a": 1}])
def test_weights_are_never_fetched_for_a_checkpoint_however_they_are_asked_for(poisoned, refuses, class_path, switch):
    arguments = {"model_name": "efficientnet-b0"} if "Efficient" in class_path else {"num_classes": 4}
    refuses(
        "export",
        ["evil.ckpt", "pretrained"],
        checkpoint=poisoned("network", class_path, {**arguments, "pretrained": switch}),
    )


@pytest.mark.parametrize("name", ["precious.txt", "../precious.txt"])
def test_a_stop_file_is_no_file_of_the_user_s(workspace, mistake, name):
    (workspace / "run").mkdir()
    (workspace / "precious.txt").write_text("mine")
    (workspace.parent / "precious.txt").write_text("mine")
    assert "is there and holds something" in mistake("fit", "-c", "c.yaml", "--stop_file.path", name)
    assert (workspace / "precious.txt").read_text() == (workspace.parent / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize("where", ["network", "loss", "class_weights"])
def test_a_small_text_that_stands_for_much_is_refused(workspace, mistake, where):
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    bomb = "a0: &a0 [1, 1]\n" + "\n".join(levels) + "\n"
    (workspace / "bomb.yaml").write_text(bomb)
    for value in ("bomb.yaml", bomb):
        (workspace / "evil.yaml").write_text(yaml.safe_dump({"model": {where: value}}))
        mistake("fit", "-c", "c.yaml", "-c", "evil.yaml")


def test_settings_of_a_checkpoint_that_are_not_plain_are_one_line(workspace, mistake, trained):
    state = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    for change in ({"optimizer": {"lr": torch.zeros(2)}}, {"in_channels": [3]}, {"in_channels": {}}):
        torch.save({**state, "hyper_parameters": {**state["hyper_parameters"], **change}}, "odd.ckpt")
        assert "odd.ckpt" in mistake("fit", "-c", "c.yaml", "--ckpt_path", "odd.ckpt")


def test_networks_come_as_classes_of_checkpoints_and_never_with_what_lightning_would_call(poisoned, workspace):
    with pytest.raises(ValueError, match="a checkpoint holds no settings of data"):
        SegmentationDataModule.load_from_checkpoint(poisoned("optimizer", "torch.optim.Adam", {}))
    state = torch.load(workspace / "evil.ckpt", weights_only=True)
    state["hyper_parameters"]["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
    torch.save(state, "evil.ckpt")
    with pytest.raises(ModelFileError, match=r"names `lightning\.pytorch\.cli\.instantiate_module`, as no"):
        SegmentationTask.load_from_checkpoint("evil.ckpt")


@pytest.mark.parametrize("version", ["0.9.0", "1.5.10", "2.5.0", "99.0.0", "nonsense", "2.6.6; import os"])
def test_a_checkpoint_of_another_lightning_serves_prediction_and_is_not_resumed(
    workspace, flexunet, mistake, trained, phantoms, version
):
    state = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    torch.save({**state, "pytorch-lightning_version": version}, "other.ckpt")
    assert f"other.ckpt: was saved by Lightning '{version}'" in mistake(
        "fit", "-c", "c.yaml", "--ckpt_path", "other.ckpt"
    )
    assert not (workspace / "runs").exists()
    if version == "nonsense":
        flexunet("predict", "--ckpt_path", "other.ckpt", "--data.predict_dir", phantoms / "test" / "images",
                 "--prediction.output_dir", "masks", "--data.num_workers", 0)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"loops": {"fit_loop": {"epoch_progress": 7}}},
        {"loops": {}},
        {"optimizer_states": [{"state": {}, "param_groups": []}]},
        {"lr_schedulers": [{"best": {}}], "optimizer_states": [5]},
        {"callbacks": {"RandomState": {"processes": ["x"]}}},
    ],
)
def test_the_state_of_a_training_that_does_not_fit_is_one_line(workspace, mistake, trained, change):
    state = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    torch.save({**state, **change}, "odd.ckpt")
    assert "odd.ckpt" in mistake("fit", "-c", "c.yaml", "--ckpt_path", "odd.ckpt", "--trainer.max_epochs", 3)


def test_a_network_that_is_too_large_is_refused_before_memory_is_taken(workspace, mistake, trained):
    for key, value in (("base_kernels", [100001, 3]), ("base_filters", 100_000)):
        line = mistake(
            "fit", "-c", "c.yaml", f"--model.network.init_args.{key}", value, "--model.image_size", "[32, 32]"
        )
        assert key in line
        assert "at most" in line
        state = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
        state["hyper_parameters"]["network"]["init_args"][key] = value
        torch.save(state, "large.ckpt")
        assert "large.ckpt" in mistake("export", "large.ckpt", "--output", "model.onnx")
    endless = {"spatial_dims": 2, "out_channels": 4, "channels": [4, 8], "strides": [2], "num_res_units": 10**9}
    line = mistake("fit", "-c", "c.yaml", "--model.network", "monai.networks.nets.UNet", "--model.network.init_args",
                   json.dumps(endless))  # fmt: skip
    assert "model.network has more than 20,000 layers" in line


@pytest.mark.reliability
@pytest.mark.parametrize("verb", VERBS)
def test_every_attack_is_refused_whatever_the_verb(refuses, poisoned, count, verb):
    held, slowest = 0, 0.0
    attacks = [("c", *attack) for attack in CONFIGURATIONS] if verb != "export" else []
    attacks += [("ckpt", *attack) for attack in CHECKPOINTS]
    for channel, key, class_path, arguments in attacks:
        started = time.monotonic()
        try:
            if channel == "c":
                line = refuses(verb, [key], config=nested(key, class_path, arguments))
            else:
                line = refuses(verb, ["evil.ckpt"], checkpoint=poisoned(key, class_path, arguments))
            held += "\n" not in line
        except AssertionError as error:
            print(channel, key, class_path, str(error)[:300])  # noqa: T201 - shown where it fails
        slowest = max(slowest, time.monotonic() - started)
    print(f"slowest {slowest:.1f} s")  # noqa: T201
    count("G10", held, len(attacks), f"{verb}: class paths of strangers in YAML and checkpoints: refused, nothing run")
