"""A network of patches, from `fit` to `export`."""

import pytest


@pytest.fixture
def checkpoint(workspace, flexunet):
    patches = ["--model.patches", "true", "--data.cache", "ram", "--data.cutmix", 0.5, "--model.deep_supervision", 1]
    flexunet("fit", "-c", "c.yaml", *patches, "--trainer.max_epochs", 1)
    return workspace / "runs" / "flexunet" / "version_0" / "checkpoints" / "best.ckpt"


def test_every_verb_knows_that_the_network_was_trained_on_patches(workspace, flexunet, mistake, phantoms, checkpoint):
    images = phantoms / "test" / "images"
    assert "own size, 64x64 px" in flexunet("test", "--ckpt_path", checkpoint, "--data.root", phantoms)
    of_run = ["--ckpt_path", checkpoint, "--data.predict_dir", images]
    flexunet("predict", *of_run, "--prediction.output_dir", "a")
    flexunet("predict", *of_run, "--prediction.output_dir", "b", "--inference.tiled", "true")
    for path in images.iterdir():
        assert (workspace / "a" / path.name).read_bytes() == (workspace / "b" / path.name).read_bytes()
    said = flexunet("export", checkpoint, "--output", "a.onnx", "--images", images)
    assert "a.onnx" in said
    assert "so --fit must be pad" in mistake("export", checkpoint, "--output", "b.onnx", "--fit", "resize")
