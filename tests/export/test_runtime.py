"""The package of the deployment kit: what it needs, and what it says of images that cannot be read."""

import ast
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from flexunet_pl.cli.main import main
from flexunet_runtime import choice
from flexunet_runtime.images import decode_image, read_image
from tests.dicom import picture, write_object
from tests.export.conftest import RUNTIME, noise

PREDICTOR = {"PIL", "flexunet_runtime", "numpy", "onnxruntime", "openvino"}
SERVICE = PREDICTOR | {"prometheus_client", "starlette", "uvicorn"}


def imported(path):
    """First name of each module that a file imports, those of Python apart."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names


@pytest.mark.parametrize("path", sorted((RUNTIME / "flexunet_runtime").glob("*.py")), ids=lambda path: path.stem)
def test_a_module_of_the_runtime_needs_numpy_pillow_and_its_engine_alone(path):
    allowed = SERVICE if path.stem in {"batching", "connections", "server", "service"} else PREDICTOR
    # DICOM and bands are extras, imported where such a file comes
    assert imported(path) <= allowed | {"dicom": {"pydicom"}, "bands": {"tifffile"}}.get(path.stem, set())


def test_memory_that_runs_out_is_named_as_what_it_is(tmp_path, monkeypatch):
    Image.fromarray(noise(9, 9)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", _without_memory)
    with pytest.raises(MemoryError, match=r"a\.png: memory ran out"):
        read_image(tmp_path / "a.png")


def _without_memory(self):
    raise MemoryError


def test_an_image_that_memory_does_not_hold_is_one_that_failed(tmp_path, exported, runtime, monkeypatch):
    for name in ("a.png", "b.png"):
        Image.fromarray(noise(9, 9, 3)).save(tmp_path / name)
    model = runtime.Model(exported, threads=1)
    read = model.read

    def read_one(path):
        if path.name == "a.png":
            raise MemoryError(f"{path}: memory ran out while it was read")
        return read(path)

    monkeypatch.setattr(model, "read", read_one)
    problems = {path.name: problem for path, problem in model.predict_folder(tmp_path, tmp_path / "out")}
    assert problems == {"a.png": f"{tmp_path / 'a.png'}: memory ran out while it was read", "b.png": ""}


@pytest.mark.parametrize("window", [(9, 1), (5, 5), (0, float("nan"))])
def test_a_window_that_is_none_is_refused(runtime, window):
    with pytest.raises(runtime.UserError, match="the lower one first"):
        runtime.Window(*window)


def test_values_that_are_not_finite_are_refused_with_a_window_too(tmp_path, runtime):
    values = np.full((4, 5), 1.5, np.float32)
    values[2, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(runtime.DataError, match=r"a\.tif: has 1 values that are not finite"):
        read_image(tmp_path / "a.tif", window=runtime.Window(0, 2))


RADIOGRAPH = "1.2.840.10008.5.1.4.1.1.1.1"
VALUES = np.random.default_rng(3).integers(0, 4096, (40, 50))


@pytest.mark.parametrize("inverted", [False, True])
def test_a_radiograph_is_read_as_it_is_looked_at(tmp_path, runtime, inverted):
    kind = "MONOCHROME1" if inverted else "MONOCHROME2"
    write_object(tmp_path / "a.dcm", RADIOGRAPH, **picture(VALUES, PhotometricInterpretation=kind, Modality="DX"))
    seen = 4095 - VALUES if inverted else VALUES
    expected = runtime.Window(100, 3000).apply(seen)
    found = read_image(tmp_path / "a.dcm", window=runtime.Window(100, 3000))
    assert np.array_equal(found, np.repeat(expected[..., None], 3, axis=2))
    own = read_image(tmp_path / "a.dcm", channels=1)[..., 0]
    assert np.array_equal(own, runtime.Window(seen.min(), seen.max()).apply(seen))
    content = (tmp_path / "a.dcm").read_bytes()
    assert np.array_equal(decode_image(content, 3, runtime.Window(100, 3000)), found)


def test_a_slice_of_a_ct_has_its_hounsfield_units_whatever_is_white(tmp_path, runtime):
    elements = picture(VALUES, PhotometricInterpretation="MONOCHROME1", RescaleSlope=2, RescaleIntercept=-1024)
    write_object(tmp_path / "a.dcm", **elements)
    window = runtime.Window(-160, 240)
    assert np.array_equal(read_image(tmp_path / "a.dcm", 1, window)[..., 0], window.apply(VALUES * 2 - 1024))


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"NumberOfFrames": 2, "Rows": 20}, "holds 2 pictures"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0}, "is in colours"),
        ({"Rows": 60_000, "Columns": 60_000}, "over the limit of 50 megapixels"),
        ({"PixelData": b"short"}, "is damaged"),
        ({"RescaleSlope": None, "Rows": 0}, "is damaged"),
    ],
)
def test_dicom_that_is_no_grey_picture_is_refused_by_its_true_reason(tmp_path, runtime, elements, reason):
    write_object(tmp_path / "a.dcm", RADIOGRAPH, **picture(VALUES) | elements)
    with pytest.raises(runtime.DataError, match=rf"a\.dcm: .*{reason}"):
        read_image(tmp_path / "a.dcm")


def test_an_object_without_pixels_is_named_by_its_kind(tmp_path, runtime):
    write_object(tmp_path / "a.dcm", "1.2.840.10008.5.1.4.1.1.481.3")
    with pytest.raises(runtime.DataError, match=r"a DICOM object without pixels \(RT Structure Set\)"):
        read_image(tmp_path / "a.dcm")


def test_the_window_of_the_volumes_that_were_trained_on_is_that_of_the_runtime(tmp_path, runtime, lively):
    checkpoint = torch.load(lively, weights_only=True)
    checkpoint["hyper_parameters"]["volume_window"] = [-160.0, 240.0]
    torch.save(checkpoint, tmp_path / "w.ckpt")
    assert main(["export", str(tmp_path / "w.ckpt"), "--to", "onnx"]) == 0
    model = runtime.Model(tmp_path / "w.onnx")
    assert model.window == runtime.Window(-160, 240)
    write_object(tmp_path / "in" / "a.dcm", RADIOGRAPH, **picture(VALUES % 500, RescaleIntercept=-200))
    assert [problem for _, problem in model.predict_folder(tmp_path / "in", tmp_path / "out")] == [""]
    command = ["predict", "--ckpt_path", str(tmp_path / "w.ckpt"), "--data.predict_dir", str(tmp_path / "in")]
    command += ["--data.num_workers", "0", "--prediction.output_dir", str(tmp_path / "theirs")]
    assert main(command) == 0
    assert (tmp_path / "theirs" / "a.png").read_bytes() == (tmp_path / "out" / "a.png").read_bytes()


@pytest.mark.parametrize("fastest", ["onnxruntime", "openvino"])
def test_the_fastest_engine_is_taken_and_named(exported, capsys, monkeypatch, fastest):
    pytest.importorskip("openvino")
    monkeypatch.setattr(choice, "_seconds", lambda model: 0.25 if model._options[0] == fastest else 0.5)
    model = choice.open_model("flexunet_server", exported, "auto", 1, "f32")
    assert model._options[0] == fastest
    said = capsys.readouterr().err
    assert said.startswith(f"flexunet_server: engine {fastest} (")
    assert f"{fastest} 0.250 s an image" in said
    assert "0.500 s an image" in said


def test_an_engine_that_is_not_installed_is_not_tried(exported, capsys, monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: name if name == "onnxruntime" else None)
    assert choice.open_model("flexunet_runtime", exported, "auto", 1, "f32")._options[0] == "onnxruntime"
    assert "openvino" not in capsys.readouterr().err
