"""Time a training step of FlexUNet in both memory formats and precisions, interleaved in one process.

Usage: python benchmarks/train_step.py [--size 128] [--filters 16] [--repeats 10]
"""

import argparse
import statistics
import time
from itertools import product

import torch
from torch import Tensor, nn

from flexunet_pl import FlexUNet

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
PRECISIONS = {"fp32": False, "bf16-mixed": True}


def step(network: nn.Module, image: Tensor, mask: Tensor, *, mixed: bool) -> None:
    """Run forward, cross-entropy and backward."""
    with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=mixed):
        logits = network(image)
    nn.functional.cross_entropy(logits.float(), mask).backward()
    network.zero_grad()
    if image.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    """Print the median seconds per step and the ratio to contiguous fp32."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(137)
    network = FlexUNet(3, 4, options.filters, (9, 9), 6).to(device)
    image = torch.randint(0, 256, (options.batch, 3, options.size, options.size), dtype=torch.uint8, device=device)
    mask = torch.randint(0, 4, (options.batch, options.size, options.size), device=device)
    seconds: dict[tuple[str, str], list[float]] = {case: [] for case in product(FORMATS, PRECISIONS)}
    for i in range(options.repeats + 2):
        for layout, precision in seconds:
            network.to(memory_format=FORMATS[layout])
            given = image.contiguous(memory_format=FORMATS[layout])
            step(network, given, mask, mixed=PRECISIONS[precision])  # the first step of a layout reorders the weights
            start = time.perf_counter()
            step(network, given, mask, mixed=PRECISIONS[precision])
            if i >= 2:
                seconds[layout, precision].append(time.perf_counter() - start)
    base = statistics.median(seconds["contiguous", "fp32"])
    print(f"{device.type}, {options.batch} images of {options.size}x{options.size}, base_filters {options.filters}")
    for (layout, precision), values in seconds.items():
        median = statistics.median(values)
        print(f"{layout:<14} {precision:<11} {median:7.3f} s   {base / median:5.2f} x contiguous fp32")


if __name__ == "__main__":
    main()
