"""Every command of the README is run, on small data and with a small network, or its target is CI's own."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import yaml

from flexunet_pl import FlexUNet
from flexunet_pl.cli.main import main
from flexunet_pl.interop.keras.weights import save_keras_weights
from flexunet_pl.io.images import read_image, write_image

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
TINY = ["--model.network", "flexunet_pl.FlexUNet", "--model.network.init_args.base_filters", "2",
        "--model.network.init_args.num_layers", "3"]  # fmt: skip
ORIGINAL = """
[model]
image_width = 32
image_height = 32
base_filters = 2
num_layers = 3
num_classes = 2
[infer]
images_dir = "./mini_test/images/"
output_dir = "./mini_test_output/"
[mask]
rgb_map = {(0, 0, 0): 0, (255, 255, 255): 1}
"""
SMALL = ["--model.image_size", "[32, 32]", "--data.num_workers", "0", "--trainer.max_epochs", "1"]


@pytest.fixture
def my_data(workspace, phantoms):
    """The phantoms, with their own colours and with one white class."""
    for split in ("train", "valid", "test"):
        shutil.copytree(phantoms / split, workspace / "colours" / split)
        shutil.copytree(phantoms / split, workspace / "white" / split)
        for mask in (workspace / "white" / split / "masks").iterdir():
            lesion = read_image(mask).any(axis=2)
            write_image(mask, np.repeat(np.where(lesion, 255, 0).astype(np.uint8)[..., None], 3, axis=2))
    (workspace / "configs").symlink_to(ROOT / "configs")
    for split in ("train", "valid", "test"):
        shutil.copytree(phantoms / split, workspace / "all_my_slices", dirs_exist_ok=True)
    shutil.copytree(phantoms / "test" / "images", workspace / "mini_test" / "images")
    _write_volumes(sorted((workspace / "white" / "train" / "images").iterdir()), workspace / "Task06_Lung")
    shutil.copytree(phantoms / "test" / "images", workspace / "scans" / "pictures")
    shutil.copy(workspace / "Task06_Lung" / "imagesTr" / "lung_000.nii.gz", workspace / "scans")
    (workspace / "other_masks").symlink_to("masks")
    (workspace / "train_eval_infer.config").write_text(ORIGINAL)
    config = yaml.safe_load((workspace / "c.yaml").read_text())
    (workspace / "small.yaml").write_text(yaml.safe_dump({**config, "trainer": {**config["trainer"], "max_epochs": 1}}))
    save_keras_weights(FlexUNet(3, 2, 2, (3, 3), 3), workspace / "best_model.h5")
    return workspace / "my_data"


def _write_volumes(images, raw):
    """Stacks of three slices each, as of four patients."""
    for kind in ("imagesTr", "labelsTr"):
        (raw / kind).mkdir(parents=True)
    for i in range(0, len(images), 3):
        slices = [read_image(path, channels=1)[..., 0] for path in images[i : i + 3]]
        masks = [read_image(path.parents[1] / "masks" / path.name)[..., 0] // 255 for path in images[i : i + 3]]
        for kind, planes in (("imagesTr", slices), ("labelsTr", masks)):
            image = SimpleITK.GetImageFromArray(np.stack(planes))
            SimpleITK.WriteImage(image, str(raw / kind / f"lung_{i:03d}.nii.gz"))


def small(words):
    """The same command, for a test: tiny where it trains, printed where it needs hardware."""
    if "int8" in words:
        return [*words, "--max-drop", "1"]  # after an epoch there is little to keep
    if words[0] in {
        "import-config",
        "import-keras",
        "export",
        "split",
        "prepare",
        "augment",
        "score",
        "report",
        "plan",
        "folds",
        "postprocess",
        "review",
    }:
        return words
    if words[0] != "fit":
        return [*words, "--data.num_workers", "0"]
    if "--trainer.devices" in words:  # run with two processes in test_cli.py
        return [*words, "--print_config"]
    if "plan.yaml" in words:
        return [*words, "--data.num_workers", "0", "--data.epoch_samples", "4", "--trainer.max_epochs", "1"]
    if "experiment.yaml" in words:
        return [*words, "--data.num_workers", "0", "--trainer.max_epochs", "1"]
    if "--ckpt_path" in words:
        return [*words[: words.index("--trainer.max_epochs")], "--trainer.max_epochs", "2"]
    if any("smp" in word for word in words):
        return [*words, *SMALL, "--model.network.init_args.encoder_name", "resnet18"]
    return [*words, *TINY, *SMALL]


@pytest.mark.slow
def test_the_commands_of_the_readme_work(workspace, my_data, flexunet):
    ran = []
    for command in COMMANDS:
        program, *words = shlex.split(command.replace("folds -c plan.yaml", "folds -c small.yaml"))
        if program != "flexunet":
            continue
        my_data.unlink(missing_ok=True)
        my_data.symlink_to("colours" if any("chest" in word for word in words) else "white")
        if words[0] == "check":
            assert main(words) in {0, 1}  # there may be something to find
        else:
            flexunet(*small(words))
        ran.append(words[0])
    assert {"fit", "test", "predict", "score", "report", "import-config", "import-keras", "export"} <= set(ran)
    assert {"folds", "postprocess", "review"} <= set(ran)
    assert {p.name for p in (workspace / "scan_labels").iterdir()} >= {"pictures", "lung_000.nii.gz", "lung_000"}
    assert (workspace / "runs" / "flexunet" / "version_0" / "test" / "version_0" / "test_scores.json").is_file()
    assert len(list((workspace / "masks").glob("*.png"))) == 3


def test_the_other_commands_are_known_ones():
    others = {c for c in COMMANDS if not c.startswith("flexunet ")}
    installs = {
        "pip install '.[train]'",
        "pip install '.[keras]'",
        "pip install '.[volumes]'",
        "pip install '.[volumes,dicom]'",
        "pip install '.[openvino]'",
    }
    assert others == {"make demo", "make test", "tensorboard --logdir runs"} | installs
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(
        re.search(rf"^{target}:", makefile, re.MULTILINE) for target in ("demo", "test", "lint", "bench", "help")
    )


def test_the_files_that_the_readme_names_are_written(trained):
    table = re.search(r"A run's folder holds:\n\n(.*?)\n\n", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    names = [n for row in table.splitlines()[2:] for n in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(names) >= 7
    for name in set(names) - {"last.ckpt", "test/", "report.html", "report.md"}:
        assert list(trained.glob(f"{name.rstrip('/')}*")), name
