"""Images and masks whose names differ: a rule pairs them, in every verb, and check proposes it."""

import shutil
from pathlib import Path

import pytest

from flexunet_pl.cli.main import main
from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.io.pairing import PairingRule, propose_rule
from flexunet_pl.io.pairs import list_pairs

RULE = '{image: "(.+)", mask: "(.+)_mask"}'


@pytest.fixture
def renamed(phantoms, tmp_path):
    """The phantoms with masks of other names."""
    shutil.copytree(phantoms, tmp_path / "data")
    for mask in (tmp_path / "data").glob("*/masks/*.png"):
        mask.rename(mask.with_name(f"{mask.stem}_mask.png"))
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("images", "masks", "rule"),
    [
        (["a", "b"], ["a_seg", "b_seg"], '{image: "(.+)", mask: "(.+)_seg"}'),
        (["IDRiD_01", "IDRiD_02"], ["IDRiD_01_EX", "IDRiD_02_EX"], '{image: "(.+)", mask: "(.+)_EX"}'),
        (["x_0000", "y_0000"], ["x", "y"], '{image: "(.+)_0000", mask: "(.+)"}'),
        (["a", "b"], ["c", "d"], "None"),
    ],
)
def test_the_usual_rules_are_proposed(images, masks, rule):
    assert str(propose_rule([Path(f"{n}.png") for n in images], [Path(f"{n}.png") for n in masks])) == rule


def test_without_the_rule_it_is_named_and_with_it_all_pairs(renamed):
    with pytest.raises(
        DataError, match=r"pair by the rule `pairing: \{image: \"\(\.\+\)\", mask: \"\(\.\+\)_mask\"\}`"
    ):
        list_pairs(renamed / "train")
    pairs = list_pairs(renamed / "train", PairingRule(mask="(.+)_mask"))
    assert len(pairs) == 12
    assert all(pair.mask.stem == f"{pair.image.stem}_mask" for pair in pairs)


def test_masks_of_another_kind_are_passed_over_by_the_rule(renamed):
    first = sorted((renamed / "train" / "masks").iterdir())[0]
    shutil.copy(first, first.with_name(f"{first.stem.removesuffix('_mask')}_other.png"))
    assert len(list_pairs(renamed / "train", PairingRule(mask="(.+)_mask"))) == 12


def test_check_fit_split_and_score_take_the_rule(renamed, workspace, capsys):
    assert main(["check", str(renamed)]) == 2
    assert "they pair by the rule" in capsys.readouterr().err
    assert main(["check", str(renamed), "--pairing", RULE]) == 0
    assert main(["fit", "-c", "c.yaml", "--data.root", str(renamed), "--data.pairing", RULE]) == 0
    assert main(["split", str(renamed / "train"), "split", "--pairing", RULE]) == 0
    assert len(list_pairs(Path("split/train"))) + len(list_pairs(Path("split/valid"))) >= 10
    masks = renamed / "test" / "masks"
    shutil.copytree(masks, "pred")
    for mask in Path("pred").iterdir():
        mask.rename(mask.with_name(mask.name.replace("_mask", "")))
    assert main(["score", "--pred", "pred", "--target", str(masks), "--pairing", RULE]) == 0


@pytest.mark.parametrize("text", ["(", "no group", "(a)" * 100])
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(UserError, match=r"pairing\.mask"):
        PairingRule(mask=text)
