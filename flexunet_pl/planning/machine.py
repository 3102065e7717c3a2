"""What a plan must know of the machine: its cores and memory, and what a step takes on it."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from flexunet_pl.common.console import show_progress
from flexunet_pl.common.errors import UserError
from flexunet_pl.common.files import written_in_place
from flexunet_pl.common.processes import count_cores
from flexunet_pl.data.transforms import StrongCTAugmentation
from flexunet_pl.losses import DiceCELoss
from flexunet_pl.models.flexunet import FlexUNet
from flexunet_pl.planning.network import BATCH, SIDES, levels_for, network_arguments

_STEPS = 3  # of which the fastest counts, behind one that warms up: other programs only ever slow a step down
_LONG_ENOUGH = 4.0  # s; slow steps tell enough without being repeated
_SLOWEST = 10.0  # s a step: larger images than those cannot be what a plan of minutes needs
_GIGABYTE = 2**30
_FORMAT = 1
_FAST = "bf16-mixed"


@dataclass(frozen=True)
class Timing:
    """What images of one size take.

    Attributes:
        side: Height and width, px.
        step: Seconds of training per image.
        forward: Seconds of validation per image.
        memory: Bytes that an image keeps between its way forward and back.
    """

    side: int
    step: float
    forward: float
    memory: int


@dataclass(frozen=True)
class Machine:
    """What is known of a machine.

    Attributes:
        device: cpu or cuda.
        name: Of the accelerator; empty on the CPU.
        cores: That this process may use.
        memory: Free bytes, of the accelerator where there is one.
        precision: The faster one, as `trainer.precision` takes it.
        speedup: Of it over float32.
        startup: Seconds from the key press to the first step.
        augmentation: Seconds of one core per megapixel.
        timings: The smallest side first.
    """

    device: str
    name: str
    cores: int
    memory: int
    precision: str
    speedup: float
    startup: float
    augmentation: float
    timings: tuple[Timing, ...]

    def save(self, path: Path) -> None:
        """Write everything as JSON, for another plan of the same machine."""
        with written_in_place(path) as temporary:
            temporary.write_text(json.dumps({"format": _FORMAT, **asdict(self)}, indent=1) + "\n", encoding="utf-8")


def read_machine(path: Path) -> Machine:
    """Read what `Machine.save` wrote.

    Args:
        path: The file.

    Returns:
        The machine.

    Raises:
        UserError: If it is another file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = content.pop("format") == _FORMAT
        machine = Machine(timings=tuple(Timing(**timing) for timing in content.pop("timings")), **content)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        known = False
    if not known or not _is_sound(machine):
        raise UserError(f"{path}: holds no timings of flexunet plan; leave --timings out to take them anew")
    return machine


def _is_sound(machine: Machine) -> bool:
    numbers = [machine.memory, machine.speedup, machine.startup, machine.augmentation, machine.cores]
    numbers += [value for timing in machine.timings for value in asdict(timing).values()]
    words = machine.device in {"cpu", "cuda"} and machine.precision in {"32-true", _FAST}
    return (
        words
        and bool(machine.timings)
        and isinstance(machine.name, str)
        and all(type(n) in {int, float} and 0 < n < float("inf") for n in numbers)
    )


