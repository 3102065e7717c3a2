"""Training and prediction on real CT slices, where they are there; skipped, saying so, where not."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from PIL import Image

from flexunet_pl.io.images import read_image
from flexunet_pl.io.masks import read_mask
from flexunet_pl.io.pairs import list_pairs
from flexunet_pl.rgb_map import RgbMap

from tests.test_configs import CONFIGS, REFERENCE  # isort: skip

pytestmark = pytest.mark.real
FOLDERS = {
    "chest-ct-subset": "Chest-CT-Subset",
    "covid-19": "COVID-19",
    "3d-liver-tumor": "3D-Liver-Tumor",
    "lung-tumor": "Lung-Tumor",
    "nbm": "NBM",
}


@pytest.fixture
def make_data(shared, tmp_path):
    def make(folder, train, valid, test):
        pairs = list_pairs(shared / "real" / folder)
        for split, chosen in {"train": train, "valid": valid, "test": test}.items():
            for pair in pairs[chosen]:
                for kind, path in pair._asdict().items():
                    target = tmp_path / "data" / split / f"{kind}s"
                    target.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, target)
        return tmp_path / "data"

    return make


def small(name, data, *args):
    files = ["-c", CONFIGS / "default.yaml", "-c", CONFIGS / "experiment" / f"{name}.yaml"]
    network = ["--model.network.init_args.base_filters", 4, "--model.network.init_args.num_layers", 5,
               "--model.network.init_args.base_kernels", "[5, 5]", "--model.image_size", "[128, 128]"]  # fmt: skip
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    return [*files, *network, *quiet, "--data.root", data, "--data.num_workers", 0, *args]


@pytest.mark.parametrize("name", REFERENCE)
def test_every_data_set_trains_tests_and_predicts_with_its_own_configuration(workspace, flexunet, make_data, name):
    data = make_data(FOLDERS[name], slice(0, 4), slice(4, 6), slice(6, 9))
    flexunet("fit", *small(name, data, "--trainer.max_epochs", 1))
    checkpoint = workspace / "runs" / name / "version_0" / "checkpoints" / "best.ckpt"
    flexunet(
        "test", "--ckpt_path", checkpoint, "--data.root", data, "--data.num_workers", 0, "--trainer.logger", "false"
    )
    flexunet("predict", "--ckpt_path", checkpoint, "--data.predict_dir", data / "test" / "images",
             "--data.num_workers", 0, "--prediction.output_dir", "masks")  # fmt: skip
    for pair in list_pairs(data / "test"):
        with Image.open(workspace / "masks" / f"{pair.image.stem}.png") as mask:
            assert (mask.mode, mask.size) == ("P", (512, 512))


@pytest.mark.slow
def test_six_chest_slices_are_learnt_by_heart(workspace, flexunet, make_data):
    data = make_data("Chest-CT-Subset", slice(0, 6), slice(0, 6), slice(0, 6))
    flexunet("fit", *small("chest-ct-subset", data, "--trainer.max_epochs", 110, "--data.train_transform", "null",
             "--model.network.init_args.base_filters", 8, "--model.optimizer.init_args.lr", 0.001,
             "--model.scheduler.patience", 110, "--early_stopping.patience", 110, "--data.batch_size", 1,
             "--trainer.check_val_every_n_epoch", 10, "--epoch_change.num_images", 0))  # fmt: skip
    run = workspace / "runs" / "chest-ct-subset" / "version_0"
    flexunet("test", "--ckpt_path", run / "checkpoints" / "best.ckpt", "--data.root", data, "--data.num_workers", 0)
    scores = json.loads((run / "test" / "version_0" / "test_scores.json").read_text())
    assert scores["dice/lung"] > 0.95
    with (run / "train_losses.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 110


@pytest.mark.parametrize("folder", FOLDERS.values())
def test_every_real_mask_decodes_like_the_reference_s_nearest_colour(shared, folder):
    white = {"background": [0, 0, 0], "lesion": [255, 255, 255]}
    colors = {"background": [0, 0, 0], "red": [255, 0, 0], "green": [0, 255, 0], "blue": [0, 0, 255]}
    rgb_map = RgbMap.parse(white if folder in {"NBM", "Lung-Tumor"} else colors)
    off_map = []
    for pair in list_pairs(shared / "real" / folder):
        pixels = read_image(pair.mask).astype(int)
        nearest = ((pixels[:, :, None] - rgb_map.palette.astype(int)) ** 2).sum(-1).argmin(-1)
        assert np.array_equal(read_mask(pair.mask, rgb_map, "nearest"), nearest)
        off_map.append(rgb_map.decode(pixels.astype(np.uint8)).off_map / nearest.size)
    if folder == "Chest-CT-Subset":
        assert 0.15 < np.mean(off_map) < 0.25


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.filterwarnings("ignore:.*get_mask_edges:FutureWarning")
def test_the_reference_s_own_predictions_are_scored_as_by_brute_force_and_by_monai(shared, tmp_path, flexunet, name):
    folder, config = shared / "real" / FOLDERS[name], CONFIGS / "experiment" / f"{name}.yaml"
    flexunet("score", "--pred", folder / "predictions", "--target", folder / "masks", "--experiment", config,
             "--out", tmp_path, "--workers", 0, "--unknown-colors", "nearest")  # fmt: skip
    rgb_map = RgbMap.parse(yaml.safe_load(config.read_text())["model"]["rgb_map"])
    palette = rgb_map.palette.astype(int)
    rows = list(csv.DictReader((tmp_path / "per_case.csv").read_text().splitlines()))
    assert len(rows) == len(list((folder / "masks").iterdir())) * (len(rgb_map) - 1)
    for row in rows:
        files = (next((folder / kind).glob(f"{row['case']}.*")) for kind in ("predictions", "masks"))
        k = rgb_map.names.index(row["label"])
        p, t = (((read_image(f).astype(int)[:, :, None] - palette) ** 2).sum(-1).argmin(-1) == k for f in files)
        if p.any() or t.any():
            assert float(row["dice"]) == pytest.approx(2 * (p & t).sum() / (p.sum() + t.sum()), abs=1e-9)
        if p.any() and t.any():
            tensors = [torch.from_numpy(mask)[None, None] for mask in (p, t)]
            hd95 = compute_hausdorff_distance(*tensors, include_background=True, percentile=95).item()
            nsd = compute_surface_dice(*tensors, include_background=True, class_thresholds=[2.0]).item()
            assert float(row["hd95"]) == pytest.approx(hd95, rel=1e-5)
            assert float(row["nsd"]) == pytest.approx(nsd, rel=1e-5)
