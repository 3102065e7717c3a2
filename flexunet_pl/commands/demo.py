"""The demo: phantoms, training, test, report, export and prediction, one command after the other."""

import subprocess
import sys
import time
from pathlib import Path

from flexunet_pl.cli.lightning import run
from flexunet_pl.commands.export import export_model
from flexunet_pl.commands.plan import plan_training
from flexunet_pl.commands.report import write_report
from flexunet_pl.common.errors import UserError
from flexunet_pl.io.pairs import list_files
from flexunet_pl.prepare.phantom import PHANTOM_MAP, write_phantom

_PATIENT = "^([0-9]+)_"  # in the phantoms' names


def run_demo(out: Path = Path("demo"), overwrite: bool = False, minutes: float = 1.5) -> None:
    """Draw phantoms, plan a training on them, train, test, report, export, predict, and show where all of it lies.

    Args:
        out: Folder to create.
        overwrite: Whether a folder that is not empty may be written to.
        minutes: How long the training may take.

    Raises:
        UserError: If the folder is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
        raise UserError(f"{out}: is not empty; name another folder or give --overwrite true")
    began = time.monotonic()
    data, runs = out / "data", out / "runs"
    _announce(f"flexunet phantom {data}")
    write_phantom(data, overwrite=overwrite)
    plan = out / "plan.yaml"
    _announce(f"flexunet plan {data} --minutes {minutes:g} --out {plan} --group-regex '{_PATIENT}'")
    plan_training(
        data, minutes=minutes, out=plan, rgb_map=PHANTOM_MAP.to_dict(), group_regex=_PATIENT, overwrite=overwrite
    )
    known = {p.name for p in (runs / "flexunet").glob("version_*")}
    _run("fit", "-c", str(plan), "--trainer.logger.save_dir", str(runs))
    (version,) = {p.name for p in (runs / "flexunet").glob("version_*")} - known
    run_folder = runs / "flexunet" / version
    checkpoint = str(run_folder / "checkpoints" / "best.ckpt")
    _run("test", "--ckpt_path", checkpoint, "--data.root", str(data), "--scores.group_regex", _PATIENT)
    _announce(f"flexunet report {run_folder}")
    report = write_report(run_folder)
    model = out / "model.onnx"
    _announce(f"flexunet export {checkpoint} --output {model} --images {data / 'test' / 'images'}")
    export_model(Path(checkpoint), output=model, overwrite=overwrite, images=data / "test" / "images")
    words = ["-m", "flexunet_runtime", *map(str, (model, data / "test" / "images", out / "masks_without_torch"))]
    _announce(f"python {' '.join(words)}")
    subprocess.run([sys.executable, *words], check=True)  # noqa: S603 - our own program
    masks = out / "masks"
    _run("predict", "--ckpt_path", checkpoint, "--data.predict_dir", str(data / "test" / "images"),
         "--prediction.output_dir", str(masks), "--prediction.overlay", "true",
         "--prediction.overwrite", str(overwrite).lower())  # fmt: skip
    places = {
        "report": report,
        "data": data,
        "plan": plan,
        "curves": run_folder / "train_losses.png",
        "film strip": run_folder / "epoch_change" / "film_strip.png",
        "checkpoint": checkpoint,
        f"{len(list_files(masks))} masks": masks,
        "overlays": masks / "overlays",
        "ONNX file": model,
        "its masks": out / "masks_without_torch",
    }
    sys.stdout.write(f"\ndone in {time.monotonic() - began:.0f} s\n")
    sys.stdout.writelines(f"  {what:<12} {where}\n" for what, where in places.items())
    sys.stdout.write(f"  {'watch it':<12} tensorboard --logdir {runs}\n")


def _run(verb: str, *args: str) -> None:
    _announce(f"flexunet {verb} {' '.join(args)}")
    run(verb, args)


def _announce(command: str) -> None:
    sys.stdout.write(f"\n$ {command}\n")
    sys.stdout.flush()
