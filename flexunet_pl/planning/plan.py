"""A plan: a configuration of `flexunet fit`, value by value with its reason."""

from dataclasses import dataclass, field
from typing import Any, Literal

Peer = Literal["nnunet", "original"]  # whose choices a plan may write down instead


@dataclass(frozen=True)
class Expected:
    """What a plan expects.

    Attributes:
        steps: Of the optimizer.
        images_per_second: While it trains.
        memory: Bytes, beside the program's own.
    """

    steps: int
    images_per_second: float
    memory: int


@dataclass
class Plan:
    """A configuration of `flexunet fit` with its reasons.

    Attributes:
        config: The configuration.
        reasons: Why, by path of the value.
        expected: What it will do; None where nothing was timed for it.
        open_questions: What the data cannot tell, and which key says it.
    """

    config: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    expected: Expected | None = None
    open_questions: list[str] = field(default_factory=list)

    def put(self, path: str, value: Any, why: str = "") -> None:
        """Set a value, and say why."""
        *parents, last = path.split(".")
        node = self.config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
        if why:
            self.reasons[path] = why


def clock_time(seconds: float) -> str:
    """Write a duration as `trainer.max_time` takes it.

    >>> clock_time(3725.9)
    '00:01:02:05'
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days:02}:{hours:02}:{minutes:02}:{rest:02}"


def describe_plan(plan: Plan) -> list[tuple[str, str]]:
    """Return what a plan chose and expects, in rows."""
    model = plan.config["model"]
    rows = [("network", f"images of {'x'.join(map(str, model['image_size']))}, {model['network']['class_path']}")]
    if plan.expected is not None:
        pace = f"{plan.expected.steps} steps, {plan.expected.images_per_second:g} images a second"
        rows.append(("expected", f"{pace}, {plan.expected.memory / 2**30:.2f} GiB"))
    return rows
