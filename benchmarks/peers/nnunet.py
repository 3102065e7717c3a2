"""nnU-Net 2-D with its own plan, its training cut to so many minutes; runs in an environment with nnunetv2.

    python benchmarks/peers/nnunet.py FOLDER MINUTES SEED

FOLDER holds imagesTr, labelsTr and imagesTs as nnU-Net names them, and labels.json: {"background": 0, ...}. Masks go to
labelsTs. Planning and preprocessing are not counted. A step takes what it takes: the rate falls by the share of the
time, as nnU-Net's own falls by that of its epochs.
"""

import json
import os
import sys
import time
from pathlib import Path

folder, minutes, seed = Path(sys.argv[1]).absolute(), float(sys.argv[2]), int(sys.argv[3])
for name in ("raw", "preprocessed", "results"):  # which nnU-Net reads as it is imported
    os.environ[f"nnUNet_{name}"] = str(folder / name)
os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "false"}

import numpy as np  # noqa: E402
import torch  # noqa: E402
from nnunetv2.experiment_planning import plan_and_preprocess_api as planning  # noqa: E402
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402
from PIL import Image  # noqa: E402

DATASET = "Dataset001_Fewshot"


class TimedTrainer(nnUNetTrainer):
    """nnU-Net's trainer, which ends after some minutes."""

    def run_training(self) -> None:
        """Train; validate nothing, since there is no time for it."""
        self.on_train_start()
        self.network.train()
        began, steps, spent = time.monotonic(), 0, 0.0
        while spent < 1:
            for group in self.optimizer.param_groups:
                group["lr"] = self.initial_lr * (1 - spent) ** 0.9
            self.train_step(next(self.dataloader_train))
            steps += 1
            spent = (time.monotonic() - began) / (60 * minutes)
        print(f"nnU-Net: {steps} steps of {self.batch_size} images of {self.configuration_manager.patch_size}")
        self.on_train_end()


def main() -> None:
    """Plan, train, predict."""
    np.random.seed(seed)  # noqa: NPY002 - what nnU-Net draws from
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    raw = folder / "raw" / DATASET
    raw.mkdir(parents=True, exist_ok=True)
    for name in ("imagesTr", "labelsTr"):
        (raw / name).symlink_to(folder / name)
    (first, *rest) = sorted((folder / "imagesTr").iterdir())
    grey = Image.open(first).mode == "L"
    (raw / "dataset.json").write_text(json.dumps({
        "channel_names": {"0": "CT slice"} if grey else {"0": "R", "1": "G", "2": "B"},
        "labels": json.loads((folder / "labels.json").read_text()),
        "numTraining": 1 + len(rest),
        "file_ending": ".png",
    }))  # fmt: skip
    planning.extract_fingerprints([1], num_processes=1)
    planning.plan_experiments([1])
    planning.preprocess([1], configurations=("2d",), num_processes=[1])
    prepared = folder / "preprocessed" / DATASET
    plans = json.loads((prepared / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    trainer = TimedTrainer(plans, "2d", "all", json.loads((prepared / "dataset.json").read_text()), device)
    trainer.run_training()
    trainer.set_deep_supervision_enabled(enabled=False)
    trainer.network.eval()
    predictor = nnUNetPredictor(device=device, perform_everything_on_device=device.type == "cuda", allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    predictor.predict_from_files_sequential(str(folder / "imagesTs"), str(folder / "labelsTs"))


if __name__ == "__main__":
    main()
