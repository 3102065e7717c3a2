"""Behind the network: the temperature of its probabilities, and the steps that its masks go through."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from flexunet_pl.common.errors import UserError
from flexunet_runtime.postprocess import Step, parse_steps


def check_temperature(temperature: float) -> float:
    """Refuse a temperature that no calibration gives.

    Args:
        temperature: Read from a file, or given.

    Returns:
        The same.

    Raises:
        UserError: If it is no number of 0.05 to 20.
    """
    if not (isinstance(temperature, int | float) and 0.05 <= temperature <= 20):
        raise UserError(f"model.temperature is {str(temperature)[:100]}; expected a number of 0.05 to 20")
    return float(temperature)


def with_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """Return the probabilities that logits divided by a temperature stand for.

    Args:
        probabilities: Shape ``(..., K, H, W)``.
        temperature: Above 1 makes them less certain, below 1 more; the most probable class stays so.

    Returns:
        The same shape.
    """
    if temperature == 1:
        return probabilities
    raised = probabilities ** (1 / temperature)
    return raised / raised.sum(dim=-3, keepdim=True)


def read_steps(value: Any, names: Sequence[str]) -> tuple[Step, ...]:
    """Read what is done with masks behind the network; see `parse_steps`.

    Args:
        value: Plain data, from a file or given.
        names: Of the classes.

    Returns:
        The steps.

    Raises:
        UserError: If it is something else.
    """
    try:
        return parse_steps(value, names)
    except ValueError as error:
        raise UserError(f"model.postprocessing {error}") from error
