import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from flexunet_pl.checkpoint import AtomicCheckpointIO, read_checkpoint
from flexunet_pl.common.errors import ModelFileError

STATE = {"state_dict": {"w": torch.arange(5.0)}, "hyper_parameters": {"a": [1, "b", None]}}


def save(path, state=STATE):
    AtomicCheckpointIO().save_checkpoint(state, path)
    return path


def test_what_is_saved_is_read(tmp_path):
    read = read_checkpoint(save(tmp_path / "deep" / "a.ckpt"))
    assert torch.equal(read["state_dict"]["w"], STATE["state_dict"]["w"])
    assert read["hyper_parameters"] == STATE["hyper_parameters"]
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["a.ckpt", "a.ckpt.sha256"]


def test_the_sidecar_is_that_of_sha256sum(tmp_path):
    path = save(save(tmp_path / "a.ckpt"), {**STATE, "epoch": 1})
    done = subprocess.run(
        ["/usr/bin/env", "sha256sum", "-c", "a.ckpt.sha256"], cwd=path.parent, capture_output=True, check=False
    )
    assert done.stdout == b"a.ckpt: OK\n"


@pytest.mark.case("G2")
@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
def test_one_flipped_bit_is_noticed(tmp_path, at):
    path = save(tmp_path / "a.ckpt", {"state_dict": {"w": torch.zeros(1000)}})
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"a\.ckpt: damaged, its SHA-256"):
        read_checkpoint(path)


@pytest.mark.case("G2")
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04junk", b"text"])
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"a\.ckpt: is no checkpoint") as caught:
        read_checkpoint(path)
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ModelFileError, match="local files only"):
        read_checkpoint("https://example.org/a.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ModelFileError, match="no state_dict"):
        read_checkpoint(tmp_path / "list.ckpt")


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.mark.case("G1")
@pytest.mark.parametrize("where", ["state_dict", "hyper_parameters", "optimizer_states"])
def test_code_in_a_checkpoint_is_never_run(tmp_path, where):
    canary = tmp_path / "canary"
    torch.save({**STATE, where: Canary(canary)}, tmp_path / "a.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Canary(canary)))
    for name, what in (("a.ckpt", f"holds Python's `{os.name}.system`"), ("raw.ckpt", "or holds Python objects")):
        with pytest.raises(ModelFileError, match=rf"{name}: .*{what}; objects are never loaded, and nothing was run"):
            read_checkpoint(tmp_path / name)
    assert not canary.exists()


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = save(tmp_path / "a.ckpt")
    with pytest.raises(AttributeError, match="pickle"):
        save(path, {"state_dict": lambda: None})
    assert read_checkpoint(path)["hyper_parameters"] == STATE["hyper_parameters"]
    assert len(list(tmp_path.iterdir())) == 2


def test_the_disk_sees_the_file_before_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync",):
        original = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda fd, f=original: (calls.append(str(Path(f"/proc/self/fd/{fd}").readlink())), f(fd))[1]
        )
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append(f"-> {to.name}"), replace(self, to))[1])
    save(tmp_path / "a.ckpt")
    names = [Path(c).name.split(".ckpt")[0] + ".ckpt" if "tmp" in Path(c).name else Path(c).name for c in calls]
    data, moved = next(i for i, n in enumerate(names) if n == ".a.ckpt"), calls.index("-> a.ckpt")
    assert data < moved
    assert calls[-1] == str(tmp_path)


LOOP = """
import sys, torch
from flexunet_pl.checkpoint import AtomicCheckpointIO
state = {"state_dict": {"w": torch.zeros(2_000_000)}}
print("ready", flush=True)
while True:
    state["state_dict"]["w"] += 1
    AtomicCheckpointIO().save_checkpoint(state, sys.argv[1])
"""


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint_and_the_next_write_cleans_up(tmp_path):
    path = save(tmp_path / "a.ckpt", {"state_dict": {"w": torch.zeros(2)}})
    child = subprocess.Popen([sys.executable, "-c", LOOP, str(path)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    for _ in range(12):  # as if killed: stopped, looked at, let go on
        time.sleep(0.03)
        child.send_signal(signal.SIGSTOP)
        weights = read_checkpoint(path)["state_dict"]["w"]
        assert (weights == weights[0]).all()
        child.send_signal(signal.SIGCONT)
    child.kill()
    child.communicate()
    read_checkpoint(path)
    save(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ckpt", "a.ckpt.sha256"]


def test_kills_between_the_two_moves_leave_the_old_file_readable(tmp_path, monkeypatch):
    path = save(tmp_path / "a.ckpt")
    replace = Path.replace

    def killed(self, target):
        if target == path:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        for epoch in range(3):
            with pytest.raises(KeyboardInterrupt):
                save(path, {**STATE, "epoch": epoch})
            assert "epoch" not in read_checkpoint(path)
    save(path, {**STATE, "epoch": 9})
    assert read_checkpoint(path)["epoch"] == 9


@pytest.mark.parametrize("change", [{"state_dict": [1]}, {"callbacks": 5}, {"hyper_parameters": []}])
def test_a_checkpoint_of_another_shape_is_refused(tmp_path, change):
    with pytest.raises(ModelFileError, match="is no checkpoint of flexunet"):
        read_checkpoint(save(tmp_path / "a.ckpt", {**STATE, **change}))


def test_removing_a_checkpoint_removes_its_sidecar(tmp_path):
    files = AtomicCheckpointIO()
    files.save_checkpoint({"state_dict": {}}, tmp_path / "a.ckpt")
    files.remove_checkpoint(tmp_path / "a.ckpt")
    assert not list(tmp_path.iterdir())


def test_a_run_removes_no_file_that_it_has_not_saved(tmp_path):
    """A resumed run is told by its checkpoint what to remove, and that may be a stranger's."""
    files = AtomicCheckpointIO()
    files.save_checkpoint({"state_dict": {}}, tmp_path / "run" / "a.ckpt")
    (tmp_path / "mine.ckpt").write_text("mine")
    (tmp_path / "run" / "mine.ckpt").write_text("mine")
    for name in ("mine.ckpt", "run/mine.ckpt", "run/../mine.ckpt"):
        files.remove_checkpoint(tmp_path / name)
    assert (tmp_path / "mine.ckpt").read_text() == (tmp_path / "run" / "mine.ckpt").read_text() == "mine"


def test_classes_that_a_package_lets_torch_build_are_not_built(tmp_path):
    torch.serialization.add_safe_globals([Built])
    try:
        torch.save({"state_dict": {}, "x": Built()}, tmp_path / "a.ckpt")
        with pytest.raises(ModelFileError, match="objects are never loaded"):
            read_checkpoint(tmp_path / "a.ckpt")
        assert Built in torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()
    assert Built.count == 1


class Built:
    count = 0

    def __init__(self):
        Built.count += 1

    def __reduce__(self):
        return (Built, ())


def test_what_stands_in_many_places_is_looked_at_once(tmp_path):
    nested = [1]
    for _ in range(40):
        nested = [nested, nested]
    assert read_checkpoint(save(tmp_path / "a.ckpt", {"state_dict": {}, "x": nested}))["state_dict"] == {}
