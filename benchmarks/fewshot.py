"""Dice that so many minutes buy on few slices: a plan against the defaults and against other networks, case by case.

    python benchmarks/fewshot.py FOLDER --minutes 2 10 --experiment configs/experiment/chest-ct-subset.yaml

FOLDER holds images/ and masks/. It is cut into folds by patient. Every training sees the other folds, twice: to train
on, and to choose best.ckpt by; what is scored are the last weights, on slices that no part of it has seen, at their own
size. Whatever was measured is kept in --out, and a program that was stopped goes on where it was.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import yaml
from PIL import Image

from flexunet_pl import FlexUNet
from flexunet_pl.common.files import written_in_place
from flexunet_pl.interop.keras.weights import save_keras_weights
from flexunet_pl.io.images import read_image
from flexunet_pl.io.masks import read_mask
from flexunet_pl.io.pairs import list_pairs
from flexunet_pl.io.patient_ids import group_of, parse_group_regex
from flexunet_pl.metrics.intervals import bootstrap_mean
from flexunet_pl.metrics.per_case import measure_case
from flexunet_pl.rgb_map import RgbMap

PEERS = ("plan", "default", "smp", "dynunet", "nnunet", "original")
ELSEWHERE = {"nnunet": "an environment with nnunetv2", "original": ".venv-peer, which make peer makes"}
NETWORKS = {
    "smp": ("segmentation_models_pytorch.Unet", {"encoder_name": "resnet34", "encoder_weights": None}),
    "dynunet": (
        "monai.networks.nets.DynUNet",
        {
            "spatial_dims": 2,
            "kernel_size": [3] * 6,
            "strides": [1, 2, 2, 2, 2, 2],
            "upsample_kernel_size": [2] * 5,
            "norm_name": ["INSTANCE", {"affine": True}],
        },
    ),
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--experiment", type=Path, required=True, help="configuration with the rgb_map")
    parser.add_argument("--minutes", type=float, nargs="+", default=[10.0])
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["plan", "default", "smp", "dynunet"])
    for peer, where in ELSEWHERE.items():
        parser.add_argument(f"--{peer}-python", type=Path, help=f"Python of {where}, for --peers {peer}")
    parser.add_argument("--group-regex", help="finds the patient in a file's name")
    parser.add_argument("--unknown-colors", default="nearest", choices=("error", "background", "nearest"))
    parser.add_argument("--out", type=Path, default=Path("build/fewshot"))
    return parser.parse_args()


def main() -> None:
    """Run what is not there yet, and print and draw what is."""
    given = parse()
    for peer in set(given.peers) & set(ELSEWHERE):
        if not getattr(given, f"{peer}_python"):
            raise SystemExit(f"--peers {peer} needs --{peer}-python, the Python of {ELSEWHERE[peer]}")
    rgb_map = RgbMap.parse(yaml.safe_load(given.experiment.read_text())["model"]["rgb_map"])
    folds = make_folds(given, rgb_map)
    runs = list(product(given.minutes, given.seeds, range(given.folds), given.peers))
    for number, (minutes, seed, fold, peer) in enumerate(runs, 1):
        place = place_of(given, minutes, seed, fold, peer)
        if not (place / "cases.json").is_file():
            began = time.perf_counter()
            measure(given, rgb_map, folds[fold], place, peer, minutes, seed)
            print(f"{number} of {len(runs)}: {place}, {time.perf_counter() - began:.0f} s", flush=True)
    report(given, rgb_map)


def place_of(given: argparse.Namespace, minutes: float, seed: int, fold: int, peer: str) -> Path:
    """Return the folder of one training."""
    return Path(given.out / given.root.name / f"{minutes:g}_minutes" / f"seed_{seed}" / f"fold_{fold}" / peer)


def make_folds(given: argparse.Namespace, rgb_map: RgbMap) -> list[Path]:
    """Cut the folder into folds, once."""
    place = given.out / given.root.name / "data"
    if not place.exists():
        regex = ["--group-regex", given.group_regex] if given.group_regex else []
        options = [
            "--folds",
            given.folds,
            "--rgb-map",
            json.dumps(rgb_map.to_dict()),
            "--unknown-colors",
            given.unknown_colors,
        ]
        flexunet("split", given.root.absolute(), place, *options, *regex)
        for fold in range(given.folds):
            of_fold = place / f"fold_{fold}"
            (of_fold / "valid").rename(of_fold / "test")
            (of_fold / "valid").symlink_to("train")
    return [place / f"fold_{fold}" for fold in range(given.folds)]


def measure(
    given: argparse.Namespace, rgb_map: RgbMap, data: Path, place: Path, peer: str, minutes: float, seed: int
) -> None:
    """Train, predict and score one of them."""
    shutil.rmtree(place, ignore_errors=True)  # what a program left that was stopped
    place.mkdir(parents=True)
    if peer in ELSEWHERE:
        predict = train_elsewhere(given, rgb_map, data, place, peer, minutes, seed)
    else:
        predict = train_here(given, rgb_map, data, place, peer, minutes, seed)
    cases = []
    for pair in list_pairs(data / "test"):
        truth = read_mask(pair.mask, rgb_map, given.unknown_colors)
        group = group_of(pair.image, parse_group_regex(given.group_regex)) or pair.image.stem
        scores = measure_case(pair.image.stem, group, predict(pair.image), truth, rgb_map.names, None)
        cases += [asdict(score) for score in scores]
    with written_in_place(place / "cases.json") as temporary:
        temporary.write_text(json.dumps(cases, indent=1))


def train_here(
    given: argparse.Namespace, rgb_map: RgbMap, data: Path, place: Path, peer: str, minutes: float, seed: int
) -> Callable[[Path], np.ndarray]:
    """Train and predict with flexunet fit and predict; return what reads the mask of an image."""
    config = place / "config.yaml"
    timings = given.out / "timings.json"
    options = ["--timings", timings] if timings.is_file() else []
    options += ["--experiment", given.experiment, "--unknown-colors", given.unknown_colors, "--overwrite"]
    flexunet("plan", data, "--minutes", minutes, "--out", config, *options)
    if not timings.is_file():
        config.with_suffix(".timings.json").rename(timings)
    plan = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(as_peer(plan, peer, rgb_map), sort_keys=False))
    flexunet("fit", "-c", config, "--seed_everything", seed, "--trainer.logger.save_dir", place / "runs",
             "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")  # fmt: skip
    (last,) = (place / "runs").rglob("last.ckpt")
    flexunet("predict", "--ckpt_path", last, "--data.predict_dir", data / "test" / "images",
             "--prediction.output_dir", place / "masks", "--prediction.overwrite", "true")  # fmt: skip
    last.unlink()
    return lambda image: read_mask(place / "masks" / f"{image.stem}.png", rgb_map)


def train_elsewhere(
    given: argparse.Namespace, rgb_map: RgbMap, data: Path, place: Path, peer: str, minutes: float, seed: int
) -> Callable[[Path], np.ndarray]:
    """Write the images as nnU-Net wants them, and have another program train and predict."""
    pairs = {name: list_pairs(data / name) for name in ("train", "test")}
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (place / name).mkdir()
    images = {pair.image: read_image(pair.image) for pair in pairs["train"] + pairs["test"]}
    grey = all((image == image[..., :1]).all() for image in images.values())
    numbers = {}
    for letters, of in (("Tr", pairs["train"]), ("Ts", pairs["test"])):
        for number, pair in enumerate(of):
            numbers[pair.image] = f"{letters}_{number:04}"
            picture = images[pair.image][..., 0] if grey and peer == "nnunet" else images[pair.image]
            Image.fromarray(picture).save(place / f"images{letters}" / f"{numbers[pair.image]}_0000.png")
    for pair in pairs["train"]:
        mask = read_mask(pair.mask, rgb_map, given.unknown_colors)
        Image.fromarray(mask).save(place / "labelsTr" / f"{numbers[pair.image]}.png")
    (place / "labels.json").write_text(json.dumps({name: index for index, name in enumerate(rgb_map.names)}))
    if peer == "original":
        write_original(given, rgb_map, place, seed)
    python = getattr(given, f"{peer}_python")
    run(python.absolute(), Path(__file__).with_name("peers") / f"{peer}.py", place, minutes, seed)
    return lambda image: np.asarray(Image.open(place / "labelsTs" / f"{numbers[image]}.png"))


def write_original(given: argparse.Namespace, rgb_map: RgbMap, place: Path, seed: int) -> None:
    """Write the experiment's network as the original would begin with it, and how it trains."""
    config = yaml.safe_load(given.experiment.read_text())
    torch.manual_seed(seed)
    network = FlexUNet(3, len(rgb_map), **config["model"].get("network", {}).get("init_args", {}))
    save_keras_weights(network, place / "network.keras", (512, 512))
    (place / "training.json").write_text(
        json.dumps(
            {
                "learning_rate": config["model"]["optimizer"]["init_args"]["lr"],
                "clipvalue": config.get("trainer", {}).get("gradient_clip_val", 0.4),
            }
        )
    )


