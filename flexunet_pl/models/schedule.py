"""Filters, kernel, dilation and dropout of each level of a FlexUNet."""

from dataclasses import dataclass

from flexunet_pl.common.errors import UserError

MAX_KERNEL = 255  # px; the reference's experiments have 15 at most
MOST_WEIGHTS = 2**31  # of any network: 8 GB in float32, 17 times the largest of the reference


@dataclass(frozen=True)
class Level:
    """What one level of the network is made of.

    Attributes:
        filters: Number of feature channels.
        kernel: Kernel height and width in pixels, odd.
        dilation: Dilation along height and width.
        dropout: Dropout probability between the level's two convolutions.
    """

    filters: int
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    dropout: float


def make_schedule(
    base_filters: int, base_kernels: tuple[int, int], num_layers: int, dilation: tuple[int, int], dropout_rate: float
) -> list[Level]:
    """Derive every level from the first: filters double, kernels shrink by 2, dilation by 1, dropout grows.

    Args:
        base_filters: Filters of level 0.
        base_kernels: Kernel height and width of level 0 in pixels, odd; no level goes below 3.
        num_layers: Number of levels; the last one is the bridge.
        dilation: Dilation of level 0 along height and width; no level goes below 1.
        dropout_rate: Level i drops with ``i * dropout_rate``.

    Returns:
        The levels, from the image's resolution down.

    Raises:
        UserError: If an argument is out of its range.

    >>> [level.filters for level in make_schedule(16, (9, 9), 4, (1, 1), 0.04)]
    [16, 32, 64, 128]
    >>> [level.kernel for level in make_schedule(16, (9, 5), 4, (1, 1), 0.04)]
    [(9, 5), (7, 3), (5, 3), (3, 3)]
    """
    if base_filters < 1 or num_layers < 1:
        raise UserError(f"base_filters ({base_filters}) and num_layers ({num_layers}) must be at least 1")
    if any(k < 1 or k % 2 == 0 for k in base_kernels):
        raise UserError(f"base_kernels is {list(base_kernels)} but both must be odd, such as [9, 9]")
    if max(base_kernels) > MAX_KERNEL:
        raise UserError(f"base_kernels is {list(base_kernels)} but kernels of at most {MAX_KERNEL} px are taken")
    if any(d < 1 for d in dilation):
        raise UserError(f"dilation is {list(dilation)} but both must be at least 1")
    if not 0 <= dropout_rate * (num_layers - 1) < 1:
        raise UserError(
            f"dropout_rate {dropout_rate} gives the last of {num_layers} levels a dropout of "
            f"{dropout_rate * (num_layers - 1):g} but it must stay in [0, 1)"
        )
    return [
        Level(
            filters=base_filters * 2**i,
            kernel=(max(base_kernels[0] - 2 * i, 3), max(base_kernels[1] - 2 * i, 3)),
            dilation=(max(dilation[0] - i, 1), max(dilation[1] - i, 1)),
            dropout=dropout_rate * i,
        )
        for i in range(num_layers)
    ]


def count_weights(levels: list[Level], in_channels: int, num_classes: int) -> int:
    """Count the weights of a network's convolutions before any of them is made.

    Args:
        levels: The levels, from the image's resolution down.
        in_channels: Channels of the image.
        num_classes: Number of classes.

    Returns:
        Their number, without biases and batch norm.
    """
    total, before = num_classes * levels[0].filters, in_channels
    for i, level in enumerate(levels):
        area, filters = level.kernel[0] * level.kernel[1], level.filters
        total += area * filters * (before + filters)
        if i + 1 < len(levels):  # the way up: a transposed convolution, then the level's block on twice its filters
            total += 4 * levels[i + 1].filters * filters + area * filters * 3 * filters
        before = filters
    return total


def check_image_size(size: tuple[int, int], factor: int) -> None:
    """Refuse an image size that the network cannot halve often enough.

    Args:
        size: Height and width in pixels.
        factor: Number that must divide both.

    Raises:
        UserError: If it does not; the message names the nearest size that works.
    """
    if any(side < 1 or side % factor for side in size):
        nearest = [max(factor, round(side / factor) * factor) for side in size]
        raise UserError(
            f"image is {size[0]}x{size[1]} px (height x width) but each side must be a multiple of {factor}; "
            f"set `model.image_size` to {nearest} or lower `num_layers`"
        )
