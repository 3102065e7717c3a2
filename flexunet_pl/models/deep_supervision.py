"""Deep supervision: heads at the coarser levels of a decoder, which only training knows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from flexunet_pl.common.errors import UserError
from flexunet_pl.models.build import without_scaling

_SHARE = 0.5  # of a level's weight in that of the next finer one, as in nnU-Net


class AuxiliaryHeads(nn.Module):
    """Maps the features of a decoder's coarser levels to logits, so that the loss reaches these levels directly.

    The network itself is left as it is: what is saved, exported or loaded of it has no such heads.

    Args:
        network: A network whose decoder is a list of stages, as those of FlexUNet and of most networks of
            segmentation_models_pytorch.
        levels: Number of levels, from half the image's size down; 0 for none.
        num_classes: Number of classes.
        image: Shape ``(1, C, H, W)`` of the network's images.

    Raises:
        UserError: If the network has not so many levels.
    """

    def __init__(self, network: nn.Module, levels: int, num_classes: int, image: tuple[int, int, int, int]) -> None:
        super().__init__()
        if levels < 0:
            raise UserError(f"model.deep_supervision is {levels}; it is a number of levels, 0 for none")
        found = _coarse_stages(network, image) if levels else []
        if levels > len(found):
            raise UserError(
                f"model.deep_supervision is {levels}, but the decoder of {type(without_scaling(network)).__name__} has "
                f"{len(found)} levels below the image's size; lower it"
            )
        self._stages = tuple(stage for stage, _ in found[:levels])  # a tuple: they stay the network's
        self.heads = nn.ModuleList(nn.Conv2d(channels, num_classes, kernel_size=1) for _, channels in found[:levels])

    @contextmanager
    def watch(self) -> Iterator[list[Tensor]]:
        """Collect logits while the network computes.

        Yields:
            A list that a forward pass within fills with logits ``(N, K, H / 2, W / 2)``, ``(N, K, H / 4, W / 4)``, ...
        """
        logits: list[Tensor] = []
        with _watched(self._stages) as features:
            yield logits
        logits += [head(of_stage) for head, of_stage in zip(self.heads, features, strict=True)]

    def add_losses(self, loss: Tensor, logits: list[Tensor], mask: Tensor, of: Callable[..., Tensor]) -> Tensor:
        """Average a loss with those of the coarser levels, whose weights halve from level to level.

        Args:
            loss: That of the network's own logits.
            logits: Those of `watch`.
            mask: Class indices ``(N, H, W)``, which are reduced by their nearest neighbours.
            of: Gives the loss of logits for class indices.

        Returns:
            The weighted mean, a scalar.
        """
        total, weight = loss, 1.0
        for level, coarse in enumerate(logits, start=1):
            reduced = nn.functional.interpolate(mask[:, None].float(), size=coarse.shape[-2:], mode="nearest")[:, 0]
            share = _SHARE**level
            total, weight = total + share * of(coarse.float(), reduced.long()), weight + share
        return total / weight


def _coarse_stages(network: nn.Module, image: tuple[int, int, int, int]) -> list[tuple[nn.Module, int]]:
    """Return the stages of a decoder below the image's size, the finest first, with their channels.

    Raises:
        UserError: If the decoder is no list of stages.
    """
    bare = without_scaling(network)
    decoder = getattr(bare, "decoder", None)
    stages = decoder if isinstance(decoder, nn.ModuleList) else getattr(decoder, "blocks", None)
    if not isinstance(stages, nn.ModuleList | nn.ModuleDict):
        raise UserError(f"model.deep_supervision: {type(bare).__name__} has no decoder of stages; set it to 0")
    each = tuple(stages.values() if isinstance(stages, nn.ModuleDict) else stages)
    training = network.training
    with torch.no_grad(), _watched(each) as features:
        network.eval()(torch.zeros(image))
    network.train(training)
    shapes = [(stage, *of_stage.shape[1:3]) for stage, of_stage in zip(each, features, strict=True)]
    by_height = {height: (stage, channels) for stage, channels, height in shapes if height < image[2]}
    return [by_height[height] for height in sorted(by_height, reverse=True)]


@contextmanager
def _watched(stages: tuple[nn.Module, ...]) -> Iterator[list[Tensor]]:
    """Collect what stages give, in their order."""
    given: dict[int, Tensor] = {}

    def keep(place: int) -> Callable[..., None]:
        def hook(stage: nn.Module, inputs: object, output: Tensor) -> None:
            given[place] = output

        return hook

    features: list[Tensor] = []
    handles = [stage.register_forward_hook(keep(place)) for place, stage in enumerate(stages)]
    try:
        yield features
        features += [given[place] for place in sorted(given)]
    finally:
        for handle in handles:
            handle.remove()
