"""Inference: tiles, flips and dropout passes against what plain prediction gives."""

import subprocess
import sys

import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import nn

from flexunet_pl.common.errors import UserError
from flexunet_pl.models import FlexUNet
from flexunet_pl.models.inference import Inference

TILE = (16, 24)


def network(**kwargs):
    return FlexUNet(3, 4, base_filters=4, base_kernels=(3, 3), num_layers=3, **kwargs).eval()


def pixels(*size, seed=0):
    return torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def apply(inference, net, image, size=None):
    (answer,) = inference.apply(net, image, TILE, [size or tuple(image.shape[-2:])], 4)
    return answer


def test_an_image_that_fits_in_one_tile_is_predicted_as_without_tiles():
    net, image = network(), pixels(*TILE)
    tiled, plain = apply(Inference(tiled=True), net, image), apply(Inference(), net, image)
    assert torch.equal(tiled.mask, plain.mask)
    assert torch.equal(tiled.probabilities, plain.probabilities)


def test_tiles_join_without_seams_where_each_pixel_is_judged_by_itself():
    net, image = nn.Conv2d(3, 4, 1), pixels(61, 83)
    joined = apply(Inference(tiled=True, overlap=0.5), net.float(), image.float())
    torch.testing.assert_close(joined.probabilities, net(image.float())[0].softmax(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "overlap"), [((61, 83), 0.25), ((61, 20), 0.5), ((10, 83), 0.0), ((16, 24), 0.6)])
def test_blended_tiles_are_those_of_monai(size, overlap):
    net, image = network(), pixels(*size)
    with torch.no_grad():
        expected = sliding_window_inference(
            image.float(), TILE, 4, net, overlap, mode="gaussian", padding_mode="replicate"
        )  # fmt: skip
    answer = apply(Inference(tiled=True, overlap=overlap), net, image)
    torch.testing.assert_close(answer.probabilities, expected[0].softmax(0), atol=1e-5, rtol=0)


@pytest.mark.case("C12")
@pytest.mark.parametrize("size", [(61, 83), (10, 83), (40, 12)])
def test_a_constant_image_stays_constant_whatever_its_size(size):
    net = nn.Conv2d(3, 4, 1)
    answer = apply(Inference(tiled=True), net, torch.full((1, 3, *size), 77.0))
    assert answer.mask.shape == size
    assert answer.probabilities.flatten(1).std(dim=1).max() < 1e-6


def test_flips_make_the_answer_of_a_mirrored_image_the_mirrored_answer():
    net, image = network(), pixels(*TILE)
    inference = Inference(tta="flips")
    one, other = apply(inference, net, image), apply(inference, net, image.flip(-1))
    torch.testing.assert_close(one.probabilities, other.probabilities.flip(-1), atol=1e-6, rtol=0)
    plain = apply(Inference(), net, image), apply(Inference(), net, image.flip(-1))
    assert (plain[0].probabilities - plain[1].probabilities.flip(-1)).abs().max() > 1e-3


def test_dropout_passes_are_averaged_and_tell_how_sure_the_network_is():
    net, image = network(dropout_rate=0.3), pixels(*TILE)
    answer = apply(Inference(mc_dropout=8), net, image)
    assert answer.uncertainty.shape == TILE
    assert 0 <= answer.uncertainty.min() <= answer.uncertainty.max() <= 1
    torch.testing.assert_close(answer.probabilities.sum(0), torch.ones(TILE))
    p = answer.probabilities.double()
    torch.testing.assert_close(
        answer.uncertainty.double(), -(p * p.log()).sum(0) / torch.log(torch.tensor(4.0).double()), atol=1e-5, rtol=0
    )
    assert not any(m.training for m in net.modules())
    assert apply(Inference(), net, image).uncertainty is None


def test_a_network_without_dropout_is_refused_and_so_are_odd_numbers():
    with pytest.raises(UserError, match="no dropout"):
        apply(Inference(mc_dropout=4), network(dropout_rate=0.0), pixels(*TILE))
    with pytest.raises(UserError, match="overlap"):
        Inference(overlap=1.0)
    with pytest.raises(UserError, match="at least 2"):
        Inference(mc_dropout=1)


@pytest.mark.slow
def test_a_large_image_takes_less_than_four_gigabytes():
    code = """
import resource, torch
from flexunet_pl.models.inference import Inference
from flexunet_pl.models import FlexUNet
net = FlexUNet(3, 4, base_filters=4, base_kernels=(3, 3), num_layers=3).eval()
image = torch.randint(0, 256, (1, 3, 4096, 4096), dtype=torch.uint8)
with torch.no_grad():
    (answer,) = Inference(tiled=True).apply(net, image, (512, 512), [(4096, 4096)], 4)
assert answer.mask.shape == (4096, 4096)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unit = 1024 if sys.platform == "linux" else 1
    assert int(done.stdout) * unit < 4 << 30
