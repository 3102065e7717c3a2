"""Ensemble: several networks that predict together, such as those of the folds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flexunet_pl.models.build import build_network, for_pixels, network_spec, size_factor
from flexunet_pl.models.inference import by_member


class Ensemble(nn.Module):
    """Networks of the same classes, whose probabilities are averaged.

    Args:
        members: The networks, or class path and arguments of each.

    Raises:
        ValueError: If there is none.
    """

    takes_pixels = True

    def __init__(self, members: Sequence[nn.Module | Mapping[str, Any]]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble has at least one member")
        built = [
            member
            if isinstance(member, nn.Module)
            else build_network(member.get("class_path", ""), member.get("init_args") or {})
            for member in members
        ]
        self.members = nn.ModuleList(map(for_pixels, built))
        self.init_args = {"members": [network_spec(member) for member in built]}
        self.size_factor = math.lcm(*map(size_factor, built))

    def all_logits(self, image: Tensor) -> Tensor:
        """Compute the logits of every member.

        Args:
            image: Shape ``(N, C, H, W)``, values in 0..255.

        Returns:
            Shape ``(N, M * K, H, W)``: the classes of the first member, then those of the next.
        """
        logits = [member(image) for member in self.members]
        if logits[0].shape[1] == 1:  # one logit for two classes, whose softmax is the sigmoid
            logits = [torch.cat([torch.zeros_like(z), z], dim=1) for z in logits]
        return torch.cat(logits, dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits whose softmax is the mean of the members' probabilities.

        Args:
            image: Shape ``(N, C, H, W)``, values in 0..255.

        Returns:
            Shape ``(N, K, H, W)``.
        """
        logits = self.all_logits(image)
        return mean_logits(logits, logits.shape[1] // len(self.members))


def mean_logits(logits: Tensor, classes: int) -> Tensor:
    """Return logits whose softmax is the mean of the members' probabilities.

    Args:
        logits: Shape ``(N, M * K, H, W)``; see `Ensemble.all_logits`.
        classes: Number of classes K.

    Returns:
        Shape ``(N, K, H, W)``; of one member its own logits.
    """
    if logits.shape[1] == classes:
        return logits
    of_members = by_member(logits.float(), classes).log_softmax(dim=2)
    return of_members.logsumexp(dim=1) - math.log(of_members.shape[1])
