"""Means over the cases that show a class, a miss counts 0; intervals over groups, that hold what they say."""

import math

import numpy as np
import pytest

from flexunet_pl.metrics.compare import compare_cases
from flexunet_pl.metrics.intervals import bootstrap_mean
from flexunet_pl.metrics.per_case import Surfaces, measure_case
from flexunet_pl.metrics.summary import summarise_cases

NAMES = ("background", "lesion")


def case(name, found, size, invented=0):
    """A lesion of `size` pixels in a row, of which `found` are predicted, and some pixels elsewhere."""
    truth, predicted = np.zeros((9, 12), np.uint8), np.zeros((9, 12), np.uint8)
    truth[2, :size], predicted[2, :found], predicted[7, :invented] = 1, 1, 1
    return measure_case(name, name[0], predicted, truth, NAMES, Surfaces())


CASES = [*case("a1", 4, 4), *case("a2", 0, 4), *case("b1", 2, 4), *case("b2", 0, 0), *case("c1", 0, 0, invented=3)]


def test_the_numbers_of_a_class_are_those_computed_by_hand():
    (summary,) = summarise_cases(CASES)
    assert (summary.present, summary.absent, summary.groups) == (3, 2, 2)
    dice = (1, 0, 2 / 3)
    assert summary.means["dice"].mean == pytest.approx(np.mean(dice))
    assert summary.means["dice"].median == pytest.approx(2 / 3)
    assert summary.means["precision"].cases == 2, "nothing was predicted in a2"
    assert summary.means["precision"].mean == 1
    assert summary.means["hd95"].mean == pytest.approx((0 + 15 + np.quantile([0, 0, 1, 2], 0.95)) / 3)
    assert summary.miss_rate == pytest.approx(1 / 3)
    assert summary.false_alarm_rate == pytest.approx(1 / 2)
    assert summary.dice_pooled == pytest.approx(2 * 6 / (2 * 6 + 3 + 6))
    assert summary.lesion_recall == pytest.approx(2 / 3)
    assert summary.false_lesions == pytest.approx(1 / 5)


def test_a_class_that_no_case_shows_has_no_mean():
    (summary,) = summarise_cases([*case("a", 0, 0), *case("b", 0, 0)])
    assert math.isnan(summary.means["dice"].mean)
    assert math.isnan(summary.miss_rate)
    assert math.isnan(summary.dice_pooled)
    assert summary.false_alarm_rate == 0


def test_intervals_depend_on_the_groups_and_on_nothing_else():
    rng = np.random.default_rng(0)
    groups = np.repeat([f"p{i}" for i in range(30)], 10)
    values = np.repeat(rng.normal(0.7, 0.1, 30), 10) + rng.normal(0, 0.02, 300)
    low, high = bootstrap_mean(values, groups)
    order = rng.permutation(300)
    assert bootstrap_mean(values[order], groups[order]) == (low, high)
    naive_low, naive_high = bootstrap_mean(values, [str(i) for i in range(300)])
    assert high - low > 2 * (naive_high - naive_low), "slices of a patient are no independent cases"
    assert low < values.mean() < high


def test_one_group_has_no_interval_and_equal_cases_have_no_width():
    assert all(math.isnan(end) for end in bootstrap_mean([0.1, 0.9], ["a", "a"]))
    assert bootstrap_mean([0.5, 0.5, 0.5], ["a", "b", "c"]) == (0.5, 0.5)


def test_two_predictions_are_compared_case_by_case():
    better = [*case("a1", 4, 4), *case("a2", 4, 4), *case("b1", 3, 4), *case("b2", 0, 0), *case("c1", 0, 0)]
    differences = {d.score: d for d in compare_cases(CASES, better[::-1])}
    assert differences["dice"].cases == 3
    assert differences["dice"].mean == pytest.approx((0 + 1 + (6 / 7 - 2 / 3)) / 3)
    assert differences["hd95"].mean < 0
    assert all(d.mean == d.low == d.high == 0 for d in compare_cases(CASES, CASES))


@pytest.mark.slow
def test_the_interval_holds_the_true_mean_in_95_of_100_experiments():
    """Dice-like values in groups of uneven sizes, 1000 experiments."""
    rng = np.random.default_rng(137)
    held = 0
    for seed in range(1000):
        centers = rng.beta(8, 3, 60)
        sizes = rng.integers(1, 6, 60)
        groups = np.repeat(np.arange(60).astype(str), sizes)
        values = np.clip(np.repeat(centers, sizes) + rng.uniform(-0.05, 0.05, sizes.sum()), -1, 2)
        low, high = bootstrap_mean(values, groups, seed=seed)
        held += low <= 8 / 11 <= high
    assert 930 <= held <= 970, held
