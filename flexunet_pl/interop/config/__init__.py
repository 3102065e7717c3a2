"""The original's INI configurations as configurations of this package."""

from flexunet_pl.interop.config.convert import convert_config

__all__ = ["convert_config"]
