"""`flexunet augment`: copies in train alone, named so that the other verbs know them, image and mask moved alike."""

import json
import shutil

import numpy as np
import pytest

from flexunet_pl.cli.main import main
from flexunet_pl.io.images import read_image, write_image
from flexunet_pl.io.masks import read_mask
from flexunet_pl.io.pairs import list_pairs
from flexunet_pl.io.patient_ids import copy_source
from flexunet_pl.prepare.phantom import PHANTOM_MAP

ALL = ["hflip", "vflip", "hvflip", "rotate:180", "shrink:0.7", "shear", "elastic", "smooth", "barrel"]
ALL += ["pincushion:0.3", "sharpen", "brighten"]


@pytest.fixture(scope="module")
def augmented(phantoms, tmp_path_factory):
    out = tmp_path_factory.mktemp("augmented") / "out"
    assert main(["augment", str(phantoms), str(out), "--variants", json.dumps(ALL), "--workers", "0"]) == 0
    return out


def test_train_alone_gets_copies_and_every_name_tells_its_source(phantoms, augmented):
    sources = {pair.image.stem for pair in list_pairs(phantoms / "train")}
    stems = [pair.image.stem for pair in list_pairs(augmented / "train")]
    assert len(stems) == len(sources) * (1 + len(ALL))
    assert {copy_source(stem) for stem in stems if stem not in sources} == sources
    for split in ("valid", "test"):
        for ours, theirs in zip(list_pairs(augmented / split), list_pairs(phantoms / split), strict=True):
            assert ours.image.read_bytes() == theirs.image.read_bytes()
    assert read_image(augmented / "variants.png").shape == (320, 160 * (1 + len(ALL)), 3)


def test_no_mask_gets_a_colour_that_its_source_did_not_have(augmented):
    for pair in list_pairs(augmented / "train"):
        source = augmented / "train" / "masks" / f"{copy_source(pair.image.stem) or pair.image.stem}.png"
        colors, known = (np.unique(read_image(p).reshape(-1, 3), axis=0) for p in (pair.mask, source))
        assert {*map(tuple, colors.tolist())} <= {*map(tuple, known.tolist()), (0, 0, 0)}


def test_a_picture_that_is_its_own_mask_stays_so(tmp_path, phantoms):
    """Where image and mask show the same shape, they must show the same shape after each variant."""
    index = read_mask(list_pairs(phantoms / "train")[1].mask, PHANTOM_MAP) > 0
    for kind in ("images", "masks"):
        for split in ("train", "valid"):
            picture = np.repeat((index * np.uint8(255))[..., None], 3, axis=2)
            write_image(tmp_path / "src" / split / kind / "a.png", picture)
    out = tmp_path / "out"
    assert main(["augment", str(tmp_path / "src"), str(out), "--variants", json.dumps(ALL[:10])]) == 0
    pairs = list_pairs(out / "train")
    assert len(pairs) == 11
    moved = 0
    for pair in pairs:
        image, mask = read_image(pair.image)[..., 0] > 127, read_image(pair.mask)[..., 0] > 127
        assert (image == mask).mean() > 0.98, pair.image.name  # the image is interpolated, the mask is not
        moved += (mask != index).mean() > 0.02
    assert moved >= 9


def test_flips_turns_and_sizes_are_exact(phantoms, augmented):
    pair = list_pairs(phantoms / "train")[0]
    image = read_image(pair.image)
    folder = augmented / "train" / "images"
    np.testing.assert_array_equal(read_image(folder / f"hflipped_{pair.image.name}"), image[:, ::-1])
    np.testing.assert_array_equal(read_image(folder / f"vflipped_{pair.image.name}"), image[::-1])
    np.testing.assert_array_equal(read_image(folder / f"hvflipped_{pair.image.name}"), image[::-1, ::-1])
    shrunk = read_image(folder / f"shrinked_0.7_{pair.image.name}")
    assert not shrunk[:8].any()
    assert shrunk[32, 32].any()
    sharp = read_image(augmented / "train" / "masks" / f"sharpened_1.0_{pair.image.name}")
    np.testing.assert_array_equal(sharp, read_image(pair.mask))


def test_the_same_seed_draws_the_same_fields(phantoms, tmp_path, augmented):
    options = ["--variants", '["elastic", "smooth"]', "--workers", "0"]
    for name, seed in (("a", 137), ("b", 138)):
        assert main(["augment", str(phantoms), str(tmp_path / name), "--seed", str(seed), *options]) == 0
    names = [p.name for p in (tmp_path / "a" / "train" / "images").glob("d*.png")]
    assert len(names) == 24
    for name in names:
        ours, other, again = (
            read_image(f / "train" / "images" / name) for f in (tmp_path / "a", tmp_path / "b", augmented)
        )
        np.testing.assert_array_equal(ours, again)
        assert (ours != other).any()


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (["wobble"], "there is no `wobble`; use hflip"),
        (["shrink:small"], "has no number; one that does is shrink:0.8"),
        (["smooth:-1"], "is out of range"),
        (["rotate:nan"], "is out of range; rotate takes -360 to 360"),
        (["elastic:inf"], "is out of range"),
        (["rotate:90", "rotate:90.0"], "stands twice"),
    ],
)
def test_a_wrong_variant_is_said(phantoms, tmp_path, capsys, variants, message):
    assert main(["augment", str(phantoms), str(tmp_path / "out"), "--variants", json.dumps(variants)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_half_of_a_data_set_is_not_left(phantoms, tmp_path, capsys):
    shutil.copytree(phantoms, tmp_path / "data")
    sorted((tmp_path / "data" / "train" / "masks").iterdir())[-1].write_bytes(b"junk")
    command = ["augment", str(tmp_path / "data"), str(tmp_path / "out"), "--variants", '["shrink"]']
    assert main(command) == 2
    assert not (tmp_path / "out").exists()
    shutil.rmtree(tmp_path / "data" / "valid" / "images")
    (tmp_path / "data" / "valid" / "images").mkdir()
    assert main(command) == 2
    assert not (tmp_path / "out").exists()
    assert "no image in this folder" in capsys.readouterr().err


def test_what_is_there_stays_and_copies_are_not_copied_again(phantoms, tmp_path, augmented, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["augment", str(phantoms), str(tmp_path)]) == 2
    assert main(["augment", str(phantoms), str(phantoms / "out")]) == 2
    assert main(["augment", str(augmented), str(tmp_path / "out")]) == 2
    assert "is a copy of this kind already" in capsys.readouterr().err
