"""How far a mask can be trusted."""

import csv

import numpy as np
import pytest
import torch

from flexunet_pl.models.inference import Answer
from flexunet_pl.prediction.confidence_table import ConfidenceTable, describe


def answer(*, certainty=0.9, opinions=None):
    """A 10x10 image whose left half is class 1; the rest is background."""
    mask = torch.zeros(10, 10, dtype=torch.uint8)
    mask[:, :5] = 1
    p = torch.where(mask[None] == torch.arange(3)[:, None, None], certainty, 0.0)
    p[2] = 1 - p[:2].sum(0)
    return Answer(mask, p, None, opinions)


def test_the_expected_dice_is_that_of_drawn_truths():
    rng = np.random.default_rng(1)
    p = torch.from_numpy(rng.dirichlet((1, 0.4, 0.2), (60, 60)).astype(np.float32)).permute(2, 0, 1)
    confidence = Answer(p.argmax(0).byte(), p, None).confidence()
    mask, drawn = p.argmax(0).numpy(), []
    for _ in range(50):
        truth = (rng.random((60, 60)) > p.numpy().cumsum(0)).sum(0)
        drawn.append(
            [2 * ((mask == k) & (truth == k)).sum() / ((mask == k).sum() + (truth == k).sum()) for k in (1, 2)]
        )
    assert confidence.expected_dice[1:] == pytest.approx(np.mean(drawn, axis=0), abs=0.01)
    assert np.isnan(confidence.agreement).all()


def test_a_class_that_is_not_predicted_is_trusted_as_far_as_it_is_improbable():
    confidence = answer(certainty=0.8).confidence()
    assert confidence.expected_dice[2] == pytest.approx(0.8)
    empty = answer(certainty=0.8)
    empty = empty._replace(mask=torch.zeros_like(empty.mask))
    found = empty.confidence()
    assert found.trust(never_empty=True) == 0
    assert found.trust(never_empty=False) == pytest.approx(0.2)


def test_opinions_that_differ_lower_trust():
    alike = answer().mask[None].repeat(3, 1, 1)
    other = alike.clone()
    other[2] = other[2].roll(2, 1)
    sure, unsure = (answer(opinions=o).confidence() for o in (alike, other))
    assert sure.agreement.tolist() == [1, 1, 1]
    assert unsure.agreement[1] == pytest.approx((1 + 0.6 + 0.6) / 3)
    assert unsure.trust(never_empty=False) == pytest.approx(sure.trust(never_empty=False) * unsure.agreement[1])


def test_slices_of_a_volume_are_one_case():
    first, second = answer(certainty=0.9).confidence(), answer(certainty=0.6).confidence()
    both = first.joined(second)
    inside = 50 * 0.9 + 50 * 0.6
    assert both.expected_dice[1] == pytest.approx(2 * inside / (100 + inside))
    assert both.expected_dice[2] == pytest.approx(1 - 0.4)


def test_the_table_is_sorted_flagged_and_gone_on_with(tmp_path):
    names = ["background", "=lung", "heart"]

    def begin(rank=0, *, again=False):
        return ConfidenceTable(tmp_path, names, rank, again=again)

    confidence = answer(opinions=answer().mask[None].repeat(2, 1, 1)).confidence()
    begin().add("a", confidence, 0.9)
    begin(1).add("=b", confidence, 0.3)
    table = begin()
    table.add("c", confidence, 0.6)
    assert table.finish(0.7) == ["=b", "c"]
    again = begin()
    again.add("c", confidence, 0.95)
    assert again.finish(0.5) == ["=b"]
    with (tmp_path / "confidence.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["trust"], row["flagged"]) for row in rows] == [
        ("'=b", "0.3000", "yes"), ("a", "0.9000", ""), ("c", "0.9500", ""),
    ]  # fmt: skip
    assert {"expected_dice/=lung", "agreement/heart"} <= set(rows[0])
    assert [path.name for path in tmp_path.iterdir()] == ["confidence.csv"]
    begin(again=True)
    assert not list(tmp_path.iterdir())
    assert describe(confidence, names) == "expected Dice: =lung 0.95, heart 0.90"


def test_predict_lists_how_far_each_case_can_be_trusted(workspace, lively, phantoms, flexunet):
    images = phantoms / "test" / "images"
    words = ("predict", "--ckpt_path", lively, "--data.predict_dir", images, "--prediction.output_dir", "masks")
    said = flexunet(*words, "--prediction.flag_below", "1")
    assert "3 to be looked at (trust below 1): " in said
    with (workspace / "masks" / "confidence.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == {path.stem for path in images.iterdir()}
    assert [float(row["trust"]) for row in rows] == sorted(float(row["trust"]) for row in rows)
    assert "to be looked at" not in flexunet(*words, "--prediction.flag_below", "0")
    assert "3 to be looked at" in flexunet(*words, "--flag-below=1")
