"""What the tests share: a phantom data set, a tiny configuration, the command line in this process."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch  # noqa: F401 - its log goes to the stream of its first import, which must not be a test's
import numpy as np
import pytest
import torch
import yaml

from flexunet_pl.cli.main import main
from flexunet_pl.prepare.phantom import PHANTOM_MAP, write_phantom

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

# of the fault programme; absolute, since tests change the working folder
COUNTS = Path(os.environ["FLEXUNET_RELIABILITY"]).absolute() if "FLEXUNET_RELIABILITY" in os.environ else None

TINY = {
    "model": {
        "rgb_map": PHANTOM_MAP.to_dict(),
        "image_size": [32, 32],
        "network": {
            "class_path": "flexunet_pl.models.FlexUNet",
            "init_args": {"base_filters": 4, "base_kernels": [3, 3], "num_layers": 3, "dropout_rate": 0.2},
        },
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01, "eps": 1e-7}},
    },
    "data": {"batch_size": 2, "num_workers": 0},
    "trainer": {"max_epochs": 2, "enable_progress_bar": False, "enable_model_summary": False},
}


ROOT = Path(__file__).parents[1]
collect_ignore = ["golden/make.py"]  # runs in the environment with TensorFlow


@pytest.fixture(scope="session", autouse=True)
def _root_stays_clean() -> Iterator[None]:
    """No test leaves anything in the repository's root."""
    before = {path.name for path in ROOT.iterdir()}
    yield
    left = {
        name for name in {path.name for path in ROOT.iterdir()} - before if not name.startswith(".") and name != "build"
    }
    assert not left, f"the tests left {sorted(left)} in the repository's root"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """What the program keeps for next time does not come from this user's last time, and does not stay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(137)
    np.random.seed(137)  # noqa: NPY002
    torch.manual_seed(137)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 6 patients with 3 slices of 64x64: 12 train, 3 valid, 3 test."""
    root = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantom(root, patients=6, slices=3, size=64, seed=137)
    return root


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phantoms: Path) -> Path:
    """An empty working folder with the tiny configuration as c.yaml."""
    monkeypatch.chdir(tmp_path)
    config = {**TINY, "data": {**TINY["data"], "root": str(phantoms)}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return tmp_path


@pytest.fixture
def flexunet(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command line that must end well; returns what it printed."""

    def run(*args: object) -> str:
        capsys.readouterr()
        status = main([str(a) for a in args])
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return captured.out + captured.err

    return run


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command line that must end with exit status 2 and one line; returns that line."""

    def run(*args: object) -> str:
        capsys.readouterr()
        status = main([str(a) for a in args])
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("flexunet: ")]
        assert status == 2
        assert len(lines) == 1
        return lines[0]

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """The run folder of a tiny network after two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    config = folder / "c.yaml"
    config.write_text(yaml.safe_dump({**TINY, "data": {**TINY["data"], "root": str(phantoms)}}, sort_keys=False))
    assert main(["fit", "-c", str(config), "--trainer.logger.save_dir", str(folder / "runs")]) == 0
    return folder / "runs" / "flexunet" / "version_0"


@pytest.fixture(scope="session")
def lively(tmp_path_factory, trained):
    """A checkpoint whose network gives every class, whatever two epochs have taught."""
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    generator = torch.Generator().manual_seed(137)
    for key, w in checkpoint["state_dict"].items():
        if key.startswith("network."):
            noise = torch.randn(w.shape, generator=generator) * (2 / w[0].numel()) ** 0.5
            checkpoint["state_dict"][key] = noise if w.ndim == 4 else noise * 0
    head = checkpoint["state_dict"]["network.head.weight"]
    checkpoint["state_dict"]["network.head.weight"] = head - head.mean(dim=1, keepdim=True)  # no class wins everywhere
    path = tmp_path_factory.mktemp("lively") / "model.ckpt"
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def browser(tmp_path: Path) -> "Iterator[WebDriver]":
    """Chromium without a window, which notes what pages complain of."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking",
                 "no-first-run", "disable-component-update", "disable-sync", "window-size=1100,1000",
                 f"user-data-dir={tmp_path / 'profile'}"):  # fmt: skip
        options.add_argument(f"--{word}")
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of files that are no part of the repository."""
    folder = Path(os.environ.get("FLEXUNET_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: golden files and real slices are no part of this repository")
    return folder


def pytest_collection_modifyitems(items):
    """Begin with what takes longest, so that no process waits for it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
def count(request):
    """Record how many of a case's repetitions held, for the page; and demand that all did."""

    def record(case, held, of, what):
        note(case, held, of, what, request.node.nodeid)
        assert held == of, f"{case}: {held} of {of}: {what}"

    return record


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Count a test that is a case of the fault programme by its marker."""
    report = yield
    marker = item.get_closest_marker("case")
    if marker is not None and report.when == "call":
        note(marker.args[0], int(report.passed), 1, item.originalname[5:].replace("_", " "), item.nodeid)
    return report


def note(case, held, of, what, test):
    """Append a line to the counts of the fault programme, where it runs."""
    if COUNTS is not None:
        row = {"case": case, "held": held, "of": of, "what": what, "test": test}
        with COUNTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
