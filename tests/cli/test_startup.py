"""A short start: nothing is imported before it is needed, and nothing is missing when it is."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from flexunet_pl.cli.completion import completion, options_of
from flexunet_pl.cli.main import VERBS, main


def _python(code, folder):
    env = os.environ | {"XDG_CACHE_HOME": str(folder), "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lightning_starts_without_what_a_run_may_not_need(tmp_path):
    heavy = ["torchvision", "scipy.signal", "monai", "albumentations", "torchmetrics.functional", "sklearn"]
    code = "import sys; from flexunet_pl.cli.startup import shorten_start; shorten_start()"
    code += f"; import flexunet_pl.cli.lightning; print([name for name in {heavy} if name in sys.modules])"
    assert _python(code, tmp_path) == "[]\n"


@pytest.mark.parametrize(
    "use",
    [
        "from torchmetrics import JaccardIndex",
        "import torchmetrics.text, torchmetrics.image; torchmetrics.MeanMetric",
        pytest.param("from torchmetrics.classification import MulticlassF1Score", marks=pytest.mark.slow),
        pytest.param("from torchmetrics import *; Accuracy", marks=pytest.mark.slow),
    ],
)
def test_torchmetrics_is_whole_for_whoever_asks(tmp_path, use):
    code = f"""
from flexunet_pl.cli.startup import shorten_start
shorten_start()
import lightning.pytorch
{use}
import torchmetrics
missing = [name for name in torchmetrics.__all__ if not hasattr(torchmetrics, name)]
from lightning.pytorch.core.module import Metric
print(missing, Metric is torchmetrics.Metric, type(torchmetrics).__name__)
"""
    assert _python(code, tmp_path) == "[] True module\n"


def test_a_help_page_is_written_once_and_then_shown_without_torch(tmp_path):
    code = """
import sys
from flexunet_pl.cli.main import main
status = main(["export", "--help"])
print(status, "torch" in sys.modules)
"""
    first, second = _python(code, tmp_path), _python(code, tmp_path)
    assert first.endswith("0 True\n")
    assert second.endswith("0 False\n")
    assert first.partition("\n0 ")[0] == second.partition("\n0 ")[0]
    assert "--precision" in first


def test_a_page_needs_no_place_to_be_kept(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert main(["check", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: flexunet check ")


def test_options_are_found_on_a_page():
    page = """usage: flexunet check [--json {true,false}] root

options:
  -h, --help            Show this help message and exit.
  -c CONFIG, --config CONFIG
                        Path, see --data.
  --print_config [=flags]
  --trainer.devices DEVICES, --trainer.devices+ DEVICES
  --json {true,false}   Whether.
  --data.cache {none,ram,disk}
"""
    assert options_of(page) == {
        "--help": None,
        "--config": None,
        "--print_config": None,
        "--trainer.devices": None,
        "--json": ["true", "false"],
        "--data.cache": ["none", "ram", "disk"],
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_verb_is_completed(shell):
    page = "options:\n  --json {true,false}   Whether.\n  --data.root ROOT\n"
    script = completion(shell, {verb: VERBS[verb].summary for verb in VERBS}, lambda verb: page)
    assert all(verb in script for verb in VERBS)
    assert re.search(r"data\.root", script)
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True, capture_output=True).returncode == 0


def test_bash_completes_verbs_options_and_values():
    page = "options:\n  --json {true,false}   Whether.\n  --data.root ROOT\n"
    script = completion("bash", {"check": "check it", "export": "export it"}, lambda verb: page)
    ask = 'COMP_WORDS=({words}); COMP_CWORD={last}; {function} flexunet "{word}"; echo "${{COMPREPLY[@]}}"'
    function = re.search(r"complete .*-F (\S+) flexunet", script)[1]
    for words, wanted in (
        ("flexunet ch", "check"),
        ("flexunet check --da", "--data.root"),
        ("flexunet check --json t", "true"),
    ):
        code = script + "\n" + ask.format(words=words, word=words.split()[-1], last=words.count(" "), function=function)
        done = subprocess.run(["/bin/bash", "-c", code], capture_output=True, text=True)
        assert done.stdout.split() == [wanted], (words, done)


def test_a_shell_that_is_not_known(capsys):
    assert main(["--completion", "tcsh"]) == 2
    assert capsys.readouterr().err == "flexunet: --completion tcsh: expected bash, zsh, fish\n"
