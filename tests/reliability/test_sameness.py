"""Table B of the fault programme: the same run again, in parts, by other workers, in several processes."""

import csv
import hashlib
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

from flexunet_pl.data.datamodule import SegmentationDataModule
from flexunet_pl.prepare.phantom import PHANTOM_MAP
from tests.reliability.conftest import LAST, RUN, equal, session, weights
from tests.reliability.test_interruption import signalled

pytestmark = pytest.mark.reliability

FIT = ["fit", "-c", "c.yaml", "--trainer.logger.name", "flexunet", "--trainer.max_epochs", 3]


@pytest.mark.parametrize("threads", [1, 2])
def test_b1_the_same_seed_gives_the_same_weights(zygote, place, count, threads):
    before = f"import torch; torch.set_num_threads({threads})"
    found = []
    for i in range(10):
        folder = place(f"run_{i}")
        zygote.run(*FIT, cwd=folder, before=before)
        losses = (folder / RUN / "train_losses.csv").read_text()
        content = b"".join(w.numpy().tobytes() for w in weights(folder / LAST).values())
        found.append((hashlib.sha256(content).hexdigest(), losses))
    count("B1", sum(one == found[0] for one in found), 10, f"reruns with {threads} threads: weights and losses equal")


SCHEDULES = {
    "plateau": ["--model.scheduler", "lightning.pytorch.cli.ReduceLROnPlateau", "--model.scheduler.monitor",
                "val/loss", "--model.scheduler.patience", 0],
    "cosine_ema": ["--model.scheduler", "torch.optim.lr_scheduler.CosineAnnealingLR", "--model.scheduler.T_max", 3,
                   "--trainer.callbacks", "lightning.pytorch.callbacks.EMAWeightAveraging"],
    # what a plan may choose; an epoch of 12 is as long as one of all images
    "plan": ["--model.scheduler", "flexunet_pl.schedules.WarmupStableDecay", "--model.scheduler.warmup_steps", 2,
             "--model.deep_supervision", 1, "--model.patches", "true", "--data.cutmix", 0.5,
             "--data.train_transform", "ct_strong", "--data.epoch_samples", 12,
             "--model.network.init_args.normalization", "group"],
}  # fmt: skip
WORKERS = {
    "0": ["--data.num_workers", 0],
    "2 fork": ["--data.num_workers", 2, "--data.start_method", "fork"],
    "2 spawn": ["--data.num_workers", 2, "--data.start_method", "spawn"],
    "2 forkserver": ["--data.num_workers", 2, "--data.start_method", "forkserver"],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_b2_a_resumed_run_ends_like_the_uninterrupted_one(zygote, place, count, schedule, precision):
    settings = [*SCHEDULES[schedule], "--trainer.precision", precision]
    for name, workers in WORKERS.items():
        whole = place(f"whole_{name}")
        zygote.run(*FIT, *settings, *workers, cwd=whole)
        expected = weights(whole / LAST)
        for when, step in (("end", 12), ("mid", 9)):  # 6 steps an epoch
            folder = place(f"{when}_{name}")
            # a kill behind an epoch leaves its checkpoint, a signal within one leaves one of that step
            before, status = (signalled("step", step, signal.SIGKILL), -9)
            if when == "mid":
                before, status = (signalled("step", step - 1, signal.SIGTERM), 143)
            zygote.run(*FIT, *settings, *workers, cwd=folder, before=before, status=status)
            zygote.run(*FIT, *settings, *workers, "--ckpt_path", "last", cwd=folder)
            count("B2", int(equal(expected, weights(folder / LAST))), 1,
                  f"{name} workers, {when} of an epoch, {schedule}, {precision}: resumed bit-equal")  # fmt: skip


def test_b3_workers_do_not_change_the_samples(phantoms, count):
    def digest(workers, method):
        data = SegmentationDataModule(
            root=phantoms, rgb_map=PHANTOM_MAP.to_dict(), image_size=(32, 32), num_workers=workers, start_method=method
        )
        data.setup("fit")
        total = hashlib.sha256()
        for batch in data.train_dataloader():
            for part in (batch["image"], batch["mask"]):
                total.update(part.numpy().tobytes())
            total.update(" ".join(batch["name"]).encode())
        return total.hexdigest()

    found = [digest(0, "fork"), *(digest(2, method) for method in ("fork", "spawn", "forkserver")), digest(1, "fork")]
    count("B3", sum(one == found[0] for one in found), len(found), "same samples by 0, 1 and 2 workers, 3 starts")


DDP = ["--trainer.accelerator", "cpu", "--trainer.devices", 2, "--trainer.strategy", "ddp"]


def run_processes(folder, *args, **options):
    command = [sys.executable, *options.pop("program", ["-m", "flexunet_pl"]), *map(str, args)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True, **options)  # fmt: skip


def test_b4_two_processes_score_like_one(zygote, place, phantoms, trained, count):
    held, sizes = 0, (1, 2, 3, 5)
    images = sorted((phantoms / "train" / "images").iterdir())
    for size in sizes:
        folder = place(f"of_{size}")
        for image in images[:size]:
            for kind in ("images", "masks"):
                (folder / "d" / "test" / kind).mkdir(parents=True, exist_ok=True)
                shutil.copy(image.parents[1] / kind / image.name, folder / "d" / "test" / kind)
        test = ["test", "--ckpt_path", trained / "checkpoints" / "best.ckpt", "--data.root", "d",
                "--data.num_workers", 0, "--trainer.logger.name"]  # fmt: skip
        zygote.run(*test, "one", cwd=folder)
        process = run_processes(folder, *test, "two", *DDP)
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
        one, two = (folder / "runs" / name / "version_0" for name in ("one", "two"))
        losses = [json.loads((run / "test_scores.json").read_text())["loss"] for run in (one, two)]
        tables = [list(csv.reader((run / "per_case.csv").read_text().splitlines())) for run in (one, two)]
        held += tables[0] == tables[1] and abs(losses[0] / losses[1] - 1) <= 1e-6
    count(
        "B4",
        held,
        len(sizes),
        "test of 1, 2, 3 and 5 images by 2 processes and by 1: pixel counts equal",
    )


FAILING = """
import os, signal, sys
from flexunet_pl.cli.main import main
from flexunet_pl.task import SegmentationTask
stepping = SegmentationTask.training_step
def step(self, batch, i):
    if self.global_rank == int(os.environ["RANK_THAT"]) and self.global_step == 3:
        open("acted", "w").close()
        {act}
    return stepping(self, batch, i)
SegmentationTask.training_step = step
sys.exit(main())
"""


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("act", ["os.kill(os.getpid(), 9)", "raise RuntimeError('lost')", "os.kill(os.getpid(), 15)"])
def test_b5_when_one_process_is_gone_all_are(place, count, act, rank):
    folder = place("run")
    (folder / "driver.py").write_text(FAILING.format(act=act))
    args = ["fit", "-c", "c.yaml", "--data.batch_size", 1, *DDP]
    environment = {**os.environ, "RANK_THAT": str(rank)}
    process = run_processes(folder, *args, program=["driver.py"], env=environment)
    try:
        _, said = process.communicate(timeout=150)
        seconds = time.time() - (folder / "acted").stat().st_mtime
        lines = [line for line in said.splitlines() if line.startswith("flexunet: ")]
        held = process.returncode != 0 and not session(process.pid) and seconds <= 30 and bool(lines)
    except subprocess.TimeoutExpired:
        held = False
    finally:
        subprocess.run(["/usr/bin/env", "pkill", "-9", "-s", str(process.pid)], check=False)
        process.communicate()
    count("B5", int(held), 1, f"process {rank} of 2: {act}: all are gone within 30 s, exit status not 0")


def test_b6_every_engine_gives_the_same_masks_of_fifty_images(lively, tmp_path, count):
    from flexunet_pl.export.onnx_file import read_source, write_onnx
    from flexunet_pl.export.parity import prove_parity
    from flexunet_pl.interop.keras.weights import build_keras_model

    source = read_source(lively)
    write_onnx(source, tmp_path / "m.onnx", probabilities=True)
    noise = np.random.default_rng(137)
    images = [noise.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(50)]
    rows = prove_parity(source, tmp_path / "m.onnx", images)
    for row in rows[1:]:
        count("B6", int(row.pixels_differ <= 1e-4 and row.probability_difference <= 1e-4), 1,
              f"{row.engine} against torch on 50 images: masks and probabilities to 1e-4")  # fmt: skip
    twin = build_keras_model(source.network, (32, 32))
    with torch.inference_mode():
        keras = np.asarray(twin(np.stack(images).astype(np.float32)))
        ours = source.network(torch.tensor(np.stack(images)).permute(0, 3, 1, 2)).softmax(dim=1).permute(0, 2, 3, 1)
    same = np.abs(keras - ours.numpy()).max() <= 1e-4 and np.mean(keras.argmax(-1) != ours.argmax(-1).numpy()) <= 1e-4
    count("B6", int(same), 1, "Keras twin against torch on 50 images: masks and probabilities to 1e-4")
