"""FastConvolutions: large kernels work by the Fourier transform, where that is faster on this CPU."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from flexunet_pl.common.errors import ModelFileError
from flexunet_pl.models.convolution_choice import SIDES, ConvolutionTimings
from flexunet_pl.models.fast_convolution import Sides, use_fast_convolutions
from flexunet_pl.task import SegmentationTask

_MANY = 16  # images for which timing convolutions, where that was not done on this machine yet, is worth its time


class FastConvolutions(Callback):
    """Has convolutions with kernels of 7 and more work by the Fourier transform, on CPUs in float32.

    Which of them, and in which size of tiles, is timed once for each machine and shape, and kept among the user's
    caches. Results are the same but for rounding (1e-6 of the probabilities); weights and checkpoints do not change. A
    run that is resumed keeps to what it began with.

    Args:
        enabled: Whether; false is the direct way for all.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._chosen: dict[str, Sides] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what was chosen, for a run that is resumed."""
        return {"chosen": None if self._chosen is None else {name: list(sides) for name, sides in self._chosen.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what the run began with.

        Raises:
            ModelFileError: If that is nothing that can be chosen.
        """
        chosen = state_dict["chosen"]
        self._chosen = None if chosen is None else {name: Sides(*sides) for name, sides in chosen.items()}
        if any(side not in SIDES for sides in (self._chosen or {}).values() for side in sides):
            raise ModelFileError("the checkpoint's fast_convolutions are none that this program chooses; train anew")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose for training and validation."""
        self._begin(trainer, pl_module, images=_MANY)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose for `validate`."""
        if trainer.state.fn == "validate":
            self._begin(trainer, pl_module, _count(trainer.num_val_batches, trainer))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose for `test`."""
        self._begin(trainer, pl_module, _count(trainer.num_test_batches, trainer))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose for `predict`."""
        self._begin(trainer, pl_module, _count(trainer.num_predict_batches, trainer))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the convolutions their own way back."""
        use_fast_convolutions(pl_module, {})

    def _begin(self, trainer: Trainer, task: LightningModule, images: int) -> None:
        if (
            not isinstance(task, SegmentationTask)
            or not self.enabled
            or task.device.type != "cpu"
            or trainer.precision != "32-true"
        ):
            return
        training = trainer.state.fn == "fit"
        if self._chosen is None or not training:
            pixels = torch.zeros((1, task.reader.channels, *task.reader.size), dtype=torch.uint8)
            pixels.random_(generator=torch.Generator().manual_seed(0))  # the run's own numbers stay untouched
            self._chosen = ConvolutionTimings().choose(task, pixels, training=training, may_time=images >= _MANY)
        use_fast_convolutions(task, self._chosen)


def _count(batches: list[int | float], trainer: Trainer) -> int:
    return int(sum(batches)) * getattr(trainer.datamodule, "batch_size", 1)  # type: ignore[attr-defined]
