import csv

import numpy as np
import pytest
from PIL import Image

from flexunet_pl.cli.main import main
from flexunet_pl.io.images import read_image
from flexunet_pl.io.masks import read_mask
from flexunet_pl.prepare.phantom import PHANTOM_MAP


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_curves_have_the_reference_s_columns(trained):
    losses, metrics = rows(trained / "train_losses.csv"), rows(trained / "train_metrics.csv")
    assert list(losses[0]) == ["epoch", "loss", "val_loss"]
    assert list(metrics[0]) == ["epoch", "dice_coef_multiclass", "val_dice_coef_multiclass"]
    assert [row["epoch"] for row in losses] == ["1", "2"]
    assert all(float(v) > 0 for row in losses + metrics for v in row.values())


def test_epoch_change_masks_are_palette_pictures_of_the_image_s_size(trained):
    with Image.open(trained / "epoch_change" / "Epoch_2_004_01.png") as picture:
        assert picture.mode == "P"
        assert picture.size == (64, 64)
    read_mask(trained / "epoch_change" / "Epoch_2_004_01.png", PHANTOM_MAP)


def test_the_film_strip_has_a_row_per_image_and_a_column_per_epoch(trained):
    height, width, _ = read_image(trained / "epoch_change" / "film_strip.png").shape
    assert width == 4 * 128  # image, truth, two epochs
    assert height == 16 + 3 * 128


def test_a_folder_of_images_that_is_not_there_leaves_no_run_behind(workspace, mistake):
    (workspace / "empty").mkdir()
    for folder in ("nowhere", "empty"):
        assert folder in mistake("fit", "-c", "c.yaml", "--epoch_change.images", folder)
    assert not (workspace / "runs").exists()


def test_epoch_change_takes_any_folder_the_first_images_by_name_and_none(workspace, flexunet, phantoms):
    flexunet("fit", "-c", "c.yaml", "--trainer.max_epochs", 1, "--epoch_change.images", phantoms / "train" / "images",
             "--epoch_change.num_images", 2, "--trainer.logger.name", "two")  # fmt: skip
    folder = workspace / "runs" / "two" / "version_0" / "epoch_change"
    assert sorted(p.name for p in folder.glob("Epoch*")) == ["Epoch_1_000_00.png", "Epoch_1_000_01.png"]
    flexunet(
        "fit", "-c", "c.yaml", "--trainer.max_epochs", 1, "--epoch_change.num_images", 0, "--trainer.logger.name", "no"
    )
    assert not (workspace / "runs" / "no" / "version_0" / "epoch_change").exists()


def test_images_without_masks_can_be_watched(workspace, flexunet, phantoms):
    folder = workspace / "watch" / "images"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes((phantoms / "test" / "images" / "005_00.png").read_bytes())
    flexunet("fit", "-c", "c.yaml", "--trainer.max_epochs", 1, "--epoch_change.images", folder)
    strip = read_image(workspace / "runs/flexunet/version_0/epoch_change/film_strip.png")
    assert strip.shape == (16 + 128, 2 * 128, 3)
    assert np.ptp(strip[20:80, 20:80]) > 50


def test_the_curves_hold_no_validation_scores_of_epochs_without_validation(workspace, flexunet):
    flexunet("fit", "-c", "c.yaml", "--trainer.max_epochs", 4, "--trainer.check_val_every_n_epoch", 2)
    table = rows(workspace / "runs/flexunet/version_0/train_losses.csv")
    assert [bool(row["val_loss"]) for row in table] == [False, True, False, True]
    assert all(row["loss"] for row in table)


def test_watching_does_not_change_the_training(workspace, flexunet):
    for name, images in (("watched", 3), ("unwatched", 0)):
        flexunet("fit", "-c", "c.yaml", "--epoch_change.num_images", images, "--trainer.logger.name", name)
    one, other = (
        (workspace / "runs" / n / "version_0" / "train_losses.csv").read_text() for n in ("watched", "unwatched")
    )
    assert one == other


@pytest.mark.parametrize("when", ["during", "before"])
def test_the_stop_file_ends_training_after_the_epoch(workspace, flexunet, monkeypatch, when):
    from flexunet_pl.task import SegmentationTask

    stop = workspace / "break_training"
    validated = SegmentationTask.on_validation_epoch_end
    if when == "before":
        stop.touch()
    else:

        def touching(self):
            if self.current_epoch == 1:
                stop.touch()
            validated(self)

        monkeypatch.setattr(SegmentationTask, "on_validation_epoch_end", touching)
    flexunet("fit", "-c", "c.yaml", "--trainer.max_epochs", 4)
    epochs = len(rows(workspace / "runs/flexunet/version_0/train_losses.csv"))
    assert epochs == (2 if when == "during" else 4)
    assert not stop.exists()


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(workspace, flexunet):
    import torch

    flexunet("fit", "-c", "c.yaml", "--trainer.max_epochs", 5, "--model.optimizer.init_args.lr", 0.3)
    run = workspace / "runs/flexunet/version_0"
    losses = [float(row["val_loss"]) for row in rows(run / "train_losses.csv")]
    best, last = (torch.load(run / "checkpoints" / f"{n}.ckpt", weights_only=True) for n in ("best", "last"))
    assert best["epoch"] == losses.index(min(losses))
    assert last["epoch"] == 4


def test_early_stopping_is_a_setting(workspace, capsys):
    assert main(["fit", "-c", "c.yaml", "--trainer.max_epochs", "9", "--early_stopping.patience", "1",
                 "--early_stopping.min_delta", "10"]) == 0  # fmt: skip
    assert len(rows(workspace / "runs/flexunet/version_0/train_losses.csv")) == 2


def test_the_first_samples_are_drawn_as_the_network_gets_them(trained):
    from flexunet_pl.io.images import read_image

    grid = read_image(trained / "train_samples.png")
    assert grid.shape == (4 * 192, 4 * 192, 3)  # eight pairs, two in a row
    image, overlay = grid[:192, :192].astype(int), grid[:192, 192:384].astype(int)
    assert (image[..., 0] == image[..., 1]).all()  # grey
    assert (overlay[..., 0] != overlay[..., 2]).any()  # tinted
    events = next(trained.glob("events.out.tfevents.*"))
    assert b"train_samples" in events.read_bytes()
