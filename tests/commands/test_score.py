"""`flexunet score`: tables of any two folders, two predictions side by side, and mistakes that are said."""

import csv
import json
import shutil

import numpy as np
import pytest
import SimpleITK

from flexunet_pl.cli.main import main
from flexunet_pl.io.masks import read_mask, write_mask
from flexunet_pl.io.pairs import list_files
from flexunet_pl.prepare.phantom import PHANTOM_MAP


def read_rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


MAP = json.dumps(PHANTOM_MAP.to_dict())


@pytest.fixture
def folders(phantoms, tmp_path):
    """True masks, and two predictions: shifted by one pixel, and by three with a class left out."""
    truth = shutil.copytree(phantoms / "train" / "masks", tmp_path / "truth")
    for path in list_files(truth):
        index = read_mask(path, PHANTOM_MAP)
        write_mask(tmp_path / "a" / path.name, np.roll(index, 1, axis=0), PHANTOM_MAP)
        shifted = np.roll(index, 3, axis=0)
        write_mask(tmp_path / "b" / path.name, np.where(shifted == 1, 0, shifted).astype(np.uint8), PHANTOM_MAP)
    return tmp_path


def test_every_number_is_that_of_an_independent_oracle(folders, capsys):
    command = ["score", "--pred", f"{folders}/a", "--target", f"{folders}/truth", "--rgb-map", MAP, "--json"]
    assert main([*command, "--group-regex", "^([0-9]+)_", "--out", f"{folders}/out", "--workers", "0"]) == 0
    printed = json.loads(capsys.readouterr().out)
    rows = {(row["case"], row["label"]): row for row in read_rows(folders / "out/per_case.csv")}
    files = list_files(folders / "truth")
    assert len(rows) == 3 * len(files)
    for k, name in enumerate(PHANTOM_MAP.names[1:], start=1):
        dice = []
        for path in files:
            p, t = (read_mask(f / path.name, PHANTOM_MAP) == k for f in (folders / "a", folders / "truth"))
            tp = sum(1 for x, y in zip(p.ravel().tolist(), t.ravel().tolist(), strict=True) if x and y)
            row = rows[path.stem, name]
            assert int(row["tp"]) == tp
            assert row["group"] == path.stem.split("_")[0]
            if t.any():
                dice.append(2 * tp / (int(p.sum()) + int(t.sum())))
                assert float(row["dice"]) == pytest.approx(dice[-1], abs=1e-12)
            else:
                assert row["recall"] == ""
        assert printed["classes"][name]["means"]["dice"]["mean"] == pytest.approx(np.mean(dice), abs=1e-9)
    right = np.mean([
        (2 * (read_mask(folders / "a" / p.name, PHANTOM_MAP) == read_mask(p, PHANTOM_MAP)).sum() + 1) / (2 * 64**2 + 1)
        for p in files
    ])  # fmt: skip
    assert printed["dice_coef_multiclass"] == pytest.approx(right, abs=1e-12)
    assert json.loads((folders / "out" / "summary.json").read_text()) == printed


def test_two_predictions_are_compared(folders, capsys):
    command = ["score", "--pred", f"{folders}/a", "--pred", f"{folders}/b", "--target", f"{folders}/truth"]
    assert main([*command, "--rgb-map", MAP, "--out", f"{folders}/out", "--spacing-mm", "[0.7, 0.7]"]) == 0
    output = capsys.readouterr().out
    assert "the interval does not hold 0" in output
    assert "missed" in output
    assert "HD95 (mm)" in output
    rows = {(row["label"], row["score"]): row for row in read_rows(folders / "out/comparison.csv")}
    assert float(rows["trachea", "dice"]["high"]) < 0
    assert float(rows["lung", "hd95"]["low"]) > 0
    tables = [(folders / "out" / f / "summary.csv").read_text() for f in "ab"]
    assert tables[0] != tables[1]


@pytest.mark.slow
def test_workers_do_not_change_the_numbers(folders, monkeypatch):
    monkeypatch.setattr("flexunet_pl.commands.score._FEW", 1)
    for workers in ("0", "2"):
        command = ["score", "--pred", f"{folders}/b", "--target", f"{folders}/truth", "--rgb-map", MAP]
        assert main([*command, "--out", f"{folders}/{workers}", "--workers", workers]) == 0
    for name in ("per_case.csv", "summary.csv", "summary.json"):
        assert (folders / "0" / name).read_bytes() == (folders / "2" / name).read_bytes()


def test_without_surfaces_no_distance_is_measured(folders):
    command = ["score", "--pred", f"{folders}/a", "--target", f"{folders}/truth", "--rgb-map", MAP]
    assert main([*command, "--out", f"{folders}/out", "--surfaces", "false"]) == 0
    assert {row["hd95"] for row in read_rows(folders / "out/per_case.csv")} == {""}


