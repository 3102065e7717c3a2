from pathlib import Path

import numpy as np
import pytest
import torch

from flexunet_pl import SegmentationDataModule
from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.io.images import write_image
from flexunet_pl.prepare.phantom import PHANTOM_MAP


def datamodule(root, **options):
    options = {"num_workers": 0, "image_size": (32, 32), **options}
    return SegmentationDataModule(root=root, rgb_map=PHANTOM_MAP.to_dict(), **options)


def first_epoch(data):
    data.setup("fit")
    return list(data.train_dataloader())


def test_workers_do_not_change_the_batches(phantoms):
    alone = first_epoch(datamodule(phantoms))
    for start_method in ("fork", "spawn"):
        helped = first_epoch(datamodule(phantoms, num_workers=2, start_method=start_method))
        assert [b["name"] for b in helped] == [b["name"] for b in alone]
        assert all(torch.equal(a["image"], h["image"]) for a, h in zip(alone, helped, strict=True))
        assert all(torch.equal(a["mask"], h["mask"]) for a, h in zip(alone, helped, strict=True))


def test_loading_draws_nothing_from_the_global_generator(phantoms):
    before = torch.get_rng_state()
    first_epoch(datamodule(phantoms))
    assert torch.equal(torch.get_rng_state(), before)


def test_every_stage_reads_its_folder_in_order(phantoms):
    data = datamodule(phantoms)
    data.setup("fit")
    data.setup("test")
    for loader, split in ((data.val_dataloader(), "valid"), (data.test_dataloader(), "test")):
        names = [name for batch in loader for name in batch["name"]]
        assert names == sorted(p.stem for p in (phantoms / split / "images").iterdir())


def test_prediction_takes_a_folder_or_one_image(phantoms):
    folder = phantoms / "test" / "images"
    one = sorted(folder.iterdir())[0]
    data = datamodule(None, predict_dir=folder, batch_size=2)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [len(b["path"]) for b in batches] == [2, 1]
    assert batches[0]["size"] == [(64, 64), (64, 64)]
    data = datamodule(None, predict_dir=one)
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch["path"] == [str(one)]


def test_grey_images_have_one_channel(phantoms):
    assert first_epoch(datamodule(phantoms, in_channels=1))[0]["image"].shape == (2, 1, 32, 32)


def test_headers_are_checked_before_training(tmp_path):
    for split in ("train", "valid"):
        write_image(tmp_path / split / "images" / "a.png", np.zeros((8, 8, 3), np.uint8))
        write_image(tmp_path / split / "masks" / "a.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "valid" / "masks" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"valid/masks/a\.png: is empty"):
        datamodule(tmp_path).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": None}, "data.root is missing"),
        ({"root": Path("/nowhere")}, "/nowhere: no such folder"),
    ],
)
def test_a_missing_root_is_named(options, message):
    with pytest.raises(UserError, match=message):
        datamodule(**options).setup("fit")


def test_the_global_seed_decides_the_order(phantoms):
    from lightning.pytorch import seed_everything

    names = []
    for seed in (1, 2, 1):
        seed_everything(seed, verbose=False)
        names.append([b["name"] for b in first_epoch(datamodule(phantoms))])
    assert names[0] == names[2] != names[1]


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="rgb_map is missing"):
        SegmentationDataModule()
    with pytest.raises(UserError, match=r"image_window is .*the lower one first"):
        datamodule(None, image_window=(5, 5))
    with pytest.raises(UserError, match="predict_dir is missing"):
        datamodule(None).setup("predict")
