"""The trained network of a checkpoint: networks of every package come back as they were saved."""

import pytest

from flexunet_pl.common.errors import ModelFileError
from flexunet_pl.models.load import load_model, read_saved_model
from tests.models.network_tester import check_export, check_round_trip, check_shapes_and_gradients, save

MONAI = {"spatial_dims": 2, "in_channels": 3, "out_channels": 4}
NETWORKS = [
    ("flexunet_pl.FlexUNet", {"in_channels": 3, "num_classes": 4, "base_filters": 4, "num_layers": 3}),
    ("flexunet_pl.models.TorchvisionNet", {"architecture": "lraspp_mobilenet_v3_large", "num_classes": 4}),
    ("flexunet_pl.models.TorchvisionNet", {"architecture": "deeplabv3_mobilenet_v3_large", "num_classes": 4}),
    ("segmentation_models_pytorch.Unet", {"encoder_name": "resnet18", "encoder_weights": "imagenet", "classes": 4}),
    ("segmentation_models_pytorch.FPN", {"encoder_name": "mobilenet_v2", "classes": 4}),
    ("segmentation_models_pytorch.DeepLabV3Plus", {"encoder_name": "resnet18", "classes": 4}),
    ("segmentation_models_pytorch.Segformer", {"encoder_name": "tu-resnet18", "classes": 4}),
    ("monai.networks.nets.UNet", {**MONAI, "channels": [4, 8], "strides": [2], "act": ["prelu", {"init": 0.2}]}),
    ("monai.networks.nets.BasicUNet", {**MONAI, "features": [4, 4, 8, 8, 8, 4]}),
    ("monai.networks.nets.SegResNet", {**MONAI, "init_filters": 8}),
    ("monai.networks.nets.AttentionUnet", {**MONAI, "channels": [4, 8], "strides": [2]}),
    (
        "monai.networks.nets.DynUNet",
        {**MONAI, "kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]},
    ),
    ("monai.networks.nets.FlexibleUNet", {"in_channels": 3, "out_channels": 4, "backbone": "efficientnet-b0"}),
]


@pytest.mark.parametrize(("class_path", "init_args"), NETWORKS)
def test_a_network_trains_and_comes_back_from_its_checkpoint(tmp_path, class_path, init_args):
    network = save(tmp_path / "a.ckpt", class_path, init_args)
    check_round_trip(tmp_path, network)
    check_shapes_and_gradients(network)


@pytest.mark.parametrize(
    ("class_path", "init_args"),
    [
        pytest.param(*network, marks=() if network is NETWORKS[0] else pytest.mark.slow)
        for network in NETWORKS
        if network[0].rpartition(".")[2] in {"FlexUNet", "Segformer", "SegResNet", "AttentionUnet"}
    ],
)
def test_a_network_gives_the_same_as_onnx(tmp_path, class_path, init_args):
    check_export(tmp_path, save(tmp_path / "a.ckpt", class_path, init_args))


def test_what_training_set_is_data_and_never_built(tmp_path):
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": "not a number"}}
    save(tmp_path / "a.ckpt", *NETWORKS[0], optimizer=optimizer, loss={"class_path": "monai.losses.NoSuchLoss"})
    saved = read_saved_model(tmp_path / "a.ckpt")
    assert saved.training["optimizer"] == optimizer
    assert not saved.resumable
    saved.build()


def test_a_network_that_computes_while_it_is_made_is_built_without_a_trial(tmp_path):
    save(tmp_path / "a.ckpt", "monai.networks.nets.SwinUNETR", {**MONAI, "feature_size": 12})
    read_saved_model(tmp_path / "a.ckpt").check()
    assert sum(p.numel() for p in load_model(tmp_path / "a.ckpt").parameters()) > 1_000_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_size": [64, "64"]}, "has no image_size"),
        ({"in_channels": 700}, "in_channels 700"),
        ({"image_window": [1]}, r"image_window is \[1\]; expected two numbers"),
        ({"network": {"init_args": {}}}, "no class path with arguments"),
        ({"network": {"class_path": "mine.Net"}}, "`mine.Net` was not imported"),
        ({"network": {"class_path": 5}}, "5 is no class path"),
        ({"network": {"class_path": "flexunet_pl.FlexUNet", "init_args": {"depth": 3}}}, "does not take"),
        ({"network": None}, "does not know how its network was built"),
        ({"rgb_map": {"a": [0, 0, 0]}}, "a.ckpt"),
        ({"callbacks": [{"class_path": "torch.load"}]}, "callbacks: names `torch.load`, as no training can"),
    ],
)
def test_a_checkpoint_that_says_something_else_is_one_line(tmp_path, change, reason):
    save(tmp_path / "a.ckpt", *NETWORKS[0], **change)
    with pytest.raises(ModelFileError, match=reason) as refused:
        load_model(tmp_path / "a.ckpt")
    assert str(tmp_path / "a.ckpt") in str(refused.value)
    assert "\n" not in str(refused.value)
