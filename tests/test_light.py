"""What works without torch, in an environment that has none: an installation without extras."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """The program of a fresh environment without extras."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    folder = tmp_path_factory.mktemp("light")
    env = os.environ | {"VIRTUAL_ENV": str(folder / "env")}
    for command in (["venv", "--quiet", "--python", sys.executable, folder / "env"],
                    ["pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", ROOT]):  # fmt: skip
        done = subprocess.run([uv, *command], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr

    def run(*words):
        program = folder / "env" / "bin" / "flexunet"
        return subprocess.run([program, *map(str, words)], capture_output=True, text=True, cwd=folder)

    run.folder = folder
    return run


@pytest.mark.slow
def test_what_works_on_data_needs_no_torch(light, trained):
    rgb_map = "{background: [0, 0, 0], trachea: [255, 0, 0], heart: [0, 255, 0], lung: [0, 0, 255]}"
    masks = "data/test/masks"
    for words, status in [
        (["phantom", "data"], 0),
        (["check", "data", "--out", "checked"], 0),
        (["split", "data/train", "halves", "--rgb-map", rgb_map], 0),
        (["score", "--pred", masks, "--target", masks, "--rgb-map", rgb_map, "--out", "scored"], 0),
        (["report", trained, "--out", "report"], 0),
        (["prepare", "--help"], 0),
        (["import-config", "missing.config"], 2),
    ]:
        done = light(*words)
        assert done.returncode == status, (words, done.stderr)
    for words in (["fit", "-c", "c.yaml"], ["plan", "data", "--minutes", "1"], ["export", "a.ckpt"], ["demo"]):
        done = light(*words)
        assert done.returncode == 2, words
        assert done.stderr.endswith("which is not installed: pip install 'flexunet-pl[train]'\n"), words
    packages = {path.name for path in (light.folder / "env").glob("lib/*/site-packages/*")}
    assert not packages & {"torch", "lightning", "monai", "onnx"}
    size = sum(path.stat().st_size for path in (light.folder / "env").rglob("*") if path.is_file())
    assert size < 0.4e9
