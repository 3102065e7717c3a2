"""The command line from end to end, in this process but where processes are the point."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from flexunet_pl.cli.main import VERBS, main
from flexunet_pl.common.errors import RunInterrupted
from flexunet_pl.io.dataset_facts import DatasetFacts, write_facts
from flexunet_pl.io.images import read_image, write_image
from flexunet_pl.io.masks import read_mask
from flexunet_pl.prepare.phantom import PHANTOM_MAP
from flexunet_pl.task import SegmentationTask
from flexunet_runtime.window import Window

RUN = "runs/flexunet/version_0"


def weights(run):
    checkpoint = torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)
    return {k: v for k, v in checkpoint["state_dict"].items() if torch.is_tensor(v)}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---- help


def test_help_lists_every_verb_without_importing_torch():
    code = "import sys; from flexunet_pl.cli.main import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)


def test_every_verb_explains_itself(capsys):
    for verb, needle in {"phantom": "--patients", "demo": "--overwrite", "predict": "--prediction.overlay"}.items():
        assert main([verb, "--help"]) == 0
        assert needle in capsys.readouterr().out


# ---- fit, test, predict


def test_training_leaves_what_the_readme_promises(trained):
    names = {str(p.relative_to(trained)) for p in trained.rglob("*") if p.is_file()}
    assert {
        "config.yaml",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "train_losses.csv",
        "train_losses.png",
        "train_metrics.csv",
        "train_metrics.png",
        "epoch_change/film_strip.png",
        "epoch_change/Epoch_1_004_00.png",
        "epoch_change/Epoch_2_004_02.png",
    } <= names
    assert any(name.startswith("events.out.tfevents") for name in names)


def test_tensorboard_shows_scalars_pictures_rate_and_hyper_parameters(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained))
    events.Reload()
    tags = events.Tags()
    wanted = {
        f"{s}/{n}" for s in ("train", "val") for n in ("loss", "dice", "dice/lung", "iou/heart", "dice_coef_multiclass")
    }
    assert wanted | {"lr-Adam"} <= set(tags["scalars"])
    assert tags["images"] == ["train_samples", "epoch_change"]
    assert len(events.Scalars("val/loss")) == 2
    assert "base_filters" in (trained / "hparams.yaml").read_text()


def test_the_scores_of_a_checkpoint_are_those_of_its_masks(workspace, flexunet, trained, phantoms):
    checkpoint = trained / "checkpoints" / "best.ckpt"
    # at the network's own size, so that no resizing stands between the two
    for split in ("images", "masks"):
        for path in (phantoms / "test" / split).iterdir():
            image = Image.open(path).resize((32, 32), Image.Resampling.NEAREST)
            write_image(workspace / "small" / "test" / split / path.name, np.asarray(image))
    out = flexunet("test", "--ckpt_path", checkpoint, "--data.root", "small", "--data.num_workers", 0,
                   "--trainer.logger.name", "scores")  # fmt: skip
    assert "trachea" in out
    assert "they count the background" in out
    scores = json.loads((workspace / "runs" / "scores" / "version_0" / "test_scores.json").read_text())
    flexunet("predict", "--ckpt_path", checkpoint, "--data.predict_dir", "small/test/images", "--data.num_workers", 0,
             "--prediction.output_dir", "out")  # fmt: skip
    dice = []
    for path in sorted((workspace / "small" / "test" / "masks").iterdir()):
        truth, found = read_mask(path, PHANTOM_MAP) == 3, read_mask(workspace / "out" / path.name, PHANTOM_MAP) == 3
        dice.append(2 * (truth & found).sum() / (truth.sum() + found.sum()))
    assert scores["dice/lung"] == pytest.approx(np.mean(dice), abs=1e-6)

    flexunet("score", "--pred", "out", "--target", "small/test/masks", "--experiment", "c.yaml", "--out", "tables")
    run, tables = workspace / "runs" / "scores" / "version_0", workspace / "tables"
    for name in ("per_case.csv", "summary.csv"):
        assert (run / name).read_text() == (tables / name).read_text()
    reference = dict(line.split(",") for line in (run / "evaluation.csv").read_text().splitlines())
    assert list(reference) == ["categorical_crossentropy", "dice_coef_multiclass"]
    assert float(reference["categorical_crossentropy"]) == pytest.approx(scores["loss"], abs=1e-4)
    assert float(reference["dice_coef_multiclass"]) == pytest.approx(scores["dice_coef_multiclass"], abs=1e-4)


def test_predict_writes_masks_overlays_and_probabilities_of_the_image_s_size(workspace, flexunet, trained):
    sizes = {"odd.png": (37, 50), "large.png": (90, 41)}
    for name, size in sizes.items():
        write_image(workspace / "in" / name, np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    flexunet("predict", "--ckpt_path", trained / "checkpoints" / "best.ckpt", "--data.predict_dir", "in",
             "--prediction.output_dir", "out", "--prediction.overlay", "true", "--prediction.probabilities", "true",
             "--data.num_workers", 0)  # fmt: skip
    for name, size in sizes.items():
        with Image.open(workspace / "out" / name) as picture:
            assert picture.mode == "P"
            index = np.asarray(picture)
        assert index.shape == size
        overlay = read_image(workspace / "out" / "overlays" / name)
        assert overlay.shape[0] > size[0]  # the legend stands below
        assert overlay.shape[1:] == (size[1], 3)
        probabilities = np.load(workspace / "out" / "probabilities" / name.replace("png", "npz"))["probabilities"]
        assert probabilities.shape == (4, *size)
        assert np.array_equal(probabilities.argmax(0), index)
    assert len(list((workspace / "out").glob("*.png"))) == 2


def test_what_the_checkpoint_overrules_is_said(workspace, flexunet, trained, phantoms):
    out = flexunet("validate", "--ckpt_path", trained / "checkpoints" / "best.ckpt", "--data.root", phantoms,
                   "--model.image_size", "[64, 64]", "--trainer.logger", "false", "--data.num_workers", 0)  # fmt: skip
    assert sorted(p.name for p in workspace.iterdir()) == ["c.yaml"]
    assert "note: model.image_size is (32, 32), from the checkpoint; (64, 64) is not used" in out
    assert out.count("note:") == 1


# ---- sameness


def test_the_same_seed_gives_the_same_run_and_another_one_does_not(workspace, flexunet):
    for name, seed in (("a", 137), ("b", 137), ("c", 138)):
        flexunet("fit", "-c", "c.yaml", "--trainer.logger.name", name, "--seed_everything", seed)
    a, b, c = ((workspace / "runs" / n / "version_0" / "train_losses.csv").read_text() for n in "abc")
    assert a == b
    assert a != c
    assert equal(weights("runs/a/version_0"), weights("runs/b/version_0"))


PLATEAU = ["--model.scheduler", "lightning.pytorch.cli.ReduceLROnPlateau", "--model.scheduler.monitor", "val/loss",
           "--model.scheduler.factor", 0.5, "--model.scheduler.patience", 0,
           "--model.scheduler.threshold", 0.5]  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumed_behind_an_epoch_ends_like_the_uninterrupted_one(workspace, flexunet, workers):
    def fit(name, epochs, *more):
        flexunet("fit", "-c", "c.yaml", "--trainer.logger.name", name, "--trainer.max_epochs", epochs,
                 "--data.num_workers", workers, *PLATEAU, *more)  # fmt: skip

    fit("whole", 4)
    fit("parts", 2)
    fit("parts", 4, "--ckpt_path", "runs/parts/version_0/checkpoints/last.ckpt")
    assert equal(weights("runs/whole/version_0"), weights("runs/parts/version_0"))
    for name in ("train_losses.csv", "train_metrics.csv", "train_dice.csv"):
        whole, parts = ((workspace / "runs" / run / "version_0" / name).read_text() for run in ("whole", "parts"))
        assert whole == parts
        assert len(whole.splitlines()) == 5
    strips = [
        read_image(workspace / "runs" / run / "version_0/epoch_change/film_strip.png") for run in ("whole", "parts")
    ]
    assert np.array_equal(*strips)
    assert not (workspace / "runs" / "parts" / "version_1").exists()


@pytest.mark.parametrize("step", [8, 11])  # 6 steps an epoch: within the second, and its last
def test_a_run_stopped_by_a_signal_and_resumed_ends_like_the_uninterrupted_one(workspace, flexunet, monkeypatch, step):
    flexunet("fit", "-c", "c.yaml", "--trainer.logger.name", "whole", "--trainer.max_epochs", 3)
    stepping = SegmentationTask.training_step

    def signalled(self, batch, batch_idx):
        if self.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return stepping(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", signalled)
        assert main(["fit", "-c", "c.yaml", "--trainer.logger.name", "parts", "--trainer.max_epochs", "3"]) == 143
    last = "runs/parts/version_0/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == (9 if step == 8 else 12)
    flexunet("fit", "-c", "c.yaml", "--ckpt_path", last, "--trainer.max_epochs", 3)
    assert equal(weights("runs/whole/version_0"), weights("runs/parts/version_0"))
    csv = [(workspace / "runs" / run / "version_0" / "train_losses.csv").read_text() for run in ("whole", "parts")]
    assert csv[0] == csv[1]


def test_the_reducer_s_patience_is_the_configured_one(workspace, flexunet):
    reducer = [*PLATEAU[:-4], "--model.scheduler.patience", 1, "--model.scheduler.threshold", 10]
    flexunet("fit", "-c", "c.yaml", "--trainer.max_epochs", 5, *reducer, "--model.scheduler.threshold_mode", "abs")
    checkpoint = torch.load(f"{RUN}/checkpoints/last.ckpt", weights_only=True)
    # no epoch is better by 10: after the first, every second one is one too many
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.01 * 0.5**2)


# ---- trainer flags


def test_mixed_precision_is_a_flag(workspace, flexunet):
    flexunet("fit", "-c", "c.yaml", "--trainer.precision", "bf16-mixed", "--trainer.max_epochs", 1)
    assert all(torch.isfinite(w).all() for w in weights(RUN).values())


@pytest.mark.case("B4")
@pytest.mark.slow
def test_two_processes_train_and_score_like_one(workspace, phantoms):
    def run(*args):
        done = subprocess.run(
            [sys.executable, "-m", "flexunet_pl", *map(str, args)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    ddp = ["--trainer.accelerator", "cpu", "--trainer.devices", 2, "--trainer.strategy", "ddp"]
    run("fit", "-c", "c.yaml", "--trainer.max_epochs", 1, "--model.network.init_args.normalization", "true", *ddp)
    assert len((workspace / RUN / "train_losses.csv").read_text().splitlines()) == 2
    test = ["test", "--ckpt_path", f"{RUN}/checkpoints/best.ckpt", "--data.root", phantoms, "--data.num_workers", 0]
    out = run(*test, "--trainer.logger.name", "two", "--data.batch_size", 1, *ddp)
    assert out.count("test, 3 cases") == 1
    assert main([*map(str, test), "--trainer.logger.name", "one"]) == 0
    one, two = (
        json.loads((workspace / "runs" / n / "version_0" / "test_scores.json").read_text()) for n in ("one", "two")
    )
    assert len(list((phantoms / "test" / "images").iterdir())) % 2 == 1
    assert one == pytest.approx(two, abs=1e-6)
    one, two = ((workspace / "runs" / n / "version_0" / "per_case.csv").read_text() for n in ("one", "two"))
    assert one == two


STOPPING = """
import os, signal, sys
from flexunet_pl.cli.main import main
from flexunet_pl.task import SegmentationTask
from flexunet_runtime.window import Window

