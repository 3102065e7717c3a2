"""What a class path may name: only classes of the kind that its place takes, whoever wrote it."""

import json
import subprocess
import sys
from pathlib import Path

import albumentations
import pytest
import torch
from torch import nn

from flexunet_pl.common.class_paths import check_class, check_value, find_class, find_stranger
from flexunet_pl.common.class_positions import (
    CALLBACK,
    LOGGER,
    LOSS,
    NETWORK,
    OPTIMIZER,
    PLUGIN,
    POSITIONS,
    SCHEDULER,
    STRATEGY,
    TRANSFORM,
)
from flexunet_pl.common.errors import UserError
from flexunet_pl.models import FlexUNet


@pytest.mark.parametrize(
    ("position", "class_path"),
    [
        (NETWORK, "flexunet_pl.FlexUNet"),
        (NETWORK, "flexunet_pl.models.FlexUNet"),
        (NETWORK, "flexunet_pl.models.flexunet.FlexUNet"),
        (NETWORK, "flexunet_pl.models.TorchvisionNet"),
        (NETWORK, "segmentation_models_pytorch.Unet"),
        (NETWORK, "monai.networks.nets.DynUNet"),
        (NETWORK, "torchvision.models.segmentation.FCN"),
        (LOSS, "torch.nn.CrossEntropyLoss"),
        (LOSS, "flexunet_pl.losses.DiceCELoss"),
        (LOSS, "segmentation_models_pytorch.losses.DiceLoss"),
        (LOSS, "monai.losses.DiceFocalLoss"),
        (OPTIMIZER, "torch.optim.AdamW"),
        (OPTIMIZER, "torch.optim.adamw.AdamW"),
        (OPTIMIZER, "monai.optimizers.Novograd"),
        (SCHEDULER, "torch.optim.lr_scheduler.CosineAnnealingLR"),
        (SCHEDULER, "lightning.pytorch.cli.ReduceLROnPlateau"),
        (SCHEDULER, "monai.optimizers.WarmupCosineSchedule"),
        (TRANSFORM, "albumentations.RandomBrightnessContrast"),
        (TRANSFORM, "albumentations.Compose"),
        (TRANSFORM, "flexunet_pl.data.transforms.CTAugmentation"),
        (CALLBACK, "lightning.pytorch.callbacks.WeightAveraging"),
        (CALLBACK, "flexunet_pl.callbacks.StopFile"),
        (LOGGER, "lightning.pytorch.loggers.CSVLogger"),
        (STRATEGY, "lightning.pytorch.strategies.DDPStrategy"),
        (PLUGIN, "lightning.pytorch.plugins.MixedPrecision"),
        (PLUGIN, "lightning.pytorch.plugins.environments.SLURMEnvironment"),
    ],
)
def test_a_class_of_the_right_kind_is_found(position, class_path):
    assert find_class(class_path, position).__name__ == class_path.rpartition(".")[2]


@pytest.mark.parametrize(
    ("position", "class_path", "reason"),
    [
        (OPTIMIZER, "torch.utils.collect_env.run", "was not imported: an optimizer is a subclass of"),
        (OPTIMIZER, "torch.nn.Linear", "was not imported"),
        (OPTIMIZER, "torch.optim.lr_scheduler.StepLR", "is none, and was not called"),
        (OPTIMIZER, "torch.optim.Adam.step", "does not exist"),
        (OPTIMIZER, "torch.optim.lr_scheduler", "is none, and was not called"),
        (OPTIMIZER, "torch.optim.adam.adam", "is none, and was not called"),
        (OPTIMIZER, "torch.optim.lr_scheduler.partial", "is none, and was not called"),
        (SCHEDULER, "torch.optim.Adam", "is none, and was not called"),
        (NETWORK, "torch.nn.functional.relu", "is none, and was not called"),
        (NETWORK, "torch.nn.DataParallel", "was not imported"),
        (NETWORK, "torch.jit.ScriptModule", "was not imported"),
        (NETWORK, "torch.fx.GraphModule", "was not imported"),
        (NETWORK, "torchvision.models.segmentation.fcn_resnet50", "is none, and was not called"),
        (NETWORK, "segmentation_models_pytorch.from_pretrained", "is none, and was not called"),
        (NETWORK, "monai.networks.nets.Transchex", "was not called"),
        (LOSS, "monai.losses.PerceptualLoss", "was not called"),
        (TRANSFORM, "albumentations.Lambda", "was not called"),
        (TRANSFORM, "albumentations.FDA", "was not called"),
        (TRANSFORM, "albumentations.load", "is none, and was not called"),
        (LOGGER, "lightning.pytorch.loggers.WandbLogger", "add `--trust lightning.pytorch.loggers.WandbLogger`"),
        (PLUGIN, "lightning.pytorch.plugins.TorchCheckpointIO", "is none, and was not called"),
        (NETWORK, "os.system", "add `--trust os`"),
        (NETWORK, "system", "was not imported"),
        (NETWORK, "torch.nn.", "is no class path"),
        (NETWORK, "torch.nn.Linear; import os", "is no class path"),
        (NETWORK, ["torch.nn.Linear"], "is no class path"),
        (NETWORK, "torch.nn.Module2", "does not exist"),
    ],
)
def test_anything_else_is_refused_with_the_rule(position, class_path, reason):
    with pytest.raises(UserError) as refused:
        find_class(class_path, position)
    assert reason in str(refused.value)
    assert position.rule in str(refused.value)
    assert "\n" not in str(refused.value)


