"""What a data module gives to a prediction."""

from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from flexunet_pl.common.errors import UserError
from flexunet_pl.data.batch import PredictBatch
from flexunet_pl.data.loaders import Loaders
from flexunet_pl.data.predict import PredictDataset, collate_predict
from flexunet_pl.io.images import ImageReader
from flexunet_pl.io.volume_slices import SliceRules
from flexunet_pl.models.inference import Inference
from flexunet_pl.prediction.plan import PredictionOutput, PredictionPlan, plan_prediction


class PredictingDataModule(LightningDataModule):
    """The images and slices of `predict_dir`, by a plan of what is left to do; subclasses say what they are read by."""

    predict_dir: Path | None
    reader: ImageReader
    volume: SliceRules
    inference: Inference
    output: PredictionOutput | None
    patches: bool
    batch_size: int
    num_workers: int
    start_method: Literal["fork", "spawn", "forkserver"] | None
    seed: int
    checkpoint: str | None = None  # of the weights, to go on with what the same ones began; the trainer tells too late
    _plan: PredictionPlan | None = None

    @property
    def plan(self) -> PredictionPlan:
        """What is to be predicted.

        Raises:
            RuntimeError: If `setup` was not called for it.
        """
        if self._plan is None:
            raise RuntimeError('call setup("predict") before the plan is used')
        return self._plan

    def predict_dataloader(self) -> DataLoader[PredictBatch]:
        """Return the images and slices of `predict_dir`, in order; a process has whole volumes."""
        tiled = bool(self.inference.tiled)
        dataset = PredictDataset(self.plan.pictures, self.reader, self.volume, tiled, self.patches and tiled)
        batch_size = 1 if tiled else self.batch_size  # where each may have its own size
        return self._loaders.load(dataset, range(len(dataset)), collate_predict, batch_size)

    def _plan_prediction(self) -> PredictionPlan:
        """Look for what is to be predicted.

        Raises:
            UserError: If no folder was given.
        """
        if self.predict_dir is None:
            raise UserError("data.predict_dir is missing: name the folder of images to predict")
        output = self.output if self.trainer is not None else None
        return plan_prediction(
            self.predict_dir,
            self.volume,
            output,
            self.inference,
            self.checkpoint,
            self._process(),
            windowed=self.reader.window is not None or self.volume.percentiles is not None,
        )

    @property
    def _loaders(self) -> Loaders:
        return Loaders(self.batch_size, self.num_workers, self.start_method, self.seed)

    def _process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
