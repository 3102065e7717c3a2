"""The two checkpoints of a run, which stand beside any other `ModelCheckpoint` of the user's."""

from lightning.pytorch.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """The state after the epoch with the best score, ``best.ckpt``."""


class LastCheckpoint(ModelCheckpoint):
    """The state after the last epoch, ``last.ckpt``."""
