"""What a plan chooses, and why: from facts alone, so that the same facts give the same plan."""

from pathlib import Path

from flexunet_pl.common.errors import UserError
from flexunet_pl.models.schedule import count_weights, make_schedule
from flexunet_pl.planning.data_facts import DataFacts
from flexunet_pl.planning.machine import Machine, Timing
from flexunet_pl.planning.network import BATCH, levels_for, network_arguments, size_within
from flexunet_pl.planning.plan import Expected, Plan, clock_time
from flexunet_pl.rgb_map import RgbMap

SAMPLES = 2500  # augmented images that a network should see at least; see docs/fewshot.md
_OFTEN = 100  # times; images that are seen as often are few, and must be guarded against being learnt by heart
_FEWEST_STEPS = 10
_OVERHEAD = 1.2  # what a step takes beside the network: logs, scores, the next batch
_CLOSING = 3.0  # s, to save and to report
_EPOCHS = 40  # of a plan: often enough to see what it learns, and to resume without much loss
_SHORTEST_EPOCH = 8.0  # s
_VALIDATION_SHARE = 0.1  # of the time, at most
_MEMORY_SHARE = 0.7  # of what is free
_BYTES_PER_WEIGHT = 24  # weight, gradient, two moments, and a copy as it is saved
_LOST = 12.0  # px; smaller parts hardly survive the first halving
STEADY = 1_000_000  # epochs without progress, which no plan has


def make_plan(root: Path, rgb_map: RgbMap, data: DataFacts, machine: Machine, minutes: float) -> Plan:
    """Choose a configuration.

    Args:
        root: Folder of the data.
        rgb_map: Classes and colours.
        data: What is known of the data.
        machine: What is known of the machine.
        minutes: How long `flexunet fit` may take, from the key press to the end.

    Returns:
        The plan.

    Raises:
        UserError: If the minutes or the memory are too few.
    """
    seconds = minutes * 60 - machine.startup - _CLOSING
    timing, size = _choose_size(data, machine, seconds, minutes)
    per_image = _seconds_per_image(timing, size, machine)
    epoch = _epoch_seconds(data, timing, seconds)
    plan = Plan()
    plan.put("seed_everything", 137)
    seen = seconds / per_image
    times = seen / data.images["train"]
    few = times >= _OFTEN
    _put_model(plan, rgb_map, data, size, seen, few=few)
    _put_training(plan, data, levels_for(size), few=few)
    _put_data(plan, root, data, machine, size, max(1, round(epoch / per_image / BATCH)) * BATCH)
    _put_augmentation(plan, times, few=few)
    _put_trainer(plan, machine, seconds, minutes)
    plan.expected = Expected(
        steps=int(seconds * (1 - _share_of_validation(data, timing, epoch)) / per_image / BATCH),
        images_per_second=round(1 / per_image, 1),
        memory=timing.memory * BATCH + _BYTES_PER_WEIGHT * _count_weights(plan, len(rgb_map)),
    )
    _ask(plan, data, size)
    return plan


def _ask(plan: Plan, data: DataFacts, size: tuple[int, int]) -> None:
    plan.open_questions.append(
        "whether left and right matter is not in the pixels: mirror images are not trained on; where they may be, set "
        "data.train_transform.init_args.horizontal_flip to 0.5"
    )
    if data.patients is None:
        plan.open_questions.append(
            "whether train and valid share a patient is not known: give --group-regex, which finds patients in names"
        )
    area, name = _smallest(data, size)
    if area < _LOST:
        plan.open_questions.append(
            f"small parts of {name} have {area:.0f} px at this size, and may be lost: model.patches true trains at the "
            "images' own resolution"
        )
    if data.is_numbered:
        neighbours = "data.neighbours 1 with model.in_channels 3" if data.is_grey else "data.neighbours 1"
        plan.open_questions.append(
            f"whether neighbouring slices tell what one does not is not known: {neighbours} gives the network both"
        )


