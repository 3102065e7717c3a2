"""What the fault programme shares: processes that can be killed, and counts for the page."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import TINY

RUN = "runs/flexunet/version_0"
LAST = f"{RUN}/checkpoints/last.ckpt"


class Job:
    """A command line in a process of its own."""

    def __init__(self, zygote, pid, log):
        self.zygote, self.pid, self.log = zygote, pid, log

    def wait(self):
        """The exit status; that of a signal is negative."""
        return self.zygote.ask(str(self.pid))

    def kill(self, signum=signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    def is_running(self):
        state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"

    @property
    def said(self):
        """Its lines of standard error."""
        return Path(self.log + ".err").read_text(errors="replace")

    @property
    def verdict(self):
        """The lines that it ended with, of which there must be one, and no trace."""
        text = self.said
        lines = [line for line in text.splitlines() if line.startswith("flexunet: ")]
        assert "Traceback" not in text, text[-3000:]
        assert len(lines) == 1, text[-3000:]
        return lines[0]


class Zygote:
    """See `zygote.py`."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, *args, cwd, before="", env=None):
        self.count += 1
        log = str(self.folder / f"log_{self.count}")
        job = {"args": [str(a) for a in args], "cwd": str(cwd), "before": before, "env": env or {}, "log": log}
        return Job(self, self.ask(json.dumps(job)), log)

    def run(self, *args, cwd, before="", env=None, status=0):
        job = self.start(*args, cwd=cwd, before=before, env=env)
        ended = job.wait()
        assert ended == status, f"{ended}: {job.said[-3000:]}"
        return job


@pytest.fixture(scope="session")
def zygote(tmp_path_factory):
    made = Zygote(tmp_path_factory.mktemp("zygote"))
    yield made
    made.process.stdin.close()
    made.process.wait()


@pytest.fixture
def place(tmp_path, phantoms):
    """Makes working folders with the tiny configuration."""

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        config = {**TINY, "data": {**TINY["data"], "root": str(phantoms)}}
        (folder / "c.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return folder

    return make


def session(pid):
    """Processes of a session that are left, but for those that wait to be collected."""
    left = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = stat.read_text().rpartition(")")[2].split()
            if int(words[3]) == pid and words[0] != "Z":
                left.append(int(stat.parent.name))
    return left


def weights(path):
    state = torch.load(path, weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if torch.is_tensor(value)}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
