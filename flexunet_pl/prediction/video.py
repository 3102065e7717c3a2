"""Pictures as a film: GIF or MP4."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flexunet_pl.common.errors import DataError
from flexunet_pl.common.files import written_in_place

FRAMES_PER_S = 10


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]]) -> None:
    """Write a film.

    Args:
        path: The file, ending in ``.gif`` or ``.mp4`` (MPEG-4 part 2).
        frames: Shape ``(H, W, 3)``, uint8, all of one size, at least one.

    Raises:
        DataError: If the format does not take pictures of that size.
    """
    with written_in_place(path, suffix=path.suffix) as temporary:
        if path.suffix == ".gif":
            first, *rest = (Image.fromarray(frame) for frame in frames)
            first.save(temporary, save_all=True, append_images=rest, duration=1000 // FRAMES_PER_S, loop=0)
        else:
            _write_mp4(temporary, frames)


def _write_mp4(path: Path, frames: Sequence[NDArray[np.uint8]]) -> None:
    import cv2

    height, width = frames[0].shape[:2]
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FRAMES_PER_S, (width, height))
    if not film.isOpened():
        raise DataError(f"{path.parent}: slices of {height}x{width} px make no .mp4 film; set prediction.video to gif")
    for frame in frames:
        film.write(np.ascontiguousarray(frame[..., ::-1]))  # OpenCV wants B, G, R
    film.release()
