"""What the configuration of an experiment says of its data, for verbs that train nothing."""

from pathlib import Path
from typing import Any

from flexunet_pl.common.errors import UserError
from flexunet_pl.common.yaml import read_yaml


def read_model_section(path: Path | None) -> dict[str, Any]:
    """Return the section `model` of a configuration.

    Args:
        path: Configuration of `flexunet fit`, or None for none.

    Returns:
        The section, which has an `rgb_map`; empty without a configuration.

    Raises:
        UserError: If it cannot be read or has no `model.rgb_map`.
    """
    if path is None:
        return {}
    content = read_yaml(path)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not model.get("rgb_map"):
        raise UserError(f"{path}: has no model.rgb_map")
    return model
