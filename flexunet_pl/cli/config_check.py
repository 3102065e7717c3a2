"""What a configuration may name is checked before anything of it is imported or called."""

from collections.abc import Sequence
from enum import Enum
from typing import Any

import yaml
from jsonargparse import Namespace, get_loader, set_loader, set_parsing_settings

from flexunet_pl.common.class_paths import check_value
from flexunet_pl.common.class_positions import POSITIONS, importable_places
from flexunet_pl.common.console import say
from flexunet_pl.common.errors import UserError
from flexunet_pl.common.yaml import check_aliases


def check_config(config: Namespace, trusted: Sequence[str] = ()) -> None:
    """Check what a configuration names, before anything of it is called.

    Args:
        config: Configuration of one verb, parsed.
        trusted: Packages that class paths may name, besides the usual ones.

    Raises:
        UserError: If a key holds a class that may not stand there, or something else that is no plain value.
    """
    for section, content in vars(config).items():
        if section in {"config", "__path__"}:
            continue
        keys = vars(content) if isinstance(content, Namespace) and "class_path" not in content else {"": content}
        for name, value in keys.items():
            if name == "__path__":
                continue
            key = f"{section}.{name}".rstrip(".")
            position = POSITIONS.get(key)
            check_value(value, key, () if position is None else (position,), trusted)


def allow_imports(trusted: Sequence[str]) -> None:
    """Tell the parser which modules it may import for a class path; what the class must be is checked afterwards.

    Raises:
        UserError: If one of the trusted packages is no name of one.
    """
    homes, refused = importable_places()
    # defaults of Lightning's callbacks, which the dumper would not take
    yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))
    set_loader("yaml", _load_bounded, exceptions=(yaml.YAMLError,))  # for texts and files that a value names, too
    try:
        set_parsing_settings(
            import_path_denylist=["*", *refused],
            import_path_allowlist=[*homes, *trusted],
            instantiate_subclass_spec_in_any=False,
            config_read_mode_fsspec_enabled=False,  # Lightning turns it on, and any value that is an address is fetched
            config_read_mode_urls_enabled=False,
        )
    except ValueError as error:
        raise UserError(f"--trust: {error}") from error
    if trusted:
        say(f"note: --trust: this configuration may name classes of {', '.join(trusted)}, whose code then runs")


_load_yaml = get_loader("yaml")


def _load_bounded(text: str) -> Any:
    check_aliases(text)
    return _load_yaml(text)
