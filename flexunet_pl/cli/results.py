"""What is said and kept when a verb of Lightning is done."""

import json
from pathlib import Path

from lightning.pytorch import Trainer
from rich.console import Console

from flexunet_pl.callbacks import BestCheckpoint
from flexunet_pl.common.console import say
from flexunet_pl.common.files import written_in_place
from flexunet_pl.metrics.score_table import epoch_classes, score_rows
from flexunet_pl.metrics.tables import make_table
from flexunet_pl.prediction.writer import PredictionWriter
from flexunet_pl.rgb_map import RgbMap

_SHOWN = 10  # names of cases


def report_fit(trainer: Trainer, watched: str | None, root: Path | None) -> None:
    """Say where the results of a training are.

    Args:
        trainer: The trainer.
        watched: Score by which the best checkpoint was chosen.
        root: Root of the data.
    """
    folder = trainer.log_dir  # all processes must ask for it
    checkpoint = next((c for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint)), None)
    if not trainer.is_global_zero:
        return
    if not trainer.global_step:
        say("note: nothing was trained; look at trainer.max_epochs and trainer.limit_train_batches")
    best, score = getattr(checkpoint, "best_model_path", ""), getattr(checkpoint, "best_model_score", None)
    if best:
        say(f"run folder       {folder}")
        say(f"best checkpoint  {best}" + (f"  ({watched} {score:.4f})" if score is not None else ""))
        say(f"next             flexunet test --ckpt_path {best} --data.root {root}")


def report_validation(trainer: Trainer, rgb_map: RgbMap) -> None:
    """Print the scores and keep them as ``val_scores.json``.

    Args:
        trainer: The trainer.
        rgb_map: The classes.
    """
    scores = keep_scores(trainer, "val")
    if trainer.is_global_zero and scores:
        classes = epoch_classes(scores, rgb_map.names[1:])
        Console().print(make_table("valid, means over images", classes, score_rows(classes.values())))
        say(f"loss {scores['loss']:.4f}; mean foreground Dice {scores.get('dice', float('nan')):.4f}")
        say(f"dice_coef_multiclass {scores['dice_coef_multiclass']:.4f} (the reference's; counts the background)")


def report_prediction(trainer: Trainer, writer: PredictionWriter) -> int:
    """Say where the masks are, and what is missing.

    Args:
        trainer: The trainer.
        writer: Has written them.

    Returns:
        Exit status: 1 where something is missing.
    """
    writer.gather_failures(trainer)
    if trainer.is_global_zero:
        flagged = writer.flagged()
        there = f" ({writer.done_before} were there already)" if writer.done_before else ""
        say(f"masks written to {writer.output.output_dir}{there}; how far to trust each: confidence.csv")
        if flagged:
            shown = ", ".join(flagged[:_SHOWN]) + (", ..." if len(flagged) > _SHOWN else "")
            say(f"{len(flagged)} to be looked at (trust below {writer.output.flag_below:g}): {shown}")
        if writer.failed:
            say(f"{len(writer.failed)} could not be predicted: {', '.join(sorted(writer.failed))}")
    return 1 if writer.failed else 0


def keep_scores(trainer: Trainer, stage: str) -> dict[str, float]:
    """Write the scores of a stage into the run's folder.

    Args:
        trainer: The trainer.
        stage: val or test.

    Returns:
        The scores, by name.
    """
    folder = trainer.log_dir  # all processes must ask for it together
    scores = {k.removeprefix(f"{stage}/"): float(v) for k, v in trainer.callback_metrics.items()}
    if trainer.is_global_zero and trainer.loggers and folder is not None:
        with written_in_place(Path(folder) / f"{stage}_scores.json") as target:
            target.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    return scores
