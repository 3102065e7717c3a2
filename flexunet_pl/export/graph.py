"""The graph that leaves the lab: pixels of a file in, class indices of the same size out, everything between inside."""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from flexunet_pl.models.behind import with_temperature
from flexunet_pl.models.build import size_factor
from flexunet_pl.models.inference import all_logits, class_logits, class_probabilities
from flexunet_pl.rgb_map import RgbMap

Fit = Literal["resize", "pad"]

_HALF = 1 << 11  # of the 22 bits of Pillow's weights
_GREY = (19595, 38470, 7471)  # of 65536: how Pillow weighs R, G and B


class DeployedModel(nn.Module):
    """A network with its pre- and post-processing: layout, grey, resize, network, resize of the logits, softmax.

    The resize is that of `resize_image`, rounding included, so that the masks are those of ``flexunet predict``. With
    padding, images keep their resolution, and are filled up with black at the right and below.

    Args:
        network: Maps images ``(N, C, H, W)`` in 0..255 to logits.
        rgb_map: The classes.
        image_size: Height and width of the network's images.
        in_channels: 3 for R, G, B or 1 for grey.
        fit: How an image becomes one for the network: resized to `image_size`, or padded to the next multiple of the
            network's factor.
        probabilities: Whether probabilities are an output too.
        half: Whether the network computes in float16; everything around it stays in float32.
        temperature: See `with_temperature`.
    """

    def __init__(
        self,
        network: nn.Module,
        rgb_map: RgbMap,
        image_size: tuple[int, int],
        in_channels: int,
        *,
        fit: Fit = "resize",
        probabilities: bool,
        half: bool = False,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half() if half else network
        self.half_precision = half
        self.classes = len(rgb_map)
        self.image_size = image_size
        self.in_channels = in_channels
        self.multiple = size_factor(network) if fit == "pad" else None
        self.probabilities = probabilities
        self.temperature = temperature

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Compute the mask.

        Args:
            image: Shape ``(N, H, W, 3)``, uint8, as decoded from a file.

        Returns:
            Class indices ``(N, H, W)``, uint8; and, where they are wanted, probabilities ``(N, K, H, W)``, float32.
        """
        height, width = image.shape[1], image.shape[2]
        pixels = image.permute(0, 3, 1, 2).float()
        if self.in_channels == 1:
            weights = torch.tensor(_GREY, dtype=torch.float32).view(1, 3, 1, 1)
            # exact: the sum stays below 2**24
            pixels = torch.floor(((pixels * weights).sum(dim=1, keepdim=True) + 32768) / 65536)
        if self.multiple is None:
            pixels = _resample(pixels, width, self.image_size[1])
            pixels = _resample(pixels.mT, height, self.image_size[0]).mT
        else:
            # not by -(-side // multiple): ONNX divides whole numbers towards zero
            right, below = (
                (side + self.multiple - 1) // self.multiple * self.multiple - side for side in (width, height)
            )
            pixels = nn.functional.pad(pixels, (0, right, 0, below))
        pixels = pixels.half() if self.half_precision else pixels
        logits = class_logits(all_logits(self.network, pixels).float(), self.classes)
        if self.multiple is None:
            logits = nn.functional.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
        else:
            logits = logits[..., :height, :width]
        one = logits.shape[1] == self.classes
        probabilities = class_probabilities(logits, self.classes)
        mask = (logits if one else probabilities).argmax(dim=1).to(torch.uint8)
        return (mask, with_temperature(probabilities, self.temperature)) if self.probabilities else mask


def _resample(lines: Tensor, length: int, wanted: int) -> Tensor:
    """Resample lines of grey levels as Pillow does: by a triangle as wide as a pixel of the result, in whole numbers.

    Written out rather than left to an operator: runtimes differ in what they call antialiased, and a grey level that
    lies between two must be rounded to the same one. Pillow's weights have 22 bits; they are applied here in two halves
    of 11 bits, whose products and sums are exact in float32, so that every runtime computes the same.

    Args:
        lines: Whole numbers in 0..255, shape ``(..., length)``, float32.
        length: Pixels of a line; it may be symbolic.
        wanted: Pixels of the result.

    Returns:
        Shape ``(..., wanted)``, float32, whole numbers in 0..255.
    """
    if isinstance(length, int) and length == wanted:
        return lines
    # distances and widths are multiples of 1 / (2 * wanted), so that these are whole numbers
    size = torch.ones(1, dtype=torch.int64) * length
    centers = (2 * torch.arange(wanted) + 1) * size
    places = (2 * torch.arange(length) + 1) * wanted
    width = torch.maximum(2 * size, torch.full_like(size, 2 * wanted))
    parts = (width - (centers[:, None] - places).abs()).clamp(min=0)
    whole = parts.sum(dim=1, keepdim=True)
    high = torch.div(parts * _HALF, whole, rounding_mode="floor")
    low = torch.floor((parts * _HALF - high * whole).float() / whole.float() * _HALF + 0.5)
    of_high, of_low = lines @ high.float().T, lines @ low.T
    return torch.floor((of_high + torch.floor(of_low / _HALF) + _HALF / 2) / _HALF)
