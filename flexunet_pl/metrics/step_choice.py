"""Which steps behind the network help: decided by cases that it has not seen, class by class."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.metrics.intervals import bootstrap_mean
from flexunet_pl.rgb_map import IGNORED
from flexunet_runtime.postprocess import FILL, LARGEST, SMALLEST, Step, find_parts, postprocess

Index = NDArray[np.uint8]

_SIZES = 6  # of parts that are tried as the smallest to stay
_LEAST = 0.001  # gain in Dice, below which a step is not worth its while
_FEWEST = 5  # groups, below which nothing is adopted
_ERROR = 0.05  # probability with which any step that does not help is adopted, over all that are tried


class Judged(NamedTuple):
    """A case to judge steps by.

    Attributes:
        group: What it belongs to, such as its patient.
        predicted: Class index per pixel, shape ``(H, W)``, uint8.
        truth: The same of the truth; `IGNORED` where a pixel does not count.
    """

    group: str
    predicted: Index
    truth: Index


class Counts(NamedTuple):
    """Pixels of a class that are predicted in each case.

    Attributes:
        right: Those that are of the class, shape ``(N,)``.
        predicted: All that count, shape ``(N,)``.
    """

    right: NDArray[np.int64]
    predicted: NDArray[np.int64]


@dataclass(frozen=True)
class Evidence:
    """What a step does.

    Attributes:
        step: The step.
        gain: Mean change of the Dice over cases; of one without the class that is 1 where nothing is predicted, else 0.
        low: Lower end of its interval over groups.
        high: Upper end.
        cases: Number of cases that the step changes.
        adopted: Whether it is adopted: the gain is worth it, its interval above 0, most of the pixels changed become
            right beyond doubt, and no other step for the class gains more.
    """

    step: Step
    gain: float
    low: float
    high: float
    cases: int
    adopted: bool = False


def choose_steps(cases: Sequence[Judged], names: Sequence[str], seed: int = 137) -> list[Evidence]:
    """Try steps for each class: parts removed, and then holes filled.

    Intervals are that wide that among all steps tried the probability of a false gain is 5 %.

    Args:
        cases: Of the network's validation.
        names: Of the classes, the background first.
        seed: Seed of the intervals.

    Returns:
        What was tried, and which of it is adopted, in the order in which it is to be applied.
    """
    confidence = 1 - _ERROR / ((_SIZES + 2) * (len(names) - 1))
    groups = [case.group for case in cases]

    def judge(tried: list[tuple[Step, Counts]], before: Counts, true: NDArray[np.int64]) -> list[Evidence]:
        found, helping = [], []
        for step, after in tried:
            gains = _dice(after, true) - _dice(before, true)
            low, high = bootstrap_mean(gains.tolist(), groups, confidence, seed)
            found.append(Evidence(step, float(gains.mean()), low, high, int(np.count_nonzero(gains))))
            # to predict more raises the Dice of what is guessed, too: most of what changes must become right
            righted = (2 * after.right - after.predicted) - (2 * before.right - before.predicted)
            if (
                low > 0
                and found[-1].gain >= _LEAST
                and bootstrap_mean(righted.tolist(), groups, confidence, seed)[0] > 0
            ):
                helping.append(found[-1])
        enough = len(set(groups)) >= _FEWEST
        best = max(helping, key=lambda evidence: evidence.gain, default=None)
        return [replace(evidence, adopted=enough and evidence is best) for evidence in found]

    result: list[Evidence] = []
    for index, label in enumerate(names[1:], start=1):
        true = np.array([np.count_nonzero(case.truth == index) for case in cases])

        def count(steps: Sequence[Step], index: int = index) -> Counts:
            masks = [(postprocess(case.predicted, steps, names) == index, case.truth) for case in cases]
            return Counts(
                np.array([np.count_nonzero(shown & (truth == index)) for shown, truth in masks]),
                np.array([np.count_nonzero(shown & (truth != IGNORED)) for shown, truth in masks]),
            )

        removed = judge(list(_removals(label, cases, index)), count([]), true)
        done = [evidence.step for evidence in removed if evidence.adopted]
        fill = Step(label, FILL)
        result += [*removed, *judge([(fill, count([*done, fill]))], count(done), true)]
    return result


def _dice(counts: Counts, true: NDArray[np.int64]) -> NDArray[np.float64]:
    both = counts.predicted + true
    return np.where(both > 0, 2 * counts.right / np.maximum(both, 1), 1.0)


def _removals(label: str, cases: Sequence[Judged], index: int) -> Iterator[tuple[Step, Counts]]:
    """Yield steps that remove parts, and what each leaves; parts are counted once for all steps."""
    counted = [_count_parts(case, index) for case in cases]

    def left(kept: Callable[[NDArray[np.int64]], NDArray[np.bool_]]) -> Counts:
        sums = [[part[kept(areas)].sum() for part in (right, inside)] for areas, inside, right in counted]
        return Counts(*np.array(sums).T)

    yield Step(label, LARGEST), left(lambda areas: np.arange(len(areas)) == (areas.argmax() if len(areas) else -1))
    true_areas = np.concatenate([find_parts(case.truth == index, corners=True)[1][1:] for case in cases])
    if not len(true_areas):
        return
    # up to the size of the smaller parts that are there: what is as large as these may be one
    most = max(3.0, float(np.quantile(true_areas, 0.25)))
    for pixels in np.unique(np.geomspace(2, most, _SIZES).astype(int)).tolist():
        yield Step(label, SMALLEST, pixels), left(lambda areas, least=pixels: areas >= least)  # type: ignore[misc]


def _count_parts(case: Judged, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return, of each predicted part, its pixels, those that count, and those that are right."""
    parts, areas = find_parts(case.predicted == index, corners=True)
    counts = [
        np.bincount(parts[where].ravel(), minlength=len(areas))[1:]
        for where in (case.truth != IGNORED, case.truth == index)
    ]
    return areas[1:], counts[0], counts[1]
