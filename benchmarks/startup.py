"""CPU seconds of whole commands, start included, beside those of `import torch`; medians of interleaved rounds."""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SMALL = ["--model.network", "flexunet_pl.models.FlexUNet", "--model.network.init_args.base_filters", "4",
         "--model.network.init_args.num_layers", "3", "--model.network.init_args.base_kernels", "[3,3]",
         "--model.image_size", "[64,64]", "--trainer.max_epochs", "1"]  # fmt: skip
RGB_MAP = "{background: [0, 0, 0], trachea: [255, 0, 0], heart: [0, 255, 0], lung: [0, 0, 255]}"


def main() -> None:
    """Print the seconds, and what they are over those of torch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        fit = ["fit", "--data.root", "data", "--model.rgb_map", RGB_MAP, *SMALL]
        flexunet(place, "phantom", "data", "--patients", "4", "--slices", "1", "--size", "64")
        flexunet(place, *fit)
        checkpoint = "runs/flexunet/version_0/checkpoints/best.ckpt"
        to = ["--prediction.output_dir", "masks", "--prediction.overwrite", "true"]
        commands = {
            "import torch": ["-c", "import torch"],
            "fit --help": ["-m", "flexunet_pl", "fit", "--help"],
            "check --help": ["-m", "flexunet_pl", "check", "--help"],
            "predict": ["-m", "flexunet_pl", "predict", "--ckpt_path", checkpoint, "--data.predict_dir",
                        "data/test/images", *to],
            "test": ["-m", "flexunet_pl", "test", "--ckpt_path", checkpoint, "--data.root", "data"],
            "fit --print_config": ["-m", "flexunet_pl", *fit, "--print_config"],
        }  # fmt: skip
        for command in commands.values():
            cpu_seconds(place, command)  # compiles, and writes the pages
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(given.rounds):
            for name, command in commands.items():
                seconds[name].append(cpu_seconds(place, command))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        over = f"import of torch {median - medians['import torch']:+.2f} s" if name != "import torch" else ""
        print(f"{name:<20} {median:6.2f} CPU s  {over}")


def flexunet(place: Path, *words: str) -> None:
    """Run a command line."""
    cpu_seconds(place, ["-m", "flexunet_pl", *words])


def cpu_seconds(place: Path, command: list[str]) -> float:
    """Run Python; returns the CPU seconds that it took, its children's included."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env["XDG_CACHE_HOME"] = str(place / "cache")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], cwd=place, env=env, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
