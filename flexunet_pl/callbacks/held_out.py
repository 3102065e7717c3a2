"""HeldOut: what a network says of cases that it has not seen, kept to judge it by."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from flexunet_pl.common.tensors import most_probable
from flexunet_pl.io.masks import read_mask
from flexunet_pl.io.patient_ids import group_of, parse_group_regex
from flexunet_pl.models.inference import Answer, class_probabilities, resize_logits
from flexunet_pl.rgb_map import IGNORED

_MOST_PIXELS = 20_000  # of a case whose probabilities are kept


class HeldOutCase(NamedTuple):
    """A case of a validation.

    Attributes:
        name: Name of the case.
        group: What it belongs to, such as its patient.
        image: File of the image.
        mask: File of the mask.
        predicted: Class index per pixel, at the size of the mask, before any step behind the network.
        truth: The same of the truth.
        probabilities: Of pixels of the foreground, predicted or true, evenly chosen, shape ``(K, n)``, float32.
        classes: Their true class, shape ``(n,)``, uint8.
        expected_dice: Dice to be expected of each class but the background, shape ``(K - 1,)``.
    """

    name: str
    group: str
    image: Path
    mask: Path
    predicted: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    classes: NDArray[np.uint8]
    expected_dice: NDArray[np.float64]


class HeldOut(Callback):
    """Keeps what a network says of the cases of a validation.

    Args:
        group_regex: Regular expression that finds the patient in a file's name; by default each case is alone.
    """

    def __init__(self, group_regex: str | None = None) -> None:
        self.regex = parse_group_regex(group_regex)
        self.cases: list[HeldOutCase] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the cases of a batch."""
        task: Any = pl_module
        data = trainer.datamodule  # type: ignore[attr-defined]
        pairs = {pair.image.stem: pair for pair in data.pairs["valid"]}
        for name, logits in zip(batch["name"], outputs.cpu(), strict=False):  # those that are not counted stand last
            pair = pairs[name]
            truth = read_mask(pair.mask, task.rgb_map, data.unknown_colors)
            probabilities = class_probabilities(resize_logits(logits, truth.shape), len(task.rgb_map))
            answer = Answer(most_probable(probabilities).byte(), probabilities, None)
            predicted = answer.mask.numpy()
            used = np.flatnonzero(((predicted > 0) | (truth > 0)) & (truth != IGNORED))
            used = used[np.linspace(0, len(used) - 1, min(len(used), _MOST_PIXELS)).astype(int)]
            kept = probabilities.flatten(1).numpy()[:, used]
            group = group_of(Path(name), self.regex) or name
            expected = answer.confidence().expected_dice[1:]
            self.cases.append(
                HeldOutCase(name, group, pair.image, pair.mask, predicted, truth, kept, truth.ravel()[used], expected)
            )