def _smallest(data: DataFacts, size: tuple[int, int]) -> tuple[float, str]:
    """Return the area of the smallest parts of a class at a size, and the class."""
    shrinking = size[0] * size[1] / (data.size[0] * data.size[1])
    return min((facts.smallest * shrinking, name) for name, facts in list(data.classes.items())[1:])


def _count_weights(plan: Plan, num_classes: int) -> int:
    arguments = plan.config["model"]["network"]["init_args"]
    levels = make_schedule(arguments["base_filters"], arguments["base_kernels"], arguments["num_layers"], (1, 1), 0.0)
    return count_weights(levels, plan.config["model"]["in_channels"], num_classes)


def _choose_size(data: DataFacts, machine: Machine, seconds: float, minutes: float) -> tuple[Timing, tuple[int, int]]:
    """Take the largest size at which the network sees enough images, and that fits into the memory.

    Raises:
        UserError: If not even the smallest does.
    """
    fitting = [t for t in machine.timings if t.memory * BATCH <= _MEMORY_SHARE * machine.memory]
    if not fitting:
        needed = machine.timings[0].memory * BATCH / _MEMORY_SHARE / 2**30
        raise UserError(
            f"{machine.memory / 2**30:.1f} GiB of memory are free, but training needs {needed:.1f}; free some"
        )
    smallest = fitting[0]
    least = _FEWEST_STEPS * BATCH * _seconds_per_image(smallest, size_within(data.size, smallest.side), machine)
    if seconds < least:
        needed = (least + machine.startup + _CLOSING) / 60
        raise UserError(
            f"--minutes {minutes:g} is too short for {_FEWEST_STEPS} steps here; give {needed + 0.1:.1f} or more"
        )
    chosen = smallest
    for timing in fitting:
        if seconds / _seconds_per_image(timing, size_within(data.size, timing.side), machine) >= SAMPLES:
            chosen = timing
    return chosen, size_within(data.size, chosen.side)


def _seconds_per_image(timing: Timing, size: tuple[int, int], machine: Machine) -> float:
    area = size[0] * size[1] / timing.side**2
    augmentation = machine.augmentation * size[0] * size[1] / 1e6
    if machine.device == "cpu":  # which the loader's processes share with the network
        return area * timing.step * _OVERHEAD + augmentation / machine.cores
    return max(area * timing.step * _OVERHEAD, augmentation / _workers(machine))


