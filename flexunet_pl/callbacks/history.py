"""HistoryCurves: the course of training as CSV files and curves."""

import csv
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flexunet_pl.common.files import written_in_place

# file, columns of the reference, and the score that fills each
_TABLES = {
    "train_losses": {"loss": "train/loss", "val_loss": "val/loss"},
    "train_metrics": {
        "dice_coef_multiclass": "train/dice_coef_multiclass",
        "val_dice_coef_multiclass": "val/dice_coef_multiclass",
    },
    "train_dice": {"dice": "train/dice", "val_dice": "val/dice"},
    "learning_rate": {"learning_rate": "learning_rate"},
}


_DRAWN_EVERY_S = 5  # four pictures take longer than a small epoch


class HistoryCurves(Callback):
    """Writes ``train_losses``, ``train_metrics`` (the reference's columns), ``train_dice`` and ``learning_rate``.

    Each is a CSV file, written after every epoch, and a picture, which is drawn again where some seconds have passed
    and at the end. The rows are part of the checkpoint: a resumed run writes the whole course.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._folder: Path | None = None
        self._validated = False
        self._stale = False  # whether rows were added since the curves were drawn
        self._drawn = 0.0  # seconds, of a clock that begins anywhere

    def state_dict(self) -> dict[str, Any]:
        """Return the rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows of the run that is resumed."""
        self.rows = list(state_dict["rows"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run's folder; all processes must ask for it together."""
        if stage == "fit":
            self._folder = Path(trainer.log_dir or trainer.default_root_dir)
            self._drawn = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last validation, whose scores Lightning keeps until the next one."""
        self._validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this epoch has validation scores."""
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row and write all files again."""
        epoch = trainer.current_epoch + 1
        columns = {column: key for table in _TABLES.values() for column, key in table.items()}
        known = {
            k: float(v) for k, v in trainer.callback_metrics.items() if self._validated or not k.startswith("val/")
        }
        known["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        scores = {column: known[key] for column, key in columns.items() if key in known}
        self.rows = [row for row in self.rows if row["epoch"] < epoch] + [{"epoch": epoch, **scores}]
        if trainer.is_global_zero and self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name, table in _TABLES.items():
                _write_csv(self._folder / f"{name}.csv", ["epoch", *table], self.rows)
            self._stale = True
            if time.monotonic() - self._drawn >= _DRAWN_EVERY_S:
                self._draw()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the last epochs."""
        self._draw()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draw the last epochs of a run that is stopped, too."""
        with suppress(OSError):  # where it is stopped by a full disk
            self._draw()

    def _draw(self) -> None:
        if self._stale and self._folder is not None:
            for name, table in _TABLES.items():
                _draw(self._folder / f"{name}.png", list(table), self.rows)
            self._drawn, self._stale = time.monotonic(), False


def _write_csv(path: Path, columns: list[str], rows: list[dict[str, float]]) -> None:
    with written_in_place(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _draw(path: Path, columns: list[str], rows: list[dict[str, float]]) -> None:
    figure = Figure(figsize=(7, 4))  # without a layout engine, which takes longer than a small epoch
    axes = figure.subplots()
    for column in columns:
        points = [(row["epoch"], row[column]) for row in rows if column in row]
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=column)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    with written_in_place(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
