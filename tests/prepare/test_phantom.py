from itertools import pairwise

import numpy as np
import pytest

from flexunet_pl.common.errors import UserError
from flexunet_pl.io.images import read_image
from flexunet_pl.io.masks import read_mask
from flexunet_pl.io.pairs import list_pairs
from flexunet_pl.prepare.phantom import LESION_MAP, PHANTOM_MAP, draw_slice, write_phantom


def test_every_patient_lies_in_one_split(phantoms):
    patients = {s: {p.image.stem.split("_")[0] for p in list_pairs(phantoms / s)} for s in ("train", "valid", "test")}
    assert sum(map(len, patients.values())) == len(set.union(*patients.values())) == 6
    assert [len(list_pairs(phantoms / split)) for split in ("train", "valid", "test")] == [12, 3, 3]


def test_the_same_seed_draws_the_same(tmp_path, phantoms):
    write_phantom(tmp_path / "again", patients=6, slices=3, size=64, seed=137)
    for pair in list_pairs(phantoms / "train"):
        again = tmp_path / "again" / "train"
        assert np.array_equal(read_image(pair.image), read_image(again / "images" / pair.image.name))
        assert np.array_equal(
            read_mask(pair.mask, PHANTOM_MAP), read_mask(again / "masks" / pair.mask.name, PHANTOM_MAP)
        )


def test_intensities_alone_do_not_tell_the_heart_from_its_surroundings():
    slices = [draw_slice(patient, 0.7, 96, 137) for patient in range(6)]
    for image, index in slices:
        heart = image[index == 2]
        around = image[(index == 0) & (image > 60)]
        assert np.quantile(around, 0.1) < heart.mean() < np.quantile(around, 0.99)
    means = [image[index == 2].mean() for image, index in slices]
    assert np.ptp(means) > 15  # contrast differs from patient to patient


def test_every_class_is_there_and_the_heart_is_on_its_side():
    upper, lower = (draw_slice(3, level, 128, 137)[1] for level in (0.1, 0.9))
    assert set(np.unique(upper)) == {0, 1, 3}
    assert set(np.unique(lower)) == {0, 2, 3}
    columns = np.arange(128)
    assert np.average(columns, weights=(lower == 2).sum(0)) > np.average(columns, weights=(lower == 3).sum(0))


def test_a_folder_that_is_not_empty_is_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        write_phantom(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match="patients >= 3"):
        write_phantom(tmp_path / "x", patients=2)


def test_a_lesion_is_in_one_slice_alone_and_a_vessel_in_all(tmp_path):
    write_phantom(tmp_path / "d", patients=3, slices=4, size=96, seed=1, lesions=True)
    pairs = [pair for split in ("train", "valid", "test") for pair in list_pairs(tmp_path / "d" / split)]
    masks = {pair.image.stem: read_mask(pair.mask, LESION_MAP) for pair in pairs}
    for patient in range(3):
        slices = [masks[f"{patient:03d}_{number:02d}"] == LESION_MAP.names.index("lesion") for number in range(4)]
        assert all(lesion.any() for lesion in slices)
        assert not any((one & two).any() for one, two in pairwise(slices))
    assert PHANTOM_MAP.to_dict().items() <= LESION_MAP.to_dict().items()


def test_lesions_need_neighbours(tmp_path):
    with pytest.raises(UserError, match="lesions need slices >= 3, not 2"):
        write_phantom(tmp_path / "x", slices=2, lesions=True)
