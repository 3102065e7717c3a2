"""Table A of the fault programme: kills, full disks, lost workers, and two runs in one folder."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flexunet_pl.checkpoint import AtomicCheckpointIO, read_checkpoint
from flexunet_pl.io.images import write_image
from flexunet_pl.prepare.phantom import write_phantom
from tests.reliability.conftest import LAST, RUN, equal, session, wait_until, weights

pytestmark = pytest.mark.reliability

FIT = ["fit", "-c", "c.yaml", "--trainer.max_epochs", 4, "--trainer.logger.name"]  # 6 steps an epoch
# a signal to itself in a step of training or validation, while a checkpoint is written, or where workers start
SIGNALLED = """
import os, signal
from flexunet_pl import checkpoint, task
counts = {{}}
def at(name, owner, method):
    original = getattr(owner, method)
    def wrapped(*args, **kwargs):
        counts[name] = counts.get(name, -1) + 1
        if name == {phase!r} and counts[name] in {steps!r}:
            os.kill(os.getpid(), {signum})
        return original(*args, **kwargs)
    setattr(owner, method, wrapped)
at("step", task.SegmentationTask, "training_step")
at("validation", task.SegmentationTask, "validation_step")
at("save", checkpoint.torch, "save")
from torch.utils.data import dataloader
at("workers", dataloader._MultiProcessingDataLoaderIter, "__init__")
"""


def signalled(phase, step, signum):
    return SIGNALLED.format(phase=phase, steps={step}, signum=int(signum))


@pytest.fixture
def whole(zygote, place):
    """The weights of a run that nothing interrupted."""
    folder = place("whole")
    zygote.run(*FIT, "flexunet", cwd=folder)
    return weights(folder / LAST)


def test_a1_a_killed_run_that_is_resumed_ends_like_the_uninterrupted_one(zygote, place, whole, count):
    held = 0
    steps = [("step", step) for step in range(6, 22)] + [("validation", 4), ("validation", 7), ("save", 3), ("save", 5)]
    for i, (phase, step) in enumerate(steps):
        folder = place(f"run_{i}")
        zygote.run(*FIT, "flexunet", cwd=folder, before=signalled(phase, step, signal.SIGKILL), status=-9)
        zygote.run(*FIT, "flexunet", "--ckpt_path", "last", cwd=folder)
        held += equal(whole, weights(folder / LAST)) and not list((folder / RUN).rglob("*.tmp"))
    count("A1", held, len(steps), "killed in a step, in validation or while saving, resumed: weights bit-equal")


@pytest.mark.parametrize("temporary", ["same", "/dev/shm"])  # noqa: S108
def test_a2_kills_while_a_checkpoint_is_written(tmp_path, count, temporary):
    if temporary != "same" and not Path(temporary).is_dir():
        pytest.skip(f"{temporary} is not there")
    path, repetitions, whole, clean = tmp_path / "a.ckpt", 100, 0, 0
    environment = {**os.environ, "TMPDIR": str(tmp_path) if temporary == "same" else temporary}
    moments = random.Random(137)
    code = (
        "import os, sys\nfrom flexunet_pl.checkpoint import AtomicCheckpointIO\nimport torch\n"
        "while line := sys.stdin.readline():\n"
        "    if (pid := os.fork()) == 0:\n"
        "        torch.set_num_threads(1)\n"
        "        state = {'state_dict': {'w': torch.zeros(5_000_000)}}\n"
        "        while True:\n"
        "            state['state_dict']['w'] += 1\n"
        f"            AtomicCheckpointIO().save_checkpoint(state, {str(path)!r})\n"
        "    print(pid, flush=True)\n"
        "    sys.stdin.readline(); os.kill(pid, 9); os.waitpid(pid, 0); print('gone', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:

        def say(word):
            parent.stdin.write(word + "\n")
            parent.stdin.flush()
            return parent.stdout.readline()

        for _ in range(repetitions):
            say("start")
            wait_until(path.exists)
            time.sleep(moments.uniform(0.02, 0.4))
            say("kill")
            with contextlib.suppress(Exception):
                state = read_checkpoint(path)["state_dict"].get("w")  # none yet: still the one before
                whole += state is None or bool((state == state[0]).all())
            AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, path)
            clean += sorted(p.name for p in tmp_path.iterdir() if "a.ckpt" in p.name) == ["a.ckpt", "a.ckpt.sha256"]
        parent.stdin.close()
    count("A2", whole, repetitions, f"kills while saving, TMPDIR on {temporary}: a whole checkpoint is left")
    count("A2", clean, repetitions, f"kills while saving, TMPDIR on {temporary}: the next start leaves no other file")


FULL = """
import resource
from flexunet_pl import checkpoint
saving = checkpoint.AtomicCheckpointIO.save_checkpoint
calls = []
def save(self, *args, **kwargs):
    calls.append(1)
    if len(calls) == {call}:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    return saving(self, *args, **kwargs)
