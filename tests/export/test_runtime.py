"""The package of the deployment kit: what it needs, and what it says of images that cannot be read."""

import ast
import sys

import numpy as np
import pytest
from PIL import Image

from flexunet_runtime.images import read_image
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
    allowed = SERVICE if path.stem in {"batching", "server", "service"} else PREDICTOR
    # DICOM is an extra, imported where such a file comes
    assert imported(path) <= (allowed | {"pydicom"} if path.stem == "dicom" else allowed)


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
