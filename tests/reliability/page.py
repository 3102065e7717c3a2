"""Writes docs/reliability.md from what the fault programme has counted: page.py COUNTS.jsonl SERVICE.txt PAGE.md."""

import json
import os
import platform
import sys
from collections import defaultdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

TABLES = {
    "A": "Interruption and durability",
    "B": "Sameness: reruns, resumed runs, workers, processes, engines",
    "C": "Images",
    "D": "Masks and folders",
    "E": "Volumes",
    "F": "Configurations",
    "G": "Models and archives of strangers",
    "H": "Deployment kit: metadata (H1), files (H2), the service (H3), models (H4); names in all verbs (H5)",
    "service": "The HTTP service",
    "fuzz": "Fuzzing",
}
CHANNELS = Path(__file__).with_name("channels.md")
PACKAGES = ("torch", "lightning", "numpy", "pillow", "jsonargparse", "onnx", "onnxruntime", "h5py", "simpleitk")


def main(counts: Path, service: Path, page: Path) -> None:
    """Write the page."""
    rows = [json.loads(line) for line in counts.read_text(encoding="utf-8").splitlines()]
    tables = defaultdict(list)
    for row in rows:
        tables[row["case"] if row["case"] in TABLES else row["case"][0]].append(row)
    mutants = summed(tables["fuzz"])
    faults = [row for key in TABLES if key != "fuzz" for row in summed(tables[key])]
    made = [f"{datetime.now(UTC):%Y-%m-%d}", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]  # fmt: skip
    lines = [
        "# Reliability",
        "",
        "How flexunet_pl fares when it is killed, when disks are full, and when files are broken or hostile. Every",
        "figure here was counted by `make reliability`, which repeats each fault and writes this page.",
        "",
        f"Made on {', '.join(made)}.",
        "",
        f"**{total(faults)} repetitions held**, of {len(faults)} faults; **{total(mutants)} mutants** of files were",
        "read, or refused with an error of our own, and in time.",
    ]
    for key, title in TABLES.items():
        if tables[key]:
            lines += ["", f"## {title}", "", "| case | what | held |", "| --- | --- | --- |"]
            lines += [f"| {case} | {what} | {held:,} of {of:,} |" for case, what, held, of in summed(tables[key])]
    if service.is_file():
        lines += ["", "What it answers under load, against the engine alone:", "", "```text"]
        lines += [*service.read_text(encoding="utf-8").splitlines(), "```"]
    lines += [
        "",
        *CHANNELS.read_text(encoding="utf-8").splitlines(),
        "",
        "## How to repeat it",
        "",
        "```bash",
        "make reliability",
        "make fuzz",
        "```",
        "",
        "`make reliability` takes about 75 minutes on two cores; a case that needs root (a small file system) or",
        "another program is left out where it cannot be. `make fuzz` runs the long round of the fuzzers alone.",
    ]
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def total(rows):
    """Say how many of all repetitions held."""
    held, of = (sum(row[i] for row in rows) for i in (2, 3))
    return f"{held:,} of {of:,}"


def summed(rows):
    """Give case, words and counts, those of the same words together, in the order of the cases."""
    found = {}
    for row in rows:
        key = (row["case"], row["what"].replace("|", "/").strip())
        held, of = found.get(key, (0, 0))
        found[key] = (held + row["held"], of + row["of"])
    order = sorted(found, key=lambda key: (key[0][:1], int("0" + "".join(filter(str.isdigit, key[0]))), key[1]))
    return [(*key, *found[key]) for key in order]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
