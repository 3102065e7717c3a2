"""The original's ``train_eval_infer.config`` as a configuration of this package."""

import difflib
from typing import Any

from flexunet_pl.common.errors import UserError
from flexunet_pl.interop.config.ini import Ini, Setting
from flexunet_pl.interop.config.model import MODEL_PARTS
from flexunet_pl.interop.config.run import RUN_PARTS
from flexunet_pl.interop.config.settings import Conversion, Settings
from flexunet_pl.interop.equivalents import UNUSED, UNUSED_SECTIONS

DEFAULT_NAME = "train_eval_infer.config"


def convert_config(
    text: str, *, like_the_original: bool = False, name: str = DEFAULT_NAME
) -> tuple[dict[str, Any], list[str]]:
    """Convert the text of a ``train_eval_infer.config``.

    Args:
        text: Content of the file: sections of ``key = Python literal``.
        like_the_original: Whether a value that cannot be read is replaced by the original's default, and the
            learning-rate reducer waits for 10 epochs whatever is configured; each with a remark.
        name: What to call the file in messages.

    Returns:
        The configuration for ``flexunet fit``, with paths relative to the file's folder; and a line for each setting
        that was not carried over, or not as it stands.

    Raises:
        UserError: If a line or value cannot be read, a value does not fit, or something stands twice; the message
            names file, line and what was expected.
    """
    conversion = convert(text, like_the_original=like_the_original, name=name)
    return conversion.config, conversion.remarks


def convert(text: str, *, like_the_original: bool = False, name: str = DEFAULT_NAME) -> Conversion:
    """Convert as `convert_config` does, and keep where each value came from.

    Args:
        text: Content of the file.
        like_the_original: See `convert_config`.
        name: What to call the file in messages.

    Returns:
        The conversion.

    Raises:
        UserError: See `convert_config`.
    """
    settings = Settings(Ini(text, name), like_the_original=like_the_original)
    settings.put("seed_everything", 137, "the original's seed")
    settings.put(
        "data.unknown_colors", "nearest", "the original's labels: each pixel is of the class of its nearest colour"
    )
    for part in (*MODEL_PARTS, *RUN_PARTS):
        part(settings)
    if "rgb_map" not in settings.conversion.config["model"]:
        astray = [setting for (_, key), setting in settings.left.items() if key == "rgb_map"]
        found = f"it stands in [{astray[0].section}], line {astray[0].line}; move it" if astray else "add it"
        raise UserError(
            f"{name}: there is no [mask] rgb_map, and the original would take a map of four colours of its own; "
            f"{found}, or use --like-the-original"
        )
    _unused(settings)
    return settings.conversion


def _unused(settings: Settings) -> None:
    for section, reason in UNUSED_SECTIONS.items():
        found = settings.take_section(section)
        if found:
            values = ", ".join(f"{setting.key} = {' '.join(setting.value.split())}" for setting in found)
            settings.remark(f"[{section}]: {reason}; not carried over: {values}", *found)
    known = {*UNUSED, *settings.known}
    for place, setting in settings.left.items():
        settings.remark(f"{setting.label}: {UNUSED.get(place) or _explain_unknown(setting, known)}", setting)


def _explain_unknown(setting: Setting, known: set[tuple[str, str]]) -> str:
    home = [section for section, key in sorted(known) if key == setting.key and section != setting.section]
    if home:
        return f"the original reads this key in [{'], ['.join(home)}] alone; not used"
    close = difflib.get_close_matches(setting.key, [key for section, key in known if section == setting.section], n=1)
    return "not known; not used" + (f"; did you mean {close[0]}?" if close else "")
