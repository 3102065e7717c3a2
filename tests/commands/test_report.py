"""flexunet report: one page that says what the tables say, needs nothing but itself, and reads well in a browser."""

import base64
import csv
import io
import json
import re
import shutil
from functools import partial

import pytest
from PIL import Image

from flexunet_pl.report.blocks import Section, Table, Text, chart
from flexunet_pl.report.render import write_html, write_markdown
from flexunet_pl.report.training import _draw_curves


@pytest.fixture(scope="module")
def reported(tmp_path_factory, trained, phantoms):
    """The folder of a run that was tested and reported."""
    from flexunet_pl.cli.main import main

    run = tmp_path_factory.mktemp("report") / "runs" / "flexunet" / "version_0"
    shutil.copytree(trained, run)
    test = ["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--data.root", str(phantoms)]
    assert main([*test, "--data.num_workers", "0", "--trainer.enable_progress_bar", "false"]) == 0
    assert main(["report", str(run)]) == 0
    return run


def test_the_page_says_what_the_tables_say(reported):
    page = (reported / "report.html").read_text()
    summary = json.loads((reported / "test" / "version_0" / "summary.json").read_text())
    for name, scores in summary["classes"].items():
        dice = scores["means"]["dice"]
        assert f"{dice['mean']:.4f}" in page, name
        assert f"{dice['low']:.4f} .. {dice['high']:.4f}" in page, name
    assert f"{summary['dice_coef_multiclass']:.4f}" in page
    assert "0.9792" in page  # the original's, for the same classes
    for words in ("counts the background", "SHA-256", "config.yaml", "seed", "Learning rate", "HD95"):
        assert words in page
    confusion = summary["confusion"]
    assert sum(map(sum, confusion)) == 3 * 64 * 64, "at the size of the masks"
    assert f"{confusion[0][0] / sum(confusion[0]):.1%}" in page


def test_charts_show_numbers_and_no_formulas(reported):
    assert "mathdefault" not in (reported / "report.html").read_text()
    columns = {"epoch": [1.0, 2.0, 3.0], "lr": [1e-3, 4e-4, 6e-5]}
    drawn = chart("learning_rate", "rate", partial(_draw_curves, columns=columns, log=True))
    assert "mathdefault" not in drawn.svg
    assert "1e-04" in drawn.svg


def test_worst_and_best_case_are_those_of_the_table(reported):
    by_case: dict[str, list[float]] = {}
    rows = csv.DictReader((reported / "test" / "version_0" / "per_case.csv").read_text().splitlines())
    for row in rows:
        if row["state"] in {"present", "missed"}:
            by_case.setdefault(row["case"], []).append(float(row["dice"]))
    means = {case: sum(dice) / len(dice) for case, dice in by_case.items()}
    page = (reported / "report.html").read_text()
    assert f"worst: {min(means, key=lambda c: (means[c], c))}, Dice {min(means.values()):.3f}" in page
    assert page.count("<figcaption>best: ") + page.count("<figcaption>median: ") + page.count(
        "<figcaption>worst: "
    ) == len(means)


def test_the_page_needs_nothing_but_itself(reported):
    page = (reported / "report.html").read_text()
    assert "<script" not in page
    linked = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith(("#", "data:")) for link in linked if not link.startswith("#"))
    pictures = [link for link in linked if link.startswith("data:image/png;base64,")]
    assert len(pictures) >= 4  # cases, film strip, samples
    for link in pictures:
        with Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2]))) as picture:
            picture.load()


def test_the_markdown_shows_pictures_that_are_there(reported):
    text = (reported / "report.md").read_text()
    named = re.findall(r"\]\((report_files/[^)]+)\)", text)
    assert {f"report_files/{p.name}" for p in (reported / "report_files").iterdir()} == set(named)
    assert "| Dice, median |" in text


