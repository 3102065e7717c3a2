"""What the folder of a run holds, read for a report."""

import csv
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexunet_pl.common.cells import unguard
from flexunet_pl.common.errors import UserError
from flexunet_pl.common.yaml import read_yaml_text
from flexunet_pl.io.pairing import PairingRule
from flexunet_pl.io.pairs import Pair, list_pairs
from flexunet_pl.rgb_map import RgbMap


@dataclass(frozen=True)
class TestRun:
    """The newest test of a run.

    Attributes:
        folder: Where it lies.
        root: The data that were tested, as they were named.
        checkpoint: The checkpoint that was tested.
        summary: Of all cases, by `write_summary`.
        cases: One line per case and class, by `write_per_case`.
        pairs: Image and mask of the cases that are still there, by name.
    """

    folder: Path
    root: str
    checkpoint: str
    summary: dict[str, Any]
    cases: list[dict[str, str]]
    pairs: dict[str, Pair]


@dataclass(frozen=True)
class Run:
    """A training, and what came of it.

    Attributes:
        folder: Where it lies.
        config: Everything that was set.
        config_text: The same as it is written.
        rgb_map: The classes.
        record: Versions, device and data, by `RunRecord`; empty for runs that have none.
        curves: Columns by name of the table, and by name of the column; what is missing is NaN.
        test: The newest test, if there was one.
    """

    folder: Path
    config: dict[str, Any]
    config_text: str
    rgb_map: RgbMap
    record: dict[str, Any]
    curves: dict[str, dict[str, list[float]]]
    test: TestRun | None

    def pairs(self, split: str) -> list[Pair]:
        """Return the files of a split, where the data are still there."""
        return _pairs(self.config, split)


def read_run(folder: Path) -> Run:
    """Read the folder of a run.

    Args:
        folder: What ``flexunet fit`` has made, which holds config.yaml.

    Returns:
        What it holds.

    Raises:
        UserError: If it is no such folder, or a file in it is damaged.
    """
    config, text = _read_config(folder)
    record = folder / "run.json"
    tables = ("train_losses", "train_metrics", "train_dice", "learning_rate")
    return Run(
        folder=folder,
        config=config,
        config_text=text,
        rgb_map=RgbMap.parse(config["model"]["rgb_map"]),
        record=_read_json(record) if record.is_file() else {},
        curves={name: _columns(folder / f"{name}.csv") for name in tables if (folder / f"{name}.csv").is_file()},
        test=_read_test(folder),
    )


def _read_config(folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"{folder}: is no folder of a run: it has no config.yaml; name one such as runs/flexunet/version_0"
        )
    config, text = read_yaml_text(path)
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or "rgb_map" not in model:
        raise UserError(f"{path}: has no model.rgb_map; name the folder of a training")
    return config, text


def _read_test(folder: Path) -> TestRun | None:
    found = [path.parent for path in (folder / "test").glob("version_*/summary.json")]
    if not found:
        return None
    newest = max(found, key=lambda path: [int(n) for n in re.findall(r"\d+$", path.name)])
    cases = _read_rows(newest / "per_case.csv")
    config = newest / "config.yaml"
    known = _read_config(newest)[0] if config.is_file() else {}
    pairs = {pair.image.stem: pair for pair in _pairs(known, "test")}
    summary = _read_json(newest / "summary.json")
    classes = summary.get("classes")
    whole = isinstance(classes, dict) and len(cases) == summary.get("cases", -1) * len(classes)
    if not whole or any(None in row or None in row.values() for row in cases):
        raise UserError(f"{newest / 'per_case.csv'}: is damaged, or not of this summary.json; run flexunet test again")
    data = known.get("data")
    root = data.get("root") if isinstance(data, dict) else None
    return TestRun(newest, str(root), str(known.get("ckpt_path")), summary, cases, pairs)


def _pairs(config: dict[str, Any], split: str) -> list[Pair]:
    data = config.get("data")
    root = data.get("root") if isinstance(data, dict) else None
    fold = data.get("fold") if isinstance(data, dict) else None
    if not isinstance(root, str):
        return []
    rule = data.get("pairing") if isinstance(data, dict) else None
    try:
        return list_pairs(
            Path(root) / (f"fold_{fold}" if fold is not None else "") / split,
            PairingRule(**rule) if isinstance(rule, dict) else None,
        )
    except (UserError, TypeError):
        return []  # they are not there any more, or not complete


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is damaged; {_remedy(path)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is damaged; {_remedy(path)}")
    return content


def _remedy(path: Path) -> str:
    return "run flexunet test again" if path.parent.parent.name == "test" else "remove it: the report goes without it"


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        return [{k: unguard(text) if isinstance(text, str) else text for k, text in row.items()} for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is damaged; {_remedy(path)}") from error


def _columns(path: Path) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {}
    rows = _read_rows(path)
    if any(None in row or "epoch" not in row for row in rows):
        raise UserError(f"{path}: is damaged; {_remedy(path)}")
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(_number(value))
    return columns


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
