"""The deployment kit among strangers: what replaces nothing, names what is wrong in one line, and goes on."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor, make_tensor_value_info
from PIL import Image

from flexunet_runtime import cli
from flexunet_runtime.images import read_image
from tests.export.conftest import noise
from tests.export.test_metadata import CASES

FACTS = CASES[0]["text"]  # two classes


def write_model(path, *, text=FACTS, names=("image", "mask"), kind=TensorProto.UINT8, rank=3, extra=(), add=0):
    """A model whose mask says where the first channel is bright; or another one."""
    one = make_tensor("half", TensorProto.UINT8, [], [127])
    nodes = [
        *extra,
        make_node("Constant", [], ["zero"], value=make_tensor("z", TensorProto.INT64, [], [0])),
        make_node("Gather", [names[0], "zero"], ["red"], axis=3),
        make_node("Greater", ["red", "half"], ["bright"]),
        make_node("Cast", ["bright"], ["cast"], to=TensorProto.UINT8),
        make_node("Constant", [], ["more"], value=make_tensor("m", TensorProto.UINT8, [], [add])),
        make_node("Add", ["cast", "more"], ["sum"]),
        make_node("Cast", ["sum"], ["kind"], to=kind),
        make_node("Constant", [], ["axis"], value=make_tensor("a", TensorProto.INT64, [1], [1])),
        make_node("Unsqueeze", ["kind", "axis"], [names[1]])
        if rank == 4
        else make_node("Identity", ["kind"], [names[1]]),
    ]
    graph = make_graph(
        nodes, "g", [make_tensor_value_info(names[0], TensorProto.UINT8, ["n", "h", "w", 3])],
        [make_tensor_value_info(names[1], kind, [None] * rank)], [one],
    )  # fmt: skip
    model = make_model(graph, opset_imports=[make_opsetid("", 20)], ir_version=10)
    if text is not None:
        onnx.helper.set_model_props(model, {"flexunet": text})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def kit(tmp_path, monkeypatch, capsys):
    """Runs the command line; gives what it says, and looks that it is one line per thing and never a trace."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "m.onnx")
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(noise(9, 11, 3)).save(tmp_path / "in" / name)

    def run(*args, status=0):
        monkeypatch.setattr(sys, "argv", ["flexunet_runtime", *map(str, args)])
        capsys.readouterr()
        got = cli.main()
        said = capsys.readouterr().err
        assert got == status, said
        assert "Traceback" not in said
        assert all(line.isprintable() for line in said.splitlines())
        return said

    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and not path.is_symlink()}


@pytest.mark.case("H2")
@pytest.mark.parametrize(
    ("images", "out"),
    [("in", "in"), ("in", "in/"), ("in", "in/../in"), ("in/a.png", "in"), ("in", "link"), ("link", "in"), (".", ".")],
)
def test_masks_never_replace_images(kit, tmp_path, images, out):
    (tmp_path / "link").symlink_to("in")
    Image.fromarray(noise(9, 9, 3)).save(tmp_path / "c.png")
    before = contents(tmp_path / "in"), contents(tmp_path)
    assert "holds the images, which the masks would replace" in kit("m.onnx", images, out, status=2)
    assert "holds the images" in kit("m.onnx", images, out, "--overwrite", status=2)
    assert (contents(tmp_path / "in"), contents(tmp_path)) == before


