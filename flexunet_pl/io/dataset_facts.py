"""``dataset.yaml``: what a data set remembers of how its slices were made, for whom is trained on them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.common.yaml import read_yaml
from flexunet_runtime.files import written_in_place
from flexunet_runtime.window import Window, parse_percentiles

NAME = "dataset.yaml"


@dataclass(frozen=True)
class DatasetFacts:
    """How the slices of volumes became pictures: axial, from the feet up, by one of two rules, or none that is known.

    Attributes:
        volume_window: Values of all volumes that became black and white.
        volume_percentiles: The same as percentiles of each volume.
    """

    volume_window: Window | None = None
    volume_percentiles: tuple[float, float] | None = None

    def plain(self) -> dict[str, list[float] | None]:
        """Return them as lists, as a checkpoint keeps them."""
        window, percentiles = self.volume_window, self.volume_percentiles
        return {
            "volume_window": [window.low, window.high] if window is not None else None,
            "volume_percentiles": list(percentiles) if percentiles is not None else None,
        }

    @classmethod
    def parse(cls, plain: dict[str, Any], where: str = "") -> "DatasetFacts":
        """Read what `plain` gave.

        Args:
            plain: The lists.
            where: What they stand in, for messages.

        Raises:
            UserError: If one has another form.
        """
        return cls(
            Window.parse(plain.get("volume_window"), f"{where}volume_window"),
            parse_percentiles(plain.get("volume_percentiles"), f"{where}volume_percentiles"),
        )


def write_facts(root: Path, facts: DatasetFacts) -> None:
    """Write the file.

    Args:
        root: Folder of the data set.
        facts: What is known.

    Raises:
        OSError: If it cannot be written.
    """
    with written_in_place(root / NAME) as temporary:
        temporary.write_text(yaml.safe_dump(facts.plain(), sort_keys=False), encoding="utf-8")


def read_facts(root: Path | None) -> DatasetFacts:
    """Read how the slices of a data set were made.

    Args:
        root: Folder of the data set, or None.

    Returns:
        What is known.

    Raises:
        DataError: If the file is damaged.
    """
    if root is None or not (root / NAME).is_file():
        return DatasetFacts()
    try:
        facts = read_yaml(root / NAME)
        if not isinstance(facts, dict):
            raise DataError(f"{root / NAME}: holds no keys; remove it, or run `flexunet prepare` again")
        return DatasetFacts.parse(facts, f"{root / NAME}: ")
    except UserError as error:
        raise DataError(str(error)) from error
