"""What the check prints and writes."""

import json
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from flexunet_pl.check.findings import LookAlike
from flexunet_pl.check.pictures import draw_look_alikes, draw_samples, draw_statistics
from flexunet_pl.check.scan import Scan
from flexunet_pl.common.console import harmless, say
from flexunet_pl.common.files import written_in_place
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.window import Window

MARK, RESULTS = "check.json", ("statistics.png", "samples.png", "look_alikes.png", "class_weights.yaml")
_SHOWN = 20  # findings of a kind on the console; --json has all


def write_results(
    out: Path,
    summary: dict[str, Any],
    scans: list[Scan],
    look_alikes: list[LookAlike],
    rgb_map: RgbMap,
    window: Window | None,
) -> None:
    """Write check.json, class_weights.yaml and the pictures.

    Args:
        out: Folder to write to.
        summary: Of the data set.
        scans: One per pair.
        look_alikes: Pictures across splits that look alike, ranked.
        rgb_map: Classes and colours.
        window: Lowest and highest value of 16-bit and float images.
    """
    out.mkdir(parents=True, exist_ok=True)
    draw_statistics(summary, rgb_map, out / "statistics.png")
    draw_samples(scans, rgb_map, window, out / "samples.png")
    draw_look_alikes(look_alikes, window, out / "look_alikes.png")
    weights = {"model": {"class_weights": summary["class_weights"]}}
    texts = {
        "check.json": to_json(summary),
        "class_weights.yaml": "# one more `-c` for flexunet fit: each class weighs by the inverse square root of its "
        "share of the pixels\n" + yaml.safe_dump(weights, sort_keys=False, allow_unicode=True),
    }
    for name, text in texts.items():
        with written_in_place(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    say(f"pictures and check.json written to {out}")


def to_json(summary: dict[str, Any]) -> str:
    """Return the summary as JSON, indented."""
    return json.dumps(summary, indent=1, ensure_ascii=False) + "\n"


def print_results(summary: dict[str, Any]) -> None:
    """Print the table of the data set and what was found.

    Args:
        summary: Of the data set.
    """
    console = Console()
    _print_table(console, summary)
    console.print(f"memory of a cache of all images: {summary['cache_bytes'] / 2**20:.0f} MiB")
    _print_findings(console, summary)
    for told in summary["not_judged"]:
        _print_plain(console, f"note: {told}")
    for ranked in summary["look_alikes"][:1]:
        _print_plain(
            console,
            f"most alike across splits, {ranked['grey_levels']} grey levels apart (look_alikes.png and --json have "
            f"more): {' and '.join(ranked['images'])}",
        )
    count = len(summary["findings"])
    console.print(f"{count} findings" if count else "no findings")


def _print_table(console: Console, summary: dict[str, Any]) -> None:
    table = Table(title="data set")
    table.add_column("")
    for split in summary["splits"]:
        table.add_column(split, justify="right")
    for key in ("pairs", "unusable", "empty_masks", "augmented_copies"):
        table.add_row(key.replace("_", " "), *(str(split[key]) for split in summary["splits"].values()))
    if any(split["groups"] for split in summary["splits"].values()):
        table.add_row("groups", *(str(len(split["groups"])) for split in summary["splits"].values()))
    for label, key in (("sizes", "sizes"), ("image modes", "image_modes"), ("mask modes", "mask_modes")):
        cells = (", ".join(f"{n} {v}" for v, n in list(s[key].items())[:4]) for s in summary["splits"].values())
        table.add_row(label, *cells)
    table.add_row("pixels off the map", *(f"{s['off_map_share']:.2%}" for s in summary["splits"].values()))
    for name in RgbMap.parse(summary["rgb_map"]).names[1:]:
        cells = (
            f"{s['images'][name]} images, {s['pixels'][name] / max(1, sum(s['pixels'].values())):.3%}"
            for s in summary["splits"].values()
        )
        table.add_row(harmless(name), *cells)
    console.print(table)


def _print_findings(console: Console, summary: dict[str, Any]) -> None:
    kinds: dict[str, list[str]] = {}
    for finding in summary["findings"]:
        kinds.setdefault(finding["kind"], []).append(finding["message"])
    for kind, messages in kinds.items():
        console.print(f"[bold]{kind}[/bold]: {len(messages)}")
        for message in messages[:_SHOWN]:
            _print_plain(console, f"  {message}")
        if len(messages) > _SHOWN:
            console.print(f"  ... and {len(messages) - _SHOWN} more, all in --json")


def _print_plain(console: Console, text: str) -> None:
    console.print(harmless(text), markup=False, highlight=False, soft_wrap=True)