def as_peer(plan: dict[str, Any], peer: str, rgb_map: RgbMap) -> dict[str, Any]:
    """Return the plan with another network, or the defaults, in the same time."""
    model = plan["model"]
    if peer in NETWORKS:
        class_path, arguments = NETWORKS[peer]
        model["network"] = {"class_path": class_path, "init_args": arguments}
        model["deep_supervision"] = 0
    if peer == "default":
        plan = yaml.safe_load((Path(__file__).parents[1] / "configs" / "default.yaml").read_text()) | {
            "data": {key: plan["data"][key] for key in ("root", "unknown_colors") if key in plan["data"]},
            "trainer": {"max_time": plan["trainer"]["max_time"], "max_epochs": 1000},
        }
        plan["model"]["rgb_map"] = rgb_map.to_dict()
        plan["data"]["batch_size"] = 2
    return plan


def flexunet(*words: object) -> None:
    """Run a command line in a process of its own."""
    run(sys.executable, "-m", "flexunet_pl", *words)


def run(*words: object) -> None:
    """Run a program, and end with what it says where it fails."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)  # noqa: S603 - our own programs
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stderr}")


def report(given: argparse.Namespace, rgb_map: RgbMap) -> None:
    """Print a table per time, and draw Dice against minutes."""
    found = {(minutes, peer): list(read(given, minutes, peer)) for minutes, peer in product(given.minutes, given.peers)}
    labels = rgb_map.names[1:]
    for minutes in given.minutes:
        print(f"\n{given.root.name}, {minutes:g} minutes: Dice pooled / mean over cases, and against the plan (95 %)")
        for peer in given.peers:
            cases = found[minutes, peer]
            columns = [f"{label} {pooled(cases, label):.3f} / {mean(cases, label):.3f}" for label in labels]
            print(f"  {peer:<8} {overall(cases, labels):.3f}  {'  '.join(columns)}  {against(found, minutes, peer)}")
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for peer in given.peers:
        axes.plot(given.minutes, [overall(found[m, peer], labels) for m in given.minutes], marker="o", label=peer)
    axes.set(xlabel="minutes", ylabel="mean of the classes' pooled Dice", title=given.root.name, ylim=(0, 1))
    axes.legend()
    figure.savefig(given.out / given.root.name / "dice.png", dpi=120)


def read(given: argparse.Namespace, minutes: float, peer: str) -> Iterator[dict[str, Any]]:
    """Yield the scores of all seeds and folds."""
    for seed, fold in product(given.seeds, range(given.folds)):
        place = place_of(given, minutes, seed, fold, peer)
        yield from ({**case, "seed": seed} for case in json.loads((place / "cases.json").read_text()))


def pooled(cases: list[dict[str, Any]], label: str) -> float:
    """Return the Dice of all pixels, averaged over the seeds."""
    dice = []
    for seed in {case["seed"] for case in cases}:
        of = [case for case in cases if case["label"] == label and case["seed"] == seed]
        tp, fp, fn = (sum(case[key] for case in of) for key in ("tp", "fp", "fn"))
        dice.append(2 * tp / max(1, 2 * tp + fp + fn))
    return float(np.mean(dice))


def mean(cases: list[dict[str, Any]], label: str) -> float:
    """Return the mean Dice of the cases that show a class."""
    return float(np.mean([case_dice(case) for case in cases if case["label"] == label and case["tp"] + case["fn"]]))


def overall(cases: list[dict[str, Any]], labels: tuple[str, ...]) -> float:
    """Return the mean of the classes' pooled Dice."""
    return float(np.mean([pooled(cases, label) for label in labels]))


def case_dice(case: dict[str, Any]) -> float:
    """Return the Dice of a case that shows the class."""
    return float(2 * case["tp"] / (2 * case["tp"] + case["fp"] + case["fn"]))


def against(found: dict[tuple[float, str], list[dict[str, Any]]], minutes: float, peer: str) -> str:
    """Return the mean difference of the plan over the cases, with its interval over patients."""
    if peer == "plan" or (minutes, "plan") not in found:
        return ""
    shown = [case for case in found[minutes, "plan"] if case["tp"] + case["fn"]]
    theirs = {(c["case"], c["label"], c["seed"]): case_dice(c) for c in found[minutes, peer] if c["tp"] + c["fn"]}
    values = [case_dice(case) - theirs[case["case"], case["label"], case["seed"]] for case in shown]
    low, high = bootstrap_mean(values, [case["group"] for case in shown])
    return f"plan {np.mean(values):+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
