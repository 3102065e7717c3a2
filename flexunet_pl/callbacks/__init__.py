"""Callbacks, one side effect each."""

from flexunet_pl.callbacks.case_scores import CaseScores
from flexunet_pl.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from flexunet_pl.callbacks.epoch_change import EpochChangeInference
from flexunet_pl.callbacks.fast_convolutions import FastConvolutions
from flexunet_pl.callbacks.finite_loss import FiniteLoss
from flexunet_pl.callbacks.history import HistoryCurves
from flexunet_pl.callbacks.interrupt import GracefulStop
from flexunet_pl.callbacks.random_state import RandomState
from flexunet_pl.callbacks.run_record import RunRecord
from flexunet_pl.callbacks.stop_file import StopFile
from flexunet_pl.callbacks.train_samples import TrainSamples
from flexunet_pl.prediction.writer import PredictionWriter

__all__ = [
    "BestCheckpoint",
    "CaseScores",
    "EpochChangeInference",
    "FastConvolutions",
    "FiniteLoss",
    "GracefulStop",
    "HistoryCurves",
    "LastCheckpoint",
    "PredictionWriter",
    "RandomState",
    "RunRecord",
    "StopFile",
    "TrainSamples",
]
