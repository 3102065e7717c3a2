"""Inference: how a trained network is applied to images, whole or in tiles, once or several times."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from flexunet_pl.common.errors import UserError
from flexunet_pl.common.tensors import most_probable
from flexunet_pl.models.behind import with_temperature
from flexunet_runtime.confidence import Confidence, measure_confidence
from flexunet_runtime.tiles import Tiling

_NO_FLIP: tuple[int, ...] = ()
_FLIPS: tuple[tuple[int, ...], ...] = (_NO_FLIP, (-1,), (-2,), (-2, -1))


class Answer(NamedTuple):
    """What a network says of one image, at the image's own size.

    Attributes:
        mask: Class index per pixel, shape ``(H, W)``, uint8.
        probabilities: Shape ``(K, H, W)``, float32, each pixel's sum is 1.
        uncertainty: Entropy of the probabilities in units of its largest value, shape ``(H, W)``, 0..1; None without
            dropout passes.
        opinions: Masks of the members of an ensemble, of flips and dropout passes, shape ``(M, H, W)``, uint8; None of
            a single one.
    """

    mask: Tensor
    probabilities: Tensor
    uncertainty: Tensor | None
    opinions: Tensor | None = None

    def cpu(self) -> "Answer":
        """Return a copy on the CPU."""
        return Answer(*(tensor.cpu() if tensor is not None else None for tensor in self))  # type: ignore[arg-type]

    def confidence(self) -> Confidence:
        """Measure how far the mask can be trusted; of an answer on the CPU."""
        opinions = () if self.opinions is None else tuple(self.opinions.numpy())
        return measure_confidence(self.probabilities.numpy(), self.mask.numpy(), opinions)


@dataclass(frozen=True)
class Inference:
    """How a trained network is applied to images.

    Args:
        tiled: Whether images that are larger than the network's size are cut into overlapping tiles of that size, at
            their own resolution, rather than resized; the tiles' logits are blended with Gaussian weights. For networks
            that were trained at that resolution. Where nothing is said, as the network was trained: on patches or not.
        overlap: Share of a tile's side that it has in common with the next.
        tta: ``flips`` averages the probabilities of the image and of its mirror images; only where left and right,
            above and below mean nothing to the network.
        mc_dropout: Passes with dropout at work, whose probabilities are averaged and whose uncertainty is written; 0
            for one pass without it.

    Raises:
        UserError: If a value is out of its range.
    """

    tiled: bool | None = None
    overlap: float = 0.25
    tta: Literal["none", "flips"] = "none"
    mc_dropout: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise UserError(f"inference.overlap ({self.overlap}) must be at least 0 and below 1")
        if self.mc_dropout < 0 or self.mc_dropout == 1:
            raise UserError(f"inference.mc_dropout ({self.mc_dropout}) must be 0, or at least 2 passes")

    def as_trained(self, *, on_patches: bool) -> "Inference":
        """Return the same, with `tiled` decided.

        Args:
            on_patches: Whether the network was trained on patches.
        """
        return self if self.tiled is not None else replace(self, tiled=on_patches)

    def logits(self, network: nn.Module, image: Tensor, tile: tuple[int, int]) -> Tensor:
        """Apply a network once, to whole images or to their tiles.

        Args:
            network: Gives logits ``(N, K, H, W)`` of images ``(N, C, H, W)``; or, see `all_logits`, those of several.
            image: Shape ``(N, C, H, W)``, uint8: at the network's size, or another, to be cut into tiles.
            tile: Height and width of the network's images.

        Returns:
            Logits, shape ``(N, M * K, H, W)``, float32, those of M networks.
        """
        if image.shape[-2:] == tile:
            return all_logits(network, image).float()
        return self._blend(network, image, tile)

    def apply(
        self,
        network: nn.Module,
        image: Tensor,
        tile: tuple[int, int],
        sizes: Sequence[tuple[int, int]],
        classes: int,
        temperature: float = 1.0,
    ) -> list[Answer]:
        """Apply a network, or several together, to images.

        Args:
            network: Gives logits ``(N, M * K, H, W)`` of images ``(N, C, H, W)``, those of M networks.
            image: Shape ``(N, C, H, W)``, uint8: at the network's size, or larger, to be cut into tiles.
            tile: Height and width of the network's images.
            sizes: Height and width wanted for each answer.
            classes: Number of classes K.
            temperature: See `with_temperature`; masks do not depend on it.

        Returns:
            One answer per image.

        Raises:
            UserError: If dropout passes are wanted of a network without dropout.
        """
        flips = _FLIPS if self.tta == "flips" else (_NO_FLIP,)
        passes = list(product(flips, range(max(1, self.mc_dropout))))
        sums: list[Tensor] = []
        opinions: list[list[Tensor]] = [[] for _ in sizes]
        answers = []
        with _dropout(network, at_work=self.mc_dropout > 0):
            for flip, _ in passes:
                logits = _flipped(self.logits(network, _flipped(image, flip), tile), flip)
                resized = [resize_logits(of_image, size) for of_image, size in zip(logits, sizes, strict=True)]
                if len(passes) == 1 and logits.shape[1] == classes:
                    return [
                        Answer(most_probable(z).byte(), with_temperature(z.softmax(dim=0), temperature), None)
                        for z in resized
                    ]
                for i, z in enumerate(resized):
                    if i == len(sums):
                        sums.append(z.new_zeros(classes, *z.shape[1:]))
                    sums[i] += class_probabilities(z, classes)
                    opinions[i].append(most_probable(by_member(z, classes)).byte())
        for total, of_image in zip(sums, opinions, strict=True):
            mean = total / len(passes)
            told = with_temperature(mean, temperature)
            uncertainty = _entropy(told) if self.mc_dropout else None
            answers.append(Answer(most_probable(mean).byte(), told, uncertainty, torch.cat(of_image)))
        return answers

    def _blend(self, network: nn.Module, image: Tensor, tile: tuple[int, int]) -> Tensor:
        plan = Tiling((image.shape[-2], image.shape[-1]), tile, self.overlap)
        rows, columns = (
            torch.arange(-before, side + after, device=image.device).clamp(0, side - 1)
            for side, (before, after) in zip(plan.size, plan.margins, strict=True)
        )
        weights = torch.from_numpy(plan.weights).to(image.device)
        total, weight = torch.zeros(0), torch.zeros(plan.grown, device=image.device)
        for down, across in plan.tiles():
            logits = all_logits(network, image[..., rows[down], :][..., columns[across]]).float()
            if not len(total):
                total = torch.zeros((*logits.shape[:2], *plan.grown), device=image.device)
            total[..., down, across] += logits * weights
            weight[down, across] += weights
        return (total / weight)[..., *plan.inner]


def class_probabilities(logits: Tensor, classes: int) -> Tensor:
    """Return the probabilities that logits stand for: those of one network, or the mean of several.

    Args:
        logits: Shape ``(..., M * K, H, W)``, those of M networks.
        classes: Number of classes K.

    Returns:
        Shape ``(..., K, H, W)``, each pixel's sum is 1.
    """
    if logits.shape[-3] == classes:
        return logits.softmax(dim=-3)
    return by_member(logits, classes).softmax(dim=-3).mean(dim=-4)


def by_member(logits: Tensor, classes: int) -> Tensor:
    """Return logits ``(..., M * K, H, W)`` of M networks as ``(..., M, K, H, W)``."""
    return logits.reshape(*logits.shape[:-3], -1, classes, *logits.shape[-2:])


def all_logits(network: nn.Module, image: Tensor) -> Tensor:
    """Compute the logits of a network, or of every network of an ensemble.

    Args:
        network: Gives logits ``(N, K, H, W)``; an ensemble has a method of this name.
        image: Shape ``(N, C, H, W)``.

    Returns:
        Shape ``(N, M * K, H, W)``, those of M networks.
    """
    return torch.as_tensor(getattr(network, "all_logits", network)(image))


def class_logits(logits: Tensor, num_classes: int) -> Tensor:
    """Give a network with one logit for two classes a second one.

    Args:
        logits: Shape ``(N, K, H, W)``.
        num_classes: Number of classes.

    Returns:
        The logits as they are; of one logit z for two classes ``(0, z)``, whose softmax is the sigmoid of z.
    """
    if (logits.shape[1], num_classes) != (1, 2):
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


def _flipped(image: Tensor, dims: tuple[int, ...]) -> Tensor:
    return image.flip(dims) if dims else image


def resize_logits(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize logits bilinearly.

    Args:
        logits: Shape ``(K, H, W)``.
        size: Height and width wanted.

    Returns:
        Shape ``(K, *size)``.
    """
    if logits.shape[-2:] == size:
        return logits
    return nn.functional.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]


def _entropy(probabilities: Tensor) -> Tensor:
    largest = torch.log(torch.tensor(float(len(probabilities)), device=probabilities.device))
    entropy: Tensor = torch.special.entr(probabilities).sum(dim=0)
    return entropy / largest


@contextmanager
def _dropout(network: nn.Module, *, at_work: bool) -> Iterator[None]:
    """Put the dropout of a network in eval mode to work for a while.

    Raises:
        UserError: If there is none.
    """
    layers = [m for m in network.modules() if isinstance(m, _DropoutNd) and m.p > 0] if at_work else []
    if at_work and not layers:
        raise UserError("inference.mc_dropout: this network has no dropout; leave it at 0")
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()