def measure_machine(num_classes: int, in_channels: int, longest: int, startup: float) -> Machine:
    """Time a few steps at each size, in the faster precision.

    Args:
        num_classes: Of the data.
        in_channels: Of the images.
        longest: Longer side of the images, px; nothing larger is timed.
        startup: Seconds that the program took to start.

    Returns:
        What was found.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sides = [side for side in SIDES if side <= max(longest, SIDES[0])]
    run = _Runs(device, num_classes, in_channels)
    fast, plain = run.time(sides[0], _FAST), run.time(sides[0], "32-true")
    precision, smallest = (_FAST, fast) if fast.step < plain.step else ("32-true", plain)
    timings = [smallest]
    for side in show_progress(sides[1:], "timing steps", len(sides) - 1):
        if timings[-1].step * BATCH > _SLOWEST:
            break
        try:
            timings.append(run.time(side, precision))
        except torch.OutOfMemoryError:
            break
    return Machine(
        device=device,
        name=torch.cuda.get_device_name() if device == "cuda" else "",
        cores=count_cores(),
        memory=int(torch.cuda.mem_get_info()[0]) if device == "cuda" else free_memory(),
        precision=precision,
        speedup=round(max(1.0, plain.step / fast.step), 2),
        startup=round(startup, 1),
        augmentation=_time_augmentation(in_channels),
        timings=tuple(timings),
    )


class _Runs:
    """Runs steps of the network that a plan would take."""

    def __init__(self, device: str, num_classes: int, in_channels: int) -> None:
        self.device = torch.device(device)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.loss = DiceCELoss(pooled=True)

    def time(self, side: int, precision: str) -> Timing:
        network = FlexUNet(self.in_channels, self.num_classes, **network_arguments(levels_for((side, side))))
        network = network.to(self.device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters())
        shape = (BATCH, self.in_channels, side, side)
        image = torch.randint(256, shape, dtype=torch.uint8).to(self.device, memory_format=torch.channels_last)
        mask = torch.randint(self.num_classes, (BATCH, side, side)).to(self.device)
        kept: list[int] = []

        def logits() -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=precision != "32-true"):
                found: Tensor = network(image)
            return found.float()

        def step() -> None:
            optimizer.zero_grad()
            self.loss(logits(), mask).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()

        with torch.autograd.graph.saved_tensors_hooks(_count_into(kept), lambda tensor: tensor):
            step()
        seconds = self._seconds(step)
        with torch.no_grad():
            forward = self._seconds(logits)
        return Timing(side, round(seconds / BATCH, 6), round(forward / BATCH, 6), sum(kept) // BATCH)

    def _seconds(self, work: Callable[[], object]) -> float:
        seconds: list[float] = []
        while len(seconds) < _STEPS and sum(seconds) < _LONG_ENOUGH:
            self._wait()
            began = time.perf_counter()
            work()
            self._wait()
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _count_into(sizes: list[int]) -> Callable[[Tensor], Tensor]:
    known: set[int] = set()

    def count(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in known:  # two operations may keep one tensor
            known.add(tensor.data_ptr())
            sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    return count


def _time_augmentation(channels: int) -> float:
    rng = np.random.default_rng(0)
    side, transform = 256, StrongCTAugmentation()
    image = rng.integers(0, 256, (side, side, channels), dtype=np.uint8)
    mask = np.zeros((side, side), dtype=np.uint8)
    transform(image=image, mask=mask)
    began, times = time.perf_counter(), 20
    for _ in range(times):
        transform(image=image, mask=mask)
    return round((time.perf_counter() - began) / times / (side * side / 1e6), 4)


def free_memory() -> int:
    """Return the bytes of memory that this process may still take, by the system and by its control group."""
    limits = [_system_memory(), *_control_group_memory()]
    return max(_GIGABYTE // 4, min(limits))


def _system_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):  # not Linux; then what most machines have
        return 4 * _GIGABYTE


def _control_group_memory() -> Sequence[int]:
    try:
        limit, used = (
            Path(f"/sys/fs/cgroup/memory.{name}").read_text(encoding="ascii").strip() for name in ("max", "current")
        )
        return [] if limit == "max" else [int(limit) - int(used)]
    except (OSError, ValueError):
        return []


def describe_machine(machine: Machine) -> list[tuple[str, str]]:
    """Return what people may want to know of a machine, in rows."""
    place = machine.name if machine.device == "cuda" else f"{machine.cores} cores"
    return [
        ("machine", f"{place}, {machine.memory / _GIGABYTE:.1f} GiB free"),
        ("precision", f"{machine.precision}, {machine.speedup:g} times as fast as float32 at best"),
    ]
