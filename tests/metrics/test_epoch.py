import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flexunet_pl.common.tensors import most_probable
from flexunet_pl.metrics.epoch import SegmentationScores, case_counts, dice_coef_multiclass, summarise_counts

NAMES = ("background", "lung", "tumour")


def as_logits(index, classes=3):
    return torch.nn.functional.one_hot(index, classes).movedim(-1, 1).float() * 100


def test_counts_agree_with_set_arithmetic():
    generator = torch.Generator().manual_seed(1)
    predicted, mask = (torch.randint(0, 3, (4, 5, 7), generator=generator) for _ in range(2))
    counts = case_counts(predicted, mask, 3)
    for n in range(4):
        for k in range(3):
            p, y = (predicted[n] == k), (mask[n] == k)
            assert counts[n, k].tolist() == [(p & y).sum(), (p & ~y).sum(), (~p & y).sum()]


def case(tp, fp, fn):
    """A case of 100 pixels in which the tumour has these counts and the lung is absent and not predicted."""
    return [[100 - tp - fp - fn, fn, fp], [0, 0, 0], [tp, fp, fn]]


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ([case(10, 0, 0)], {"dice": 1, "iou": 1, "precision": 1, "recall": 1, "miss_rate": 0, "dice_pooled": 1}),
        ([case(1, 0, 0)], {"dice": 1, "iou": 1, "precision": 1, "recall": 1, "miss_rate": 0, "dice_pooled": 1}),
        (
            [case(5, 5, 5)],
            {"dice": 0.5, "iou": 1 / 3, "precision": 0.5, "recall": 0.5, "miss_rate": 0, "dice_pooled": 0.5},
        ),
        ([case(0, 0, 7)], {"dice": 0, "iou": 0, "recall": 0, "miss_rate": 1, "dice_pooled": 0}),
        ([case(0, 7, 0)], {"false_alarm_rate": 1, "dice_pooled": 0}),
        ([case(0, 0, 0)], {"false_alarm_rate": 0}),
        (
            [case(10, 0, 0), case(0, 0, 10), case(0, 5, 0), case(0, 0, 0)],
            {
                "dice": 0.5,
                "iou": 0.5,
                "precision": 1,
                "recall": 0.5,
                "miss_rate": 0.5,
                "false_alarm_rate": 0.5,
                "dice_pooled": 20 / 35,
            },
        ),
    ],
)
def test_scores_of_every_state_are_those_computed_by_hand(cases, expected):
    scores = summarise_counts(torch.tensor(cases), NAMES)
    assert {k.removesuffix("/tumour"): v for k, v in scores.items() if k.endswith("/tumour")} == pytest.approx(expected)
    assert scores.get("dice") == (pytest.approx(expected["dice"]) if "dice" in expected else None)


def test_the_mean_foreground_dice_is_over_classes():
    counts = torch.tensor([[[0, 0, 0], [5, 0, 0], [0, 0, 5]]])
    assert summarise_counts(counts, NAMES)["dice"] == 0.5


def test_collected_batches_score_like_the_whole():
    generator = torch.Generator().manual_seed(2)
    logits, mask = torch.randn(7, 3, 5, 6, generator=generator), torch.randint(0, 3, (7, 5, 6), generator=generator)
    whole, parts = SegmentationScores(NAMES), SegmentationScores(NAMES)
    whole.update(logits, mask, torch.tensor(2.0))
    parts.update(logits[:3], mask[:3], torch.tensor(1.0))
    parts.update(logits[3:], mask[3:], torch.tensor(2.75))
    assert parts.compute() == pytest.approx(whole.compute(), abs=1e-7)
    parts.reset()
    assert not parts.counts


def test_half_written_scores_survive_a_checkpoint():
    scores = SegmentationScores(NAMES)
    scores.update(as_logits(torch.tensor([[[0, 1, 2]]])), torch.tensor([[[0, 1, 1]]]), torch.tensor(1.0))
    again = SegmentationScores(NAMES)
    again.load_state_dict(scores.state_dict())
    for metric in (scores, again):
        metric.update(as_logits(torch.tensor([[[2, 2, 2]]])), torch.tensor([[[0, 1, 2]]]), torch.tensor(3.0))
    assert again.compute() == scores.compute()
    assert again.compute()["loss"] == 2


def test_the_reference_s_scores_are_matched_by_text():
    golden = json.loads((Path(__file__).parents[1] / "golden" / "metrics.json").read_text(encoding="utf-8"))
    logits, mask = torch.tensor(golden["logits"]).movedim(-1, 1), torch.tensor(golden["labels"]).long()
    soft = dice_coef_multiclass(logits, mask).double().mean().item()
    assert soft == pytest.approx(golden["dice_coef_multiclass"], abs=1e-6)
    loss = torch.nn.functional.cross_entropy(logits, mask).item()
    assert loss == pytest.approx(golden["categorical_crossentropy"], abs=1e-5)


@pytest.mark.parametrize("name", ["four", "two"])
def test_the_reference_s_scores_are_matched(shared, name):
    golden = np.load(shared / "golden" / "metrics.npz")
    logits = torch.from_numpy(golden[f"{name}_logits"]).movedim(-1, 1)
    mask = torch.from_numpy(golden[f"{name}_labels"]).long()
    soft = dice_coef_multiclass(logits, mask).double().mean().item()
    assert soft == pytest.approx(float(golden[f"{name}_dice_coef_multiclass"]), abs=1e-6)
    loss = torch.nn.functional.cross_entropy(logits, mask).item()
    assert loss == pytest.approx(float(golden[f"{name}_categorical_crossentropy"]), abs=1e-5)  # Keras clips at 1e-7


def test_of_equal_values_the_first_class_is_most_probable():
    logits = torch.randint(0, 3, (2, 5, 9, 11), generator=torch.Generator().manual_seed(1)).float()
    assert torch.equal(most_probable(logits), logits.argmax(dim=1))
    assert torch.equal(most_probable(logits[0]), logits[0].argmax(dim=0))
