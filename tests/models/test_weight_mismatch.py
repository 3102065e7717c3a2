import pytest
import torch
from torch import nn

from flexunet_pl import FlexUNet, load_model
from flexunet_pl.common.errors import ModelFileError
from flexunet_pl.models.weight_mismatch import explain_mismatch

OPTIONS = {"base_filters": 4, "base_kernels": (5, 3), "num_layers": 3, "normalization": True}


def test_weights_that_fit_need_no_explanation():
    network = FlexUNet(3, 2, **OPTIONS)
    assert explain_mismatch(network, network.state_dict()) is None


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"base_filters": 8}, "encoder.0.layers.0.weight is 4x3x5x3, in the network 8x3x5x3"),
        ({"num_layers": 4}, "encoder.3.layers.0.weight is missing"),
        ({"num_layers": 2}, "upsample.0.weight is 16x8x2x2, in the network 8x4x2x2"),
        ({"normalization": False}, "encoder.0.layers.3.weight is missing"),
    ],
)
def test_a_mismatch_names_weights_and_the_settings_that_fit(other, named):
    weights = FlexUNet(3, 2, **OPTIONS).state_dict()
    line = explain_mismatch(FlexUNet(3, 2, **OPTIONS | other), weights)
    assert named in line
    settings = "in_channels 3, num_classes 2, base_filters 4, base_kernels [5, 3], num_layers 3, normalization True"
    assert line.endswith(f"; they are those of a FlexUNet with {settings}")
    assert "\n" not in line
    assert len(line) < 700


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"normalization": "group"}, "normalization group or instance"),
        ({"normalization": False, "activation": "prelu"}, "normalization False"),
    ],
)
def test_norms_are_told_from_activations_with_weights(options, named):
    assert explain_mismatch(nn.Linear(3, 2), FlexUNet(3, 2, **OPTIONS | options).state_dict()).endswith(named)


@pytest.mark.parametrize("weights", [{}, {"weight": 5, "bias": "x"}, {"head.weight": torch.zeros(2)}])
def test_weights_of_something_else_have_no_settings(weights):
    line = explain_mismatch(nn.Linear(3, 2), weights)
    assert "weight is" in line
    assert "FlexUNet" not in line


def test_arrays_that_cannot_be_copied_are_one_line(tmp_path):
    network = FlexUNet(3, 2, **OPTIONS)
    state = {f"network.{k}": v.to_sparse() if v.ndim == 4 else v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "sparse.ckpt")
    with pytest.raises(ModelFileError, match=r"sparse\.ckpt: its weights cannot be used: "):
        load_model(tmp_path / "sparse.ckpt", network)
