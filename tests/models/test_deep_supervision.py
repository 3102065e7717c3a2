import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from flexunet_pl import FlexUNet, SegmentationTask, load_model
from flexunet_pl.common.errors import UserError
from flexunet_pl.models.deep_supervision import AuxiliaryHeads

MAP = {"background": [0, 0, 0], "a": [255, 0, 0], "b": [0, 255, 0]}
IMAGE = (1, 3, 64, 96)


def flexunet(**options):
    return FlexUNet(3, 3, 2, (3, 3), 4, **options)


def logits_of(heads, network, image):
    with heads.watch() as coarse:
        network(image)
    return coarse


@pytest.mark.parametrize(
    "network", [flexunet(), smp.Unet("resnet18", encoder_weights=None, classes=3)], ids=["FlexUNet", "smp"]
)
def test_each_level_has_half_the_size_of_the_finer_one(network):
    heads = AuxiliaryHeads(network, 2, 3, IMAGE)
    assert [tuple(z.shape) for z in logits_of(heads, network, torch.rand(2, 3, 64, 96))] == [
        (2, 3, 32, 48),
        (2, 3, 16, 24),
    ]
    assert network.training


def test_without_levels_nothing_is_watched_and_the_loss_is_itself():
    network = nn.Conv2d(3, 3, 1)
    heads = AuxiliaryHeads(network, 0, 3, IMAGE)
    assert logits_of(heads, network, torch.rand(IMAGE)) == []
    assert not list(heads.parameters())
    loss = torch.tensor(0.3)
    assert heads.add_losses(loss, [], torch.zeros(1, 4, 4), nn.CrossEntropyLoss()) == loss


def test_the_mean_halves_the_weight_of_each_level():
    network = flexunet()
    heads = AuxiliaryHeads(network, 2, 3, IMAGE)
    mask = torch.zeros(1, 64, 96, dtype=torch.uint8)
    losses = iter([torch.tensor(2.0), torch.tensor(8.0)])
    coarse = logits_of(heads, network, torch.rand(IMAGE))
    assert heads.add_losses(torch.tensor(1.0), coarse, mask, lambda z, y: next(losses)) == pytest.approx(4 / 1.75)


def test_coarse_masks_keep_the_classes():
    network = flexunet()
    heads = AuxiliaryHeads(network, 1, 3, IMAGE)
    mask = torch.zeros(1, 64, 96, dtype=torch.uint8)
    mask[:, 32:, :] = 2
    seen = []
    coarse = logits_of(heads, network, torch.rand(IMAGE))
    heads.add_losses(torch.tensor(1.0), coarse, mask, lambda z, y: seen.append(y) or z.sum())
    (reduced,) = seen
    assert reduced.dtype == torch.int64
    assert torch.equal(reduced[0, :, 0], torch.tensor([0] * 16 + [2] * 16))


def test_the_gradient_reaches_heads_and_network():
    network = flexunet(dropout_rate=0)
    heads = AuxiliaryHeads(network, 2, 3, IMAGE)
    coarse = logits_of(heads, network, torch.rand(2, *IMAGE[1:]))
    mask = torch.randint(0, 3, (2, 64, 96))
    heads.add_losses(torch.tensor(0.0), coarse, mask, nn.CrossEntropyLoss()).backward()
    assert all(p.grad is not None for p in heads.parameters())
    assert network.encoder[0].layers[0].weight.grad is not None
    assert network.head.weight.grad is None  # the network's own logits had no part in it


@pytest.mark.parametrize(
    ("network", "levels", "message"),
    [
        (flexunet(), 3, r"is 3, but the decoder of FlexUNet has 2 levels"),
        (flexunet(), -1, r"is -1; it is a number of levels"),
        (nn.Conv2d(3, 3, 1), 1, r"Conv2d has no decoder of stages; set it to 0"),
    ],
)
def test_what_has_no_such_levels_is_refused(network, levels, message):
    with pytest.raises(UserError, match=rf"model\.deep_supervision:? {message}"):
        AuxiliaryHeads(network, levels, 3, IMAGE)


def test_a_checkpoint_s_network_does_not_know_the_heads(tmp_path):
    task = SegmentationTask(flexunet(), rgb_map=MAP, image_size=(64, 96), deep_supervision=2)
    assert any(name.startswith("auxiliary.") for name in task.state_dict())
    settings = {name: task.hparams[name] for name in ("network", "rgb_map", "image_size", "in_channels")}
    torch.save({"state_dict": task.state_dict(), "hyper_parameters": settings}, tmp_path / "a.ckpt")
    network = load_model(tmp_path / "a.ckpt")
    assert network.state_dict().keys() == flexunet().state_dict().keys()
    assert torch.equal(network(torch.ones(IMAGE)), task.eval()(torch.ones(IMAGE)))
