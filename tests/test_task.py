import numpy as np
import pytest
import segmentation_models_pytorch
import torch
from lightning.pytorch import Trainer
from torch import nn

import flexunet_pl
from flexunet_pl import FlexUNet, SegmentationDataModule, SegmentationTask, load_model
from flexunet_pl.common.errors import ModelFileError, UserError
from flexunet_pl.models.build import build_network
from flexunet_pl.prepare.phantom import PHANTOM_MAP

MAP = PHANTOM_MAP.to_dict()


def small_task(**options):
    network = FlexUNet(3, options.pop("num_classes", 4), 2, (3, 3), 2)
    return SegmentationTask(network, rgb_map=MAP, image_size=(16, 24), **options)


def test_the_checkpoint_alone_gives_the_network(trained):
    path = trained / "checkpoints" / "best.ckpt"
    network = load_model(path)
    assert isinstance(network, FlexUNet)
    assert not network.training
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["hyper_parameters"]["rgb_map"] == MAP
    assert checkpoint["hyper_parameters"]["image_size"] == [32, 32]
    assert checkpoint["hyper_parameters"]["network"]["init_args"]["base_filters"] == 4
    for name, value in network.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"][f"network.{name}"])


def test_a_network_of_another_package_takes_pixels_too(tmp_path):
    import segmentation_models_pytorch as smp

    network = smp.Unet("resnet18", encoder_weights=None, classes=4)
    task = SegmentationTask(network, rgb_map=MAP, image_size=(64, 64)).eval()
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert torch.allclose(task(image), network(image / 255), atol=1e-6)


def test_weights_are_kept_channels_last():
    conv = next(m for m in small_task().network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_one_logit_is_a_network_with_two_classes():
    task = SegmentationTask(
        FlexUNet(3, 1, 2, (3, 3), 2), rgb_map={"a": [0, 0, 0], "b": [1, 1, 1]}, image_size=(4, 4)
    ).eval()
    image = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    probabilities = task(image).softmax(dim=1)
    assert torch.allclose(probabilities[:, 1], task.network(image)[:, 0].sigmoid())


def test_predictions_have_the_image_s_own_size():
    task = small_task().eval()
    image = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8)
    batch = {"image": image, "path": ["a", "b"], "slice": [0, 0], "size": [(16, 24), (33, 20)]}
    first, second = (prediction.answer for prediction in task.predict_step(batch, 0))
    assert first.mask.shape == (16, 24)
    assert second.mask.shape == (33, 20)
    assert torch.equal(first.mask.long(), task(image)[0].argmax(0))
    assert second.probabilities.shape == (4, 33, 20)
    assert torch.allclose(second.probabilities.sum(0), torch.ones(33, 20))
    assert second.mask.dtype == torch.uint8


def test_a_network_with_another_class_count_is_refused():
    task = small_task(num_classes=5)
    with pytest.raises(UserError, match=r"gives 5 classes but model\.rgb_map has 4"):
        task(torch.zeros(1, 3, 16, 24))


def test_a_loss_that_does_not_take_class_indices_is_named():
    task = small_task(loss=nn.BCEWithLogitsLoss())
    batch = {"image": torch.zeros(2, 3, 16, 24), "mask": torch.zeros(2, 16, 24), "name": ["a", "b"], "counted": 2}
    with pytest.raises(UserError, match=r"model\.loss: BCEWithLogitsLoss does not take logits \(2, 4, 16, 24\)"):
        task.validation_step(batch, 0)


def test_a_batch_of_uncounted_images_adds_nothing():
    task = small_task()
    batch = {"image": torch.zeros(1, 3, 16, 24), "mask": torch.zeros(1, 16, 24), "name": ["a"], "counted": 1}
    task.validation_step(batch, 0)
    alone = task.val_scores.compute()
    task.validation_step({**batch, "counted": 0}, 1)
    assert task.val_scores.update_called
    assert [len(c) for c in task.val_scores.counts] == [1, 0]
    task.val_scores._computed = None
    assert task.val_scores.compute() == alone


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"model\.rgb_map is missing"):
        SegmentationTask(FlexUNet(3, 4, 2, (3, 3), 2))
    with pytest.raises(UserError, match=r"set `model.image_size` to \[16, 24\]"):
        SegmentationTask(FlexUNet(3, 4, 2, (3, 3), 4), rgb_map=MAP, image_size=(17, 24))


@pytest.mark.parametrize("class_path", ["os.system", "evil.Network", "subprocess.Popen", "system"])
def test_networks_outside_the_trusted_packages_are_not_imported(class_path):
    with pytest.raises(ModelFileError, match="was not imported: a network is a subclass of"):
        build_network(class_path, {})


@pytest.mark.parametrize(
    "class_path", ["torch.nn.Nothing", "torch.nn.functional.relu", "torch.nn.Parameter", "torch.nn.init"]
)
def test_what_is_no_network_is_not_called(class_path):
    with pytest.raises(ModelFileError, match=r"does not exist|is none, and was not called"):
        build_network(class_path, {})


def test_importing_the_package_is_light():
    import subprocess
    import sys

    code = "import sys, flexunet_pl, flexunet_pl.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert set(flexunet_pl.__all__) <= set(dir(flexunet_pl))
    with pytest.raises(AttributeError, match="no attribute"):
        flexunet_pl.nothing  # noqa: B018


def test_numpy_images_need_no_copy_to_be_read():
    image = np.zeros((1, 16, 24, 3), dtype=np.uint8)
    assert small_task()(torch.from_numpy(image).permute(0, 3, 1, 2)).shape == (1, 4, 16, 24)


def test_class_weights_follow_the_names_not_their_order():
    task = small_task(class_weights={"lung": 4, "heart": 3, "trachea": 2, "background": 1})
    assert task.loss.weight.tolist() == [1, 2, 3, 4]
    for wrong in ({"lung": 1.0}, dict.fromkeys(MAP, -1.0), dict.fromkeys([*MAP, "liver"], 1.0)):
        with pytest.raises(UserError, match=r"model\.class_weights is .*for each of background, trachea, heart, lung"):
            small_task(class_weights=wrong)


@pytest.mark.parametrize("kind", ["flexunet", "smp"])
def test_a_network_that_was_trained_from_python_comes_back_by_lightning_s_own_way(tmp_path, phantoms, kind):
    network = FlexUNet(3, 4, base_filters=4, base_kernels=(3, 3), num_layers=3)
    if kind == "smp":
        network = segmentation_models_pytorch.FPN("resnet18", encoder_weights=None, classes=4)
    task = SegmentationTask(network, MAP, image_size=(32, 32))
    assert task.hparams["image_size"] == [32, 32]
    assert task.hparams["rgb_map"] == MAP
    data = SegmentationDataModule(phantoms, MAP, image_size=(32, 32), num_workers=0)
    trainer = Trainer(
        max_epochs=1, limit_train_batches=1, limit_val_batches=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    image = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8)
    task.eval()
    with torch.no_grad():
        again = SegmentationTask.load_from_checkpoint(tmp_path / "a.ckpt")
        assert torch.equal(again(image), task(image))
        assert torch.equal(load_model(tmp_path / "a.ckpt")(image), task(image))
    assert dict(again.hparams) == dict(task.hparams)


@pytest.mark.parametrize("window", [(9, 1), (5, 5), (0, float("nan")), (0, float("inf"))])
def test_a_window_that_is_none_is_refused(window):
    with pytest.raises(UserError, match=r"model\.image_window is .*; expected two numbers, the lower one first"):
        small_task(image_window=window)
