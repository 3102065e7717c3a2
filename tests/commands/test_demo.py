import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flexunet_pl.commands import demo

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_demo_shows_scores_and_where_everything_lies(workspace, flexunet, monkeypatch):
    draw = demo.write_phantom
    monkeypatch.setattr(demo, "write_phantom", lambda out, **kw: draw(out, patients=4, slices=1, size=64, **kw))
    made = subprocess.run(["/usr/bin/env", "make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    (command,) = (line for line in made.stdout.splitlines() if "/flexunet demo " in line)
    _, *words = shlex.split(command)
    out = flexunet(*words, "--minutes", 0.3)
    for verb in ("phantom", "plan", "fit", "test", "report", "export", "predict"):
        assert f"$ flexunet {verb} " in out
    places = dict(
        re.findall(
            r"^  (report|plan|curves|film strip|checkpoint|1 masks|overlays|ONNX file|its masks) +(\S+)$",
            out,
            re.MULTILINE,
        )
    )
    assert len(places) == 9
    masks = [np.asarray(Image.open(workspace / places[n] / "003_00.png")) for n in ("1 masks", "its masks")]
    assert np.array_equal(*masks)
    assert all((workspace / path).exists() for path in places.values())


def test_the_demo_keeps_what_is_there(workspace, mistake):
    (workspace / "demo").mkdir()
    (workspace / "demo" / "mine.txt").write_text("mine")
    assert "demo: is not empty; name another folder or give --overwrite true" in mistake("demo")


@pytest.mark.slow
@pytest.mark.long
def test_the_demo_reaches_its_scores_on_patients_that_it_has_not_seen(workspace, flexunet, monkeypatch):
    # the plan of an idle machine, and the steps that it has there: what else runs beside a test decides nothing
    timings = [{"side": side, "step": 1.1e-6 * side**2, "forward": 4e-7 * side**2, "memory": 600 * side**2}
               for side in (96, 128)]  # fmt: skip
    machine = {"format": 1, "device": "cpu", "name": "", "cores": 2, "memory": 2**33, "precision": "32-true"}
    machine |= {"speedup": 1.0, "startup": 8.0, "augmentation": 0.05, "timings": timings}
    (workspace / "timings.json").write_text(json.dumps(machine))
    plan, run = demo.plan_training, demo.run
    monkeypatch.setattr(demo, "plan_training", lambda *a, **kw: plan(*a, timings=workspace / "timings.json", **kw))
    by_steps = ["--trainer.max_time", "null", "--trainer.max_steps", "400"]
    monkeypatch.setattr(demo, "run", lambda verb, args: run(verb, [*args, *(by_steps if verb == "fit" else [])]))
    flexunet("demo")
    (summary,) = (workspace / "demo").rglob("summary.json")
    classes = json.loads(summary.read_text())["classes"]
    dice = {name: scores["means"]["dice"]["mean"] for name, scores in classes.items()}
    assert dice["lung"] >= 0.97
    assert dice["heart"] >= 0.93
    assert dice["trachea"] >= 0.85
    shutil.rmtree(workspace / "demo")
