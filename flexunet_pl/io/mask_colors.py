"""Class indices from the colours of a mask: exact colours, what smoothing has mixed, and what is no class.

`RgbMap.decode` alone gives each pixel the class of the nearest colour, as the original does. Between two classes a
smoothed mask has colours that may lie next to a third one, and a class that the map lacks would become whichever is
nearest. Both are judged here by what stands around a pixel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.io.color_mixtures import between_three, between_two, distance_to, nearest_part, of_all
from flexunet_pl.rgb_map import RgbMap, pack_colors

UnknownColors = Literal["error", "nearest", "background"]

_MIXED = 24.0  # distance in R, G, B up to which a colour counts as mixed of two; rounding and ringing stay below
_MIXED_JPEG = 60.0  # in blocks of colour that bleed
_REACH = 3  # px: as far as a smoothing filter mixes
_REACH_JPEG = 6
_SQUARE, _SOLID, _SOLID_JPEG = 2, 3, 6  # px, sides: of what is no thin line, of what is solid
_CORE_JPEG = 2  # px of the same class to each side of a pixel that is no border
_FEW = 3  # pixels of one colour: fewer are no region


@dataclass(frozen=True)
class Region:
    """A region of a colour that is no class.

    Attributes:
        color: The colour, R, G, B.
        pixels: Number of pixels.
        row: Row of one of them.
        column: Its column.
    """

    color: tuple[int, int, int]
    pixels: int
    row: int
    column: int


@dataclass(frozen=True)
class ColorIndex:
    """A colour mask as class indices.

    Attributes:
        index: Class index per pixel, shape ``(H, W)``, uint8; what is no class has the nearest one.
        unknown: Which pixels are no class and no mixture of what stands around them, shape ``(H, W)``, bool.
        region: The largest region of such a colour; None where they are scattered.
        off_map: Number of pixels whose colour is no colour of the map.
    """

    index: NDArray[np.uint8]
    unknown: NDArray[np.bool_]
    region: Region | None
    off_map: int = 0


def index_colors(pixels: NDArray[np.uint8], rgb_map: RgbMap, *, lossy: bool = False) -> ColorIndex:
    """Give each pixel its class.

    An exact colour is its class. Any other colour that lies between those of two or three classes nearby is a border
    that was smoothed, and goes to the nearest of them. What lies between none is the class whose colour it nearly has,
    or unknown.

    Args:
        pixels: Colour mask, shape ``(H, W, 3)``, uint8, channels in R, G, B order.
        rgb_map: The classes.
        lossy: Whether it comes from a JPEG, where hardly a colour is exact.

    Returns:
        The class indices, and what is unknown.
    """
    decoded = rgb_map.decode(pixels)
    index = decoded.index
    unknown = np.zeros(index.shape, dtype=bool)
    if not decoded.off_map:
        return ColorIndex(index, unknown, None)
    if lossy:
        sure = _unmixed(pixels, index, rgb_map)
    else:  # a mixture may have the colour of a third class; such ones are thin
        codes = pack_colors(pixels.reshape(-1, 3)).reshape(index.shape)
        exact = codes == pack_colors(rgb_map.palette)[index]
        sure = exact & _squares(exact, _SQUARE, codes)
    places = np.flatnonzero(~sure)
    colors = pixels.reshape(-1, 3)[places].astype(np.float32)
    found = index.ravel()[places]
    tolerance = _MIXED_JPEG if lossy else _MIXED
    near = distance_to(colors, rgb_map.palette[found].astype(np.float32)) <= rgb_map.far_distance / 2
    known = near.copy()
    palette = rgb_map.palette.astype(np.float32)
    around = _classes_around(index, sure, _REACH_JPEG if lossy else _REACH).reshape(-1)[places]
    for members, which in _by_count(around):
        nearby, seen = palette[members], colors[which]
        nearest, distance = nearest_part(seen, nearby)
        mixed = distance <= tolerance
        if members.shape[1] > 2 and not mixed.all():
            mixed[~mixed] = between_three(seen[~mixed], nearby[~mixed], tolerance)
        # a structure too thin to show its own colour is mixed of what is around it and of its class, the nearest
        thin = ~mixed & ~near[which] & (rgb_map.far_distance >= 2 * tolerance)
        if thin.any():
            thin[thin] = between_two(seen[thin], nearby[thin], palette[found[which[thin]]], tolerance)
        part = members[np.arange(len(members)), nearest]
        found[which] = np.where(mixed | ~(near[which] | thin), part, found[which])
        known[which] |= mixed | thin
    index.reshape(-1)[places] = found
    unknown.reshape(-1)[places[~known]] = True
    region = _solid_region(pixels, unknown, palette, tolerance, lossy=lossy)
    return ColorIndex(index, unknown, region, decoded.off_map)


def _unmixed(pixels: NDArray[np.uint8], index: NDArray[np.uint8], rgb_map: RgbMap) -> NDArray[np.bool_]:
    """Return the pixels of which all around are nearest to the same class, and that nearly have its colour."""
    near = np.abs(pixels.astype(np.int16) - rgb_map.palette[index]).sum(axis=2) <= 2 * _MIXED_JPEG
    alike = np.ones(index.shape, dtype=bool)
    for step in range(1, _CORE_JPEG + 1):
        for axis in (0, 1):
            one, other = [slice(None)] * 2, [slice(None)] * 2
            one[axis], other[axis] = slice(step, None), slice(None, -step)
            same = index[tuple(one)] == index[tuple(other)]
            alike[tuple(one)] &= same
            alike[tuple(other)] &= same
    unmixed: NDArray[np.bool_] = alike & near
    return unmixed


def _classes_around(index: NDArray[np.uint8], sure: NDArray[np.bool_], reach: int) -> NDArray[Any]:
    """Return the classes of the sure pixels around each pixel: one bit each, or, of more than 64, their numbers.

    Returns:
        Shape ``(H, W)``: unsigned integers, bit k for class k; with more than 64 classes by 64-bit words, void.
    """
    top = int(index.max())
    words = []
    for first in range(0, top + 1, 64):
        kind = np.min_scalar_type((1 << min(64, top + 1 - first)) - 1)
        bits = np.array([1 << (k - first) if first <= k < first + 64 else 0 for k in range(top + 1)], dtype=kind)
        words.append(_spread(np.where(sure, bits[index], kind.type(0)), reach))
    if len(words) == 1:
        return words[0]
    return np.stack([word.astype(np.uint64) for word in words], axis=-1).view(f"V{8 * len(words)}")[..., 0]


def _spread(bits: NDArray[Any], reach: int) -> NDArray[Any]:
    """Join the bits of all pixels within a reach, along rows and then along columns."""
    for axis in (0, 1):
        side = bits.shape[axis]
        spread = bits.copy()
        for step in range(1, min(reach, side - 1) + 1):
            if axis == 0:
                spread[step:] |= bits[:-step]
                spread[:-step] |= bits[step:]
            else:
                spread[:, step:] |= bits[:, :-step]
                spread[:, :-step] |= bits[:, step:]
        bits = spread
    return bits


def _by_count(around: NDArray[Any]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield, by how many classes stand around pixels, those classes, shape ``(N, S)``, and which pixels they are."""
    sets, which = np.unique(around, return_inverse=True)
    bits = np.unpackbits(sets.view(np.uint8).reshape(len(sets), -1), axis=1, bitorder="little")
    counts = bits.sum(axis=1)
    for count in np.unique(counts[counts > 0]).tolist():
        chosen = counts == count
        members = np.zeros((len(sets), count), dtype=np.intp)
        members[chosen] = np.nonzero(bits[chosen])[1].reshape(-1, count)
        pixels = np.flatnonzero(chosen[which])
        yield members[which[pixels]], pixels