checkpoint.AtomicCheckpointIO.save_checkpoint = save
"""


def test_a3_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(zygote, place, count):
    held = 0
    for i, call in enumerate((3, 4, 5, 6, 7, 8)):
        folder = place(f"run_{i}")
        job = zygote.run(*FIT, "flexunet", cwd=folder, before=FULL.format(call=call), status=3)
        held += (
            "version_0" in job.verdict
            and "MB are free" in job.verdict
            and bool(read_checkpoint(folder / LAST)["state_dict"])
            and not list((folder / RUN).rglob("*.tmp"))
        )
    count("A3", held, 6, "a file that cannot grow while saving: one line, exit 3, previous checkpoint whole, no rest")


def test_a3_a_small_file_system(zygote, place, count, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["/usr/bin/env", "mount", "-t", "tmpfs", "-o", "size=360k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root mounts a small file system")
    try:
        folder = place("run")
        job = zygote.run(*FIT, "flexunet", "--trainer.logger.save_dir", disk, cwd=folder, status=3)
        left = sorted(disk.rglob("*.ckpt"))
        held = "MB are free" in job.verdict and all(read_checkpoint(p) for p in left) and not list(disk.rglob("*.tmp"))
        count("A3", int(held), 1, "a file system of 0.36 MB runs full in training: one line, exit 3, no broken file")
    finally:
        subprocess.run(["/usr/bin/env", "umount", str(disk)], check=True)


@pytest.mark.parametrize("phase", ["step", "validation", "save", "workers"])
def test_a4_sigterm_saves_and_the_run_goes_on(zygote, place, whole, count, phase):
    held = 0
    for i in range(20):
        folder = place(f"run_{i}")
        step = {"step": i, "validation": i % 8, "save": i % 6, "workers": i % 2}[phase]
        workers = ["--data.num_workers", 1 if phase == "workers" else 0]
        job = zygote.start(*FIT, "flexunet", *workers, cwd=folder, before=signalled(phase, step, signal.SIGTERM))
        status, said = job.wait(), job.said
        zygote.run(*FIT, "flexunet", *workers, "--ckpt_path", "last", cwd=folder)
        told = "stopped by SIGTERM: " in said
        ended = weights(max(folder.glob("runs/flexunet/version_*")) / "checkpoints" / "last.ckpt")
        held += status == 143 and told and "Traceback" not in said and equal(whole, ended)
    count("A4", held, 20, f"SIGTERM ({phase}): exit 143, saved, resumed bit-equal")


def test_a5_sigint_once_and_twice(zygote, place, count):
    held = 0
    for i in range(10):
        folder = place(f"run_{i}")
        before = SIGNALLED.format(phase="step", steps={8 + i} if i < 5 else {8 + i, 9 + i}, signum=int(signal.SIGINT))
        job = zygote.start(*FIT, "flexunet", cwd=folder, before=before)
        held += job.wait() == 130 and "Traceback" not in job.said and bool(read_checkpoint(folder / LAST))
    count("A5", held, 10, "SIGINT once or twice: exit 130, checkpoint whole")


LOST = """
import os, signal
from flexunet_pl.data import dataset
reading = dataset.SegmentationDataset.__getitem__
def read(self, key):
    if key.epoch == 1 and os.getppid() != {zygote}:
        {act}
    return reading(self, key)
