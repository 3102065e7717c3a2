"""Steps behind the network are adopted where they help, and nowhere else."""

import numpy as np
import pytest
from scipy import ndimage

from flexunet_pl.metrics.calibration import calibrate, calibration_error, reliability, risk_curve
from flexunet_pl.metrics.step_choice import Judged, choose_steps
from flexunet_pl.rgb_map import IGNORED
from flexunet_runtime.postprocess import Step, postprocess

NAMES = ("background", "organ", "lesion")
SIDE = 64


def dice(predicted, truth):
    return 2 * (predicted & truth).sum() / max(1, predicted.sum() + truth.sum())


def blob(rng, radius):
    y, x = np.mgrid[:SIDE, :SIDE]
    return (y - rng.uniform(20, 44)) ** 2 + (x - rng.uniform(20, 44)) ** 2 < radius**2


def case(rng, group, *, salt=0.0):
    """An organ and a lesion in it, predicted a little off; with salt, single pixels of the organ elsewhere."""
    organ, lesion = blob(rng, rng.uniform(10, 16)), blob(rng, rng.uniform(3, 5))
    truth = organ.astype(np.uint8)
    truth[lesion] = 2
    predicted = np.roll(truth, rng.integers(-2, 3, 2), (0, 1))
    predicted[(rng.random(truth.shape) < salt) & (predicted == 0)] = 1
    return Judged(group, predicted, truth)


def noise(rng, group):
    """Truth and prediction that have nothing to do with each other."""
    fields = ndimage.gaussian_filter(rng.standard_normal((2, 3, SIDE, SIDE)), (0, 0, 1, 1))
    truth, predicted = fields.argmax(1).astype(np.uint8)
    return Judged(group, predicted, truth)


def half_noise(rng, group):
    """Pixels that are an organ or not as a coin falls, in truth and in prediction."""
    truth, predicted = (rng.random((2, SIDE, SIDE)) < 0.5).astype(np.uint8)
    return Judged(group, predicted, truth)


@pytest.mark.parametrize("made", [case, noise, half_noise])
def test_nothing_is_adopted_where_there_is_nothing_to_gain(made):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = choose_steps([made(rng, str(i)) for i in range(12)], NAMES)
        assert not [evidence for evidence in found if evidence.adopted], seed


def test_salt_is_always_removed():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        cases = [case(rng, str(i), salt=0.03) for i in range(8)]
        steps = [evidence.step for evidence in choose_steps(cases, NAMES) if evidence.adopted]
        assert {step.label for step in steps} == {"organ"}, seed
        before = np.mean([dice(c.predicted == 1, c.truth == 1) for c in cases])
        after = np.mean([dice(postprocess(c.predicted, steps, NAMES) == 1, c.truth == 1) for c in cases])
        assert after > before + 0.02


def test_holes_are_filled_where_the_truth_has_none():
    rng = np.random.default_rng(5)
    cases = []
    for i in range(8):
        truth = blob(rng, 12).astype(np.uint8)
        holes = (rng.random(truth.shape) < 0.1) & ndimage.binary_erosion(truth == 1)
        cases.append(Judged(str(i), np.where(holes, 0, truth).astype(np.uint8), truth))
    assert [evidence.step for evidence in choose_steps(cases, NAMES) if evidence.adopted] == [Step("organ", "fill")]


def test_few_patients_decide_nothing_and_what_does_not_count_has_no_say():
    rng = np.random.default_rng(1)
    few = [case(rng, str(i % 4), salt=0.03) for i in range(8)]
    assert not any(evidence.adopted for evidence in choose_steps(few, NAMES))
    ignored = [
        Judged(c.group, c.predicted, np.where(c.truth == 0, IGNORED, c.truth).astype(np.uint8))
        for c in (case(rng, str(i), salt=0.03) for i in range(8))
    ]
    assert not any(evidence.adopted for evidence in choose_steps(ignored, NAMES))


def test_the_gain_is_that_of_the_masks():
    rng = np.random.default_rng(3)
    cases = [case(rng, str(i), salt=0.02) for i in range(6)]
    for evidence in choose_steps(cases, NAMES):
        if evidence.step.kind != "fill" and evidence.step.label == "organ":
            gains = [
                dice(postprocess(c.predicted, [evidence.step], NAMES) == 1, c.truth == 1)
                - dice(c.predicted == 1, c.truth == 1)
                for c in cases
            ]
            assert evidence.gain == pytest.approx(np.mean(gains))


def sample(rng, temperature, pixels=400):
    """Probabilities of three classes, and classes drawn from what they are at a temperature."""
    logits = 3 * rng.standard_normal((3, pixels))
    told, real = (np.exp(z) / np.exp(z).sum(0) for z in (logits, logits / temperature))
    classes = (rng.random(pixels) > real.cumsum(0)).sum(0).clip(0, 2)
    return told.astype(np.float32), classes.astype(np.uint8)


@pytest.mark.parametrize("temperature", [0.6, 2.5])
def test_the_temperature_is_found(temperature):
    rng = np.random.default_rng(7)
    probabilities, truths = zip(*(sample(rng, temperature) for _ in range(40)), strict=True)
    found = calibrate(probabilities, truths, [str(i) for i in range(40)])
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.after < found.before
    assert found.before == pytest.approx(
        np.mean([calibration_error(p[:, None], t[None]) for p, t in zip(probabilities, truths, strict=True)])
    )


def test_one_patient_gives_no_temperature():
    rng = np.random.default_rng(7)
    probabilities, truths = zip(*(sample(rng, 3.0) for _ in range(4)), strict=True)
    assert calibrate(probabilities, truths, ["a"] * 4).temperature == 1
    assert calibrate([np.zeros((3, 0), np.float32)], [np.zeros(0, np.uint8)], ["a"]).temperature == 1


def test_bins_are_those_of_the_calibration_error():
    rng = np.random.default_rng(3)
    told, classes = sample(rng, 2.0)
    certain, right, pixels = reliability(told[:, None], classes[None])
    assert pixels.sum() == ((told.argmax(0) > 0) | (classes > 0)).sum()
    assert np.abs(right - certain).sum() / pixels.sum() == pytest.approx(
        calibration_error(told[:, None], classes[None])
    )
    assert all(
        b / 15 - 1e-6 <= c / n <= (b + 1) / 15 + 1e-6 for b, (c, n) in enumerate(zip(certain, pixels, strict=True)) if n
    )


def test_risk_falls_where_the_doubtful_are_left_out():
    dice = [0.9, 0.2, 0.8, np.nan, 0.4]
    assert risk_curve([0.9, 0.1, 0.8, 0.5, 0.2], dice) == pytest.approx([0.1, 0.15, 0.9 / 3, 1.7 / 4])
    assert risk_curve([0.1, 0.9, 0.2, 0.5, 0.8], dice).mean() > risk_curve(dice, dice).mean()
    assert not len(risk_curve([0.5], [np.nan]))
