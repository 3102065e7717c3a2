"""`flexunet prepare`: the five downloads, drawn from phantoms in their own layouts, become data sets."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import yaml
from PIL import Image

from flexunet_pl.cli.main import main
from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.io.images import read_image
from flexunet_pl.io.masks import read_mask
from flexunet_pl.io.pairs import list_pairs
from flexunet_pl.prepare.phantom import PHANTOM_MAP, draw_slice
from flexunet_pl.prepare.recipe import Case, _parse, list_recipes, read_recipe
from flexunet_runtime.window import Window

ROOT = Path(__file__).parents[2]
NAMES = ["3d-liver-tumor", "chest-ct-subset", "covid-19", "lung-tumor", "nbm"]
DEPTH, SIZE = 6, 64
ANGLE = 0.2
OBLIQUE = (np.cos(ANGLE), -np.sin(ANGLE), 0, np.sin(ANGLE), np.cos(ANGLE), 0, 0, 0, 1)


def draw_volume(patient: int, depth: int = DEPTH):
    """HU and classes of a phantom, from the feet up."""
    planes = [draw_slice(patient, 1 - (z + 0.5) / depth, SIZE, 137) for z in range(depth)]
    grey, index = (np.stack(p) for p in zip(*planes, strict=True))
    return (grey.astype(np.int16) * 8 - 1000).astype(np.int16), index


def write_volume(path: Path, values, code: str = "LPS") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.7, 2.0))
    image.SetDirection(OBLIQUE)
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, code), str(path))


def write_jpeg(path: Path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)


def draw_lung_tumor(raw: Path, patients: int = 4) -> None:
    for patient in range(patients):
        hu, index = draw_volume(patient)
        code = ("LPS", "RAS", "LPI", "SAR")[patient % 4]  # as the files of many hospitals lie
        write_volume(raw / "imagesTr" / f"lung_{patient:03d}.nii.gz", hu, code)
        write_volume(raw / "labelsTr" / f"lung_{patient:03d}.nii.gz", (index == 1).astype(np.uint8), code)
    write_volume(raw / "imagesTs" / "lung_900.nii.gz", hu)
    (raw / "imagesTr" / "._lung_000.nii.gz").write_bytes(b"mac")


def draw_liver(raw: Path) -> None:
    for patient in range(4):
        hu, index = draw_volume(patient)
        write_volume(raw / "part 1" / f"volume-{patient}.nii", hu, "RAI")
        write_volume(raw / "segmentations" / f"segmentation-{patient}.nii", np.where(index > 2, 0, index), "RAI")


def draw_covid(raw: Path) -> None:
    hu, index = draw_volume(1, depth=20)
    write_volume(raw / "tr_im.nii.gz", hu.astype(np.float32))
    write_volume(raw / "tr_mask.nii.gz", index.astype(np.float32))


def draw_nbm(raw: Path) -> None:
    for number in range(70):
        grey, index = draw_slice(number // 10, number % 10 / 10, SIZE, 137)
        write_jpeg(raw / "image" / f"1 ({number}).jpg", grey)
        write_jpeg(raw / "lesion mask" / f"1 ({number}).jpg", np.where(index == 2, 255, 0).astype(np.uint8))


def draw_chest(raw: Path) -> None:
    for patient in range(4):
        for number in range(4):
            grey, index = draw_slice(patient, number / 4, SIZE, 137)
            stem = f"ID0000{patient}"
            write_jpeg(raw / "images" / "images" / f"{stem}_{number}.jpg", np.repeat(grey[..., None], 3, axis=2))
            write_jpeg(raw / "masks" / "masks" / f"{stem}_mask_{number}.jpg", PHANTOM_MAP.paint(index))
    (raw / "masks" / "masks" / "ID00000_mask_0.jpg").unlink()


DRAW = dict(zip(NAMES, (draw_liver, draw_chest, draw_covid, draw_lung_tumor, draw_nbm), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_makes_a_data_set_that_the_check_can_read(tmp_path, capsys, name):
    DRAW[name](tmp_path / "raw")
    out = tmp_path / "out"
    assert main(["prepare", name, "--raw", str(tmp_path / "raw"), "--out", str(out), "--workers", "0"]) == 0
    recipe = read_recipe(name)
    pairs = [pair for split in ("train", "valid", "test") for pair in list_pairs(out / split)]
    assert len(pairs) == len(list(out.glob("slices/images/*")))
    groups = {s: {recipe.group_of(p.image.stem) for p in list_pairs(out / s)} for s in ("train", "valid", "test")}
    assert not groups["train"] & groups["valid"] | groups["train"] & groups["test"] | groups["valid"] & groups["test"]
    capsys.readouterr()
    assert main(["check", str(out), "--rgb-map", json.dumps(recipe.rgb_map.to_dict()), "--json"]) in {0, 1}
    summary = json.loads(capsys.readouterr().out)
    assert all(split["unusable"] == 0 and split["off_map_share"] == 0 for split in summary["splits"].values())
    shown = [sum(split["images"][c] for split in summary["splits"].values()) for c in recipe.rgb_map.names]
    assert min(shown) > 0, "every class is shown somewhere"


def test_slices_of_turned_and_oblique_volumes_are_those_that_were_drawn(tmp_path):
    draw_lung_tumor(tmp_path / "raw")
    out = tmp_path / "out"
    assert main(["prepare", "lung-tumor", "--raw", str(tmp_path / "raw"), "--out", str(out)]) == 0
    recipe = read_recipe("lung-tumor")
    for patient in range(4):
        hu, index = draw_volume(patient)
        for z in range(DEPTH):
            stem = f"lung_{patient:03d}_{z:03d}"
            mask = out / "slices" / "masks" / f"{stem}.png"
            assert mask.exists() == (index[z] == 1).any(), "slices without a tumour are left out, others are not"
            if mask.exists():
                np.testing.assert_array_equal(read_mask(mask, recipe.rgb_map), index[z] == 1)
                image = read_image(out / "slices" / "images" / f"{stem}.png", channels=1)[..., 0]
                np.testing.assert_array_equal(image, Window(-1000, 400).apply(hu[z]))


def test_pictures_are_copied_byte_for_byte_and_their_jpeg_masks_become_clean(tmp_path):
    draw_chest(tmp_path / "raw")
    out = tmp_path / "out"
    assert main(["prepare", "chest-ct-subset", "--raw", str(tmp_path / "raw"), "--out", str(out)]) == 0
    source = tmp_path / "raw" / "images" / "images" / "ID00001_2.jpg"
    assert (out / "slices" / "images" / "ID00001_002.jpg").read_bytes() == source.read_bytes()
    index = read_mask(out / "slices" / "masks" / "ID00001_002.png", PHANTOM_MAP)
    assert (index == draw_slice(1, 0.5, SIZE, 137)[1]).mean() > 0.97  # JPEG moves a few pixels of the borders
    assert not (out / "slices" / "images" / "ID00000_000.jpg").exists(), "it has no mask"


def test_a_zip_archive_gives_the_same_as_its_folder(tmp_path):
    draw_lung_tumor(tmp_path / "raw", patients=3)
    shutil.make_archive(str(tmp_path / "raw"), "zip", tmp_path / "raw")
    for raw, out in (("raw", "a"), ("raw.zip", "b")):
        assert main(["prepare", "lung-tumor", "--raw", str(tmp_path / raw), "--out", str(tmp_path / out)]) == 0
    a, b = ({p.relative_to(tmp_path / o): p.read_bytes() for p in (tmp_path / o).rglob("*.png")} for o in "ab")
    assert a == b
    assert (tmp_path / "a" / "split.csv").read_text() == (tmp_path / "b" / "split.csv").read_text()


def test_a_volume_that_fails_is_named_the_rest_goes_on_and_the_next_run_does_what_is_left(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    draw_lung_tumor(raw, patients=5)
    good = (raw / "imagesTr" / "lung_001.nii.gz").read_bytes()
    (raw / "imagesTr" / "lung_001.nii.gz").write_bytes(good[:-3000])
    write_volume(raw / "labelsTr" / "lung_002.nii.gz", np.full((DEPTH, SIZE, SIZE), 7, np.uint8))
    command = ["prepare", "lung-tumor", "--raw", str(raw), "--out", str(out), "--workers", "0"]
    assert main(command) == 1
    errors = capsys.readouterr().err
    assert f"{raw}/imagesTr/lung_001.nii.gz: damaged or no volume" in errors
    assert f"{raw}/labelsTr/lung_002.nii.gz: has the values [7]" in errors
    assert not (out / "train").exists(), "the split waits"
    first = {p: p.stat().st_mtime_ns for p in out.rglob("lung_000*.png")}
    assert first

    (raw / "imagesTr" / "lung_001.nii.gz").write_bytes(good)
    for kind in ("imagesTr", "labelsTr"):
        (raw / kind / "lung_002.nii.gz").unlink()
    with (out / "prepared.csv").open("a") as log:
        log.write("lung_00")  # a line that a crash has cut
    assert main(command) == 0
    assert "going on: 3 of 4 cases are done" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in first} == first, "what was done is not done again"
    rows = list(csv.DictReader((out / "prepared.csv").read_text().splitlines()))
    assert [row["stem"] for row in rows] == ["lung_000", "lung_003", "lung_004", "lung_001"]
    split = (out / "split.csv").read_text()
    assert main(command) == 0
    assert (out / "split.csv").read_text() == split


def test_a_patient_that_comes_later_is_not_left_out_in_silence(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    draw_lung_tumor(raw, patients=4)
    command = ["prepare", "lung-tumor", "--raw", str(raw), "--out", str(out), "--workers", "0"]
    assert main(command) == 0
    split = (out / "split.csv").read_text()
    for kind in ("imagesTr", "labelsTr"):
        shutil.copy(raw / kind / "lung_001.nii.gz", raw / kind / "lung_099.nii.gz")
    assert main(command) == 1
    assert "such as lung_099_" in capsys.readouterr().err
    assert (out / "split.csv").read_text() == split
    (out / "split.csv").unlink()
    assert main(command) == 0
    assert "lung_099" in (out / "split.csv").read_text()


def test_slices_of_a_case_that_a_kill_has_left_do_not_enter_the_data_set(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    draw_lung_tumor(raw, patients=4)
    for folder in ("images", "masks"):
        (out / "slices" / folder).mkdir(parents=True)
        for name in ("lung_900_000.png", ".lung_900_001.png.123.tmp"):
            (out / "slices" / folder / name).write_bytes(b"half")
    (out / "recipe.yaml").write_text(read_recipe("lung-tumor").text)
    (out / "prepared.csv").write_text("stem,ima")  # killed within the first line
    assert main(["prepare", "lung-tumor", "--raw", str(raw), "--out", str(out), "--workers", "0"]) == 0
    assert not [p for p in out.rglob("*") if "lung_900" in p.name]
    assert "lung_003" in (out / "split.csv").read_text()


def test_another_download_is_not_taken_for_the_first(tmp_path, capsys):
    draw_lung_tumor(tmp_path / "one", patients=4)
    draw_lung_tumor(tmp_path / "two", patients=5)
    shutil.copy(tmp_path / "two" / "imagesTr" / "lung_004.nii.gz", tmp_path / "two" / "imagesTr" / "lung_001.nii.gz")
    out = tmp_path / "out"
    assert main(["prepare", "lung-tumor", "--raw", str(tmp_path / "one"), "--out", str(out), "--workers", "0"]) == 0
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert main(["prepare", "lung-tumor", "--raw", str(tmp_path / "two"), "--out", str(out), "--workers", "0"]) == 2
    assert "imagesTr/lung_001.nii.gz has changed or gone" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


def test_patients_with_underlines_in_their_names_are_told_apart():
    content = {"images": "img/{patient}.png", "masks": "msk/{patient}.png", "rgb_map": PHANTOM_MAP.to_dict()}
    recipe = _parse(Path("r.yaml"), "r", "", content)
    assert [recipe.group_of(stem) for stem in ("site0_000", "site0_001")] == ["site0_000", "site0_001"]
    numbered = _parse(Path("r.yaml"), "r", "", content | {"images": "img/{patient}/{patient}_{slice}.png"})
    assert numbered.group_of("site0_000_007") == "site0_000"
    names = ["img/a_1/a_1_07.png", "img/a_1/b_07.png", "msk/a_1.png"]
    twice = _parse(Path("r.yaml"), "r", "", content | {"images": "img/{patient}/{patient}_07.png"})
    assert twice.find_cases(names)[0] == [Case("a_1", "img/a_1/a_1_07.png", "msk/a_1.png")]


def test_seeds_places_and_numbers_are_checked_before_the_work(tmp_path, capsys):
    draw_nbm(tmp_path / "raw")
    command = ["prepare", "nbm", "--raw", str(tmp_path / "raw"), "--out"]
    assert main([*command, str(tmp_path / "out"), "--seed", "-1"]) == 2
    assert main([*command, str(tmp_path / "out"), "--workers", "-1"]) == 2
    assert main([*command, str(tmp_path / "raw" / "out")]) == 2
    assert "lies in the download" in capsys.readouterr().err
    assert not list((tmp_path / "raw").glob("out"))


def test_another_recipe_or_a_folder_with_something_in_it_is_left_alone(tmp_path, capsys):
    draw_nbm(tmp_path / "raw")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    command = ["prepare", "nbm", "--raw", str(tmp_path / "raw"), "--out"]
    assert main([*command, str(tmp_path / "full")]) == 2
    assert main([*command, str(tmp_path / "out")]) == 0
    other = tmp_path / "other.yaml"
    other.write_text(list_recipes()["nbm"].read_text() + "window: [0, 1]\n")
    assert main(["prepare", str(other), "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]) == 2
    assert "was prepared by another recipe" in capsys.readouterr().err
    assert main(["prepare", "nmb", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "x")]) == 2
    assert "no such recipe; there are 3d-liver-tumor, chest-ct-subset" in capsys.readouterr().err


def test_a_download_in_another_layout_is_an_error_that_says_what_was_expected(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    assert main(["prepare", "nbm", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]) == 2
    assert "looks for image/{name}.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_has_what_its_experiment_and_its_page_have(name):
    recipe, page = read_recipe(name), (ROOT / "data" / "recipes" / name / "README.md").read_text()
    experiment = yaml.safe_load((ROOT / "configs" / "experiment" / f"{name}.yaml").read_text())
    assert recipe.rgb_map.to_dict() == experiment["model"]["rgb_map"]
    assert f"flexunet prepare {name} --raw" in page
    assert {"title", "source", "license", "original_split"} <= yaml.safe_load(recipe.text).keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"windows": [0, 1]}, "unknown keys.*windows"),
        ({"images": None}, "images is None"),
        ({"images": "x/{patiet}.nii"}, "no field {patiet}"),
        ({"rgb_map": "import os"}, "rgb_map"),
        ({"window": [5, 1]}, "window is"),
        ({"percentiles": [-1, 99]}, "percentiles is"),
        ({"labels": {"background": 0}}, "labels is"),
        ({"labels": {"background": 0, "lesion": 0}}, "labels.lesion is 0"),
        ({"keep_together": 0}, "keep_together is 0"),
        ({"keep_together": True}, "keep_together is True"),
        ({"keep_together": "patient"}, "images has no {patient}"),
        ({"window": [float("-inf"), 400]}, "window is"),
        ({"drop_empty": "false"}, "drop_empty is 'false'"),
        ({"labels": {"background": False, "lesion": True}}, "labels.background is False"),
    ],
)
def test_a_wrong_recipe_is_an_error_that_names_the_key(tmp_path, change, message):
    content = yaml.safe_load(list_recipes()["nbm"].read_text()) | change
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=message):
        read_recipe(str(tmp_path / "r.yaml"))


def test_two_files_for_one_place_are_an_error():
    recipe = read_recipe("nbm")
    names = ["image/a.jpg", "lesion mask/a.jpg", "copy/image/a.jpg"]
    with pytest.raises(DataError, match="as good a file"):
        recipe.find_cases(names)
