import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexunet_pl.common.errors import UserError
from flexunet_pl.rgb_map import RgbMap

CHEST = RgbMap.parse({"background": [0, 0, 0], "trachea": [255, 0, 0], "heart": [0, 255, 0], "lung": [0, 0, 255]})
colors = st.tuples(*[st.integers(0, 255)] * 3)
maps = st.lists(colors, min_size=2, max_size=40, unique=True).map(
    lambda cs: RgbMap(tuple(f"c{i}" for i in range(len(cs))), tuple(cs))
)


def brute_force(mask, rgb_map):
    difference = mask[:, :, None].astype(int) - rgb_map.palette.astype(int)
    return (difference**2).sum(-1)


@settings(max_examples=60, deadline=None)
@given(maps, st.integers(0, 2**32 - 1))
def test_decodes_every_colour_like_the_argmin_over_all_distances(rgb_map, seed):
    mask = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(rgb_map.decode(mask).index, brute_force(mask, rgb_map).argmin(-1))


@settings(max_examples=60, deadline=None)
@given(maps, st.integers(0, 2**32 - 1))
def test_decoding_inverts_painting(rgb_map, seed):
    index = np.random.default_rng(seed).integers(0, len(rgb_map), (5, 7)).astype(np.uint8)
    decoded = rgb_map.decode(rgb_map.paint(index))
    assert np.array_equal(decoded.index, index)
    assert decoded.off_map == 0
    assert len(decoded.far_colors) == 0


def test_decodes_masks_larger_than_a_block():
    mask = np.random.default_rng(1).integers(0, 256, (300, 301, 3), dtype=np.uint8)
    decoded = CHEST.decode(mask)
    distance = brute_force(mask, CHEST)
    assert np.array_equal(decoded.index, distance.argmin(-1))
    assert decoded.off_map == (distance.min(-1) > 0).sum()
    assert len(decoded.far_colors) == (distance.min(-1) > 127.5**2).sum()


def test_a_tie_goes_to_the_first_class():
    rgb_map = RgbMap.parse({"a": [0, 0, 0], "b": [10, 0, 0]})
    assert rgb_map.decode(np.full((1, 1, 3), [5, 0, 0], dtype=np.uint8)).index[0, 0] == 0


def test_decodes_a_mask_that_is_not_contiguous():
    mask = np.random.default_rng(2).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    assert np.array_equal(CHEST.decode(mask.transpose(1, 0, 2)).index, CHEST.decode(mask).index.T)


def test_decodes_an_empty_mask():
    assert CHEST.decode(np.empty((0, 5, 3), dtype=np.uint8)).index.shape == (0, 5)


def test_counts_colours_off_the_map_and_names_those_that_are_far():
    mask = CHEST.paint(np.zeros((2, 3), dtype=np.uint8))
    mask[0, 0] = [1, 0, 0]
    mask[1, 2] = [255, 255, 0]
    decoded = CHEST.decode(mask)
    assert decoded.off_map == 2
    assert decoded.far_colors.tolist() == [[255, 255, 0]]


def test_the_literal_of_the_original_gives_classes_by_position():
    rgb_map = RgbMap.parse(" {(0,0,0):0, (255, 0,0):7,\n (0,255,0): 1,} ")
    assert rgb_map.names == ("background", "class_1", "class_2")
    assert rgb_map.colors == ((0, 0, 0), (255, 0, 0), (0, 255, 0))


def test_to_dict_is_inverse_to_parse():
    assert RgbMap.parse(CHEST.to_dict()) == CHEST
    assert RgbMap.parse(CHEST) is CHEST


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [0, 0, 0]}, "2 to 255"),
        ({"a": [0, 0, 0], "b": [0, 0, 0]}, "`a` and `b` have the same colour"),
        ({"a": [0, 0, 0], "b": [0, 0, 256]}, "three integers in 0..255"),
        ({"a": [0, 0, 0], "b": [0, 0]}, "three integers in 0..255"),
        ({"a": [0, 0, 0], "b": 5}, "expected a mapping"),
        ("{(0,0,0): 0, (0,0,0): 1}", "a colour stands twice"),
        ("{(0,0,0): 0, (1,1,1)}", "cannot read"),
        ("__import__('os').system('true')", "cannot read"),
        ("[1, 2]", "no mapping of colours"),
        ("(" * 300, "cannot read"),
    ],
)
def test_refuses_what_is_no_map(value, message):
    with pytest.raises(UserError, match=message):
        RgbMap.parse(value)


def test_painting_refuses_an_index_without_colour():
    with pytest.raises(ValueError, match="class index 4"):
        CHEST.paint(np.array([[4]], dtype=np.uint8))


@pytest.mark.parametrize("name", [False, True, None])
def test_a_name_that_yaml_reads_as_no_text_is_refused(name):
    with pytest.raises(UserError, match=f"a class name was read as {name}, .*put it in quotes"):
        RgbMap.parse({"background": [0, 0, 0], name: [255, 0, 0]})