@pytest.mark.case("H2")
@pytest.mark.parametrize("twin", ["a.jpg", "a.tif", "A.bmp", "a.dcm"])
def test_two_masks_never_have_one_name(kit, tmp_path, twin):
    (tmp_path / "in" / twin).write_bytes(b"x")
    assert "its mask would have the name of that of" in kit("m.onnx", "in", "out", status=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.case("H2")
def test_files_of_others_stay(kit, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    (tmp_path / "out" / "notes.txt").write_bytes(b"mine too")
    before = contents(tmp_path / "out")
    assert "is not empty; name another folder or give --overwrite" in kit("m.onnx", "in", "out", status=2)
    assert contents(tmp_path / "out") == before
    kit("m.onnx", "in", "out", "--overwrite")
    assert (tmp_path / "out" / "notes.txt").read_bytes() == b"mine too"


@pytest.mark.case("H2")
def test_a_second_run_goes_on(kit, tmp_path):
    assert "2 masks written to out" in kit("m.onnx", "in", "out")
    before = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    Image.fromarray(noise(20, 20, 3)).save(tmp_path / "in" / "b.png")
    Image.fromarray(noise(20, 20, 3)).save(tmp_path / "in" / "c.png")
    assert "2 masks written to out, 1 were there already" in kit("m.onnx", "in", "out")
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == before
    assert read_image(tmp_path / "out" / "b.png").shape == (20, 20, 3)
    write_model(tmp_path / "m.onnx", text=FACTS + " ")
    assert "holds masks made with another model_sha256" in kit("m.onnx", "in", "out", status=2)


ODD = {
    "pipe": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "socket of a link to itself": lambda path: path.symlink_to(path.name),
    "empty": lambda path: path.write_bytes(b""),
    "page": lambda path: path.write_bytes(b"<html>"),
}


@pytest.mark.case("H2")
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_image_is_named_and_the_rest_goes_on(kit, tmp_path, kind):
    ODD[kind](tmp_path / "in" / "z.png")
    (tmp_path / "in" / "folder.png").mkdir()
    said = kit("m.onnx", "in", "out", status=1)
    assert said.count("failed: in/z.png: ") == 1
    assert "2 masks written" in said


@pytest.mark.case("H2")
@pytest.mark.parametrize("name", ["a\nb.png", "\x1b[2J.png", "x\x07.png", "\u2028.png"])
def test_names_of_files_never_reach_the_terminal_raw(kit, tmp_path, name):
    (tmp_path / "in" / name).write_bytes(b"x")
    assert "failed: in/" in kit("m.onnx", "in", "out", status=1)


@pytest.mark.case("H2")
def test_long_names_of_any_script_are_written(kit, tmp_path):
    for name in ("n" * 251, "肺" * 83, "é" * 120):
        Image.fromarray(noise(9, 9, 3)).save(tmp_path / "in" / f"{name}.png")
    assert "5 masks written" in kit("m.onnx", "in", "out")


@pytest.mark.case("H2")
@pytest.mark.parametrize(
    ("out", "reason"), [("m.onnx", "is a file"), ("m.onnx/below", "cannot be made"), ("n" * 300, "too long")]
)
def test_a_place_that_cannot_be_written_to_is_one_line(kit, out, reason):
    said = kit("m.onnx", "in", out, status=2)
    assert reason in said.replace("File name too long", "too long")
    assert len(said.splitlines()) == 1


@pytest.mark.case("H2")
def test_a_full_disk_is_one_line_and_status_3(tmp_path, kit):
    Image.fromarray(noise(900, 900, 3)).save(tmp_path / "in" / "c.png")
    command = f"ulimit -f 20; exec {sys.executable} -m flexunet_runtime m.onnx in out"
    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "out/c.png: File too large" in done.stderr


@pytest.mark.case("H2")
def test_ctrl_c_is_one_line_and_the_next_run_goes_on(tmp_path, kit):
    for i in range(1000):
        shutil.copy(tmp_path / "in" / "a.png", tmp_path / "in" / f"n{i}.png")
    command = [sys.executable, "-m", "flexunet_runtime", "m.onnx", "in", "out"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while len(list(tmp_path.glob("out/*.png"))) < 5:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert said == "flexunet_runtime: interrupted; the same command again goes on\n"
    assert "were there already" in kit("m.onnx", "in", "out")
    assert len(list(tmp_path.glob("out/*.png"))) == 1002


@pytest.mark.case("H4")
@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_threads_that_no_machine_has_are_refused(kit, threads):
    assert f"threads is {threads}; expected 1 to 256" in kit("m.onnx", "in", "out", f"--threads={threads}", status=2)


def loop(_):
    body = make_graph(
        [make_node("Identity", ["keep"], ["again"])], "body",
        [make_tensor_value_info("i", TensorProto.INT64, []), make_tensor_value_info("keep", TensorProto.BOOL, [])],
        [make_tensor_value_info("again", TensorProto.BOOL, [])],
    )  # fmt: skip
    return {"extra": [
        make_node("Constant", [], ["long"], value=make_tensor("l", TensorProto.INT64, [], [1 << 62])),
        make_node("Constant", [], ["yes"], value=make_tensor("y", TensorProto.BOOL, [], [True])),
        make_node("Loop", ["long", "yes"], [], body=body),
    ]}  # fmt: skip


def giant(_):
    return {"extra": [
        make_node("Constant", [], ["size"], value=make_tensor("s", TensorProto.INT64, [2], [10**6, 10**6])),
        make_node("ConstantOfShape", ["size"], ["terabytes"]),
    ]}  # fmt: skip


def facts(**changes):
    import json

    return {"text": json.dumps(json.loads(FACTS) | changes)}


STRANGE = {
    "a loop without end": (loop, "has loops or branches"),
    "a tensor of 10^12 numbers": (giant, "m.onnx: cannot be run"),
    "another input": (lambda _: {"names": ("picture", "mask")}, "has other inputs or outputs"),
    "another output": (lambda _: {"names": ("image", "labels")}, "has other inputs or outputs"),
    "a mask of four dimensions": (lambda _: {"rank": 4}, "gives masks of shape"),
    "a mask of floats": (lambda _: {"kind": TensorProto.FLOAT}, "and type float32, which are none"),
    "a mask of 64 bits": (lambda _: {"kind": TensorProto.INT64}, "and type int64, which are none"),
    "more classes in the network": (lambda _: {"add": 5}, "names 2 classes, and its network has others"),
    "no metadata": (lambda _: {"text": None}, "was not exported by flexunet"),
    "300 classes": (
        lambda _: facts(classes=[[f"c{i}", [0, 0, 0]] for i in range(300)]), "names 300 classes; expected 2 to 256"
    ),
    "a colour of 256": (lambda _: facts(classes=[["a", [0, 0, 0]], ["b", [256, 0, 0]]]), "whose colour is not"),
    "an image size of 0": (lambda _: facts(image_size=[0, 0]), "has an image_size that is no"),
}  # fmt: skip


@pytest.mark.case("H4")
@pytest.mark.parametrize("kind", STRANGE)
def test_a_model_that_is_none_of_ours_is_one_line(kit, tmp_path, kind):
    options, reason = STRANGE[kind]
    write_model(tmp_path / "m.onnx", **options(tmp_path))
    said = kit("m.onnx", "in", "out", status=2)
    assert reason in said
    assert len(said.splitlines()) == 1


@pytest.mark.case("H4")
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "missing", "empty", "text", "cut"])
def test_what_is_no_model_is_one_line(kit, tmp_path, kind):
    whole = (tmp_path / "m.onnx").read_bytes()
    path = tmp_path / "x.onnx"
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "missing": lambda: None,
        "empty": lambda: path.write_bytes(b""),
        "text": lambda: path.write_bytes(b"model" * 100),
        "cut": lambda: path.write_bytes(whole[:200]),
    }[kind]()
    said = kit("x.onnx", "in", "out", status=2)
    assert len(said.splitlines()) == 1
    assert "x.onnx: " in said


@pytest.mark.case("H4")
def test_an_image_of_half_a_million_to_one_is_refused_unpredicted(kit, tmp_path):
    Image.fromarray(np.zeros((1, 500_000), np.uint8)).save(tmp_path / "in" / "long.png")
    assert "over the limit of 32768 a side" in kit("m.onnx", "in", "out", status=1)


def test_an_error_of_ours_is_one_line_and_status_70(kit, monkeypatch):
    def fails(*_, **__):
        raise KeyError("surprise")

    monkeypatch.setattr(cli, "open_model", fails)
    assert "KeyError: 'surprise'; this is an error of the program" in kit("m.onnx", "in", "out", status=70)
