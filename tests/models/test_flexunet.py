import math

import pytest
import torch
from torch import nn

from flexunet_pl import FlexUNet
from flexunet_pl.common.errors import UserError
from flexunet_pl.models.schedule import make_schedule


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_the_chest_network_has_the_reference_s_parameters():
    with torch.device("meta"):
        assert parameters(FlexUNet(3, 4, 16, (11, 11), 8)) == 126_809_252


def test_levels_follow_the_reference_s_rules():
    levels = make_schedule(16, (9, 7), 5, (3, 1), 0.04)
    assert [level.filters for level in levels] == [16, 32, 64, 128, 256]
    assert [level.kernel for level in levels] == [(9, 7), (7, 5), (5, 3), (3, 3), (3, 3)]
    assert [level.dilation for level in levels] == [(3, 1), (2, 1), (1, 1), (1, 1), (1, 1)]
    assert [level.dropout for level in levels] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalization": True},
        {"normalization": "group"},
        {"normalization": "instance", "base_filters": 3},
        {"activation": "mish"},
        {"dilation": (3, 2)},
        {"base_kernels": (7, 5)},
        {"num_layers": 1},
        {"input_normalize": False},
        {"dropout_rate": 0.0},
    ],
)
def test_keeps_the_size_of_images_that_are_not_square(options):
    network = FlexUNet(**{"in_channels": 1, "num_classes": 3, "base_filters": 2, "num_layers": 3, **options})
    image = torch.randint(0, 256, (2, 1, 8, 20), dtype=torch.uint8)
    logits = network(image)
    assert logits.shape == (2, 3, 8, 20)
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_bytes_and_floats_give_the_same():
    network = FlexUNet(3, 2, 2, (3, 3), 2).eval()
    image = torch.randint(0, 256, (1, 3, 4, 6), dtype=torch.uint8)
    assert torch.equal(network(image), network(image.float()))


def test_input_normalize_divides_by_255():
    plain = FlexUNet(3, 2, 2, (3, 3), 2, input_normalize=False).eval()
    scaling = FlexUNet(3, 2, 2, (3, 3), 2).eval()
    scaling.load_state_dict(plain.state_dict())
    image = torch.randint(0, 256, (1, 3, 4, 6))
    assert torch.equal(scaling(image), plain(image / 255))


def test_the_upsampled_features_stand_before_the_skip():
    network = FlexUNet(1, 2, 2, (3, 3), 2, dropout_rate=0).eval()
    image = torch.rand(1, 1, 4, 6) * 255
    skip = network.encoder[0](image / 255)
    upsampled = network.upsample[0](network.encoder[1](nn.functional.max_pool2d(skip, 2)))
    expected = network.head(network.decoder[0](torch.cat([upsampled, skip], dim=1)))
    swapped = network.head(network.decoder[0](torch.cat([skip, upsampled], dim=1)))
    assert torch.allclose(network(image), expected)
    assert not torch.allclose(network(image), swapped)


def test_dropout_stands_between_the_convolutions_and_grows():
    network = FlexUNet(3, 2, 2, (3, 3), 3, dropout_rate=0.1, normalization=True)
    kinds = [[type(m).__name__ for m in block.layers] for block in network.encoder]
    assert kinds[0] == ["Conv2d", "ReLU", "BatchNorm2d", "Dropout", "Conv2d", "ReLU", "BatchNorm2d"]
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == pytest.approx([0, 0.1, 0.2, 0.1, 0])


def test_weights_are_drawn_as_keras_draws_them():
    torch.manual_seed(1)
    network = FlexUNet(3, 8, 32, (9, 9), 3)
    conv = network.encoder[1].layers[0].weight
    he = math.sqrt(2 / (32 * 7 * 7))
    assert conv.std().item() == pytest.approx(he, rel=0.02)  # 100,352 samples
    assert conv.abs().max().item() <= 2 * he / 0.8796
    up = network.upsample[0].weight
    limit = math.sqrt(6 / (4 * (128 + 64)))
    assert up.abs().max().item() == pytest.approx(limit, rel=0.01)
    head_limit = math.sqrt(6 / (32 + 8))
    assert head_limit * 0.95 < network.head.weight.abs().max().item() <= head_limit
    assert all(not m.bias.any() for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))


def test_batch_norm_has_keras_defaults():
    norm = next(m for m in FlexUNet(3, 2, 2, (3, 3), 2, normalization=True).modules() if isinstance(m, nn.BatchNorm2d))
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)


@pytest.mark.parametrize(("given", "kept"), [("none", False), (False, False), ("batch", True), (True, True)])
def test_the_original_s_norms_are_kept_in_its_own_words(given, kept):
    assert FlexUNet(3, 2, 2, (3, 3), 2, normalization=given).init_args["normalization"] is kept


@pytest.mark.parametrize(("name", "groups"), [("group", 8), ("instance", 24)])
def test_group_and_instance_norm_stand_before_the_activation(name, groups):
    block = FlexUNet(3, 2, 24, (3, 3), 2, normalization=name).encoder[0]
    assert [type(m).__name__ for m in block.layers][:3] == ["Conv2d", "GroupNorm", "ReLU"]
    assert block.layers[1].num_groups == groups


@pytest.mark.parametrize("given", ["layer", 1, None])
def test_other_norms_are_refused(given):
    with pytest.raises(UserError, match="use one of none, batch, group, instance"):
        FlexUNet(3, 2, 2, (3, 3), 2, normalization=given)


@pytest.mark.parametrize("name", ["relu", "Mish", "leaky_relu", "hard_swish", "swish", "GELU", "elu"])
def test_activations_are_found_by_name(name):
    FlexUNet(3, 2, 2, (3, 3), 1, activation=name)


@pytest.mark.parametrize("name", ["", "os.system", "__import__('os')", "softmax2d", "multihead_attention"])
def test_other_activations_are_refused(name):
    with pytest.raises(UserError, match="is not known; use one of"):
        FlexUNet(3, 2, 2, (3, 3), 1, activation=name)


@pytest.mark.case("C12")
def test_a_size_that_does_not_divide_is_refused_with_the_nearest_that_does():
    network = FlexUNet(3, 2, 2, (3, 3), 5)
    with pytest.raises(UserError, match=r"100x40 px .* multiple of 16; set `model.image_size` to \[96, 32\]"):
        network(torch.zeros(1, 3, 100, 40))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_kernels": (4, 3)}, "must be odd"),
        ({"num_layers": 0}, "at least 1"),
        ({"num_classes": 0}, "at least 1"),
        ({"dilation": (0, 1)}, "at least 1"),
        ({"dropout_rate": 0.2, "num_layers": 8}, "must stay in"),
    ],
)
def test_impossible_arguments_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        FlexUNet(**{"in_channels": 3, "num_classes": 2, **options})
