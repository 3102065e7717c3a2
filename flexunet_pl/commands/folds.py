"""The verb `folds`: train a network for each fold, one after the other."""

import json
from pathlib import Path

from flexunet_pl.cli.lightning import run
from flexunet_pl.common.console import say
from flexunet_pl.common.errors import UserError
from flexunet_pl.common.files import check_input, sha256_of, written_in_place
from flexunet_pl.common.yaml import read_yaml

_RECORD = "folds.json"


def train_folds(
    *, config: Path, root: Path | None = None, out: Path = Path("folds"), folds: list[int] | None = None
) -> None:
    """Train a network for each fold of a data set, one after the other; a second call goes on where it was stopped.

    Each run is that of `flexunet fit --data.fold K`, in a folder `fold_K`. `flexunet predict`, `test` and `export` take
    the folder of all of them as `--ckpt_path`, and average their probabilities; `flexunet postprocess` finds out on the
    cases that each of them has not seen how far they can be trusted.

    Args:
        config: Configuration of `flexunet fit`, such as `flexunet plan` writes.
        root: Folder that `flexunet split --folds` made; by default what the configuration names, or the folder above it
            where that is one of the folds.
        out: Folder for the runs.
        folds: Numbers of the folds to train; all by default.

    Raises:
        UserError: If there are no folds, or the folder was begun with another configuration.
    """
    check_input(config)
    root = root if root is not None else _root_of(config)
    there = sorted(int(path.name[5:]) for path in root.glob("fold_*") if path.is_dir() and path.name[5:].isdigit())
    if not there:
        raise UserError(f"{root}: holds no folds; make them with `flexunet split DATA {root} --folds 5`")
    wanted = there if folds is None else folds
    if unknown := sorted(set(wanted) - set(there)):
        raise UserError(f"folds: {root} has no fold {unknown[0]}; it has {', '.join(map(str, there))}")
    made = {"config_sha256": sha256_of(config), "root": str(root.resolve())}
    done = _read_record(out, made)
    for fold in wanted:
        if fold in done:
            say(f"fold {fold}: is done")
            continue
        say(f"fold {fold} of {', '.join(map(str, wanted))}")
        _train(config, root, out, fold)
        done.append(fold)
        with written_in_place(out / _RECORD) as temporary:
            temporary.write_text(json.dumps({**made, "done": sorted(done)}, indent=1) + "\n", encoding="utf-8")
    say(f"{len(wanted)} networks in {out}; next:")
    say(f"  flexunet postprocess {out}")
    say(f"  flexunet predict --ckpt_path {out} --data.predict_dir IMAGES --prediction.output_dir MASKS")


def _root_of(config: Path) -> Path:
    content = read_yaml(config)
    try:
        root = Path(content["data"]["root"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{config}: names no data.root; give the folder of the folds as --root") from error
    return root.parent if root.name.startswith("fold_") else root


def _read_record(out: Path, made: dict[str, str]) -> list[int]:
    """Return the folds that are done, once it is seen that the folder is that of this configuration.

    Raises:
        UserError: If it is another's.
    """
    path = out / _RECORD
    if not path.is_file():
        if out.exists() and (not out.is_dir() or any(not p.name.startswith("fold_") for p in out.iterdir())):
            raise UserError(f"{out}: is not empty, and no folder of folds; name another --out")
        return []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        before, done = {key: record[key] for key in made}, [int(fold) for fold in record["done"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: is damaged; name another --out") from error
    if changed := [key for key in made if before[key] != made[key]]:
        what = "configuration" if "config_sha256" in changed else "root"
        raise UserError(f"{out}: was begun with another {what}; name another --out")
    return done


def _train(config: Path, root: Path, out: Path, fold: int) -> None:
    logger = "trainer.logger.init_args"
    words = ["-c", str(config), "--data.root", str(root), "--data.fold", str(fold)]
    words += [f"--{logger}.save_dir", str(out.absolute().parent), f"--{logger}.name", out.name]
    last = out / f"fold_{fold}" / "checkpoints" / "last.ckpt"
    words += [f"--{logger}.version", f"fold_{fold}", *(["--ckpt_path", str(last)] if last.is_file() else [])]
    run("fit", words)
