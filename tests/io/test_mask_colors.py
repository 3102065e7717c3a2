"""Colours of masks: what smoothing has mixed goes to the classes beside it, and what is no class is named."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.mask_colors import index_colors
from flexunet_pl.io.masks import read_mask
from flexunet_pl.rgb_map import RgbMap

SIDE, SCALE = 256, 4
BLACK_RED = RgbMap.parse({"background": [0, 0, 0], "lesion": [255, 0, 0]})
PURPLE = RgbMap.parse({"background": [0, 0, 0], "red": [255, 0, 0], "blue": [0, 0, 255], "purple": [128, 0, 128]})


def colour_map(count, seed=0):
    """A map of so many classes, whose colours are those of 5 levels: many are the mixture of two others."""
    rng = np.random.default_rng(seed)
    colours = [(0, 0, 0)]
    while len(colours) < count:
        colour = tuple(int(level) for level in rng.choice([0, 64, 128, 192, 255], 3))
        if colour not in colours:
            colours.append(colour)
    return RgbMap(tuple(f"class {i}" for i in range(count)), tuple(colours))


def drawing(count, seed=0):
    """Class indices of ellipses and boxes of all classes, at four times the size."""
    rng = np.random.default_rng(seed)
    picture = Image.new("L", (SIDE * SCALE, SIDE * SCALE))
    draw = ImageDraw.Draw(picture)
    for i in range(2 * count):
        x, y = rng.integers(0, SIDE * SCALE, 2)
        a, b = rng.integers(SIDE * SCALE // 20, SIDE * SCALE // 5, 2)
        (draw.ellipse if i % 2 else draw.rectangle)((x - a, y - b, x + a, y + b), fill=int(rng.integers(0, count)))
    return np.asarray(picture)


def beside(index, count):
    """Which classes the drawing shows within 3 px of each pixel, shape (H, W, K)."""
    blocks = index.reshape(SIDE, SCALE, SIDE, SCALE)
    found = np.zeros((SIDE, SIDE, count), bool)
    for k in range(count):
        here = np.pad((blocks == k).any(axis=(1, 3)), 3)
        for down in range(7):
            for across in range(7):
                found[..., k] |= here[down : down + SIDE, across : across + SIDE]
    return found


def smoothed(rgb_map, index, filtered, quality):
    picture = Image.fromarray(rgb_map.paint(index)).resize((SIDE, SIDE), filtered)
    if quality is None:
        return np.asarray(picture)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("quality", [None, 90, 75])
@pytest.mark.parametrize("filtered", [Image.Resampling.BILINEAR, Image.Resampling.LANCZOS], ids=["bilinear", "lanczos"])
@pytest.mark.parametrize("count", [2, 4, 12, 20])
def test_a_smoothed_border_belongs_to_the_classes_beside_it(count, filtered, quality):
    rgb_map, index = colour_map(count), drawing(count)
    found = index_colors(smoothed(rgb_map, index, filtered, quality), rgb_map, lossy=quality is not None)
    near = beside(index, count)
    rows, columns = np.indices(found.index.shape)
    right = near[rows, columns, found.index]
    assert right.mean() > 0.9995, "a third class"
    inner = near.sum(axis=2) == 1
    assert inner.mean() > 0.3
    assert right[inner].all()
    assert found.region is None


def test_a_border_of_red_and_blue_holds_no_purple_tissue():
    index = np.zeros((SIDE * SCALE, SIDE * SCALE), np.uint8)
    index[:, : SIDE * 2 + 1], index[:, SIDE * 2 + 1 :] = 1, 2
    pixels = smoothed(PURPLE, index, Image.Resampling.BILINEAR, None)
    assert (PURPLE.decode(pixels).index == 3).any(), "by the nearest colour alone it does"
    found = index_colors(pixels, PURPLE)
    assert set(np.unique(found.index)) == {1, 2}
    nearest = np.asarray(Image.fromarray(index).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    assert (found.index != nearest).mean() < 1 / SIDE


def test_a_line_too_thin_for_its_own_colour_is_kept():
    index = np.zeros((SIDE * SCALE, SIDE * SCALE), np.uint8)
    index[400:403] = 1  # three quarters of a pixel
    found = index_colors(smoothed(BLACK_RED, index, Image.Resampling.BILINEAR, None), BLACK_RED)
    assert found.index[100].all()
    assert found.region is None


@pytest.mark.parametrize("side", [2, 3, 9])
@pytest.mark.parametrize("colour", [[0, 255, 0], [255, 255, 255], [90, 90, 0]])
def test_a_region_that_is_no_class_is_named_whatever_its_size(tmp_path, side, colour):
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[200:240, 300:350] = 255, 0, 0
    pixels[50 : 50 + side, 60 : 60 + side] = colour
    Image.fromarray(pixels).save(tmp_path / "m.png")
    said = rf"m\.png: {side * side} pixels of colour \[{', '.join(map(str, colour))}\], such as row 50, column 60"
    with pytest.raises(DataError, match=said):
        read_mask(tmp_path / "m.png", BLACK_RED)
    assert not read_mask(tmp_path / "m.png", BLACK_RED, "background")[50, 60]
    assert (read_mask(tmp_path / "m.png", BLACK_RED, "nearest") == BLACK_RED.decode(pixels).index).all()


def test_a_region_between_two_classes_is_no_border_where_it_is_solid(tmp_path):
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[20:40, 20:40] = 128, 0, 0
    Image.fromarray(pixels).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"400 pixels of colour \[128, 0, 0\]"):
        read_mask(tmp_path / "m.png", BLACK_RED)


@pytest.mark.parametrize(
    ("values", "said"),
    [((0, 1), "values 0, 1 look"), ((0, 1, 2), "values 0, 1, 2 look"), ((0, 1, 255), "and 255 for pixels")],
)
def test_class_indices_are_not_taken_for_colours(tmp_path, values, said):
    three = RgbMap.parse({"background": [0, 0, 0], "one": [128, 128, 128], "two": [255, 255, 255]})
    mask = np.zeros((512, 512), np.uint8)
    for place, value in enumerate(values):
        mask[place, :3] = value  # a few pixels are enough
    Image.fromarray(mask).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=said):
        read_mask(tmp_path / "m.png", three)


def test_more_than_64_classes_are_told_apart():
    colours = [(r, g, b) for r in (0, 85, 170, 255) for g in (0, 85, 170, 255) for b in (0, 60, 120, 180, 240)]
    rgb_map = RgbMap(tuple(map(str, range(80))), tuple(colours))
    index = np.repeat(np.repeat(np.arange(80, dtype=np.uint8).reshape(8, 10), 32, axis=0), 32, axis=1)
    soft = np.asarray(Image.fromarray(rgb_map.paint(index)).resize((240, 200), Image.Resampling.BILINEAR))
    found = index_colors(soft, rgb_map).index
    centres = found[12::25, 12::24][:8, :10]
    assert (centres == np.arange(80).reshape(8, 10)).all()
