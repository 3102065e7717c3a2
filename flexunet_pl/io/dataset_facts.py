"""``dataset.yaml``: what a data set remembers of how its slices were made, for whom is trained on them."""

from pathlib import Path

import yaml

from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.common.yaml import read_yaml
from flexunet_runtime.files import written_in_place
from flexunet_runtime.window import Window

NAME = "dataset.yaml"


def write_facts(root: Path, window: Window | None) -> None:
    """Write the file.

    Args:
        root: Folder of the data set.
        window: Values of the volumes that became black and white.

    Raises:
        OSError: If it cannot be written.
    """
    facts = {"volume_window": [window.low, window.high] if window is not None else None}
    with written_in_place(root / NAME) as temporary:
        temporary.write_text(yaml.safe_dump(facts, sort_keys=False), encoding="utf-8")


def read_volume_window(root: Path | None) -> list[float] | None:
    """Read the window that the slices of a data set were made with.

    Args:
        root: Folder of the data set, or None.

    Returns:
        Lowest and highest value; None where nothing is known.

    Raises:
        DataError: If the file is damaged.
    """
    if root is None or not (root / NAME).is_file():
        return None
    try:
        facts = read_yaml(root / NAME)
        known = facts.get("volume_window") if isinstance(facts, dict) else facts
        window = Window.parse(known, f"{root / NAME}: volume_window")
    except UserError as error:
        raise DataError(str(error)) from error
    return [window.low, window.high] if window is not None else None
