"""Window: which values of 16-bit images, float images and volumes become black and white."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flexunet_runtime.errors import UserError


@dataclass(frozen=True)
class Window:
    """Lowest and highest value that are told apart, such as -160 and 240 HU.

    Args:
        low: Becomes 0, as all below it.
        high: Becomes 255, as all above it.

    Raises:
        UserError: If they are not finite, or the lower one does not come first.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise UserError(f"window is {[self.low, self.high]}; expected two numbers, the lower one first")

    @classmethod
    def parse(cls, value: Sequence[Any] | None, key: str = "window") -> Self | None:
        """Make a window of what a configuration, a recipe or a file says.

        Args:
            value: Two numbers, or None.
            key: What the value is called there, for the message.

        Returns:
            The window, or None for None.

        Raises:
            UserError: If the value is something else.

        >>> Window.parse([-160, 240])
        Window(low=-160.0, high=240.0)
        >>> Window.parse([5, 5], "model.image_window")
        Traceback (most recent call last):
            ...
        flexunet_runtime.errors.UserError: model.image_window is [5, 5]; expected two numbers, the lower one first
        """
        if value is None:
            return None
        try:
            low, high = map(float, value)
            return cls(low, high)
        except (TypeError, ValueError, OverflowError) as error:
            shown = list(value) if isinstance(value, tuple) else value
            raise UserError(f"{key} is {shown!r}; expected two numbers, the lower one first") from error

    def apply(self, values: NDArray[np.number]) -> NDArray[np.uint8]:
        """Map values linearly to 0 to 255, rounded; those outside of the window to its ends.

        Args:
            values: Finite numbers of any shape.

        Returns:
            The same shape, uint8.

        >>> Window(0, 100).apply(np.array([-5, 0, 20, 100, 300])).tolist()
        [0, 0, 51, 255, 255]
        """
        scale = 255 / (self.high - self.low)
        return np.rint((values.astype(np.float64).clip(self.low, self.high) - self.low) * scale).astype(np.uint8)


def parse_percentiles(value: Sequence[Any] | None, key: str = "percentiles") -> tuple[float, float] | None:
    """Read percentiles of a volume's values that become black and white.

    Args:
        value: Two numbers of 0 to 100, or None.
        key: What the value is called there, for the message.

    Returns:
        Both, or None for None.

    Raises:
        UserError: If the value is something else.

    >>> parse_percentiles([0.5, 99.5])
    (0.5, 99.5)
    """
    window = Window.parse(value, key)
    if window is None:
        return None
    if not 0 <= window.low < window.high <= 100:
        raise UserError(f"{key} is {list(value or ())!r}; expected two of 0 to 100")
    return window.low, window.high


def stretch(values: NDArray[Any], window: Window | None) -> NDArray[np.uint8]:
    """Make a picture of values that have no black and white of their own.

    Args:
        values: Finite numbers of any shape.
        window: What becomes black and white; by default the lowest and the highest value that there is.

    Returns:
        The same shape, uint8; all 0 where all values are one.
    """
    low, high = float(values.min()), float(values.max())
    if window is None and low == high:
        return np.zeros(values.shape, np.uint8)
    return (window or Window(low, high)).apply(values)
