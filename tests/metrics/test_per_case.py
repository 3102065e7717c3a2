"""One case: every state by hand, borders as monai measures them, lesions by counting."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from flexunet_pl.metrics.calibration import calibration_error
from flexunet_pl.metrics.per_case import Surfaces, measure_case

NAMES = ("background", "lesion")
EMPTY = np.zeros((3, 4), np.uint8)
PIXEL = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], np.uint8)
BAR = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], np.uint8)
CORNER = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], np.uint8)
NAN = math.nan


_MASKS = hnp.arrays(np.uint8, (9, 7), elements=st.integers(0, 1))
IN_PIXELS = Surfaces()


def measure(predicted, truth, surfaces=IN_PIXELS):
    (score,) = measure_case("c", "g", predicted, truth, NAMES, surfaces)
    return score


@pytest.mark.parametrize(
    ("predicted", "truth", "state", "counts", "rates", "borders", "lesions"),
    [
        (EMPTY, EMPTY, "absent", (0, 0, 0), (NAN, NAN, NAN, NAN), (NAN, NAN), (0, 0, 0)),
        (EMPTY, BAR, "missed", (0, 0, 2), (0, 0, NAN, 0), (5, 0), (1, 0, 0)),  # the diagonal of 3 x 4
        (BAR, EMPTY, "false alarm", (0, 2, 0), (0, 0, 0, NAN), (NAN, NAN), (0, 0, 1)),
        (BAR, BAR, "present", (2, 0, 0), (1, 1, 1, 1), (0, 1), (1, 1, 0)),
        (PIXEL, BAR, "present", (1, 0, 1), (2 / 3, 0.5, 1, 0.5), (0.95, 1), (1, 1, 0)),
        (BAR, PIXEL, "present", (1, 1, 0), (2 / 3, 0.5, 0.5, 1), (0.95, 1), (1, 1, 0)),
        (CORNER, PIXEL, "missed", (0, 1, 1), (0, 0, 0, 0), (math.sqrt(5), 0), (1, 0, 1)),
        (PIXEL, PIXEL, "present", (1, 0, 0), (1, 1, 1, 1), (0, 1), (1, 1, 0)),
    ],
)
def test_every_state_is_as_computed_by_hand(predicted, truth, state, counts, rates, borders, lesions):
    score = measure(predicted, truth)
    assert score.state == state
    assert (score.tp, score.fp, score.fn) == counts
    found = tuple(score.values[name] for name in ("dice", "iou", "precision", "recall"))
    assert found == pytest.approx(rates, nan_ok=True)
    assert (score.values["hd95"], score.values["nsd"]) == pytest.approx(borders, nan_ok=True)
    assert (score.lesions, score.lesions_found, score.false_lesions) == lesions


def test_lesions_touch_at_corners_and_one_pixel_finds_one():
    truth = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]], np.uint8)
    predicted = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1]], np.uint8)
    score = measure(predicted, truth)
    assert (score.lesions, score.lesions_found, score.false_lesions) == (2, 1, 2)


@given(
    hnp.arrays(np.uint8, (9, 7), elements=st.integers(0, 1)), hnp.arrays(np.uint8, (9, 7), elements=st.integers(0, 1))
)
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:monai:FutureWarning", "ignore:.*get_mask_edges:FutureWarning")
def test_borders_are_those_of_monai_and_counts_those_of_a_loop(predicted, truth):
    score = measure(predicted, truth, Surfaces((0.7, 1.3), 1.5))
    cells = [(p, t) for p, t in zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True)]
    assert (score.tp, score.fp, score.fn) == (cells.count((1, 1)), cells.count((1, 0)), cells.count((0, 1)))
    if predicted.any() and truth.any():
        p, t = (torch.from_numpy(mask)[None, None] for mask in (predicted, truth))
        options = {"include_background": True, "spacing": [0.7, 1.3]}
        hd95 = compute_hausdorff_distance(p, t, percentile=95, **options).item()
        assert score.values["hd95"] == pytest.approx(hd95, abs=1e-5)
        assert score.values["nsd"] == pytest.approx(
            compute_surface_dice(p, t, class_thresholds=[1.5], **options).item(), abs=1e-6
        )


def test_volumes_are_measured_in_three_dimensions():
    truth = np.zeros((4, 5, 6), np.uint8)
    truth[1:3, 1:4, 1:5] = 1
    score = measure(np.roll(truth, 1, axis=0), truth, Surfaces((2.5, 1.0, 1.0), 1.0))
    assert score.tp == 12
    assert score.values["hd95"] == pytest.approx(2.5)
    (missed,) = measure_case("c", "g", np.zeros_like(truth), truth, NAMES, Surfaces((2.5, 1.0, 1.0)))
    assert missed.values["hd95"] == pytest.approx(math.sqrt(10**2 + 5**2 + 6**2))


def test_calibration_is_zero_where_certainty_is_the_share_of_right_pixels():
    truth = np.zeros((10, 10), np.uint8)
    truth[:, :8] = 1
    probabilities = np.stack([np.full((10, 10), 0.2), np.full((10, 10), 0.8)]).astype(np.float32)
    assert calibration_error(probabilities, truth) == pytest.approx(0, abs=1e-6)
    assert calibration_error(probabilities, np.ones_like(truth)) == pytest.approx(0.2)
    certain = np.stack([np.ones((10, 10)), np.zeros((10, 10))]).astype(np.float32)
    assert math.isnan(calibration_error(certain, np.zeros_like(truth)))
    assert calibration_error(certain, truth) == pytest.approx(1)
