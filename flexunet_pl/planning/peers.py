"""Plans with the choices of others, for a comparison: of nnU-Net in two dimensions, and of the original."""

from pathlib import Path

from flexunet_pl.planning.choices import STEADY, put_machine
from flexunet_pl.planning.data_facts import DataFacts
from flexunet_pl.planning.machine import Machine
from flexunet_pl.planning.plan import Peer, Plan, clock_time
from flexunet_pl.rgb_map import RgbMap

_LONGEST = 512  # px, of a patch of nnU-Net in two dimensions, at its batch size
_SMALLEST_FEATURES = 4  # px a side, at which it stops to halve
_MOST_STAGES = 8
_NNUNET, _ORIGINAL = "as in nnU-Net", "as in the original"


def make_peer_plan(like: Peer, root: Path, rgb_map: RgbMap, data: DataFacts, machine: Machine, minutes: float) -> Plan:
    """Write down what another would choose, cut to the minutes; nothing of it follows from the machine.

    Args:
        like: Whose choices.
        root: Folder of the data.
        rgb_map: Classes and colours.
        data: What is known of the data.
        machine: What is known of the machine.
        minutes: How long `flexunet fit` may take.

    Returns:
        The plan, without expectations.
    """
    plan = Plan()
    plan.put("seed_everything", 137)
    plan.put("model.rgb_map", rgb_map.to_dict())
    plan.put("data.root", str(root))
    (_put_nnunet if like == "nnunet" else _put_original)(plan, data)
    plan.put("trainer.max_time", clock_time(max(1.0, minutes * 60 - machine.startup)), f"{minutes:g} minutes")
    put_machine(plan, machine)
    return plan


def _put_nnunet(plan: Plan, data: DataFacts) -> None:
    size, stages = _patch(data.size)
    plan.put("model.image_size", list(size), "the median size, as a patch of nnU-Net")
    plan.put("model.patches", value=True, why="nnU-Net resizes nothing but voxels")
    plan.put("model.in_channels", 1 if data.is_grey else 3)
    plan.put("model.network.class_path", "monai.networks.nets.DynUNet", "nnU-Net's network, as MONAI has it")
    halved = [2] * (stages - 1)
    plan.put(
        "model.network.init_args",
        {
            "spatial_dims": 2,
            "kernel_size": [3] * stages,
            "strides": [1, *halved],
            "upsample_kernel_size": halved,
            "norm_name": ["INSTANCE", {"affine": True}],
        },
        f"{stages} stages, until {_SMALLEST_FEATURES} px are left",
    )
    plan.put("model.loss.class_path", "flexunet_pl.losses.DiceCELoss")
    plan.put("model.loss.init_args", {"pooled": True}, _NNUNET)
    plan.put("model.optimizer.class_path", "torch.optim.SGD")
    plan.put(
        "model.optimizer.init_args", {"lr": 0.01, "momentum": 0.99, "nesterov": True, "weight_decay": 3e-5}, _NNUNET
    )
    plan.put("model.scheduler.class_path", "torch.optim.lr_scheduler.PolynomialLR")
    plan.put(
        "model.scheduler.init_args",
        {"total_iters": 1000, "power": 0.9},
        "nnU-Net's 1000 epochs; in minutes the rate hardly falls",
    )
    plan.put("data.batch_size", 12, "as in nnU-Net at this patch")
    plan.put("data.epoch_samples", 3000, "250 steps, as in nnU-Net")
    plan.put("data.foreground_share", 0.33, _NNUNET)
    plan.put("data.train_transform", "ct_strong", "the nearest to nnU-Net's here; it mirrors, this does not")
    plan.put("data.cache", "ram")
    plan.put("trainer.max_epochs", 1000)
    plan.put("trainer.gradient_clip_val", 12.0, _NNUNET)
    plan.put("trainer.gradient_clip_algorithm", "norm")
    plan.put("checkpoint", {"monitor": "val/dice", "mode": "max"})
    plan.put("early_stopping.patience", STEADY, "nnU-Net does not stop early")


def _patch(size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    stages = 1
    while min(min(size), _LONGEST) // 2**stages >= _SMALLEST_FEATURES and stages < _MOST_STAGES:
        stages += 1
    factor = 2 ** (stages - 1)
    height, width = (max(factor, round(min(side, _LONGEST) / factor) * factor) for side in size)
    return (height, width), stages


def _put_original(plan: Plan, data: DataFacts) -> None:
    plan.put("model.image_size", [512, 512], _ORIGINAL)
    plan.put("model.network.class_path", "flexunet_pl.models.FlexUNet")
    plan.put("model.network.init_args", {"base_filters": 16, "base_kernels": [9, 9], "num_layers": 8}, "127 M weights")
    plan.put("model.loss.class_path", "torch.nn.CrossEntropyLoss", _ORIGINAL)
    plan.put("data.batch_size", 2, _ORIGINAL)
    plan.put("trainer.max_epochs", 100, _ORIGINAL)
    plan.put("early_stopping.patience", 10, _ORIGINAL)
