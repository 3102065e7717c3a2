"""The verb `postprocess`: how far a trained network can be trusted, and what to do behind it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flexunet_pl.callbacks.held_out import HeldOut, HeldOutCase
from flexunet_pl.checkpoint import AtomicCheckpointIO, read_checkpoint
from flexunet_pl.cli.lightning import run
from flexunet_pl.common.checkpoint_set import checkpoint_files
from flexunet_pl.common.console import harmless, say
from flexunet_pl.common.errors import UserError
from flexunet_pl.common.files import written_in_place
from flexunet_pl.io.masks import shows_foreground
from flexunet_pl.metrics.calibration import Calibration, calibrate
from flexunet_pl.metrics.step_choice import Evidence, Judged, choose_steps
from flexunet_pl.models.load import read_saved_model


def postprocess_runs(
    runs: Path, group_regex: str | None = None, out: Path | None = None, dry_run: bool = False
) -> None:
    """Decide by validation what is done behind a network, and how certain it is, and write it into its checkpoint.

    Each network predicts the images of its run's validation, which it was not trained on; of several runs, such as
    those of all folds, the cases are judged together. For each class, small parts are removed, the largest part alone
    kept, or holes filled, if that raises the Dice beyond doubt: its interval over patients, widened for all that is
    tried, lies above 0. And a temperature is fitted by which the probabilities are as often right as they say, if it
    helps on patients that it was not fitted on; masks do not depend on it. `predict`, `test`, exported files, the
    runtime and its page go by what the checkpoint says then.

    Args:
        runs: Folder of a run, or of the runs of all folds; or several, separated by commas.
        group_regex: Regular expression that finds the patient in a file's name, such as ^([0-9]+)_; by default every
            picture is a patient of its own, which makes the intervals too narrow where it is not.
        out: The JSON file for what was found; by default postprocessing.json in that folder.
        dry_run: Whether the checkpoints stay as they are.
    """
    files = checkpoint_files(runs)
    names = read_saved_model(files[0]).rgb_map.names
    cases = predict_held_out(files, group_regex)
    evidence = choose_steps([Judged(case.group, case.predicted, case.truth) for case in cases], names)
    calibration = calibrate(
        [case.probabilities for case in cases], [case.classes for case in cases], [case.group for case in cases]
    )
    groups = len({case.group for case in cases})
    _print(evidence, calibration, len(cases), groups)
    steps = [found.step.plain() for found in evidence if found.adopted]
    target = out if out is not None else (runs if runs.is_dir() else files[0].parent.parent) / "postprocessing.json"
    content = {
        "checkpoints": [str(file) for file in files],
        "cases": len(cases),
        "groups": groups,
        "calibration": asdict(calibration),
        "tried": [asdict(found) | {"step": found.step.plain()} for found in evidence],
        "postprocessing": steps,
        "never_empty": all(shows_foreground(case.truth) for case in cases),
    }
    with written_in_place(target) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if dry_run:
        say(f"{target} written; the checkpoints are as they were (--dry-run)")
        return
    for file in files:
        checkpoint = read_checkpoint(file)
        checkpoint["hyper_parameters"] |= {
            "temperature": calibration.temperature,
            "postprocessing": steps or None,
            "never_empty": content["never_empty"],
        }
        AtomicCheckpointIO().save_checkpoint(checkpoint, file)
    say(f"written into {', '.join(map(str, files))}; {target} has all that was tried")


def predict_held_out(files: Sequence[Path], group_regex: str | None) -> list[HeldOutCase]:
    """Predict the validation cases of runs, each by the network that was not trained on them.

    Args:
        files: Checkpoints in the folders of their runs.
        group_regex: Finds the patient in a file's name.

    Returns:
        The cases of all.

    Raises:
        UserError: If a checkpoint does not lie in the folder of its run.
    """
    cases: list[HeldOutCase] = []
    for file in files:
        config = file.parent.parent / "config.yaml"
        if not config.is_file():
            raise UserError(f"{file}: does not lie in the folder of its run, which tells how it was validated")
        kept = HeldOut(group_regex)
        words = ["-c", str(config), "--ckpt_path", str(file), "--trainer.logger", "false"]
        run("validate", words, callbacks=[kept])
        cases += kept.cases
    return cases


def _print(evidence: list[Evidence], calibration: Calibration, cases: int, groups: int) -> None:
    table = Table("class", "step", title=f"steps behind the network, {cases} cases of {groups} groups")
    table.title_justify = "left"
    for column in ("changes", "gain in Dice", "interval", ""):
        table.add_column(column, justify="right")
    for found in evidence:
        step = found.step
        what = {"largest": "keep the largest part", "fill": "fill holes"}.get(
            step.kind, f"remove below {step.pixels} px"
        )
        interval = f"[{found.low:+.4f}, {found.high:+.4f}]"
        adopted = "adopted" if found.adopted else ""
        table.add_row(harmless(step.label), what, f"{found.cases}", f"{found.gain:+.4f}", interval, adopted)
    Console().print(table)
    if calibration.temperature == 1:
        say(f"calibration error {calibration.before:.4f}; no temperature lowers it on patients of another half")
    else:
        say(
            f"calibration error {calibration.before:.4f}, {calibration.after:.4f} with a temperature of "
            f"{calibration.temperature:.2f} (each half of the patients by the other)"
        )