def test_trust_opens_a_package_for_classes_of_the_kind_alone(tmp_path, monkeypatch):
    (tmp_path / "kindred.py").write_text("from torch import nn\nclass Net(nn.Identity): ...\ndef make(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_class("kindred.Net", NETWORK, ["kindred"]).__module__ == "kindred"
    with pytest.raises(UserError, match=r"is none, and was not called"):
        find_class("kindred.make", NETWORK, ["kindred"])
    with pytest.raises(UserError, match=r"was not imported"):
        find_class("kindred.Net", NETWORK, ["kindr"])
    with pytest.raises(UserError) as refused:
        find_class("kindred.Net", NETWORK, None)
    assert "--trust" not in str(refused.value)


@pytest.mark.parametrize(
    ("position", "class_path", "arguments", "key"),
    [
        (NETWORK, "segmentation_models_pytorch.Unet", {"encoder_weights": "https://example.org/w"}, "encoder_weights"),
        (NETWORK, "segmentation_models_pytorch.Unet", {"encoder_name": "tu-hf-hub:who/what"}, "encoder_name"),
        (NETWORK, "segmentation_models_pytorch.Unet", {"encoder_name": "../../etc/passwd"}, "encoder_name"),
        (NETWORK, "segmentation_models_pytorch.Unet", {"aux_params": {"activation": torch.load}}, "activation"),
        (NETWORK, "monai.networks.nets.HoVerNet", {"pretrained_url": "weights.pth"}, "pretrained_url"),
        (NETWORK, "monai.networks.nets.FlexibleUNet", {"pretrained": True}, "pretrained"),
        (NETWORK, "monai.networks.nets.EfficientNetBN", {"model_name": "efficientnet-b0"}, "pretrained"),
        (NETWORK, "monai.networks.nets.UNet", {"act": ["relu", {"inplace": torch.hub.load}]}, "act"),
        (LOSS, "monai.losses.DiceLoss", {"other_act": torch.load}, "other_act"),
        (LOSS, "torch.nn.TripletMarginWithDistanceLoss", {"distance_function": torch.save}, "distance_function"),
        (TRANSFORM, "albumentations.OneOf", {"transforms": [{"class_path": "torch.load"}]}, "transforms"),
        (SCHEDULER, "torch.optim.lr_scheduler.LambdaLR", {"lr_lambda": print}, "lr_lambda"),
        (LOGGER, "lightning.pytorch.loggers.CSVLogger", {"save_dir": "http://127.0.0.1:1/"}, "save_dir"),
        (LOGGER, "lightning.pytorch.loggers.CSVLogger", {"save_dir": "simplecache::ftp:x"}, "save_dir"),
        (CALLBACK, "lightning.pytorch.callbacks.LambdaCallback", {"setup": print}, "setup"),
        (CALLBACK, "lightning.pytorch.callbacks.ThroughputMonitor", {"batch_size_fn": len}, "batch_size_fn"),
    ],
)
def test_arguments_by_which_a_class_reads_fetches_or_calls_are_refused(position, class_path, arguments, key):
    for part in ("init_args", "dict_kwargs"):
        with pytest.raises(UserError) as refused:
            check_class({"class_path": class_path, part: arguments}, "here", (position,))
        assert f"here.{key}" in str(refused.value) or key in str(refused.value)


@pytest.mark.parametrize(
    ("position", "class_path", "arguments"),
    [
        (NETWORK, "segmentation_models_pytorch.Unet", {"encoder_name": "tu-resnet18.a1_in1k"}),
        (NETWORK, "segmentation_models_pytorch.Unet", {"encoder_weights": "imagenet"}),
        (NETWORK, "monai.networks.nets.UNet", {"channels": [4, 8], "strides": [2], "act": ["prelu", {"init": 0.2}]}),
        (TRANSFORM, "albumentations.OneOf", {"transforms": [{"class_path": "albumentations.HorizontalFlip"}]}),
        (SCHEDULER, "lightning.pytorch.cli.ReduceLROnPlateau", {"monitor": "val/loss"}),
        (LOGGER, "lightning.pytorch.loggers.TensorBoardLogger", {"save_dir": "/data/runs", "name": "a/b"}),
        (CALLBACK, "lightning.pytorch.callbacks.ModelCheckpoint", {"dirpath": "../out", "monitor": "val/dice"}),
        (STRATEGY, "lightning.pytorch.strategies.DDPStrategy", {"find_unused_parameters": True}),
    ],
)  # fmt: skip
def test_ordinary_arguments_pass(position, class_path, arguments):
    check_class({"class_path": class_path, "init_args": arguments}, "here", (position,))


def test_a_trusted_class_may_be_given_paths_and_addresses_but_no_function(tmp_path, monkeypatch):
    (tmp_path / "mykind.py").write_text("from torch import nn\nclass Net(nn.Identity): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = {"class_path": "mykind.Net", "init_args": {"weights_path": "/data/w.pt", "url": "https://example.org"}}
    check_class(spec, "here", (NETWORK,), ["mykind"])
    for value in (torch.load, {"class_path": "torch.hub.load"}, [{"class_path": "os.system"}]):
        with pytest.raises(UserError, match=r"here\.act"):
            check_class({**spec, "init_args": {"act": value}}, "here", (NETWORK,), ["mykind"])


@pytest.mark.parametrize("value", [print, torch.load, nn.Linear, torch, nn.ReLU(), object()])
def test_what_is_not_plain_is_refused_where_no_class_stands(value):
    check_value({"a": [1, 2.5, "text", None, {"b": True}]}, "data")
    with pytest.raises(UserError, match=r"data\.a\.b: .*was not called"):
        check_value({"a": {"b": value}}, "data")
    with pytest.raises(UserError, match="only plain values stand there"):
        check_value({"a": {"class_path": "torch.optim.Adam"}}, "data")


def test_a_value_without_end_is_refused():
    value: list[object] = []
    value.append(value)
    with pytest.raises(UserError, match="levels deep"):
        check_value(value, "data")


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"class_path": "torch.optim.Adam", "init_args": {"text": "torch.load"}}, None),
        ([{"y": {"class_path": "torch.load"}}], "torch.load"),
        ({"class_path": "mine.Optimizer"}, "mine.Optimizer"),
        ({"class_path": "torch.optim.lr_scheduler.partial"}, "torch.optim.lr_scheduler.partial"),
        ({"class_path": "segmentation_models_pytorch.Unet"}, "segmentation_models_pytorch.Unet"),
        ({"_instantiator": "os.system"}, "os.system"),
    ],
)
def test_class_paths_that_cannot_stand_in_a_checkpoint_are_found_by_name(settings, found):
    assert find_stranger(settings, OPTIMIZER) == found


def test_every_base_exists_and_every_home_holds_a_class_of_it():
    bases = {nn.Module: FlexUNet, albumentations.BasicTransform: albumentations.HorizontalFlip}
    for key, position in POSITIONS.items():
        for base in position.bases:
            module, _, name = base.rpartition(".")
            found = getattr(__import__(module, fromlist=[name]), name)
            assert isinstance(found, type), key
            assert issubclass(bases.get(found, found), found)


@pytest.mark.slow
@pytest.mark.case("G11")
def test_of_all_public_names_only_classes_of_the_kind_are_taken():
    walk = Path(__file__).with_name("class_path_walk.py")
    done = subprocess.run([sys.executable, walk], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["names"] > 30_000
    assert found["parsed"] > 2_000
    assert all(found["taken"].values())
    assert found["wrong"] == found["seen"] == []