stepping = SegmentationTask.training_step

def signalled(self, batch, batch_idx):
    if self.global_rank == 0 and self.global_step == int(os.environ["STOP_AT"]):
        os.kill(os.getpid(), signal.SIGUSR1)
    return stepping(self, batch, batch_idx)

SegmentationTask.training_step = signalled
sys.exit(main())
"""


@pytest.mark.case("B4")
@pytest.mark.slow
def test_two_processes_stopped_and_resumed_end_like_two_uninterrupted_ones(workspace):
    (workspace / "driver.py").write_text(STOPPING)

    def fit(stop_at, *args, status=0):
        words = ["fit", "-c", "c.yaml", "--data.batch_size", 1, "--trainer.accelerator", "cpu", "--trainer.devices", 2,
                 "--trainer.strategy", "ddp", *args]  # fmt: skip
        command = [sys.executable, "driver.py", *map(str, words)]
        environment = {**os.environ, "STOP_AT": str(stop_at)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=environment)
        assert done.returncode == status, done.stderr

    fit(-1, "--trainer.logger.name", "whole")
    fit(8, "--trainer.logger.name", "parts", status=138)  # 6 steps an epoch
    fit(-1, "--ckpt_path", "runs/parts/version_0/checkpoints/last.ckpt")
    assert equal(weights("runs/whole/version_0"), weights("runs/parts/version_0"))
    for name in ("train_losses.csv", "train_dice.csv"):
        whole, parts = ((workspace / "runs" / run / "version_0" / name).read_text() for run in ("whole", "parts"))
        for one, other in zip(whole.splitlines()[1:], parts.splitlines()[1:], strict=True):
            values = [[float(v) for v in line.split(",")] for line in (one, other)]
            assert values[0] == pytest.approx(values[1], rel=1e-6)  # the order of a sum over processes


@pytest.mark.slow
def test_a_split_smaller_than_the_number_of_processes_is_scored(workspace, phantoms, trained):
    for kind in ("images", "masks"):
        folder = workspace / "one" / "test" / kind
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes((phantoms / "test" / kind / "005_00.png").read_bytes())
    args = ["test", "--ckpt_path", trained / "checkpoints" / "best.ckpt", "--data.root", "one", "--data.num_workers", 0,
            "--trainer.accelerator", "cpu", "--trainer.devices", 2, "--trainer.strategy", "ddp",
            "--trainer.logger.name", "scores"]  # fmt: skip
    command = [sys.executable, "-m", "flexunet_pl", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    scores = json.loads((workspace / "runs" / "scores" / "version_0" / "test_scores.json").read_text())
    assert scores["loss"] > 0


def test_several_loggers_can_be_used(workspace, flexunet):
    loggers = [
        {"class_path": f"lightning.pytorch.loggers.{n}Logger", "init_args": {"save_dir": n}}
        for n in ("CSV", "TensorBoard")
    ]
    (workspace / "loggers.yaml").write_text(yaml.safe_dump({"trainer": {"logger": loggers, "max_epochs": 1}}))
    flexunet("fit", "-c", "c.yaml", "-c", "loggers.yaml")
    assert list(workspace.glob("CSV/**/metrics.csv"))
    assert list(workspace.glob("TensorBoard/**/events*"))


# ---- signals and failures


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_signals_save_and_set_theexit_status(workspace, signum, status):
    args = ["fit", "-c", "c.yaml", "--trainer.max_epochs", "10000", "--early_stopping.patience", "10000"]
    child = subprocess.Popen([sys.executable, "-m", "flexunet_pl", *args], stderr=subprocess.PIPE, text=True)
    rows = workspace / RUN / "train_losses.csv"
    deadline = time.monotonic() + 120
    while not rows.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    child.send_signal(signum)
    _, err = child.communicate(timeout=60)
    assert child.returncode == status, err
    line = err.strip().splitlines()[-1]
    assert line.startswith(f"flexunet: stopped by {signal.Signals(signum).name}: checkpoint saved to")
    assert "Traceback" not in err
    torch.load(f"{RUN}/checkpoints/last.ckpt", weights_only=True)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(workspace, capsys, monkeypatch):
    stepping = SegmentationTask.training_step

    def spoiled(self, batch, batch_idx):
        return stepping(self, batch, batch_idx) * (float("nan") if self.global_step == 8 else 1)

    monkeypatch.setattr(SegmentationTask, "training_step", spoiled)
    assert main(["fit", "-c", "c.yaml"]) == 3
    err = capsys.readouterr().err
    assert "the loss is nan in epoch 2, step 8, at learning rate 0.01, for 00" in err
    assert "resume with --ckpt_path" in err
    assert all(torch.isfinite(w).all() for w in weights(RUN).values())


def test_a_validation_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(workspace, capsys, monkeypatch):
    validating = SegmentationTask.validation_step

    def spoiled(self, batch, batch_idx):
        if self.global_step == 12:
            next(self.network.parameters()).data.fill_(float("nan"))
        validating(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "validation_step", spoiled)
    assert main(["fit", "-c", "c.yaml", "--trainer.max_epochs", "3"]) == 3
    assert "the validation loss is nan in epoch 2" in capsys.readouterr().err
    assert all(torch.isfinite(w).all() for w in weights(RUN).values())


def test_a_stop_before_anything_was_saved_says_so(tmp_path):
    from types import SimpleNamespace

    from flexunet_pl.callbacks import GracefulStop

    stop = GracefulStop()
    stop._received = signal.SIGTERM
    with pytest.raises(RunInterrupted, match=r"no epoch was finished, nothing was saved; start again") as caught:
        stop._stop(SimpleNamespace(), tmp_path / "last.ckpt")
    assert caught.value.signum == signal.SIGTERM


def test_a_second_interrupt_ends_at_once():
    from flexunet_pl.callbacks import GracefulStop

    stop = GracefulStop()
    stop._note(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        stop._note(signal.SIGINT, None)


def test_the_exit_status_of_a_signal_is_128_and_its_number():
    from flexunet_pl.cli.exit_status import exit_status

    assert exit_status(RunInterrupted(signal.SIGTERM, "x")) == 143
    assert exit_status(OSError(28, "No space left on device")) == 3
    assert exit_status(RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")) == 3
    assert exit_status(FileNotFoundError(2, "No such file", "x")) == 2
    assert exit_status(RuntimeError("ours")) == 70  # our own mistake, which was a trace and exit 1


def spoil_step(monkeypatch, steps):
    """Make the loss of some steps, and what they leave in the statistics of batch norm, NaN."""
    stepping = SegmentationTask.training_step

    def spoiled(self, batch, batch_idx):
        if self.global_step not in steps:
            return stepping(self, batch, batch_idx)
        for buffer in self.network.buffers():
            buffer.fill_(0 if buffer.dtype == torch.int64 else float("nan"))
        return stepping(self, batch, batch_idx) * float("nan")

    monkeypatch.setattr(SegmentationTask, "training_step", spoiled)


def test_some_steps_whose_loss_is_not_finite_can_be_left_out(workspace, capsys, monkeypatch):
    spoil_step(monkeypatch, {3, 8})
    fit = ["fit", "-c", "c.yaml", "--model.network.init_args.normalization", "true", "--finite_loss.skip"]
    assert main([*fit, "2"]) == 0
    assert "step 8, for 00" in capsys.readouterr().err
    assert all(torch.isfinite(w).all() for w in weights(RUN).values())
    rows = (workspace / RUN / "train_losses.csv").read_text().splitlines()[1:]
    assert all(np.isfinite(float(value)) for row in rows for value in row.split(","))
    assert main([*fit, "1", "--trainer.logger.name", "one"]) == 3
    assert "(1 of 1)" in capsys.readouterr().err
    assert main([*fit, "-1"]) == 2


def test_the_layer_from_which_numbers_are_not_finite_is_named(workspace, capsys, monkeypatch):
    stepping = SegmentationTask.training_step

    def spoiled(self, batch, batch_idx):
        if self.global_step == 8:
            self.network.encoder[1].layers[0].weight.data.fill_(float("inf"))
        return stepping(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "training_step", spoiled)
    assert main(["fit", "-c", "c.yaml"]) == 3
    assert ", from layer network.encoder.1.layers.0 on;" in capsys.readouterr().err


# ---- the run's folder


def test_a_run_folder_has_one_run(workspace, flexunet, mistake):
    from filelock import FileLock

    flexunet("fit", "-c", "c.yaml", "--trainer.max_epochs", 1)
    assert f"process {os.getpid()} on " in (workspace / RUN / "run.lock").read_text()
    before = weights(RUN)
    with FileLock(workspace / RUN / "run.lock"):
        said = mistake("fit", "-c", "c.yaml", "--ckpt_path", f"{RUN}/checkpoints/last.ckpt")
    assert f"version_0: in use by process {os.getpid()} on " in said
    assert equal(weights(RUN), before)
    flexunet("fit", "-c", "c.yaml", "--ckpt_path", f"{RUN}/checkpoints/last.ckpt")  # the lock of a process that is gone


def test_a_folder_that_cannot_be_written_to_is_said_before_training(workspace, mistake, phantoms, monkeypatch):
    (workspace / "file").write_text("mine")
    said = mistake("fit", "-c", "c.yaml", "--trainer.logger.save_dir", "file")
    assert "file/flexunet/version_0: cannot be written to (Not a directory); choose another" in said
    among = phantoms / "train" / "images"
    assert "lies among the images of" in mistake("fit", "-c", "c.yaml", "--trainer.logger.save_dir", among)
    monkeypatch.setattr("flexunet_pl.cli.preflight.shutil.disk_usage", lambda path: type("Usage", (), {"free": 10_000}))
    assert "0 MB are free, but checkpoints need about" in mistake("fit", "-c", "c.yaml")
    assert not (among / "flexunet").exists()


@pytest.mark.case("A6")
def test_a_job_that_slurm_ends_is_requeued_and_goes_on(workspace, flexunet, monkeypatch, capsys):
    scontrol = workspace / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {workspace}/asked\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    fit = ["fit", "-c", "c.yaml", "--trainer.max_epochs", "3", "--ckpt_path", "last", "--trainer.logger.name"]
    assert "no earlier run in runs/whole: a new one begins" in flexunet(*fit, "whole")
    stepping = SegmentationTask.training_step

    def signalled(self, batch, batch_idx):
        if self.global_step == 8:
            os.kill(os.getpid(), signal.SIGUSR1)
        return stepping(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", signalled)
        patch.setenv("SLURM_JOB_ID", "77")
        assert main([*fit, "parts"]) == 138
    assert (workspace / "asked").read_text() == "requeue 77\n"
    assert "job 77 was requeued" in capsys.readouterr().err
    assert "resuming runs/parts/version_0/checkpoints/last.ckpt" in flexunet(*fit, "parts")
    assert equal(weights("runs/whole/version_0"), weights("runs/parts/version_0"))


# ---- mistakes: one line that names the file or key and the remedy, exit status 2


def spoil(root, where, what):
    """Copy of a data set in which one file is spoilt."""
    import shutil

    copy = root.parent / f"spoilt_{what}"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(root, copy)
    return copy, copy / where


def test_mistakes_in_the_data_are_named(workspace, mistake, phantoms):
    def fit(root):
        return mistake("fit", "-c", "c.yaml", "--data.root", root)

    assert "/nowhere: no such folder; set `data.root`" in fit("/nowhere")

    copy, folder = spoil(phantoms, "train/images", "empty")
    for path in folder.iterdir():
        path.unlink()
    assert f"{folder}: no image in this folder" in fit(copy)

    copy, path = spoil(phantoms, "train/masks/000_00.png", "mask")
    path.unlink()
    assert "train/images/000_00.png: no mask of that stem in" in fit(copy)

    copy, path = spoil(phantoms, "valid/images/004_00.png", "image")
    path.unlink()
    assert "valid/masks/004_00.png: no image of that stem in" in fit(copy)

    copy, path = spoil(phantoms, "train/images/000_00.png", "stem")
    path.with_suffix(".JPG").write_bytes(path.read_bytes())
    assert "has the same stem as 000_00.JPG" in fit(copy)

    for name, content in {"zero": b"", "html": b"<html>", "cut": None}.items():
        copy, path = spoil(phantoms, "train/images/001_01.png", name)
        path.write_bytes(path.read_bytes()[:900] if content is None else content)
        assert "train/images/001_01.png: " in fit(copy)

    copy, path = spoil(phantoms, "train/masks/000_00.png", "size")
    write_image(path, np.zeros((64, 32, 3), np.uint8))
    assert "train/masks/000_00.png: mask is 64x32 px (height x width) but its image is 64x64" in fit(copy)

    copy, path = spoil(phantoms, "train/masks/000_00.png", "colour")
    mask = read_image(path).copy()
    mask[10:30, 10:30] = [255, 255, 0]
    write_image(path, mask)
    assert "train/masks/000_00.png: 400 pixels of colour [255, 255, 0], such as row 10, column 10" in fit(copy)
    assert "[255, 255, 0]" in mistake("fit", "-c", "c.yaml", "--data.root", copy, "--data.num_workers", 2)


def test_mistakes_in_the_configuration_are_named(workspace, mistake, monkeypatch):
    def fit(*args):
        return mistake("fit", "-c", "c.yaml", *args)

    assert "30x32 px (height x width) but each side must be a multiple of 4; set `model.image_size` to [32, 32]" in fit(
        "--model.image_size", "[30, 32]")  # fmt: skip
    assert "did you mean `trainer.max_epochs`?" in fit("--trainer.max_epohcs", "3")
    typo = ["--model.network", "flexunet_pl.FlexUNet", "--model.network.init_args.base_filter", "3"]
    assert "class_path flexunet_pl.FlexUNet: Option 'base_filter' is not accepted" in fit(*typo)
    assert "`a` and `b` have the same colour" in fit("--model.rgb_map", "{a: [1, 1, 1], b: [1, 1, 1]}")
    assert "no such checkpoint file" in fit("--ckpt_path", "nowhere.ckpt")
    assert "model.rgb_map is missing" in mistake("fit", "--data.root", "x")
    assert "name its class before its arguments" in mistake("fit", "--model.network.init_args.num_layers", "3")
    assert "there is no verb `fitt`; did you mean `fit`?" in mistake("fitt")
    assert "test needs --ckpt_path" in mistake("test")
    assert "watches `val/nothing`" in fit("--model.scheduler", "lightning.pytorch.cli.ReduceLROnPlateau",
                                          "--model.scheduler.monitor", "val/nothing")  # fmt: skip

    assert "checkpoint.monitor: val/los: there is no such score; use one of" in fit("--checkpoint.monitor", "val/los")
    assert "early_stopping.monitor: val/loss: without validation there is no such score" in fit(
        "--trainer.limit_val_batches", "0", "--checkpoint.monitor", "train/loss")  # fmt: skip
    assert "epoch_change.num_images (-1) must not be negative" in fit("--epoch_change.num_images", "-1")
    assert "seed_everything: " in fit("--seed_everything", "-3")
    assert "val_check_interval" in fit("--trainer.val_check_interval", "99")
    assert "model.loss: BCEWithLogitsLoss does not take" in fit("--model.loss", "torch.nn.BCEWithLogitsLoss")
    assert "--trust needs a value" in fit("--trust")

    (workspace / "typo.yaml").write_text("trainer:\n  max_epohcs: 3\n")
    assert "max_epohcs" in fit("-c", "typo.yaml")
    (workspace / "broken.yaml").write_text("trainer: [1, 2\n")
    assert "broken.yaml" in fit("-c", "broken.yaml")
    assert "nowhere.yaml" in mistake("fit", "-c", "nowhere.yaml")

    (workspace / "evilmod.py").write_text("open('canary', 'w')\nclass Net: pass\n")
    monkeypatch.syspath_prepend(workspace)
    for flag, path in (("--model.network", "evilmod.Net"), ("--model.optimizer", "os.system"),
                       ("--data.train_transform", "evilmod.Net"), ("--trainer.callbacks+", "evilmod.Net")):  # fmt: skip
        assert path.split(".")[0] in fit(flag, path)
    assert not (workspace / "canary").exists()


def test_a_failed_start_leaves_no_run_folder(workspace, mistake):
    mistake("fit", "-c", "c.yaml", "--data.root", "/nowhere")
    mistake("fit", "-c", "c.yaml", "--checkpoint.monitor", "nothing")
    assert not (workspace / "runs").exists()


def test_another_run_s_checkpoints_are_kept(workspace, flexunet, mistake):
    args = ["fit", "-c", "c.yaml", "--trainer.logger", "false", "--trainer.max_epochs", 1]
    flexunet(*args)
    before = (workspace / "checkpoints" / "best.ckpt").read_bytes()
    assert "checkpoints: holds the checkpoints of another run" in mistake(*args)
    assert "holds the checkpoints of another run" in mistake(*args, "--checkpoint.dirpath", "checkpoints")
    assert (workspace / "checkpoints" / "best.ckpt").read_bytes() == before
    pinned = ["fit", "-c", "c.yaml", "--trainer.max_epochs", 1, "--trainer.logger.version", 7]
    flexunet(*pinned)
    assert "version_7/checkpoints: holds the checkpoints of another run" in mistake(*pinned)
    flexunet(*args[:-1], 2, "--ckpt_path", "checkpoints/last.ckpt")


def test_trust_lets_a_package_in_for_a_configuration_alone(workspace, flexunet, mistake, monkeypatch):
    (workspace / "mynets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, in_channels: int, num_classes: int):\n"
        "        super().__init__(nn.Conv2d(in_channels, num_classes, 1))\n"
    )
    monkeypatch.syspath_prepend(workspace)
    config = yaml.safe_load((workspace / "c.yaml").read_text())
    config["model"]["network"] = {"class_path": "mynets.Net"}
    (workspace / "c.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    flexunet("fit", "-c", "c.yaml", "--trust=mynets", "--trainer.max_epochs", 1)
    validate = ["validate", "--ckpt_path", f"{RUN}/checkpoints/best.ckpt", "--data.root", config["data"]["root"],
                "--trust", "mynets", "--trainer.logger", "false", "--data.num_workers", 0]  # fmt: skip
    assert "network: `mynets.Net` was not imported" in mistake(*validate)  # a checkpoint is not trusted
    flexunet(*validate, "-c", "c.yaml")


def test_mistakes_in_prediction_are_named(workspace, mistake, trained, phantoms):
    images = phantoms / "test" / "images"
    before = {p.name: p.read_bytes() for p in images.iterdir()}

    def predict(*args, checkpoint=trained / "checkpoints" / "best.ckpt", source=images):
        return mistake(
            "predict", "--ckpt_path", checkpoint, "--data.predict_dir", source, "--data.num_workers", 0, *args
        )

    (workspace / "junk.ckpt").write_bytes(b"junk")
    assert "junk.ckpt: is no checkpoint" in predict("--prediction.output_dir", "o", checkpoint="junk.ckpt")
    good = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    torch.save({**good, "state_dict": {}}, "other.ckpt")
    assert "its weights do not fit the network" in predict("--prediction.output_dir", "o2", checkpoint="other.ckpt")
    torch.save({**good, "hyper_parameters": {**good["hyper_parameters"], "network": "x"}}, "network.ckpt")
    assert "network is no class path" in predict("--prediction.output_dir", "o3", checkpoint="network.ckpt")
    assert "prediction.output_dir is missing" in predict()
    (workspace / "full").mkdir()
    (workspace / "full" / "mine.txt").write_text("mine")
    assert "full: is not empty" in predict("--prediction.output_dir", "full")
    assert "full/mine.txt: is a file" in predict("--prediction.output_dir", "full/mine.txt")
    assert "holds the images" in predict("--prediction.output_dir", images, "--prediction.overwrite", "true")
    assert "nowhere: no such folder" in predict("--prediction.output_dir", "o", source="nowhere")
    (workspace / "bad").mkdir()
    (workspace / "bad" / "a.png").write_bytes(b"")
    assert "bad/a.png: is empty" in predict(
        "--prediction.output_dir",
        "o",
        source="bad",
    )
    assert {p.name: p.read_bytes() for p in images.iterdir()} == before
    assert [p.name for p in (workspace / "full").iterdir()] == ["mine.txt"]


def test_debug_shows_where_an_error_comes_from(workspace):
    with pytest.raises(ValueError, match="no such folder"):
        main(["fit", "-c", "c.yaml", "--data.root", "/nowhere", "--debug"])


def test_test_and_score_agree_on_the_same_files_at_their_own_size(workspace, flexunet, lively, phantoms):
    for split in ("images", "masks"):
        shutil.copytree(phantoms / "test" / split, workspace / "d" / "test" / split)
    mask = sorted((workspace / "d" / "test" / "masks").iterdir())[0]
    pixels = read_image(mask).copy()
    pixels[3, 4] = PHANTOM_MAP.colors[1]  # a lesion of one pixel, which the network's size does not show
    write_image(mask, pixels)
    said = flexunet("test", "--ckpt_path", lively, "--data.root", "d", "--data.num_workers", 0)
    assert "3 cases, measured at their own size, 64x64 px" in said
    flexunet("predict", "--ckpt_path", lively, "--data.predict_dir", "d/test/images", "--prediction.output_dir", "p",
             "--data.num_workers", 0)  # fmt: skip
    colours = json.dumps(PHANTOM_MAP.to_dict())
    flexunet("score", "--pred", "p", "--target", "d/test/masks", "--rgb-map", colours, "--out", "scored")
    (tested,) = workspace.glob("runs/**/per_case.csv")
    assert sorted(tested.read_text().splitlines()) == sorted(
        (workspace / "scored/per_case.csv").read_text().splitlines()
    )
    assert "network's size, 32x32" in flexunet(
        "test", "--ckpt_path", lively, "--data.root", "d", "--data.num_workers", 0, "--scores.network_size", "true"
    )


def test_volumes_are_cut_with_the_window_of_those_that_were_trained_on(workspace, flexunet, phantoms):
    shutil.copytree(phantoms, workspace / "d")
    write_facts(workspace / "d", DatasetFacts(Window(-160, 240)))
    flexunet("fit", "-c", "c.yaml", "--data.root", "d")
    values = np.random.default_rng(0).integers(-500, 500, (2, 20, 28)).astype(np.int16)
    (workspace / "in").mkdir()
    np.save(workspace / "in" / "a.npy", values)
    command = ["predict", "--ckpt_path", "runs/flexunet/version_0/checkpoints/best.ckpt", "--data.predict_dir", "in",
               "--data.num_workers", 0, "--prediction.probabilities", "true", "--prediction.output_dir"]  # fmt: skip
    said = flexunet(*command, "out")
    assert "data.volume.window is [-160.0, 240.0], as of the volumes which were trained on" in said
    flexunet(*command, "given", "--data.volume.window", "[-160, 240]")
    flexunet(*command, "other", "--data.volume.window", "[0, 500]")
    found, given, other = (
        np.load(workspace / out / "a" / "probabilities" / "0001.npz")["probabilities"]
        for out in ("out", "given", "other")
    )
    assert np.array_equal(found, given)
    assert not np.array_equal(found, other)
