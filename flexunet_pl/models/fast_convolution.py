"""Convolution with large kernels by the fast Fourier transform, tile by tile (overlap-save); equal but for rounding.

A direct convolution multiplies each pixel with each weight of a kernel; in the frequency domain there is one product
for a pixel and a pair of channels, whatever the size of the kernel. Tiles keep the transforms small, and in the cache.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

_CHUNK = 2**21  # complex numbers that one step may hold: 16 MiB


def takes_fft(module: nn.Module) -> bool:
    """Tell whether a module is a convolution that can be replaced: odd kernel, stride 1, zeros around, nothing else."""
    return (
        isinstance(module, nn.Conv2d)
        and min(module.kernel_size) > 1
        and all(k % 2 for k in module.kernel_size)
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and module.padding in {"same", tuple(k // 2 for k in module.kernel_size)}
    )


def weight_spectrum(weight: Tensor, side: int) -> Tensor:
    """Return the transform of a kernel, which is the same for all images.

    Args:
        weight: Shape ``(O, C, kh, kw)``.
        side: Side of the transform, px; at least that of the kernel.

    Returns:
        Shape ``(side * (side // 2 + 1), C, O)``, complex.
    """
    spectrum: Tensor = torch.fft.rfft2(weight, s=(side, side)).conj()
    return spectrum.permute(2, 3, 1, 0).reshape(-1, weight.shape[1], weight.shape[0]).resolve_conj().contiguous()


def convolve(image: Tensor, spectrum: Tensor, kernel: tuple[int, int], side: int) -> Tensor:
    """Convolve as `torch.nn.functional.conv2d` does with ``padding="same"``, without a bias.

    Args:
        image: Shape ``(N, C, H, W)``.
        spectrum: What `weight_spectrum` returns.
        kernel: Height and width of the kernel, odd.
        side: Side of the transforms, px.

    Returns:
        Shape ``(N, O, H, W)``.
    """
    number, channels, height, width = image.shape
    tiles = _Tiles(image, kernel, side)
    result = image.new_empty((number, spectrum.shape[2], tiles.rows * tiles.height, tiles.columns * tiles.width))
    for first, last in tiles.chunks(max(channels, spectrum.shape[2])):
        product = torch.bmm(tiles.spectra(first, last), spectrum)
        product = product.reshape(side, side // 2 + 1, number, last - first, tiles.columns, -1)
        pixels = torch.fft.irfft2(product.permute(2, 5, 3, 4, 0, 1), s=(side, side))
        pixels = pixels[..., : tiles.height, : tiles.width].permute(0, 1, 2, 4, 3, 5)
        result[:, :, first * tiles.height : last * tiles.height] = pixels.reshape(
            number, -1, (last - first) * tiles.height, tiles.columns * tiles.width
        )
    return result[:, :, :height, :width]


class _Tiles:
    """The overlapping tiles of an image, in rows."""

    def __init__(self, image: Tensor, kernel: tuple[int, int], side: int) -> None:
        height, width = image.shape[2:]
        self.side = side
        self.height, self.width = (side - k + 1 for k in kernel)
        self.rows, self.columns = -(-height // self.height), -(-width // self.width)
        above, left = (k // 2 for k in kernel)
        below = self.rows * self.height + kernel[0] - 1 - height - above
        right = self.columns * self.width + kernel[1] - 1 - width - left
        padded = functional.pad(image.contiguous(), (left, right, above, below))
        self._tiles = padded.unfold(2, side, self.height).unfold(3, side, self.width)

    def chunks(self, channels: int) -> Iterator[tuple[int, int]]:
        """Yield first and last row of tiles, of as many as may be held at once."""
        row = self._tiles.shape[0] * self.columns * channels * self.side * (self.side // 2 + 1)
        step = max(1, _CHUNK // row)
        for first in range(0, self.rows, step):
            yield first, min(first + step, self.rows)

    def spectra(self, first: int, last: int) -> Tensor:
        """Return the transforms of some rows, shape ``(frequencies, tiles, C)``."""
        spectra: Tensor = torch.fft.rfft2(self._tiles[:, :, first:last])
        channels = spectra.shape[1]
        return spectra.permute(4, 5, 0, 2, 3, 1).reshape(self.side * (self.side // 2 + 1), -1, channels)


def kernel_gradient(image: Tensor, of_result: Tensor, kernel: tuple[int, int], side: int) -> Tensor:
    """Return the gradient for the kernel of `convolve`.

    Args:
        image: What was convolved, shape ``(N, C, H, W)``.
        of_result: Gradient for the result, shape ``(N, O, H, W)``.
        kernel: Height and width of the kernel.
        side: Side of the transforms, px.

    Returns:
        Shape ``(O, C, kh, kw)``.
    """
    tiles = _Tiles(image, kernel, side)
    below = tiles.rows * tiles.height - image.shape[2]
    right = tiles.columns * tiles.width - image.shape[3]
    padded = functional.pad(of_result.contiguous(), (0, right, 0, below))
    cut = padded.unfold(2, tiles.height, tiles.height).unfold(3, tiles.width, tiles.width)
    channels, filters = image.shape[1], of_result.shape[1]
    shape = (side * (side // 2 + 1), filters, channels)
    total = torch.zeros(shape, dtype=torch.promote_types(image.dtype, torch.complex64))
    for first, last in tiles.chunks(max(channels, filters)):
        of_tiles = torch.fft.rfft2(cut[:, :, first:last], s=(side, side)).conj()
        of_tiles = of_tiles.permute(4, 5, 1, 0, 2, 3).reshape(side * (side // 2 + 1), filters, -1)
        total.baddbmm_(of_tiles.resolve_conj(), tiles.spectra(first, last))
    by_pair = total.reshape(side, side // 2 + 1, filters, channels).permute(2, 3, 0, 1)
    gradient: Tensor = torch.fft.irfft2(by_pair, s=(side, side))[..., : kernel[0], : kernel[1]].contiguous()
    return gradient


class Sides(NamedTuple):
    """Side of the transforms of a convolution, px; 0 is the direct way."""

    training: int
    inference: int


class _Convolution(torch.autograd.Function):
    """The convolution with its gradients, which are convolutions too."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, side: int) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.side = side
        return convolve(image, weight_spectrum(weight, side), (weight.shape[2], weight.shape[3]), side)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        image, weight = ctx.saved_tensors
        kernel, (of_result,) = tuple(weight.shape[2:]), gradients
        of_image = of_weight = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3).transpose(0, 1)
            of_image = convolve(of_result, weight_spectrum(turned, ctx.side), kernel, ctx.side)
        if ctx.needs_input_grad[1]:
            of_weight = kernel_gradient(image, of_result, kernel, ctx.side)
        return of_image, of_weight, None


class FastConvolution:
    """What a convolution calls instead of its own forward pass.

    Args:
        module: The convolution; see `takes_fft`.
        sides: Side of the transforms, px, in training and without gradients; 0 is the module's own way.
    """

    def __init__(self, module: nn.Conv2d, sides: Sides) -> None:
        self.module = module
        self.sides = sides
        self._kept: tuple[Tensor, Tensor] | None = None  # the weights as they were, and their transform

    def __call__(self, image: Tensor) -> Tensor:
        """Return what the module returns for ``(N, C, H, W)``."""
        weight, bias = self.module.weight, self.module.bias
        training = torch.is_grad_enabled()
        side = self.sides.training if training else self.sides.inference
        if not side:
            return type(self.module).forward(self.module, image)
        if training:
            result: Tensor = _Convolution.apply(image, weight, side)
        else:
            result = convolve(image, self._spectrum(weight, side), (weight.shape[2], weight.shape[3]), side)
        return result if bias is None else result + bias[:, None, None]

    def _spectrum(self, weight: Tensor, side: int) -> Tensor:
        # their version does not tell: it stays the same where averaged weights are put in their place
        if self._kept is None or not torch.equal(self._kept[0], weight):
            self._kept = (weight.detach().clone(), weight_spectrum(weight.detach(), side))
        return self._kept[1]


def use_fast_convolutions(network: nn.Module, sides: Mapping[str, Sides]) -> None:
    """Have convolutions of a network work by the Fourier transform; its weights and its state stay what they are.

    Args:
        network: The network.
        sides: By name of the convolution; those that are not named work in their own way.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and takes_fft(module):
            module.__dict__.pop("forward", None)
            if any(sides.get(name, ())):
                module.__dict__["forward"] = FastConvolution(module, sides[name])
