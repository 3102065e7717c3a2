"""What Lightning's verbs do where nothing is said: trainer, model, callbacks, and the warnings that say nothing new."""

import logging
import warnings
from typing import Any

from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor

from flexunet_pl.callbacks import (
    BestCheckpoint,
    CaseScores,
    EpochChangeInference,
    FastConvolutions,
    FiniteLoss,
    GracefulStop,
    HistoryCurves,
    LastCheckpoint,
    RandomState,
    RunRecord,
    StopFile,
    TrainSamples,
)

SEED = 137  # the reference's

RUN_NAME = "flexunet"
TRAINER_DEFAULTS = {
    "max_epochs": 100,
    "gradient_clip_val": 0.4,
    "gradient_clip_algorithm": "value",
    "log_every_n_steps": 10,
    "logger": {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": "runs", "name": RUN_NAME, "default_hp_metric": False},
    },
}
MODEL_DEFAULTS = {  # what `SegmentationTask` takes by itself, as class paths
    "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-4, "eps": 1e-7}},
    "scheduler": {
        "class_path": "lightning.pytorch.cli.ReduceLROnPlateau",
        "init_args": {
            "monitor": "val/loss", "factor": 0.4, "patience": 4, "threshold": 1e-4, "threshold_mode": "abs",
        },
    },
}  # fmt: skip
# callbacks with a section of their own in the configuration: class and defaults
CALLBACKS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "checkpoint": (
        BestCheckpoint,
        {"monitor": "val/loss", "filename": "best", "save_on_train_epoch_end": True, "enable_version_counter": False},
    ),
    # behind the best, whose state it saves; ModelCheckpoint's own save_last writes only when there is a new best
    "last_checkpoint": (
        LastCheckpoint,
        {"filename": "last", "save_on_train_epoch_end": True, "enable_version_counter": False},
    ),
    # not strict: the last epoch may end before its validation; that there is such a score is checked at the start
    "early_stopping": (EarlyStopping, {"monitor": "val/loss", "patience": 10, "strict": False}),
    "finite_loss": (FiniteLoss, {}),
    "fast_convolutions": (FastConvolutions, {}),
    "epoch_change": (EpochChangeInference, {}),
    "stop_file": (StopFile, {}),
    "scores": (CaseScores, {}),
}
MONITORS = ("checkpoint", "last_checkpoint", "early_stopping")  # those of them that watch a score
_EXPECTED_WARNINGS = (
    "The number of training batches",  # small data sets are no mistake
    ".*does not have many workers",  # data.num_workers has a default that fits the machine
    "LightningCLI's args parameter is intended",  # `main` always passes them
    "You're resuming from a checkpoint that ended before",  # EpochSampler goes on where the epoch stopped
    "Checkpoint directory .* exists and is not empty",  # files there are the run's own
    "Experiment logs directory .* exists and is not empty",  # it was made for the run's lock
    "Be aware that when using `ckpt_path`, callbacks",  # those of training have nothing to do elsewhere
    "The dirpath has changed from",  # test and predict write no checkpoints
    "Precision .* is not supported by the model summary",
    "`ModelCheckpoint.monitor=.*could not find the monitored key",  # before the first validation; later it is an error
    "Total length of `DataLoader` across ranks is zero",  # predict has nothing left to do
    "Early stopping conditioned on metric",  # see above
    "ReduceLROnPlateau conditioned on metric",  # the task steps it, and says what is missing
    "\\s*Dump of a value that does not round-trip",  # albumentations takes a list for a tuple
    ".*isinstance.treespec, LeafSpec.",  # Lightning calls a function that torch renamed
)


def fit_callbacks(*, logs: bool) -> list[Callback]:
    """Make the callbacks without settings that every training has.

    Args:
        logs: Whether it has a logger.
    """
    callbacks: list[Callback] = [HistoryCurves(), RandomState(), GracefulStop(), TrainSamples(), RunRecord()]
    return [*callbacks, LearningRateMonitor(logging_interval="epoch")] if logs else callbacks


def pass_over_expected() -> None:
    """Say nothing of warnings that are expected, nor of what Lightning advertises."""
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage()