def _workers(machine: Machine) -> int:
    return min(4, max(1, machine.cores // 2))


def _epoch_seconds(data: DataFacts, timing: Timing, seconds: float) -> float:
    validation = data.images["valid"] * timing.forward * _OVERHEAD
    return min(seconds, max(_SHORTEST_EPOCH, seconds / _EPOCHS, validation / _VALIDATION_SHARE))


def _share_of_validation(data: DataFacts, timing: Timing, epoch: float) -> float:
    validation = data.images["valid"] * timing.forward * _OVERHEAD
    return validation / (validation + epoch)


def _put_model(plan: Plan, rgb_map: RgbMap, data: DataFacts, size: tuple[int, int], seen: float, *, few: bool) -> None:
    levels = levels_for(size)
    native = "x".join(map(str, data.size))
    shrunk, smallest = _smallest(data, size)
    which = f"largest of which {SAMPLES} can be seen in the time" if seen >= SAMPLES else "smallest, to see the most"
    plan.put("model.rgb_map", rgb_map.to_dict())
    plan.put(
        "model.image_size",
        list(size),
        f"of {native}: the {which}, {seen:.0f}; small parts of {smallest} have {shrunk:.0f} of their "
        f"{data.classes[smallest].smallest} px then",
    )
    channels = 1 if data.is_grey else 3
    plan.put("model.in_channels", channels, "all images are grey" if data.is_grey else "some images have colours")
    network = "model.network.init_args"
    plan.put("model.network.class_path", "flexunet_pl.models.FlexUNet")
    arguments = network_arguments(levels, normalization=not few)
    why = {
        "base_filters": "wider networks see fewer images in the time",
        "base_kernels": "learnt more from few slices than 3x3",
        "num_layers": f"coarsest features of {size[0] >> (levels - 1)}x{size[1] >> (levels - 1)}, which see all",
        "dropout_rate": "augmentation is the better guard here",
        "normalization": "few images: without it the network learnt as much"
        if few
        else "learns sooner from many images",
    }
    for name, value in arguments.items():
        plan.put(f"{network}.{name}", value, why[name])


def _put_training(plan: Plan, data: DataFacts, levels: int, *, few: bool) -> None:
    plan.put(
        "model.deep_supervision", min(3, levels - 2), "the coarser levels are trained directly; they learn sooner so"
    )
    plan.put("model.loss.class_path", "flexunet_pl.losses.DiceCELoss")
    absent = [name for name, facts in data.classes.items() if facts.images < data.read]
    plan.put(
        "model.loss.init_args",
        {"pooled": True},
        f"{', '.join(absent)} not in every image: Dice is that of the batch" if absent else "Dice of the batch",
    )
    plan.put("model.optimizer.class_path", "torch.optim.Adam")
    plan.put(
        "model.optimizer.init_args", {"lr": 1e-3 if few else 2e-3}, "minutes, not days" + ("" if few else "; norm")
    )
    plan.put("model.scheduler.class_path", "flexunet_pl.schedules.WarmupStableDecay")
    plan.put("model.scheduler.init_args", {"warmup_steps": 50, "decay": 0.3}, "the rate ends at 0 when the time does")


def _put_data(plan: Plan, root: Path, data: DataFacts, machine: Machine, size: tuple[int, int], samples: int) -> None:
    plan.put("data.root", str(root))
    plan.put("data.batch_size", BATCH, "few images a step, many steps")
    plan.put(
        "data.epoch_samples",
        samples,
        f"an epoch is what ends with a validation; there are {data.images['train']} images",
    )
    if data.without_foreground and data.without_foreground > data.read / 2:
        plan.put(
            "data.foreground_share", 0.5, f"{data.without_foreground} of {data.read} images show the background alone"
        )
    plan.put("data.num_workers", _workers(machine), "half the cores, at most 4")
    needed = sum(data.images.values()) * size[0] * size[1] * (1 + (1 if data.is_grey else 3))
    memory = machine.memory if machine.device == "cpu" else 2**30
    if needed < memory * (1 - _MEMORY_SHARE):
        plan.put("data.cache", "ram", f"decoded images take {needed / 2**20:.0f} MiB")
    else:
        plan.put("data.cache", "disk", f"decoded images take {needed / 2**30:.1f} GiB, more than memory has to spare")


def _put_augmentation(plan: Plan, times: float, *, few: bool) -> None:
    name = "StrongCTAugmentation" if few else "CTAugmentation"
    plan.put(
        "data.train_transform.class_path",
        f"flexunet_pl.data.transforms.{name}",
        f"each image is seen {times:.0f} times: {'strong' if few else 'light'}",
    )
    plan.put("data.train_transform.init_args", {"horizontal_flip": 0.0}, "0.5 where left and right mean the same")


def _put_trainer(plan: Plan, machine: Machine, seconds: float, minutes: float) -> None:
    plan.put(
        "trainer.max_time",
        clock_time(seconds),
        f"{minutes:g} minutes, less {machine.startup:g} s to start and {_CLOSING:g} s to end",
    )
    plan.put("trainer.max_epochs", -1, "the time decides")
    put_machine(plan, machine)
    plan.put("trainer.gradient_clip_val", 1.0)
    plan.put("trainer.gradient_clip_algorithm", "norm", "no step is wild, none loses its direction")
    plan.put("checkpoint", {"monitor": "val/dice", "mode": "max"}, "best.ckpt is the epoch with the best masks")
    plan.put("early_stopping.patience", STEADY, "the rate falls at the end, which must not be missed")


def put_machine(plan: Plan, machine: Machine) -> None:
    """Have the training run on what was timed."""
    plan.put("trainer.accelerator", "gpu" if machine.device == "cuda" else "cpu")
    plan.put("trainer.devices", 1, "what was timed")
    plan.put("trainer.precision", machine.precision, f"{machine.speedup:g} times as fast as float32 here")
