"""What Lightning offers works with `flexunet fit`, and what cannot work is one line: its flags and stock callbacks."""

import pytest
import torch

CALLBACKS = "lightning.pytorch.callbacks"
SCHEDULERS = "torch.optim.lr_scheduler"
ONE_CYCLE = ["--model.scheduler", f"{SCHEDULERS}.OneCycleLR", "--model.scheduler.max_lr", "0.01"]

WORKS = [
    ["--trainer.overfit_batches", "1"],
    ["--trainer.overfit_batches", "0.5"],
    ["--trainer.fast_dev_run", "true"],
    ["--trainer.max_epochs", "-1", "--trainer.max_steps", "3"],
    ["--trainer.max_steps", "3"],
    ["--trainer.min_epochs", "2"],
    ["--trainer.min_steps", "3"],
    ["--trainer.max_time", "00:00:10:00"],
    ["--trainer.limit_train_batches", "0.5"],
    ["--trainer.num_sanity_val_steps", "0"],
    ["--trainer.num_sanity_val_steps", "-1"],
    ["--trainer.log_every_n_steps", "1"],
    ["--trainer.log_every_n_steps", "0"],
    ["--trainer.val_check_interval", "0.5"],
    ["--trainer.val_check_interval", "1"],
    ["--trainer.check_val_every_n_epoch", "2"],
    ["--trainer.accumulate_grad_batches", "2"],
    ["--trainer.enable_checkpointing", "false"],
    ["--trainer.enable_progress_bar", "true"],
    ["--trainer.enable_model_summary", "true"],
    ["--trainer.gradient_clip_val", "0"],
    ["--trainer.gradient_clip_val", "null"],
    ["--trainer.gradient_clip_algorithm", "norm"],
    ["--trainer.deterministic", "true"],
    ["--trainer.benchmark", "true"],
    ["--trainer.inference_mode", "false"],
    ["--trainer.profiler", "simple"],
    ["--trainer.detect_anomaly", "true"],
    ["--trainer.sync_batchnorm", "true"],
    ["--trainer.reload_dataloaders_every_n_epochs", "1"],
    ["--trainer.logger", "false"],
    ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir", "logs"],
    ["--trainer.default_root_dir", "here"],
    ["--trainer.precision", "bf16-mixed"],
    ["--trainer.precision", "64-true"],
    ["--seed_everything", "true"],
    ["--model.scheduler", "null"],
    ["--model.scheduler", f"{SCHEDULERS}.CosineAnnealingLR", "--model.scheduler.T_max", "2"],
    [*ONE_CYCLE, "--model.scheduler.total_steps", "6"],
    ["--model.optimizer", "torch.optim.LBFGS", "--model.optimizer.max_iter", "2"],
    ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.1"],
    ["--trainer.callbacks", f"{CALLBACKS}.ModelCheckpoint"],
    ["--trainer.callbacks", f"{CALLBACKS}.ModelCheckpoint", "--trainer.callbacks.monitor", "val/loss"],
    ["--trainer.callbacks", f"{CALLBACKS}.EarlyStopping", "--trainer.callbacks.monitor", "val/dice"],
    ["--trainer.callbacks", f"{CALLBACKS}.Timer", "--trainer.callbacks.duration", "00:01:00:00"],
    ["--trainer.callbacks", f"{CALLBACKS}.EMAWeightAveraging"],
    ["--trainer.callbacks", f"{CALLBACKS}.StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", "0.01"],
    ["--trainer.callbacks", f"{CALLBACKS}.GradientAccumulationScheduler", "--trainer.callbacks.scheduling", "{0: 2}"],
    ["--trainer.callbacks", f"{CALLBACKS}.ModelSummary"],
    ["--trainer.callbacks", f"{CALLBACKS}.LearningRateMonitor"],
    ["--trainer.callbacks", f"{CALLBACKS}.BackboneFinetuning"],
    ["--trainer.callbacks", f"{CALLBACKS}.ModelPruning", "--trainer.callbacks.pruning_fn", "l1_unstructured"],
]
REFUSED = [
    (["--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches is 0; it must be above 0"),
    (["--trainer.check_val_every_n_epoch", "0"], "trainer.check_val_every_n_epoch is 0; it must be above 0"),
    (["--trainer.val_check_interval", "0"], "trainer.val_check_interval is 0; it must be above 0"),
    (["--trainer.accelerator", "tpu"], "torch_xla"),
    (["--trainer.accelerator", "nonsense"], "invalid accelerator name"),
    (["--trainer.precision", "transformer-engine"], "transformer_engine"),
    (["--trainer.devices", "1000"], "trainer.devices is 1000; this machine has"),
    (["--trainer.devices", "0"], "not a valid input using cpu"),
    (["--trainer.devices", "[0]"], "trainer: `devices` selected with `CPUAccelerator`"),
    (["--trainer.num_nodes", "0"], "`num_nodes` must be a positive integer"),
    (["--trainer.strategy", "ddp_spawn"], "ddp_spawn cannot hand a run to its processes; use ddp"),
    (["--trainer.strategy", "ddp_fork"], "ddp_fork cannot hand a run to its processes; use ddp"),
    (["--trainer.strategy", "nonsense"], "invalid strategy name"),
    (["--trainer.max_time", "nonsense"], "not a valid duration"),
    (["--trainer.profiler", "nonsense"], "profiler"),
    (["--trainer.limit_val_batches", "0"], "without validation there is no such score"),
    (["--trainer.barebones", "true"], "barebones"),
    (["--data.num_workers", "1000"], "data.num_workers is 1000; this machine has"),
    (["--data.batch_size", "1000000000000000000000"], "it must be 1 to 65536"),
    (["--data.seed", "99999999999999999999999"], "data.seed is 99999999999999999999999; it must be 0 to"),
    (["--seed_everything", "99999999999999999999"], "seed_everything: "),
    (["--model.loss", "torch.nn.NLLLoss"], "NLLLoss takes logarithms of probabilities, not logits"),
    (["--model.loss", "torch.nn.MSELoss"], "MSELoss does not take logits"),
    (["--model.loss", "torch.nn.CrossEntropyLoss", "--model.loss.reduction", "none"], "set its `reduction` to mean"),
    (["--model.optimizer", "torch.optim.SparseAdam"], "model.optimizer: SparseAdam does not support dense gradients"),
    (["--model.optimizer", "torch.optim.Muon"], "Muon only supports 2D"),
    (ONE_CYCLE, "You must define either total_steps OR"),
    ([*ONE_CYCLE, "--model.scheduler.total_steps", "3"], "model.scheduler: Tried to step 4 times"),
    (["--model.rgb_map", "null"], "rgb_map"),
]


@pytest.fixture
def fit(workspace):
    return ["fit", "-c", "c.yaml", "--trainer.accelerator", "cpu", "--epoch_change.num_images", "0",
            "--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1"]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # Lightning's own words on each of them
@pytest.mark.parametrize("flags", WORKS, ids=lambda flags: " ".join(flags).replace("trainer.", ""))
def test_a_flag_or_callback_of_lightning_works(fit, flexunet, flags):
    flexunet(*fit, *flags)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("flags", "line"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_what_cannot_work_is_one_line(fit, mistake, flags, line):
    assert line in mistake(*fit, *flags)


@pytest.mark.filterwarnings("ignore")
def test_the_rate_that_the_finder_has_found_is_the_one_that_is_used(fit, workspace, flexunet):
    finder = f"{CALLBACKS}.LearningRateFinder"
    words = [
        "--trainer.callbacks",
        finder,
        "--trainer.callbacks.num_training_steps",
        "20",
        "--trainer.max_epochs",
        "12",
    ]
    flexunet(*fit, *words, "--model.scheduler", "null", "--trainer.max_epochs", "12")
    (checkpoint,) = workspace.glob("runs/flexunet/version_0/checkpoints/last.ckpt")
    used = torch.load(checkpoint, weights_only=True)["optimizer_states"][0]["param_groups"][0]["lr"]
    assert 1e-8 < used < 1
    assert used != 0.01, "that of the configuration"


def test_a_scheduler_of_batches_is_stepped_with_each(fit, workspace, flexunet):
    flexunet(*fit, *ONE_CYCLE, "--model.scheduler.total_steps", "100")
    checkpoint = torch.load("runs/flexunet/version_0/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["lr_schedulers"][0]["last_epoch"] == checkpoint["global_step"] == 6


def test_the_run_s_own_checkpoints_stand_beside_another_one(fit, workspace, flexunet):
    own = ["--trainer.callbacks.dirpath", "mine", "--trainer.callbacks.filename", "{epoch}"]
    flexunet(*fit, "--trainer.callbacks", f"{CALLBACKS}.ModelCheckpoint", *own, "--trainer.callbacks.save_top_k", "-1")
    assert sorted(p.name for p in (workspace / "mine").glob("*.ckpt")) == ["epoch=0.ckpt", "epoch=1.ckpt"]
    folder = workspace / "runs/flexunet/version_0/checkpoints"
    assert sorted(p.name for p in folder.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]