def _solid_region(
    pixels: NDArray[np.uint8],
    unknown: NDArray[np.bool_],
    palette: NDArray[np.float32],
    tolerance: float,
    *,
    lossy: bool,
) -> Region | None:
    """Return the largest region whose colour is no class.

    A square of one unknown colour is a region; and so are some pixels of a colour that is no mixture of any classes of
    the map: one of classes that are too thin to show their own colour is. In a JPEG it takes a larger square.
    """
    if not unknown.any():
        return None
    if lossy:
        rows, columns = np.nonzero(_squares(unknown, _SOLID_JPEG))
        seen = pixels[rows, columns]
        colors = seen.astype(np.float32)
        clear = nearest_part(colors, of_all(colors, palette))[1] > tolerance
        if not clear.any():
            return None
        r, g, b = map(int, np.median(seen[clear], axis=0))
        return Region((r, g, b), int(clear.sum()), int(rows[clear][0]), int(columns[clear][0]))
    rows, columns = np.nonzero(unknown)
    codes = pack_colors(pixels.reshape(-1, 3)).reshape(unknown.shape)
    square = _squares(unknown, _SOLID, codes)[rows, columns]
    seen, which, counts = np.unique(pixels[rows, columns], axis=0, return_inverse=True, return_counts=True)
    solid = np.bincount(which.ravel(), weights=square, minlength=len(seen)) > 0
    scattered = np.flatnonzero(~solid & (counts >= _FEW))
    colors = seen[scattered].astype(np.float32)
    every = of_all(colors, palette)
    foreign = (nearest_part(colors, every)[1] > tolerance) & ~between_three(colors, every, tolerance)
    solid[scattered[foreign]] = True
    if not solid.any():
        return None
    color = seen[int(np.where(solid, counts, 0).argmax())]
    rows, columns = np.nonzero(codes == pack_colors(color[None])[0])
    r, g, b = map(int, color)
    return Region((r, g, b), len(rows), int(rows[0]), int(columns[0]))


def _squares(chosen: NDArray[np.bool_], side: int, codes: NDArray[np.uint32] | None = None) -> NDArray[np.bool_]:
    """Return the pixels of squares that are chosen as a whole, and of one colour where the colours are given."""
    height, width = chosen.shape
    result = np.zeros(chosen.shape, dtype=bool)
    if min(height, width) < side:
        return result
    rows, columns = height - side + 1, width - side + 1
    whole = np.ones((rows, columns), dtype=bool)
    for down in range(side):
        for across in range(side):
            whole &= chosen[down : down + rows, across : across + columns]
    if codes is not None and whole.any():
        corner = codes[:rows, :columns]
        for down in range(side):
            for across in range(side):
                whole &= codes[down : down + rows, across : across + columns] == corner
    for down in range(side):
        for across in range(side):
            result[down : down + rows, across : across + columns] |= whole
    return result