def test_a_browser_shows_it_without_complaint_on_a_phone_and_in_the_dark(reported, browser):
    paper = {}
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get((reported / "report.html").as_uri())
        assert browser.get_log("browser") == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        widths = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
        assert len(widths) >= 4
        assert all(widths)
        charts = "return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)"
        assert all(200 < width <= 390 for width in browser.execute_script(charts))
        style = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
        paper[scheme] = browser.execute_script(style)
    brightness = {k: sum(map(int, re.findall(r"\d+", v[0])[:3])) for k, v in paper.items()}
    assert brightness["dark"] < 150 < 600 < brightness["light"]


def test_names_are_no_code(tmp_path):
    nasty = "<script>alert(1)</script> a|b [x](javascript:1)"
    sections = [Section(nasty, [Text(nasty), Text(nasty, "code", nasty), Table(["", nasty], [[nasty, nasty]], nasty)])]
    write_html(tmp_path / "r.html", nasty, sections)
    write_markdown(tmp_path / "r.md", nasty, sections)
    for name in ("r.html", "r.md"):
        assert "<script" not in (tmp_path / name).read_text()
    outside = re.sub(r"<pre>.*?</pre>", "", (tmp_path / "r.md").read_text(), flags=re.DOTALL)
    assert "](javascript" not in outside


def test_a_run_without_a_test_says_what_to_do(tmp_path, trained, flexunet):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("test"))
    flexunet("report", tmp_path / "run", "--out", tmp_path / "out")
    assert "flexunet test --ckpt_path" in (tmp_path / "out" / "report.html").read_text()
    assert not (tmp_path / "run" / "report.html").exists()


def test_mistakes_are_named(tmp_path, reported, mistake):
    assert "is no folder of a run" in mistake("report", tmp_path)
    (tmp_path / "file").write_text("x")
    assert "file: is a file" in mistake("report", reported, "--out", tmp_path / "file")
    shutil.copytree(reported, tmp_path / "run")
    for content in ("{", "[]", '{"classes": {"lung": 3}}'):
        (tmp_path / "run" / "test" / "version_0" / "summary.json").write_text(content)
        assert "run flexunet test again" in mistake("report", tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("a: [")
    assert "config.yaml, line 1: is no YAML: " in mistake("report", tmp_path / "run")


def test_damage_in_a_run_is_named_with_what_to_do(tmp_path, reported, mistake, flexunet):
    shutil.copytree(reported, tmp_path / "run")
    run, test = tmp_path / "run", tmp_path / "run" / "test" / "version_0"
    rows = (test / "per_case.csv").read_text()
    for cut in (rows[: len(rows) // 2], "\n".join(rows.splitlines()[:4])):
        (test / "per_case.csv").write_text(cut)
        assert "per_case.csv: is damaged" in mistake("report", run)
    (test / "per_case.csv").write_text(rows)
    record = (run / "run.json").read_text()
    for content, word in (
        ("{", "remove it"),
        ('{"data": [1]}', "was edited"),
        ('{"data": {"train": {"pairs": 3}}}', "edited"),
    ):
        (run / "run.json").write_text(content)
        assert word in mistake("report", run)
    (run / "run.json").write_text(record)
    losses = (run / "train_losses.csv").read_text()
    for content in (losses + "9,9,9,9,9\n", losses.replace("epoch", "time")):
        (run / "train_losses.csv").write_text(content)
        assert "train_losses.csv: is damaged" in mistake("report", run)
    (run / "train_losses.csv").write_text(losses)
    (run / "epoch_change" / "film_strip.png").write_bytes(b"junk")
    (run / "train_samples.png").write_bytes(b"junk")
    flexunet("report", run)
    assert "The film strip cannot be shown" in (run / "report.html").read_text()


def test_a_name_that_looks_like_mathematics_is_a_name():
    drawn = chart("c", "", lambda figure: figure.subplots().set_title(r"a $x_$ b $\foo$"))
    assert r"a $x_$ b $\foo$" in drawn.svg
