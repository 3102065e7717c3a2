"""Names that strangers choose: formulas, markup, control characters, pipes; in every verb that meets names."""

import csv
import os
import shutil

import pytest

from flexunet_pl.cli.main import main
from flexunet_pl.common.cells import unguard
from flexunet_pl.io.cases import list_cases, passed_over

FORMULA, MARKUP, CONTROL = "=cmd|' -C calc'!A0", "<img src=x onerror=alert(1)>", "a\x1b[2Jb"


@pytest.fixture
def named(phantoms, workspace):
    """The phantoms with three names of strangers in the test split."""
    shutil.copytree(phantoms, workspace / "d")
    stems = sorted(path.stem for path in (workspace / "d" / "test" / "images").iterdir())
    for stem, name in zip(stems, (FORMULA, MARKUP, CONTROL), strict=False):
        for kind in ("images", "masks"):
            path = workspace / "d" / "test" / kind / f"{stem}.png"
            path.rename(path.with_name(f"{name}.png"))
    return workspace


@pytest.mark.case("H5")
def test_no_table_holds_a_formula_and_no_page_markup(named, lively, flexunet, tmp_path):
    flexunet("fit", "-c", "c.yaml", "--data.root", "d", "--trainer.max_epochs", 1)
    run = named / "runs" / "flexunet" / "version_0"
    flexunet("test", "--ckpt_path", run / "checkpoints" / "best.ckpt", "--data.root", "d", "--data.num_workers", 0)
    flexunet("report", run)
    with (run / "test" / "version_0" / "per_case.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "@"))]
    assert FORMULA in {unguard(row[0]) for row in rows}
    for page in ("report.html", "report.md"):
        text = (run / page).read_text(encoding="utf-8")
        assert "<img src=x" not in text
        assert "\x1b" not in text
    said = flexunet("score", "--pred", "d/test/masks", "--target", "d/test/masks", "--out", "s",
                    "--experiment", run / "config.yaml")  # fmt: skip
    assert "\x1b" not in said
    with (named / "s" / "per_case.csv").open(encoding="utf-8", newline="") as file:
        assert not [cell for row in csv.reader(file) for cell in row if cell.startswith(("=", "+", "@"))]


@pytest.mark.case("H5")
@pytest.mark.parametrize("verb", ["check", "split", "augment", "predict"])
def test_no_control_character_reaches_the_terminal(named, lively, capsys, verb):
    (named / "d" / "test" / "images" / f"{CONTROL}c.png").write_bytes(b"x")
    commands = {
        "check": ["d", "--workers", "0"],
        "split": ["d/test", "made"],
        "augment": ["d/test", "made"],
        "predict": ["--ckpt_path", str(lively), "--data.predict_dir", "d/test/images", "--data.num_workers", "0",
                    "--prediction.output_dir", "made"],
    }  # fmt: skip
    assert main([verb, *commands[verb]]) in {1, 2}
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "Traceback" not in said.err


@pytest.mark.case("H5")
def test_pipes_devices_and_broken_links_are_counted_and_never_waited_for(named):
    folder = named / "d" / "test" / "images"
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "gone.png").symlink_to("nowhere")
    assert {path.path.name for path in list_cases(folder)} == {f"{FORMULA}.png", f"{MARKUP}.png", f"{CONTROL}.png"}
    assert passed_over(folder) == {"pipe or device": 2, "broken link": 1}


@pytest.mark.case("H5")
@pytest.mark.parametrize("verb", ["check", "fit", "split", "augment", "prepare"])
def test_a_pipe_among_the_masks_is_named(named, mistake, capsys, verb):
    (named / "d" / "train" / "masks" / "zzz.png").symlink_to("/dev/zero")
    os.mkfifo(named / "d" / "train" / "images" / "zzz.png")
    commands = {
        "check": ["d", "--workers", "0"], "fit": ["-c", "c.yaml", "--data.root", "d"], "split": ["d/train", "made"],
        "augment": ["d/train", "made"], "prepare": ["nbm", "--raw", "d", "--out", "made"],
    }  # fmt: skip
    status = main([verb, *commands[verb]])
    said = capsys.readouterr()
    assert status in {1, 2} if verb != "fit" else status in {0, 2}
    assert "Traceback" not in said.err


@pytest.mark.case("H5")
@pytest.mark.parametrize(
    ("verb", "name"), [("check", "samples.png"), ("score", "per_case.csv"), ("score", "summary.csv")]
)
def test_results_replace_no_file_of_others(named, flexunet, mistake, verb, name):
    options = {
        "check": ["d", "--workers", "0"],
        "score": ["--pred", "d/test/masks", "--target", "d/test/masks", "--rgb-map",
                  "{background: [0, 0, 0], trachea: [255, 0, 0], heart: [0, 255, 0], lung: [0, 0, 255]}"],
    }[verb]  # fmt: skip
    (named / "r").mkdir()
    (named / "r" / name).write_text("mine")
    assert f"r/{name}: is there already, and no whole result of ours" in mistake(verb, *options, "--out", "r")
    assert (named / "r" / name).read_text() == "mine"
    for _ in range(2):  # its own results are made anew
        assert main([verb, *map(str, options), "--out", "made"]) in {0, 1}
