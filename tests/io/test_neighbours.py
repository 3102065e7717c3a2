"""The slices beside one: by number, within a patient, repeated where there is none."""

import numpy as np
import pytest

from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.io.cases import Case
from flexunet_pl.io.images import ImageReader, write_image
from flexunet_pl.io.neighbours import check_numbered, slices_around
from flexunet_pl.io.volume_slices import SliceReader, SliceRules


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def around(folder, name, count):
    return [path.name for path in slices_around(folder / name, count)]


def test_neighbours_are_of_the_same_patient_and_repeated_at_its_ends(tmp_path):
    touch(tmp_path, "a_08.png", "a_09.png", "a_10.png", "b_11.png", "a_07.jpg")
    assert around(tmp_path, "a_09.png", 1) == ["a_08.png", "a_09.png", "a_10.png"]
    assert around(tmp_path, "a_10.png", 1) == ["a_09.png", "a_10.png", "a_10.png"]
    assert around(tmp_path, "a_09.png", 2) == ["a_08.png", "a_08.png", "a_09.png", "a_10.png", "a_10.png"]
    assert around(tmp_path, "b_11.png", 1) == ["b_11.png"] * 3


def test_a_gap_is_no_neighbour_unless_every_slice_is_as_far(tmp_path):
    touch(tmp_path, "a1.png", "a2.png", "a4.png", "b10.png", "b15.png", "b20.png")
    assert around(tmp_path, "a2.png", 1) == ["a1.png", "a2.png", "a2.png"]
    assert around(tmp_path, "b15.png", 1) == ["b10.png", "b15.png", "b20.png"]


def test_a_folder_that_changes_is_listed_again(tmp_path):
    touch(tmp_path, "a_1.png")
    assert around(tmp_path, "a_1.png", 1) == ["a_1.png"] * 3
    touch(tmp_path, "a_2.png")
    assert around(tmp_path, "a_1.png", 1) == ["a_1.png", "a_1.png", "a_2.png"]


def test_names_without_numbers_and_lonely_slices_are_said(tmp_path):
    touch(tmp_path, "a.png", "p_1.png", "q_1.png")
    with pytest.raises(DataError, match=r"a\.png: its name does not end in the number of a slice"):
        slices_around(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match="no slice has a neighbour by its number"):
        check_numbered([tmp_path / "p_1.png", tmp_path / "q_1.png"])
    touch(tmp_path, "p_2.png")
    check_numbered([tmp_path / "p_1.png", tmp_path / "q_1.png"])


def test_a_picture_has_the_slices_as_channels(tmp_path):
    for number in (1, 2, 3):
        write_image(tmp_path / f"a_{number}.png", np.full((4, 5, 3), 10 * number, dtype=np.uint8))
    grey = ImageReader((4, 5), 3, neighbours=1)
    assert grey.slice_channels == 1
    assert grey.read(tmp_path / "a_2.png")[0, 0].tolist() == [10, 20, 30]
    assert grey.alone == ImageReader((4, 5), 1)
    assert grey.middle(grey.read(tmp_path / "a_2.png"))[0, 0].tolist() == [20]
    assert grey.read(tmp_path / "a_1.png")[0, 0].tolist() == [10, 10, 20]
    assert ImageReader((4, 5), 9, neighbours=1).read(tmp_path / "a_3.png")[0, 0].tolist() == [20] * 3 + [30] * 6
    write_image(tmp_path / "a_3.png", np.zeros((4, 6, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r"a_3\.png: is of another size than a_2\.png, the slice beside it"):
        grey.read(tmp_path / "a_2.png")


@pytest.mark.parametrize(
    ("channels", "neighbours", "message"),
    [
        (1, 1, r"model\.in_channels is 1, but data\.neighbours 1 makes pictures of 3 slices: set it to 3, or to 9"),
        (3, 2, "set it to 5, or to 15"),
        (3, -1, r"data\.neighbours is -1; it must be at least 0"),
    ],
)
def test_channels_that_do_not_fit_are_said(channels, neighbours, message):
    with pytest.raises(UserError, match=message):
        ImageReader((4, 5), channels, neighbours=neighbours)


def test_a_volume_s_slices_have_its_neighbours(tmp_path):
    values = np.arange(4, dtype=np.uint8)[:, None, None] * np.full((4, 6, 7), 10, dtype=np.uint8)
    np.save(tmp_path / "v.npy", values)
    case = Case(tmp_path / "v.npy", "v", is_volume=True)
    reader = SliceReader(ImageReader((6, 7), 3, neighbours=1), SliceRules(window=(0, 255)))
    found = [reader.read(case, number)[0, 0].tolist() for number in range(4)]
    assert found == [[0, 0, 10], [0, 10, 20], [10, 20, 30], [20, 30, 30]]