def test_mistakes_are_said(folders, capsys):
    def fails(*options):
        assert main(["score", "--target", f"{folders}/truth", "--rgb-map", MAP, *options]) == 2
        return capsys.readouterr().err

    some = shutil.copytree(folders / "a", folders / "some")
    first = list_files(some)[0]
    write_mask(first, np.zeros((5, 7), np.uint8), PHANTOM_MAP)
    assert f"{first}: is 5x7 px (height x width) but the true mask is 64x64" in fails("--pred", str(some))
    first.unlink()
    assert f"{first.name}: has no prediction in {some}" in fails("--pred", str(some))
    assert "no such folder" in fails("--pred", f"{folders}/absent")
    assert "finds no patient" in fails("--pred", f"{folders}/a", "--group-regex", "x(.)")
    assert "--pred was given 3 times" in fails(*["--pred", f"{folders}/a"] * 3)
    assert "tolerance (-1.0)" in fails("--pred", f"{folders}/a", "--tolerance", "-1")
    (folders / "file").write_text("")
    assert "is a file" in fails("--pred", f"{folders}/a", "--out", f"{folders}/file")


def test_label_volumes_are_scored_in_three_dimensions_and_in_mm(tmp_path, flexunet, mistake):
    truth = np.zeros((8, 10, 12), np.uint8)
    truth[2:6, 3:7, 4:8] = 1
    moved = np.roll(truth, 1, axis=0)  # by one slice of 2.5 mm
    for folder, values, code in (("truth", truth, "RAS"), ("pred", moved, "LPS")):
        image = SimpleITK.GetImageFromArray(values)
        image.SetSpacing((0.5, 0.5, 2.5))
        (tmp_path / folder).mkdir()
        SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, code), str(tmp_path / folder / "a.nii.gz"))
    names = json.dumps({"background": [0, 0, 0], "lesion": [255, 0, 0]})
    command = ("score", "--pred", tmp_path / "pred", "--target", tmp_path / "truth")
    scores = json.loads(flexunet(*command, "--rgb-map", names, "--json"))
    assert scores["unit"] == "mm"
    means = scores["classes"]["lesion"]["means"]
    assert means["dice"]["mean"] == pytest.approx(2 * 48 / 128)
    assert means["hd95"]["mean"] == pytest.approx(2.5)
    assert "no colours" in mistake(*command)
    few = json.dumps({"background": [0, 0, 0], "lesion": [255, 0, 0]})
    image = SimpleITK.ReadImage(str(tmp_path / "pred" / "a.nii.gz"))
    SimpleITK.WriteImage(image * 7, str(tmp_path / "pred" / "a.nii.gz"))
    assert "numbers of the classes, 0 to 1" in mistake(*command, "--rgb-map", few)
    image.SetOrigin((3.0, 0.0, 0.0))
    SimpleITK.WriteImage(image, str(tmp_path / "pred" / "a.nii.gz"))
    assert "export both on one grid" in mistake(*command, "--rgb-map", few)


def test_no_mask_is_left_out_in_silence(folders, tmp_path, flexunet, mistake):
    names = json.dumps({"background": [0, 0, 0], "lesion": [255, 0, 0]})
    volume = SimpleITK.GetImageFromArray(np.zeros((2, 3, 4), np.uint8))
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    SimpleITK.WriteImage(volume, str(mixed / "a.nii.gz"))
    SimpleITK.WriteImage(volume, str(mixed / "a.nii"))
    assert "has the same name as" in mistake("score", "--pred", mixed, "--target", mixed, "--rgb-map", names)
    (mixed / "a.nii").unlink()
    shutil.copy(next((folders / "truth").iterdir()), mixed)
    assert "pictures and volumes" in mistake("score", "--pred", mixed, "--target", mixed, "--rgb-map", names)
    for kind in ("truth", "a"):
        shutil.copytree(folders / kind, tmp_path / "nested" / kind / "sub")
    places = ("--pred", tmp_path / "nested" / "a", "--target", tmp_path / "nested" / "truth")
    scores = json.loads(flexunet("score", *places, "--rgb-map", MAP, "--json"))
    assert scores["cases"] == len(list((folders / "truth").iterdir()))


@pytest.mark.parametrize("option", [("--spacing-mm", "[.nan, 1]"), ("--spacing-mm", "[0, 1]"), ("--tolerance", "-1")])
def test_distances_that_make_no_sense_are_refused(folders, mistake, option):
    command = ("score", "--pred", folders / "a", "--target", folders / "truth", "--rgb-map", MAP)
    assert "must be above 0" in mistake(*command, *option)
