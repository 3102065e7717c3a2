"""How much a label is to be doubted, where a network that has not seen it says otherwise."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.rgb_map import IGNORED


class Doubt(NamedTuple):
    """How much a label is to be doubted.

    Attributes:
        score: Over all classes, 0..1.
        by_class: Of each class but the background, 0..1, shape ``(K - 1,)``.
        dice: Dice of prediction and label for each of them; 1 where neither has it.
    """

    score: float
    by_class: NDArray[np.float64]
    dice: NDArray[np.float64]


def doubt_label(predicted: NDArray[np.uint8], label: NDArray[np.uint8], expected_dice: NDArray[np.float64]) -> Doubt:
    """Compare a label with a prediction by how sure the network is: a class that is hard for it tells little.

    Args:
        predicted: Class index per pixel, shape ``(H, W)``, by a network that was not trained on the label.
        label: The same of the label; `IGNORED` where it says nothing.
        expected_dice: Dice that the network expects of each class but the background.

    Returns:
        The doubt: by how much the Dice falls behind what is expected, each class weighted by the root of its pixels, so
        that neither the border of a small one nor a large one decides alone.
    """
    predicted = np.where(label == IGNORED, label, predicted)
    dice, weights = [], []
    for index in range(1, len(expected_dice) + 1):
        one, other = predicted == index, label == index
        both = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
        weights.append(both**0.5)
        dice.append(2 * int(np.count_nonzero(one & other)) / both if both else 1.0)
    by_class = np.clip(expected_dice - dice, 0, None) * weights / max(sum(weights), 1)
    return Doubt(float(by_class.sum()), by_class, np.array(dice))
