import re
import shutil

import numpy as np
import pytest

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.images import write_image
from flexunet_pl.io.masks import write_mask
from flexunet_pl.planning.data_facts import read_data_facts
from flexunet_pl.rgb_map import RgbMap

MAP = RgbMap.parse({"background": [0, 0, 0], "lesion": [255, 0, 0]})


def write(root, split, name, boxes, size=(40, 50), color=(90, 90, 90)):
    mask = np.zeros(size, dtype=np.uint8)
    for y, x, height, width in boxes:
        mask[y : y + height, x : x + width] = 1
    write_image(root / split / "images" / f"{name}.png", np.full((*size, 3), color, dtype=np.uint8))
    write_mask(root / split / "masks" / f"{name}.png", mask, MAP)


@pytest.fixture
def root(tmp_path):
    write(tmp_path, "train", "1_a", [(0, 0, 20, 20), (30, 30, 5, 5)])
    write(tmp_path, "train", "1_b", [])
    write(tmp_path, "train", "2_a", [(5, 5, 10, 10), (39, 49, 1, 1)])
    write(tmp_path, "valid", "3_a", [(0, 0, 3, 3)])
    return tmp_path


def test_classes_sizes_and_patients_are_counted(root):
    facts = read_data_facts(root, MAP, re.compile("^([0-9])_"))
    assert facts.images == {"train": 3, "valid": 1}
    assert facts.patients == {"train": 2, "valid": 1}
    assert (facts.size, facts.one_size, facts.is_grey) == ((40, 50), True, True)
    lesion = facts.classes["lesion"]
    assert lesion.share == pytest.approx(526 / 6000)
    assert lesion.images == 2
    assert lesion.smallest == 100  # below it lie 26 of 526 pixels, less than 5 %
    assert facts.without_foreground == 1
    assert not facts.is_numbered


def test_colours_and_sizes_that_differ_are_seen(root):
    write(root, "train", "4_a", [(0, 0, 2, 2)], size=(60, 60), color=(90, 80, 90))
    facts = read_data_facts(root, MAP)
    assert (facts.one_size, facts.is_grey, facts.patients) == (False, False, None)


def test_what_cannot_be_learnt_from_is_said(root):
    two = RgbMap.parse({"background": [0, 0, 0], "lesion": [255, 0, 0], "cyst": [0, 255, 0]})
    with pytest.raises(DataError, match=r"train: no mask shows `cyst`, so it cannot be learnt; take it out"):
        read_data_facts(root, two)
    with pytest.raises(DataError, match="patient a is in train and valid"):
        read_data_facts(root, MAP, re.compile("_([a-z])"))
    for name in ("1_b", "2_a"):
        for kind in ("images", "masks"):
            (root / "train" / kind / f"{name}.png").unlink()
    with pytest.raises(DataError, match="train: holds one image"):
        read_data_facts(root, MAP)
    shutil.rmtree(root / "valid")
    with pytest.raises(DataError, match="no such folder"):
        read_data_facts(root, MAP)