dataset.SegmentationDataset.__getitem__ = read
"""


@pytest.mark.parametrize("act", ["os.kill(os.getpid(), 9)", "raise MemoryError('no memory')", "bytearray(1 << 50)"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a7_a8_a_lost_worker_ends_the_run(zygote, place, count, act, workers):
    folder = place("run")
    before = LOST.format(zygote=zygote.process.pid, act=act)
    began = time.monotonic()
    job = zygote.start(*FIT, "flexunet", "--data.num_workers", workers, cwd=folder, before=before)
    status, seconds = job.wait(), time.monotonic() - began
    time.sleep(1)
    held = status == 3 and seconds < 30 and bool(read_checkpoint(folder / LAST)) and not session(job.pid)
    count("A7" if "kill" in act else "A8", int(held and "num_workers" in job.verdict), 1,
          f"{act} in one of {workers} workers: exit 3 within 30 s, no process left, checkpoint whole")  # fmt: skip


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a7_workers_end_with_the_process_that_is_killed(zygote, place, count, method):
    held = 0
    for i, step in enumerate((2, 7, 12)):
        folder = place(f"run_{i}")
        workers = ["--data.num_workers", 2, "--data.start_method", method]
        job = zygote.start(*FIT, "flexunet", *workers, cwd=folder, before=signalled("step", step, signal.SIGKILL))
        held += job.wait() == -9 and gone(job.pid)
    count("A7", held, 3, f"kill -9 of a run with 2 workers by {method}: no process left after 8 s")


def test_a7_workers_of_a_pool_end_with_the_process_that_is_killed(zygote, tmp_path, count):
    root = tmp_path / "data"
    write_phantom(root, patients=20, slices=16, size=64, seed=137)  # more than are checked in one process
    held = 0
    for i in range(3):
        job = zygote.start("check", root, "--workers", 2, cwd=tmp_path)
        wait_until(lambda: len(session(job.pid)) > 2)  # noqa: B023
        time.sleep(0.2 * i)
        job.kill()
        held += job.wait() == -9 and gone(job.pid)
    count("A7", held, 3, "kill -9 of a check with 2 workers: no process left after 8 s")


def gone(pid):
    end = time.monotonic() + 8  # workers that are forked look every 5 seconds
    while session(pid) and time.monotonic() < end:
        time.sleep(0.1)
    return not session(pid)


def test_a9_the_disk_sees_the_file_before_its_name_in_every_save(tmp_path, count, monkeypatch):
    calls, held = [], 0
    syncing, replacing = os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append(str(Path(f"/proc/self/fd/{fd}").readlink())), syncing(fd))[1]
    )
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append(f"-> {to}"), replacing(self, to))[1])
    for i in range(20):
        calls.clear()
        path = tmp_path / f"{i % 3}.ckpt"
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, path)
        moved = calls.index(f"-> {path}")
        held += any(f".{path.name}." in call for call in calls[:moved]) and calls[-1] == str(tmp_path)
    count("A9", held, 20, "order of a save: fsync of the file, replace, fsync of the folder")


def test_a10_a11_an_output_that_cannot_be_is_refused_before_any_work(zygote, place, phantoms, trained, count):
    folder = place("run")
    (folder / "file").write_text("mine")
    tree = {p: p.read_bytes() for p in phantoms.rglob("*") if p.is_file()}
    best = trained / "checkpoints" / "best.ckpt"
    images = phantoms / "test" / "images"
    predict = ["predict", "--ckpt_path", best, "--data.num_workers", 0, "--data.predict_dir", images]
    cases = {
        "A10": [
            [*FIT, "flexunet", "--trainer.logger.save_dir", "file"],
            [*FIT, "flexunet", "--trainer.logger.save_dir", "file/deeper/still"],
            [*FIT, "flexunet", "--trainer.logger.save_dir", "/proc/nothing"],
            [*predict, "--prediction.output_dir", "file"],
            [*predict, "--prediction.output_dir", "file/deeper"],
            ["export", best, "--output", "file/model.onnx"],
            ["export", best, "--output", "/proc/model.onnx"],
            ["split", phantoms / "train", "file"],
            ["augment", phantoms, "file"],
            ["phantom", "file"],
            ["report", trained, "--out", "file/x.html"],
        ],
        "A11": [
            [*FIT, "flexunet", "--trainer.logger.save_dir", phantoms / "train"],
            [*FIT, "flexunet", "--trainer.logger.save_dir", phantoms / "valid" / "masks"],
            [*predict, "--prediction.output_dir", images],
            [*predict, "--prediction.output_dir", images / "masks"],
        ],
    }
    for case, commands in cases.items():
        held = 0
        for command in commands:
            began = time.monotonic()
            job = zygote.start(*command, cwd=folder)
            status, seconds = job.wait(), time.monotonic() - began
            good = status == 2 and bool(job.verdict) and seconds < 8 and "Epoch" not in job.said
            if not good:
                sys.stdout.write(f"{command}: {status} after {seconds:.1f} s\n{job.said[-800:]}\n")
            held += good
        same = tree == {p: p.read_bytes() for p in phantoms.rglob("*") if p.is_file()}
        assert (folder / "file").read_text() == "mine"
        count(case, held if same else 0, len(commands), "an output that cannot be: one line, exit 2, before any work")


def test_a12_two_runs_in_one_folder(zygote, place, count):
    reference = place("reference")
    once = ["fit", "-c", "c.yaml", "--trainer.max_epochs", 1, "--trainer.logger.version", 0]
    zygote.run(*once, cwd=reference)
    expected, held = weights(reference / LAST), 0
    waiting = (
        "import time\nfrom flexunet_pl.task import SegmentationTask as T\nstepping = T.training_step\n"
        "def step(*args):\n    time.sleep(0.1)\n    return stepping(*args)\nT.training_step = step\n"
    )
    for i in range(50):
        folder = place(f"run_{i}")
        jobs = [zygote.start(*once, cwd=folder, before=waiting) for _ in range(2)]
        statuses = sorted(job.wait() for job in jobs)
        said = " ".join(job.said for job in jobs)
        held += (
            statuses == [0, 2] and ("in use by process" in said or "of another run" in said)
            and equal(expected, weights(folder / LAST))
        )  # fmt: skip
    count("A12", held, 50, "two runs started at once in one folder: one is refused, the other ends as if alone")


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_a13_numbers_that_are_not_finite_end_the_run(zygote, place, count, what):
    act = {
        "loss": "return stepping(self, batch, i) * float('nan')",
        "weights": "next(self.network.parameters()).data.fill_(float('inf')); return stepping(self, batch, i)",
    }[what]
    held = 0
    for i in range(10):
        folder = place(f"run_{i}")
        before = (
            "from flexunet_pl import task\nstepping = task.SegmentationTask.training_step\n"
            f"def step(self, batch, i):\n    if self.global_step == {8 + i}:\n        {act}\n"
            "    return stepping(self, batch, i)\ntask.SegmentationTask.training_step = step\n"
        )
        job = zygote.run(*FIT, "flexunet", cwd=folder, before=before, status=3)
        finite = all(bool(w.isfinite().all()) for w in weights(folder / LAST).values())
        held += f"step {8 + i}" in job.verdict and "learning rate" in job.verdict and finite
    count(
        "A13", held, 10, f"{what} not finite at a step: one line with step, rate and images, exit 3, checkpoint finite"
    )


def test_a14_numbers_too_large_for_16_bits_are_not_exported(zygote, place, count, lively):
    import torch

    folder, held = place("run"), 0
    state = torch.load(lively, weights_only=True)
    for layer in ("encoder.0.layers.0", "encoder.1.layers.0", "head"):
        spoilt = {**state, "state_dict": dict(state["state_dict"])}
        spoilt["state_dict"][f"network.{layer}.weight"] = state["state_dict"][f"network.{layer}.weight"] * 1e6
        torch.save(spoilt, folder / "large.ckpt")
        export = ["export", "large.ckpt", "--output", "half.onnx", "--precision", "fp16", "--overwrite"]
        job = zygote.run(*export, cwd=folder, status=3)
        held += "float16" in job.verdict and not (folder / "half.onnx").exists()
    count("A14", held, 3, "weights times 1e6 exported as fp16: refused, exit 3, no file")


def test_a15_kills_in_export_and_prediction(zygote, place, phantoms, trained, count):
    moments = random.Random(137)
    best = trained / "checkpoints" / "best.ckpt"
    reference = place("reference")
    export = ["export", best, "--output", "model.onnx"]
    began = time.monotonic()
    zygote.run(*export, cwd=reference)
    seconds, held = time.monotonic() - began, 0
    for i in range(20):
        folder = place(f"export_{i}")
        job = zygote.start(*export, cwd=folder)
        time.sleep(moments.uniform(0.2, 1.1) * seconds)
        job.kill()
        job.wait()
        whole = (reference / "model.onnx").read_bytes()
        held += not (folder / "model.onnx").exists() or len((folder / "model.onnx").read_bytes()) == len(whole)
    count("A15", held, 20, "kill in an export: no file, or a whole one")
    images = reference / "images"
    images.mkdir()
    for i in range(60):
        write_image(images / f"{i}.png", np.random.default_rng(i).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    predict = ["predict", "--ckpt_path", best, "--data.num_workers", 0, "--data.predict_dir", images,
               "--prediction.output_dir", "masks"]  # fmt: skip
    zygote.run(*predict, cwd=reference)
    expected = {p.name: p.read_bytes() for p in (reference / "masks").glob("*.png")}
    held = 0
    for i in range(30):
        folder = place(f"predict_{i}")
        job = zygote.start(*predict, cwd=folder)
        wait_until(lambda: list((folder / "masks").glob("*.png")) or not job.is_running())  # noqa: B023
        time.sleep(moments.uniform(0, 0.3))
        job.kill()
        job.wait()
        partial = {p.name: p.read_bytes() for p in (folder / "masks").glob("[0-9]*.png")}
        zygote.run(*predict, cwd=folder)
        after = {p.name: p.read_bytes() for p in (folder / "masks").glob("*.png")}
        held += all(expected[name] == content for name, content in partial.items()) and after == expected
    count("A15", held, 30, "kill in a prediction: every mask whole, the next run does the rest, nothing else is left")


def test_a16_a_temporary_folder_that_is_not_there_or_full_is_not_needed(
    zygote, place, phantoms, trained, count, tmp_path
):
    best = trained / "checkpoints" / "best.ckpt"
    images = phantoms / "test" / "images"
    held = 0
    commands = [
        [*FIT, "flexunet", "--data.num_workers", 1],
        ["test", "--ckpt_path", best, "--data.root", phantoms, "--data.num_workers", 0],
        ["predict", "--ckpt_path", best, "--data.predict_dir", images, "--prediction.output_dir", "masks"],
        ["export", best, "--output", "model.onnx"],
        ["export", best, "--output", "model.h5"],
        ["import-keras", "model.h5", "--output", "again.ckpt"],
    ]
    folder = place("run")
    for command in commands:
        job = zygote.start(*command, cwd=folder, env={"TMPDIR": str(tmp_path / "nowhere")},
                           before="import tempfile; tempfile.tempdir = None")  # fmt: skip
        status = job.wait()
        held += status == 0
        if status:
            sys.stdout.write(f"{command}: {status}\n{job.said[-1500:]}\n")
    count("A16", held, len(commands), "TMPDIR that does not exist: every command passes")
