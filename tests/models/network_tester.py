"""What every network must do, whichever package it is of: one tester for all."""

import numpy as np
import torch

from flexunet_pl.export.onnx_file import read_source, write_onnx
from flexunet_pl.models.build import build_network, for_pixels
from flexunet_pl.models.load import load_model
from flexunet_pl.task import SegmentationTask
from flexunet_runtime.model import Model

MAP = {"background": [0, 0, 0], "a": [255, 0, 0], "b": [0, 255, 0], "c": [0, 0, 255]}
SIZE = (64, 64)


def pixels(count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, *SIZE), dtype=torch.uint8, generator=generator)


def save(path, class_path, init_args, **change):
    """Write a checkpoint of a network as `flexunet fit` does; returns the network, in eval mode."""
    network = for_pixels(build_network(class_path, init_args))
    weights = {f"network.{k}": v for k, v in network.state_dict().items()}
    settings = {"rgb_map": MAP, "image_size": list(SIZE), "in_channels": 3}
    settings["network"] = {"class_path": class_path, "init_args": init_args}
    torch.save({"state_dict": weights, "hyper_parameters": {**settings, **change}}, path)
    return network.eval()


def check_shapes_and_gradients(network):
    """One logit per class and pixel; a loss moves the weights, by finite gradients."""
    network.train()
    logits = network(pixels())
    assert logits.shape == (2, len(MAP), *SIZE)
    assert logits.is_floating_point()
    torch.nn.functional.cross_entropy(logits, pixels(2, seed=1)[:, 0].long() % len(MAP)).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert sum(bool(gradient.any()) for gradient in gradients) > len(gradients) / 2
    network.eval()


def check_round_trip(folder, network):
    """The checkpoint gives the same network, by `load_model` and by Lightning's own way."""
    with torch.no_grad():
        expected = network(pixels())
        assert torch.equal(load_model(folder / "a.ckpt")(pixels()), expected)
        task = SegmentationTask.load_from_checkpoint(folder / "a.ckpt")
        assert torch.equal(task(pixels()), expected)
    assert not task.training
    assert (task.reader.size, len(task.rgb_map)) == (SIZE, len(MAP))


def check_export(folder, network):
    """The ONNX file gives the same classes in the runtime."""
    write_onnx(read_source(folder / "a.ckpt"), folder / "a.onnx", probabilities=True)
    with torch.no_grad():
        expected = network(pixels(1))[0].softmax(dim=0).numpy()
    model = Model(folder / "a.onnx", threads=1)
    found = model.probabilities(np.ascontiguousarray(pixels(1)[0].permute(1, 2, 0).numpy()))
    np.testing.assert_allclose(found, expected, atol=1e-4)  # engines sum in another order
