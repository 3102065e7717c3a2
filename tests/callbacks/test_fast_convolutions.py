"""Large kernels by the Fourier transform, in training and behind it."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from flexunet_pl.callbacks import FastConvolutions
from flexunet_pl.common.errors import ModelFileError
from flexunet_pl.models.fast_convolution import FastConvolution

KERNELS = ["--model.network.init_args.base_kernels", "[9,9]"]


@pytest.fixture
def always(monkeypatch):
    """Have the transform win all timings; returns the sides of what was called, by whether it was training."""
    called = []
    real = FastConvolution.__call__

    def note(self, image):
        called.append((torch.is_grad_enabled(), self.sides))
        return real(self, image)

    monkeypatch.setattr(FastConvolution, "__call__", note)
    monkeypatch.setattr(
        "flexunet_pl.models.convolution_choice._seconds", lambda work, module, *_, **__: 1.0 if work is module else 0.5
    )
    monkeypatch.setattr("flexunet_pl.callbacks.fast_convolutions._MANY", 1)
    return called


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _weights(path):
    state = torch.load(path, weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("network.")}


def _masks(folder):
    return [np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))]


def test_training_and_prediction_give_what_the_direct_way_gives(workspace, phantoms, flexunet, always):
    config = yaml.safe_load((workspace / "c.yaml").read_text())
    # Adam would make whole steps of what rounding leaves of a gradient
    config["model"]["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}}
    (workspace / "c.yaml").write_text(yaml.safe_dump(config))
    for name, enabled in (("fast", "true"), ("direct", "false")):
        flexunet("fit", "-c", "c.yaml", *KERNELS, "--trainer.max_epochs", 1, "--trainer.logger.save_dir", name,
                 "--fast_convolutions.enabled", enabled)  # fmt: skip
        if name == "fast":
            assert {training for training, _ in always} == {True, False}
            always.clear()
    assert not always
    last = "flexunet/version_0/checkpoints/last.ckpt"
    fast, direct = _weights(f"fast/{last}"), _weights(f"direct/{last}")
    assert list(fast) == list(direct)
    for key in fast:
        torch.testing.assert_close(fast[key], direct[key], atol=1e-3, rtol=0)
    for name, enabled in (("one", "true"), ("two", "false")):
        flexunet("predict", "--ckpt_path", f"direct/{last}", "--data.predict_dir", phantoms / "test" / "images",
                 "--prediction.output_dir", name, "--fast_convolutions.enabled", enabled)  # fmt: skip
    assert always
    assert all(
        np.array_equal(one, two) for one, two in zip(_masks(workspace / "one"), _masks(workspace / "two"), strict=True)
    )


def test_a_resumed_run_keeps_to_what_it_began_with(workspace, flexunet, always, monkeypatch):
    flexunet("fit", "-c", "c.yaml", *KERNELS, "--trainer.logger.save_dir", "whole")
    flexunet("fit", "-c", "c.yaml", *KERNELS, "--trainer.max_epochs", 1, "--trainer.logger.save_dir", "parts")
    monkeypatch.setattr("flexunet_pl.models.convolution_choice._seconds", lambda *_, **__: 1.0)  # now direct would win
    (workspace / "cache").rename(workspace / "lost")
    last = "flexunet/version_0/checkpoints/last.ckpt"
    flexunet("fit", "-c", "c.yaml", *KERNELS, "--ckpt_path", f"parts/{last}")
    whole, parts = _weights(f"whole/{last}"), _weights(f"parts/{last}")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.parametrize("sides", [[5, 5], [10**9, 0], ["a", "b"]])
def test_sides_that_nobody_chose_are_refused(sides):
    with pytest.raises(ModelFileError, match="fast_convolutions are none"):
        FastConvolutions().load_state_dict({"chosen": {"network.head": sides}})


def test_other_precisions_are_left_alone(workspace, flexunet, always):
    flexunet("fit", "-c", "c.yaml", *KERNELS, "--trainer.max_epochs", 1, "--trainer.precision", "bf16-mixed")
    assert not always


def test_few_images_are_not_worth_a_timing(workspace, phantoms, flexunet, always, monkeypatch, tmp_path):
    flexunet("fit", "-c", "c.yaml", *KERNELS, "--trainer.max_epochs", 1, "--fast_convolutions.enabled", "false")
    monkeypatch.setattr("flexunet_pl.callbacks.fast_convolutions._MANY", 16)
    checkpoint = "runs/flexunet/version_0/checkpoints/last.ckpt"
    flexunet("test", "--ckpt_path", checkpoint, "--data.root", phantoms)
    assert not always
    assert not list(tmp_path.rglob("convolutions-*.json"))
