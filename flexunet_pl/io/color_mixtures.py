"""Whether colours are mixtures of those of the classes around them, as smoothing makes them."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

_OVERSHOOT = 0.15  # of a mixture: a Lanczos filter rings
_AT_ONCE = 200_000  # colours times triples


def nearest_part(
    colors: NDArray[np.float32], palettes: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Find the two classes of which each colour is best mixed.

    Args:
        colors: Shape ``(N, 3)``.
        palettes: Colours of the classes around each, shape ``(N, S, 3)``.

    Returns:
        Which of its classes is the nearer one of the two, and the distance to their mixtures.
    """
    alone = distance_to(colors[:, None], palettes)
    nearest, best = alone.argmin(axis=1), alone.min(axis=1)
    for one, two in combinations(range(palettes.shape[1]), 2):
        share, distance = _mixture(colors, palettes[:, one], palettes[:, two], -_OVERSHOOT)
        better = distance < best
        best = np.where(better, distance, best)
        nearest = np.where(better, np.where(share < 0.5, one, two), nearest)
    return nearest, best


def between_two(
    colors: NDArray[np.float32], palettes: NDArray[np.float32], others: NDArray[np.float32], tolerance: float
) -> NDArray[np.bool_]:
    """Tell which colours are mixed of one of the classes around them and of another one, shape ``(N, 3)``."""
    found = np.zeros(len(colors), dtype=bool)
    for one in range(palettes.shape[1]):
        found |= _mixture(colors, palettes[:, one], others, 0)[1] <= tolerance
    return found


def _mixture(
    colors: NDArray[np.float32], ones: NDArray[np.float32], others: NDArray[np.float32], lowest: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the share of the other colour in the mixture of two that is nearest to each colour, and its distance."""
    along, away = others - ones, colors - ones
    length = np.maximum(np.einsum("nc,nc->n", along, along), 1)
    share = (np.einsum("nc,nc->n", away, along) / length).clip(lowest, 1 + _OVERSHOOT)
    return share, distance_to(away, share[:, None] * along)


def between_three(colors: NDArray[np.float32], palettes: NDArray[np.float32], tolerance: float) -> NDArray[np.bool_]:
    """Tell which colours are mixed of three of the classes around them, as where three classes meet."""
    found = np.zeros(len(colors), dtype=bool)
    threes = np.array(list(combinations(range(palettes.shape[1]), 3)), dtype=np.intp).reshape(-1, 3)
    if not len(threes):
        return found
    step = max(1, _AT_ONCE // len(threes))
    for start in range(0, len(colors), step):
        near = palettes[start : start + step][:, threes]  # (N, T, 3, 3)
        corner, u, v = near[:, :, 0], near[:, :, 1] - near[:, :, 0], near[:, :, 2] - near[:, :, 0]
        away = colors[start : start + step, None] - corner
        uu, uv, vv, ua, va = ((x * y).sum(axis=2) for x, y in ((u, u), (u, v), (v, v), (u, away), (v, away)))
        area = uu * vv - uv * uv  # 0 of three on one line: those are mixed of two
        flat = area <= 1e-3 * uu * vv
        area = np.where(flat, 1, area)
        one, two = (vv * ua - uv * va) / area, (uu * va - uv * ua) / area
        inside = (np.minimum(one, two) > -_OVERSHOOT) & (one + two < 1 + _OVERSHOOT) & ~flat
        off = away - one[..., None] * u - two[..., None] * v
        found[start : start + step] = (inside & ((off**2).sum(axis=2) <= tolerance**2)).any(axis=1)
    return found


def distance_to(colors: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the distance in R, G, B of colours, shape ``(..., 3)``, to others; the shapes are broadcast."""
    off = colors - other
    distance: NDArray[np.float32] = np.sqrt(np.einsum("...c,...c->...", off, off))
    return distance


def of_all(colors: NDArray[np.float32], palette: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give each colour all classes, as if they stood around it."""
    return np.broadcast_to(palette, (len(colors), *palette.shape))
