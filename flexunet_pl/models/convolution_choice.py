"""Which convolutions of a network are faster by the Fourier transform here; timed once for each machine and kept."""

import contextlib
import hashlib
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from platformdirs import user_cache_path
from torch import Tensor, nn

from flexunet_pl.common.files import written_in_place
from flexunet_pl.models.fast_convolution import FastConvolution, Sides, takes_fft

SMALLEST_KERNEL = 7  # smaller ones are faster in the direct way everywhere
_CANDIDATES = (32, 64, 96)
SIDES = (0, *_CANDIDATES)  # that can be chosen, px; 0 is the direct way
_GAIN = 1.15  # what it must be faster by, so that noise decides nothing
_SHORT = 0.2  # s; what takes less is repeated, and the faster run counts


class ConvolutionTimings:
    """The faster way for each shape of a convolution, on this machine.

    Args:
        path: Where they are kept; by default among the user's caches, by processor, threads and version of torch.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or _default_path()
        self._known: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._known = {key: side for key, side in json.loads(self._path.read_text()).items() if side in SIDES}

    def choose(self, network: nn.Module, image: Tensor, *, training: bool, may_time: bool = True) -> dict[str, Sides]:
        """Choose for the convolutions with large kernels.

        Args:
            network: The network, on the CPU in float32.
            image: Such as it will be given, shape ``(1, C, H, W)``.
            training: Whether it will be trained too.
            may_time: Whether shapes that are not known yet may be timed; else they keep their own way.

        Returns:
            By name; what is not in it keeps its own way.
        """
        chosen = {}
        before = dict(self._known)
        for name, (module, given) in _inputs(network, image).items():
            inference = self._side(module, given, training=False, may_time=may_time)
            in_training = self._side(module, given, training=True, may_time=may_time) if training else 0
            if inference or in_training:
                chosen[name] = Sides(in_training, inference)
        if self._known != before:
            self._save()
        return chosen

    def _side(self, module: nn.Conv2d, image: Tensor, *, training: bool, may_time: bool) -> int:
        key = f"{tuple(module.weight.shape)} {tuple(image.shape[2:])} {'training' if training else 'inference'}"
        if key not in self._known and may_time:
            self._known[key] = _fastest_side(module, image, training=training)
        return self._known.get(key, 0)

    def _save(self) -> None:
        with contextlib.suppress(OSError):  # nowhere to keep them; then they are taken each time
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with written_in_place(self._path) as temporary:
                temporary.write_text(json.dumps(self._known, indent=1) + "\n")


def _default_path() -> Path:
    machine = [platform.processor(), _processor(), torch.__version__, torch.get_num_threads()]
    return user_cache_path("flexunet") / f"convolutions-{hashlib.sha256(repr(machine).encode()).hexdigest()[:16]}.json"


def _processor() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux, where `platform` knows the processor
        return []
    return [line for line in lines if line.startswith(("model name", "flags"))][:2]


def _inputs(network: nn.Module, image: Tensor) -> dict[str, tuple[nn.Conv2d, Tensor]]:
    """Return the convolutions in question, and what they are given."""
    found: dict[str, tuple[nn.Conv2d, Tensor]] = {}

    def remember(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            if isinstance(module, nn.Conv2d):
                found[name] = (module, given[0].detach())

        return hook

    hooks = [
        module.register_forward_pre_hook(remember(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and takes_fft(module) and max(module.kernel_size) >= SMALLEST_KERNEL
    ]
    modes = {module: module.training for module in network.modules()}
    try:
        if hooks:
            with torch.no_grad():
                network.eval()(image)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return found


def _fastest_side(module: nn.Conv2d, image: Tensor, *, training: bool) -> int:
    best, chosen = _seconds(module, module, image, training=training) / _GAIN, 0
    for side in _CANDIDATES:
        if side <= 2 * max(image.shape[2:]):
            seconds = _seconds(FastConvolution(module, Sides(side, side)), module, image, training=training)
            if seconds < best:
                best, chosen = seconds, side
    return chosen


def _seconds(work: Callable[[Tensor], Tensor], module: nn.Conv2d, image: Tensor, *, training: bool) -> float:
    given = image.clone().requires_grad_(training)
    parameters = list(module.parameters()) if training else []
    seconds: list[float] = []
    while len(seconds) < (3 if sum(seconds) < _SHORT else 1):
        began = time.perf_counter()
        with torch.set_grad_enabled(training):
            result = work(given)
            if training:
                torch.autograd.grad(result.sum(), [given, *parameters])
        seconds.append(time.perf_counter() - began)
    return min(seconds)
