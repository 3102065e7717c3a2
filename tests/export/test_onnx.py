"""ONNX files: the same masks as `flexunet predict`, proven before they are written, in a runtime without torch."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flexunet_pl.cli.main import main
from flexunet_pl.common.errors import RunFailedError
from flexunet_pl.export.graph import _resample
from flexunet_pl.export.onnx_file import read_source, write_onnx
from flexunet_pl.export.parity import Row, check_parity, prove_parity
from flexunet_pl.export.precision import _with_what_follows
from flexunet_pl.io.images import resize_image
from flexunet_pl.models.load import load_model
from flexunet_runtime.onnx_guard import check_one_piece
from tests.export.conftest import RUNTIME, noise


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 99))
def test_the_resize_of_the_graph_is_that_of_the_package_to_the_last_bit(height, width, seed):
    image = noise(height, width, 3, seed=seed)
    lines = torch.from_numpy(image).permute(2, 0, 1).float()
    got = _resample(_resample(lines, width, 48).mT, height, 32).mT
    np.testing.assert_array_equal(got.permute(1, 2, 0).numpy(), resize_image(image, (32, 48)))


def test_masks_are_those_of_predict_whatever_the_size_and_the_kind_of_file(tmp_path, lively, exported, runtime):
    folder = tmp_path / "in"
    folder.mkdir()
    for i, size in enumerate([(32, 32), (64, 64), (61, 83), (200, 40), (33, 31), (5, 7), (2048, 70)]):
        Image.fromarray(noise(*size, 3, seed=i)).save(folder / f"rgb_{i}.png")
    Image.fromarray(noise(50, 70)).save(folder / "grey.png")
    Image.fromarray(np.dstack([noise(50, 70, 3), np.full((50, 70), 255, np.uint8)])).save(folder / "rgba.png")
    Image.fromarray(noise(40, 90, 3)).save(folder / "photo.jpg", exif=_turned())
    command = ["predict", "--ckpt_path", str(lively), "--data.predict_dir", str(folder), "--data.num_workers", "0"]
    assert main([*command, "--prediction.output_dir", str(tmp_path / "out")]) == 0
    model = runtime.Model(exported)
    results = list(model.predict_folder(folder, tmp_path / "theirs"))
    assert len(results) == 10
    assert not any(problem for _, problem in results)
    for path, _ in results:
        one, other = (Image.open(tmp_path / d / f"{path.stem}.png") for d in ("out", "theirs"))
        assert one.mode == other.mode == "P"
        assert np.mean(np.asarray(one) != np.asarray(other)) <= 1e-4, path.name
        assert one.getpalette() == other.getpalette()
    assert len(np.unique(np.asarray(Image.open(tmp_path / "theirs" / "rgb_6.png")))) > 1


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_tiles_are_those_of_predict(tmp_path, lively, exported, runtime):
    (tmp_path / "in").mkdir()
    for name, size in (("large", (70, 90)), ("narrow", (20, 100)), ("small", (30, 32))):
        Image.fromarray(noise(*size, 3)).save(tmp_path / "in" / f"{name}.png")
    command = ["predict", "--ckpt_path", str(lively), "--data.predict_dir", str(tmp_path / "in"), "--data.num_workers"]
    assert main([*command, "0", "--inference.tiled", "true", "--prediction.output_dir", str(tmp_path / "out")]) == 0
    model = runtime.Model(exported)
    for name in ("large", "narrow", "small"):
        mask = model.predict_tiled(model.read(tmp_path / "in" / f"{name}.png"))
        assert np.mean(mask != np.asarray(Image.open(tmp_path / "out" / f"{name}.png"))) < 2e-3, name


def test_batches_and_engines_agree(exported, runtime):
    images = noise(3, 40, 50, 3)
    model = runtime.Model(exported, threads=1)
    masks = model.predict_batch(images)
    assert np.array_equal(masks, np.stack([model.predict(image) for image in images]))
    probabilities = model.probabilities(images[0])
    assert probabilities.shape == (4, 40, 50)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    pytest.importorskip("openvino")
    other = runtime.Model(exported, "openvino")
    assert other.names == model.names
    assert np.mean(other.predict_batch(images) != masks) <= 1e-4


def test_the_file_knows_what_it_is(exported, lively, runtime):
    model = runtime.Model(exported)
    assert model.names == ("background", "trachea", "heart", "lung")
    assert model.colors == ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))
    assert model.image_size == (32, 32)
    assert model.metadata["network"]["init_args"]["num_layers"] == 3
    assert len(model.metadata["checkpoint_sha256"]) == 64
    proto = onnx.load(exported)
    onnx.checker.check_model(proto)
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 20)]
    parity = json.loads(exported.with_suffix(".parity.json").read_text())
    assert parity["checkpoint_sha256"] == model.metadata["checkpoint_sha256"]
    assert {"torch", "onnxruntime"} <= {row["engine"] for row in parity["engines"]}
    assert all(row["pixels_differ"] <= 1e-4 for row in parity["engines"])


def test_a_file_that_does_something_else_is_found_out(exported, lively, tmp_path):
    proto = onnx.load(exported)
    largest = max(proto.graph.initializer, key=lambda t: len(t.raw_data))
    largest.raw_data = (np.frombuffer(largest.raw_data, np.float32) * np.float32(1.1)).tobytes()
    onnx.save(proto, tmp_path / "other.onnx")
    rows = prove_parity(read_source(lively), tmp_path / "other.onnx", [noise(40, 50, 3)])
    assert rows[1].probability_difference > 1e-4
    with pytest.raises(RunFailedError, match=r"not written: with onnxruntime probabilities differ"):
        check_parity(rows, tmp_path / "other.onnx")
    same = Row("torch", 0.0, 0.0, {}, 0.0, 0.0, 0.0)
    check_parity([same, replace(same, probability_difference=float("nan"))], tmp_path)
    with pytest.raises(RunFailedError):
        check_parity([replace(same, pixels_differ=2e-4)], tmp_path)


def test_what_follows_a_layer_in_float32_stays_in_float32(tmp_path):
    def node(kind, name, *inputs):
        return onnx.helper.make_node(kind, list(inputs), [name], name=name)

    nodes = [node("Conv", "c1", "x", "w"), node("Relu", "r1", "c1"), node("BatchNormalization", "b1", "r1", "s", "s"),
             node("MaxPool", "p1", "b1"), node("Conv", "c2", "p1", "w"), node("Relu", "r2", "c2"),
             node("Concat", "j", "r2", "p1")]  # fmt: skip
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [])), tmp_path / "m.onnx")
    assert _with_what_follows(tmp_path / "m.onnx", ["c1"]) == ["c1", "r1", "p1", "j"]
    assert _with_what_follows(tmp_path / "m.onnx", ["c2"]) == ["c2", "r2", "j"]
    assert _with_what_follows(tmp_path / "m.onnx", []) == []


@pytest.mark.slow
def test_int8_passes_the_gate_or_is_not_written(lively, tmp_path, capsys, phantoms):
    images = str(phantoms / "train" / "images")
    command = ["export", str(lively), "--precision", "int8", "--calibrate", images, "--output"]
    assert main([*command, str(tmp_path / "loose.onnx"), "--max-drop", "0.9"]) == 0
    types = {node.op_type for node in onnx.load(tmp_path / "loose.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= types
    capsys.readouterr()
    assert main([*command, str(tmp_path / "strict.onnx"), "--max-drop", "-1"]) == 3
    said = capsys.readouterr().err
    assert "no int8 model keeps the Dice" in said
    assert "layers in float32: Dice falls by" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["loose.onnx", "loose.parity.json"]


def test_float16_halves_the_file(lively, tmp_path, runtime, exported):
    assert main(["export", str(lively), "--precision", "fp16", "--output", str(tmp_path / "half.onnx")]) == 0
    kinds = {t.data_type for t in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    image = noise(50, 60, 3)
    one, two = (runtime.Model(p).probabilities(image) for p in (tmp_path / "half.onnx", exported))
    assert np.abs(one - two).max() < 0.02


@pytest.mark.slow
def test_a_fixed_size_and_a_grey_network_and_another_family(tmp_path, runtime, phantoms, workspace, flexunet):
    config = json.loads(json.dumps({"class_path": "segmentation_models_pytorch.Unet"}))
    config["init_args"] = {"encoder_name": "resnet18", "encoder_weights": None}
    flexunet("fit", "-c", "c.yaml", "--model.network", json.dumps(config), "--model.in_channels", 1,
             "--trainer.max_epochs", 1)  # fmt: skip
    checkpoint = workspace / "runs" / "flexunet" / "version_0" / "checkpoints" / "best.ckpt"
    source = read_source(checkpoint)
    write_onnx(source, tmp_path / "m.onnx", probabilities=True, fixed_size=(64, 64))
    model = runtime.Model(tmp_path / "m.onnx")
    image = noise(64, 64, 3)
    with torch.inference_mode():
        mask, probabilities = source.deployed(probabilities=True)(torch.tensor(image)[None])
    # batch norm after one epoch blows rounding up
    np.testing.assert_allclose(model.probabilities(image), probabilities[0].numpy(), atol=1e-3)
    assert np.mean(model.predict(image) != mask[0].numpy()) <= 1e-4
    with pytest.raises(runtime.UserError, match="exported for"):
        model.predict(noise(32, 64, 3))
    assert len(model.metadata["training_data_sha256"]) == 64
    grey = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_allclose(model.probabilities(np.repeat(grey[..., None], 3, 2)), probabilities[0], atol=1e-3)


def test_mistakes_in_an_export_are_named(tmp_path, lively, mistake, phantoms, exported):
    assert "is there already" in mistake("export", lively, "--to", "onnx")
    assert "give a folder of them" in mistake("export", lively, "--output", tmp_path / "a.onnx", "--precision", "int8")
    (tmp_path / "empty").mkdir()
    command = ("export", lively, "--output", tmp_path / "a.onnx")
    assert "no image in this folder" in mistake(*command, "--precision", "int8", "--calibrate", tmp_path / "empty")
    assert "expected height and width" in mistake(*command, "--size", "[0, 5]")
    (tmp_path / "junk.ckpt").write_bytes(b"junk")
    assert "is no checkpoint" in mistake("export", tmp_path / "junk.ckpt", "--to", "onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "junk.ckpt"]


# ---- the runtime and strangers


@pytest.mark.case("G8")
@pytest.mark.parametrize("where", ["/etc/passwd", "../secret.bin", "inside.bin"])
def test_weights_in_another_file_are_refused(tmp_path, exported, runtime, where):
    proto = onnx.load(exported)
    tensor = max(proto.graph.initializer, key=lambda t: len(t.raw_data))
    (tmp_path / "inside.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=where)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(runtime.UserError, match="keeps weights in another file"):
        runtime.Model(tmp_path / "model.onnx")


@pytest.mark.case("G8")
def test_external_tensors_are_found_wherever_they_hide(tmp_path, runtime):
    def tensor():
        made = onnx.helper.make_tensor("t", onnx.TensorProto.FLOAT, [1], [1.0])
        made.external_data.add(key="location", value="/etc/passwd")
        return made

    graph = onnx.helper.make_graph([], "g", [], [], initializer=[tensor()])
    nodes = [
        onnx.helper.make_node("Constant", [], ["a"], value=tensor()),
        onnx.helper.make_node("If", ["a"], ["b"], then_branch=graph, else_branch=graph),
    ]
    sparse = onnx.SparseTensorProto()
    sparse.values.CopyFrom(tensor())
    for made in (
        onnx.helper.make_model(onnx.helper.make_graph(nodes[:1], "g", [], [])),
        onnx.helper.make_model(onnx.helper.make_graph(nodes[1:], "g", [], [])),
        onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], sparse_initializer=[sparse])),
        onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []), functions=[
            onnx.helper.make_function("d", "f", [], ["a"], nodes[:1], [onnx.helper.make_opsetid("", 20)])]),
    ):  # fmt: skip
        (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
        with pytest.raises(runtime.UserError, match=r"another file|sparse tensors|loops or branches"):
            check_one_piece(tmp_path / "m.onnx")


@pytest.mark.case("G8")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, exported, runtime, value):
    proto = onnx.load(exported)
    tensor = max(proto.graph.initializer, key=lambda t: len(t.raw_data))
    weights = np.frombuffer(tensor.raw_data, np.float32).copy()
    weights[7] = value
    tensor.raw_data = weights.tobytes()
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(runtime.UserError, match=r"model\.onnx: has weights that are not finite"):
        runtime.Model(tmp_path / "model.onnx")


@pytest.mark.case("G8")
def test_files_that_are_no_models_are_refused_in_one_line(tmp_path, exported, runtime):
    content = exported.read_bytes()
    plain = onnx.load(exported)
    del plain.metadata_props[:]
    for name, made in {
        "empty": b"",
        "junk": b"junk" * 100,
        "cut": content[: len(content) // 2],
        "plain": plain.SerializeToString(),
    }.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(made)
        with pytest.raises(runtime.UserError, match=f"{name}.onnx: ") as error:
            runtime.Model(path)
        assert "\n" not in str(error.value)
    with pytest.raises(runtime.UserError, match="no such file"):
        runtime.Model(tmp_path / "missing.onnx")


def test_bad_images_are_named_and_the_rest_goes_on(tmp_path, exported, phantoms):
    folder = tmp_path / "in"
    shutil.copytree(phantoms / "test" / "images", folder)
    first = sorted(folder.iterdir())[0].read_bytes()
    (folder / "cut.png").write_bytes(first[:200])
    (folder / "empty.png").write_bytes(b"")
    Image.fromarray(noise(9, 9, 4)).save(folder / "glass.png")
    Image.new("CMYK", (9, 9)).save(folder / "print.jpg")
    (folder / "wide.png").write_bytes(b"")
    Image.fromarray(np.full((9, 9), 3000, np.uint16)).save(folder / "wide.png")
    done = subprocess.run(
        [sys.executable, "-m", "flexunet_runtime", exported, folder, tmp_path / "out"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert len(lines) == 5
    assert all(
        any(f"in/{n}: " in line for n in ("cut.png", "empty.png", "glass.png", "print.jpg", "wide.png"))
        for line in lines
    )
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


@pytest.mark.case("C12")
@pytest.mark.parametrize("size", [None, (64, 48)])
def test_padded_images_keep_their_resolution(lively, tmp_path, runtime, size):
    write_onnx(read_source(lively, "pad"), tmp_path / "m.onnx", probabilities=True, fixed_size=size)
    model = runtime.Model(tmp_path / "m.onnx")
    network = load_model(lively)
    for shape in [size] if size else [(32, 48), (33, 31), (5, 7), (1, 1), (1, 90), (2, 3), (64, 61)]:
        image = noise(*shape, 3)
        padded = np.pad(image, ((0, -shape[0] % 4), (0, -shape[1] % 4), (0, 0)))
        with torch.inference_mode():
            logits = network(torch.tensor(padded).permute(2, 0, 1)[None])[0, :, : shape[0], : shape[1]]
        np.testing.assert_allclose(model.probabilities(image), logits.softmax(dim=0).numpy(), atol=1e-4)
    assert model.metadata["fit"] == "pad"


def test_the_folder_for_triton_is_what_it_reads(lively, tmp_path, runtime, capsys):
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    folder = tmp_path / "repository" / "chest"
    assert main(["export", str(lively), "--to", "triton", "--output", str(folder)]) == 0
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "1/model.onnx", "config.pbtxt", "model.parity.json"]  # fmt: skip
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 8)
    proto = onnx.load(folder / "1" / "model.onnx")
    kinds = {onnx.TensorProto.UINT8: model_config_pb2.TYPE_UINT8, onnx.TensorProto.FLOAT: model_config_pb2.TYPE_FP32}
    for declared, actual in ((config.input, proto.graph.input), (config.output, proto.graph.output)):
        for one, other in zip(declared, actual, strict=True):
            dims = [d.dim_value or -1 for d in other.type.tensor_type.shape.dim]
            assert (one.name, list(one.dims)) == (other.name, dims[1:])
            assert one.data_type == kinds[other.type.tensor_type.elem_type]
    assert ["lung", [0, 0, 255]] in json.loads(config.parameters["flexunet"].string_value)["classes"]
    assert runtime.Model(folder / "1" / "model.onnx").predict_batch(noise(8, 40, 50, 3)).shape == (8, 40, 50)
    assert main(["export", str(lively), "--to", "triton", "--output", str(folder)]) == 2
    assert "is there already; name another folder" in capsys.readouterr().err


@pytest.mark.slow
def test_the_runtime_works_where_there_is_no_torch(tmp_path, exported, phantoms):
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([uv, "venv", "-q", tmp_path / "env"], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", python, RUNTIME], check=True)
    code = "import importlib.util as u, sys; sys.exit(any(u.find_spec(n) for n in ('torch', 'flexunet_pl', 'onnx')))"
    assert subprocess.run([python, "-c", code], cwd=tmp_path, check=False).returncode == 0
    command = [python, "-m", "flexunet_runtime", exported, phantoms / "test" / "images", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 3
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # onnxruntime brings numpy, protobuf, flatbuffers and packaging itself; beside it stand Pillow and the runtime
    sizes = {p.name: sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) for p in packages.iterdir()}
    its_own = ("onnxruntime", "numpy", "protobuf", "google", "flatbuffers", "packaging")
    besides = {name: size for name, size in sizes.items() if not name.lower().startswith(its_own)}
    assert sum(besides.values()) < 60e6, besides
    serve = [uv, "pip", "install", "-q", "--python", python, f"{RUNTIME}[dicom,serve]"]  # the line of the Containerfile
    assert '"/src[dicom,serve]"' in (RUNTIME.parent / "Containerfile").read_text()
    subprocess.run(serve, check=True)
    served = subprocess.run(
        [python, "-m", "flexunet_runtime.server", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "--max-body-mb" in served.stdout


@pytest.mark.slow
@pytest.mark.real
def test_every_real_slice_gets_the_mask_that_predict_gives_it(tmp_path, shared, lively, exported, runtime):
    model = runtime.Model(exported)
    for folder in sorted(path for path in (shared / "real").iterdir() if path.is_dir()):
        command = ["predict", "--ckpt_path", str(lively), "--data.predict_dir", str(folder / "images")]
        out = tmp_path / folder.name
        assert main([*command, "--data.num_workers", "0", "--prediction.output_dir", str(out)]) == 0
        for path, problem in model.predict_folder(folder / "images", tmp_path / "theirs" / folder.name):
            assert not problem
            one, other = (Image.open(d / f"{path.stem}.png") for d in (out, tmp_path / "theirs" / folder.name))
            with one, other:
                assert np.mean(np.asarray(one) != np.asarray(other)) <= 1e-4, path
