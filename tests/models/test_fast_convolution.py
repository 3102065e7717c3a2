"""Convolution by the Fourier transform: what it computes is what the direct way computes."""

import pytest
import torch
from torch import nn

from flexunet_pl.models import FlexUNet, fast_convolution
from flexunet_pl.models.convolution_choice import ConvolutionTimings
from flexunet_pl.models.fast_convolution import FastConvolution, Sides, takes_fft, use_fast_convolutions


@pytest.mark.parametrize("chunk", [1, 2**21])
@pytest.mark.parametrize(
    ("size", "kernel", "side"),
    [((40, 40), (7, 7), 16), ((23, 61), (11, 5), 32), ((5, 9), (9, 9), 24), ((64, 31), (3, 7), 8)],
)
def test_result_and_gradients_are_those_of_the_direct_way(monkeypatch, size, kernel, side, chunk):
    monkeypatch.setattr(fast_convolution, "_CHUNK", chunk)
    module = nn.Conv2d(3, 5, kernel, padding="same").double()
    image = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 5, *size, dtype=torch.float64)
    wanted = module(image)
    gradients = torch.autograd.grad((wanted * weights).sum(), [image, *module.parameters()])
    fast = FastConvolution(module, Sides(side, side))
    found = fast(image)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), [image, *module.parameters()]), gradients)
    with torch.inference_mode():
        torch.testing.assert_close(fast(image), wanted.detach())


def test_changed_weights_are_seen():
    module = nn.Conv2d(2, 2, 7, padding=3, bias=False)
    fast, image = FastConvolution(module, Sides(0, 32)), torch.randn(1, 2, 20, 20)
    with torch.no_grad():
        before = fast(image)
        module.weight.mul_(2)
        torch.testing.assert_close(fast(image), 2 * before)
        module.weight.data.mul_(2)  # as averaged weights are put in place, which changes no version
        torch.testing.assert_close(fast(image), 4 * before)


@pytest.mark.parametrize(
    ("arguments", "takes"),
    [
        ({"padding": "same"}, True),
        ({"padding": 3}, True),
        ({"padding": 2}, False),
        ({"padding": 3, "stride": 2}, False),
        ({"padding": "same", "dilation": 2}, False),
        ({"padding": "same", "groups": 2}, False),
        ({"padding": "same", "padding_mode": "reflect"}, False),
    ],
)
def test_only_what_it_can_do_is_taken(arguments, takes):
    assert takes_fft(nn.Conv2d(4, 4, 7, **arguments)) == takes


@pytest.fixture
def network():
    torch.manual_seed(0)
    return FlexUNet(3, 4, 4, (9, 9), 3, dropout_rate=0.0).eval()


def test_a_network_gives_the_same_probabilities_and_keeps_its_state(network):
    image = torch.randint(256, (2, 3, 64, 48), dtype=torch.uint8)
    keys, names = list(network.state_dict()), [name for name, module in network.named_modules() if takes_fft(module)]
    with torch.inference_mode():
        wanted = network(image)
        use_fast_convolutions(network, dict.fromkeys(names, Sides(32, 32)))
        fast = network(image)
        assert not torch.equal(fast, wanted)  # it does work in another way
        torch.testing.assert_close(fast.softmax(1), wanted.softmax(1), atol=1e-6, rtol=0)
        assert list(network.state_dict()) == keys
        use_fast_convolutions(network, {})
        assert torch.equal(network(image), wanted)


def test_what_was_timed_is_kept_and_not_timed_again(network, tmp_path, monkeypatch):
    times = []

    def seconds(work, module, image, *, training):
        times.append(training)
        return 1.0 if work is module else 0.5 / work.sides.training

    monkeypatch.setattr("flexunet_pl.models.convolution_choice._seconds", seconds)
    image = torch.zeros(1, 3, 64, 64)
    assert ConvolutionTimings(tmp_path / "a.json").choose(network, image, training=True, may_time=False) == {}
    assert times == []
    chosen = ConvolutionTimings(tmp_path / "a.json").choose(network, image, training=True)
    assert set(times) == {True, False}
    assert chosen["encoder.0.layers.0"] == Sides(96, 96)
    assert "encoder.2.layers.0" not in chosen  # 5x5
    times.clear()
    again = ConvolutionTimings(tmp_path / "a.json").choose(network, image, training=True, may_time=False)
    assert (again, times) == (chosen, [])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"x": [1]}', '{"x": 1e9}', "\x00"])
def test_timings_that_cannot_be_read_are_taken_anew(network, tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    ConvolutionTimings(tmp_path / "a.json").choose(network, torch.zeros(1, 3, 32, 32), training=False)
    assert "inference" in (tmp_path / "a.json").read_text()


def test_slower_ways_are_not_taken(network, tmp_path, monkeypatch):
    monkeypatch.setattr("flexunet_pl.models.convolution_choice._seconds", lambda *_, **__: 1.0)
    chosen = ConvolutionTimings(tmp_path / "a.json").choose(network, torch.zeros(1, 3, 32, 32), training=True)
    assert chosen == {}


def test_choosing_changes_nothing(network, tmp_path):
    network.train()
    state = torch.random.get_rng_state()
    ConvolutionTimings(tmp_path / "a.json").choose(network, torch.zeros(1, 3, 32, 32), training=True)
    assert network.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.grad is None for p in network.parameters())
