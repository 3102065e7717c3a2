"""Class names and colours in class order; colour masks to class indices and back."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import UserError

MAX_CLASSES = 255  # an index is one byte, and one value is kept free
IGNORED = 255  # that value: the index of pixels that do not count
_IGNORE = "ignore"  # name of their colour in a map

_BLOCK = 1 << 16  # pixels decoded at a time

Color = tuple[int, int, int]


@dataclass(frozen=True)
class DecodedMask:
    """A colour mask as class indices, with what was found on the way.

    Attributes:
        index: Class index per pixel, shape ``(H, W)``, uint8.
        off_map: Number of pixels whose colour is no colour of the map.
        far_colors: Colour of each pixel that is far from every colour of the map, shape ``(N, 3)``, uint8;
            see `RgbMap.far_distance`.
    """

    index: NDArray[np.uint8]
    off_map: int
    far_colors: NDArray[np.uint8]


@dataclass(frozen=True)
class RgbMap:
    """Name and colour of each class; the position is the class index and the first class is the background.

    Args:
        names: Name of each class.
        colors: Colour of each class as R, G, B in 0..255.
        ignored: Colour of the pixels that do not count, which are of no class; None where all count.

    Raises:
        UserError: If there are fewer than two or more than 255 classes, or a name or a colour stands twice.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ignored: Color | None = None

    def __post_init__(self) -> None:
        if len(self.names) < 2 or len(self.names) + (self.ignored is not None) > MAX_CLASSES:
            raise UserError(
                f"rgb_map: {len(self.names)} classes given but 2 to {MAX_CLASSES} are possible; "
                "name the background first, then each class, as `name: [r, g, b]`"
            )
        named = list(zip(self.names, self.colors, strict=True))
        named += [(_IGNORE, self.ignored)] if self.ignored is not None else []
        for name, color in named:
            if len(color) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in color):
                raise UserError(
                    f"rgb_map: the colour of `{name}` is {list(color)} but must be three integers in 0..255"
                )
        for (one, a), (two, b) in combinations(named, 2):
            if one == two:
                raise UserError(f"rgb_map: the class name `{one}` stands twice; give each class a name of its own")
            if a == b:
                raise UserError(f"rgb_map: `{one}` and `{two}` have the same colour {list(a)}; give each class its own")

    @classmethod
    def parse(cls, value: "RgbMap | Mapping[str, Sequence[int]] | str | None") -> "RgbMap":
        """Build a map from any of its written forms.

        Args:
            value: A mapping ``name: [r, g, b]`` in class order, in which ``ignore`` is no class but the colour of the
                pixels that do not count; or the text of the original's dict literal
                ``{(0, 0, 0): 0, (255, 0, 0): 1}``, whose classes are named ``background``, ``class_1``, ...

        Returns:
            The map.

        Raises:
            UserError: If the value is missing or neither, or describes no usable map.
        """
        if not value:
            raise UserError(
                "model.rgb_map is missing: name the classes and colours, background first, `name: [r, g, b]`"
            )
        if isinstance(value, RgbMap):
            return value
        if isinstance(value, str):
            colors = _colors_of_literal(value)
            names = ("background", *(f"class_{i}" for i in range(1, len(colors))))
            return cls(names[: len(colors)], colors)
        if not isinstance(value, Mapping) or not all(isinstance(c, Sequence) for c in value.values()):
            raise UserError("rgb_map: expected a mapping `name: [r, g, b]`; the order is the class index")
        names_read: list[Any] = list(value)  # YAML reads no, yes and on as booleans
        unnamed = [name for name in names_read if isinstance(name, bool) or name is None]
        if unnamed:
            raise UserError(f"rgb_map: a class name was read as {unnamed[0]}, which is no text; put it in quotes")
        colors_read = {str(name): _as_color(color) for name, color in value.items()}
        ignored = colors_read.pop(_IGNORE, None)
        return cls(tuple(colors_read), tuple(colors_read.values()), ignored)

    def __len__(self) -> int:
        return len(self.names)

    def to_dict(self) -> dict[str, list[int]]:
        """Return the map as plain data, ``{name: [r, g, b]}`` in class order, ``ignore`` last."""
        of_all = self.with_ignored
        return {name: list(color) for name, color in zip(of_all.names, of_all.colors, strict=True)}

    @cached_property
    def with_ignored(self) -> "RgbMap":
        """The map in which the pixels that do not count are a class, the last one: how masks are read and written."""
        return self if self.ignored is None else RgbMap((*self.names, _IGNORE), (*self.colors, self.ignored))

    @cached_property
    def palette(self) -> NDArray[np.uint8]:
        """Colour of each class, shape ``(K, 3)``, uint8, R, G, B."""
        return np.array(self.colors, dtype=np.uint8)

    @cached_property
    def far_distance(self) -> float:
        """Half the smallest distance between two classes' colours; a colour beyond it fits no class well."""
        return min(float(np.linalg.norm(np.subtract(a, b))) for a, b in combinations(self.colors, 2)) / 2

    def decode(self, mask: NDArray[np.uint8]) -> DecodedMask:
        """Give each pixel the class of the nearest colour; a tie goes to the first class.

        Exact colours are found by comparison, and only the other pixels by distance.

        Args:
            mask: Colour mask, shape ``(H, W, 3)``, uint8, channels in R, G, B order.

        Returns:
            The class indices and the counts of colours that are not on the map.

        >>> lesion = RgbMap.parse({"background": [0, 0, 0], "lesion": [255, 0, 0]})
        >>> lesion.decode(np.array([[[0, 0, 0], [255, 0, 0], [250, 3, 0]]], np.uint8)).index.tolist()
        [[0, 1, 1]]
        """
        index = np.empty(mask.shape[:2], dtype=np.uint8)
        flat, pixels = index.reshape(-1), np.ascontiguousarray(mask).reshape(-1, 3)
        off_map, far = 0, [np.empty(0, dtype=np.uint32)]
        # by blocks that fit the cache together with their temporaries: twice as fast as the whole mask at once
        for start in range(0, len(pixels), _BLOCK):
            codes = pack_colors(pixels[start : start + _BLOCK])
            block = flat[start : start + _BLOCK]
            block[:] = MAX_CLASSES
            for k, code in enumerate(self._codes):
                # 255 + (k + 1) wraps round to k; on bytes several times faster than assignment by boolean mask
                block += (codes == code).view(np.uint8) * np.uint8(k + 1)
            rest = np.flatnonzero(block == MAX_CLASSES)
            codes = codes[rest]
            block[rest], squared = self._nearest(codes)
            off_map += rest.size
            far.append(codes[squared > self.far_distance**2])
        return DecodedMask(index, off_map=off_map, far_colors=_unpack(np.concatenate(far)).T.astype(np.uint8))

    @cached_property
    def _codes(self) -> NDArray[np.uint32]:
        return pack_colors(self.palette)

    def _nearest(self, codes: NDArray[np.uint32]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Return class index and squared distance of the nearest colour for packed colours, shape ``(N,)``."""
        pixels = _unpack(codes).astype(np.float32)
        palette = self.palette.astype(np.float32)
        # |p - c|^2 = |p|^2 + |c|^2 - 2 p.c; every term is an integer below 2^24 and so exact in float32
        squared = (palette**2).sum(axis=1, keepdims=True) - 2 * palette @ pixels
        squared += (pixels**2).sum(axis=0)
        # distance in the high bits, class in the low byte: one minimum finds both, and the first class wins a tie
        packed = (squared.astype(np.int32) << 8) + np.arange(len(self), dtype=np.int32)[:, None]
        best = packed.min(axis=0)
        return best.astype(np.uint8), best >> 8

    def paint(self, index: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Paint class indices with their colours.

        Args:
            index: Class index per pixel, shape ``(H, W)``, in ``[0, len(self))``.

        Returns:
            Colour mask, shape ``(H, W, 3)``, uint8, channels in R, G, B order.

        Raises:
            ValueError: If an index is not a class of this map.

        >>> RgbMap.parse("{(0, 0, 0): 0, (0, 255, 0): 1}").paint(np.array([[0, 1]], np.uint8)).tolist()
        [[[0, 0, 0], [0, 255, 0]]]
        """
        if index.size and int(index.max()) >= len(self):
            raise ValueError(f"class index {int(index.max())} is not on the map, which has {len(self)} classes")
        return self.palette[index]


def pack_colors(pixels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Pack colours into one number each, which compares faster than three.

    Args:
        pixels: R, G, B, shape ``(N, 3)``, uint8.

    Returns:
        Shape ``(N,)``, uint32, R in the lowest byte.
    """
    buffer = np.append(pixels, np.uint8(0))
    # every pixel as the little-endian word that begins at it; the fourth byte is its neighbour's and masked out
    words = np.ndarray((len(pixels),), dtype="<u4", buffer=buffer.data, strides=(3,))
    return words & np.uint32(0xFFFFFF)


def _unpack(codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return R, G, B of packed colours, shape ``(3, N)``."""
    return np.stack([codes & 255, codes >> 8 & 255, codes >> 16])


def _as_color(value: Sequence[int]) -> Color:
    r, g, b = value if len(value) == 3 else (-1, -1, -1)
    return r, g, b


def _shown(text: str) -> str:
    """Return the beginning of a text as it can stand in a line."""
    return "".join(c if c.isprintable() else " " for c in text[:80])


def _colors_of_literal(text: str) -> tuple[Color, ...]:
    """Read ``{(r, g, b): index, ...}``; the position is the class index, as in the original.

    Raises:
        UserError: If the text is no such literal, or a colour stands twice.
    """
    try:
        literal = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise UserError(
            f"rgb_map: cannot read `{_shown(text)}` as a dict literal; write `name: [r, g, b]` per class"
        ) from error
    if not isinstance(literal, dict) or not all(isinstance(c, tuple) for c in literal):
        raise UserError(f"rgb_map: `{_shown(text)}` is no mapping of colours; write `name: [r, g, b]` per class")
    if text.count("(") != len(literal):
        raise UserError("rgb_map: a colour stands twice; give each class its own")
    return tuple(_as_color(c) for c in literal)
