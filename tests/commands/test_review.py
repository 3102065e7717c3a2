"""flexunet review: labels that look wrong, images to label next, a page to go through, and what is left out then."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from flexunet_pl import SegmentationDataModule
from flexunet_pl.common.errors import UserError
from flexunet_pl.io.decisions import read_rejected
from flexunet_pl.metrics.label_doubt import doubt_label
from flexunet_pl.metrics.next_images import Candidate, order_by_entropy, order_randomly
from flexunet_pl.prepare.phantom import PHANTOM_MAP
from flexunet_pl.report.review_page import draw_item, write_review
from flexunet_pl.rgb_map import IGNORED


def disc(row, radius, index):
    y, x = np.mgrid[:40, :40]
    return np.where((y - row) ** 2 + (x - 20) ** 2 < radius**2, index, 0).astype(np.uint8)


def test_a_label_is_doubted_by_what_the_network_expects():
    label = disc(20, 9, 1)
    sure, unsure = np.array([0.95, 1.0]), np.array([0.4, 1.0])
    assert doubt_label(label, label, sure).score == 0
    moved = doubt_label(disc(26, 9, 1), label, sure)
    assert moved.by_class.tolist() == [pytest.approx(0.95 - moved.dice[0]), 0]
    assert doubt_label(disc(26, 9, 1), label, unsure).score < moved.score
    assert doubt_label(disc(20, 9, 2), label, np.array([0.95, 0.9])).score == pytest.approx((0.95 + 0.9) / 2)
    everywhere = np.full_like(label, IGNORED)
    assert doubt_label(label, everywhere, np.array([0.95, 1.0])).score == 0


def candidates():
    """Nine images of which the second class makes three unsure, and the first one three others; nothing else shows."""
    entropies = [(0.9, 0.0), (0.8, 0.0), (0.7, 0.0), (0.0, 0.09), (0.0, 0.08), (0.0, 0.07), *[(0.0, 0.0)] * 3]
    return [Candidate(np.array(pair), shows=max(pair) > 0) for pair in entropies]


def test_images_are_taken_class_by_class_and_each_once():
    order = order_by_entropy(candidates(), seed=1)
    assert sorted(order) == list(range(9))
    assert {number // 3 for number in order[:2]} == {0, 1}
    assert set(order[:6]) == set(range(6))
    assert order == order_by_entropy(candidates(), seed=1)
    assert len({tuple(order_by_entropy(candidates(), seed)) for seed in range(5)}) > 1


def test_random_order_has_first_what_shows_something():
    assert set(order_randomly(candidates(), seed=1)[:6]) == set(range(6))
    p = np.array([[[1.0, 0.5]], [[0.0, 0.5]]], np.float32)
    found = Candidate.of(p, p.argmax(0).astype(np.uint8))
    assert found.entropy == pytest.approx([0.5], abs=1e-4)
    assert not found.shows


def test_decisions_are_read_or_refused(tmp_path):
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps({"format": 1, "accepted": ["a"], "rejected": ["b", "c"]}))
    assert read_rejected(path) == {"b", "c"}
    for text, why in (
        ("[]", "holds no decisions"),
        ('{"format": 1, "rejected": [1]}', "holds no decisions"),
        ('{"format": 9, "rejected": []}', "does not know"),
        ("{", "holds no decisions"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=why):
            read_rejected(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_rejected(tmp_path / "none.json")


def test_what_was_rejected_is_left_out(phantoms, tmp_path, flexunet):
    train = sorted(path.stem for path in (phantoms / "train" / "images").iterdir())
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps({"format": 1, "accepted": train[2:3], "rejected": train[:2]}))
    data = SegmentationDataModule(phantoms, PHANTOM_MAP.to_dict(), (32, 32), decisions=path)
    data.setup("fit")
    assert sorted(pair.image.stem for pair in data.pairs["train"]) == train[2:]
    flexunet("split", phantoms / "train", tmp_path / "split", "--decisions", path, "--group-regex", "^([0-9]+)_",
             "--rgb-map", json.dumps(PHANTOM_MAP.to_dict()))  # fmt: skip
    with (tmp_path / "split" / "split.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(train) - 2


def test_a_review_ranks_labels_and_images(workspace, trained, phantoms, flexunet, mistake):
    (workspace / "more").mkdir()
    for path in (phantoms / "test" / "images").iterdir():
        shutil.copy(path, workspace / "more")
    (workspace / "more" / "broken.png").write_bytes(b"no image")
    said = flexunet("review", trained, "--data", "more", "--out", "reviewed", "--top", "2")
    assert "broken.png" in said
    with Path("reviewed/labels.csv").open() as file:
        labels = list(csv.DictReader(file))
    assert [row["rank"] for row in labels] == ["1", "2", "3"]
    assert [float(row["doubt"]) for row in labels] == sorted((float(row["doubt"]) for row in labels), reverse=True)
    assert all(Path(row["mask"]).is_file() for row in labels)
    with Path("reviewed/images.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3
    page = Path("reviewed/review.html").read_text()
    assert page.count("<article") == 4
    assert "http" not in page.replace('http-equiv="', "")
    flexunet("review", trained, "--out", "reviewed")
    (workspace / "other").mkdir()
    (workspace / "other" / "labels.csv").write_text("mine")
    assert "is there already" in mistake("review", trained, "--out", "other")


def test_a_page_is_gone_through_by_the_keyboard(browser, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    rng = np.random.default_rng(1)
    mask = rng.integers(0, 4, (50, 60)).astype(np.uint8)
    names = ["a", 'b"><script>alert(1)</script>', "c"]
    image = rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)
    items = [draw_item(name, "doubt 1.00", image, mask, PHANTOM_MAP, np.roll(mask, 5)) for name in names]
    more = [draw_item("d", "", image, mask, PHANTOM_MAP)]
    write_review(tmp_path / "review.html", "Review of </script>", PHANTOM_MAP, items, more)
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get((tmp_path / "review.html").as_uri())
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys("j")
    for key in ("a", "r", "k", "k", "u", "r", "j", "a"):
        browser.switch_to.active_element.send_keys(key)
    assert browser.find_element(By.ID, "count").text == "1 accepted, 2 rejected, 0 left"
    browser.find_element(By.ID, "save").send_keys(Keys.ENTER)
    for _ in range(100):
        if (tmp_path / "decisions.json").is_file():
            break
        browser.execute_async_script("setTimeout(arguments[0], 50)")
    decided = json.loads((tmp_path / "decisions.json").read_text())
    browser.refresh()  # decisions stay
    assert browser.find_element(By.ID, "count").text == "1 accepted, 2 rejected, 0 left"
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert browser.execute_script("return document.images[0].naturalWidth") == 320
    assert decided == {"format": 1, "accepted": names[2:], "rejected": names[:2]}
    assert read_rejected(tmp_path / "decisions.json") == set(names[:2])
