"""Which masks show more than the background, for a sampler that draws them more often."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.console import say, show_progress
from flexunet_pl.common.processes import map_processes
from flexunet_pl.io.mask_colors import UnknownColors
from flexunet_pl.io.masks import read_mask, shows_foreground
from flexunet_pl.rgb_map import RgbMap

_FEW = 500  # masks, below which starting processes takes longer than reading


def find_foreground(masks: list[Path], rgb_map: RgbMap, unknown: UnknownColors = "error") -> NDArray[np.bool_]:
    """Read masks and tell which show more than the background.

    Args:
        masks: The files.
        rgb_map: Classes and their colours, the background first.
        unknown: What other colours are; see `read_mask`.

    Returns:
        Shape ``(len(masks),)``.

    Raises:
        DataError: If a mask cannot be read.
    """
    shown = map_processes(partial(_shows_foreground, rgb_map=rgb_map, unknown=unknown), masks, chunk=16, few=_FEW)
    found = np.array(list(show_progress(shown, "reading masks", len(masks))), dtype=bool)
    if not found.any():
        say("note: data.foreground_share: no training mask shows more than the background; all are drawn alike")
    return found


def _shows_foreground(mask: Path, rgb_map: RgbMap, unknown: UnknownColors) -> bool:
    return shows_foreground(read_mask(mask, rgb_map, unknown))
