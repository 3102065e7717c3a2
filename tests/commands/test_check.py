"""`flexunet check`: faults put into a sound data set are found and named, and a sound one has none."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from flexunet_pl.check.quick import quick_check
from flexunet_pl.check.scan import scan_pairs
from flexunet_pl.cli.main import main
from flexunet_pl.io.images import read_image, write_image
from flexunet_pl.io.masks import read_mask
from flexunet_pl.io.pairs import list_pairs
from flexunet_pl.io.patient_ids import copy_source, group_of, parse_group_regex
from flexunet_pl.prepare.phantom import PHANTOM_MAP, write_phantom

MAP = json.dumps(PHANTOM_MAP.to_dict())


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound") / "data"
    write_phantom(root, patients=10, slices=3, size=96, seed=137)
    return root


@pytest.fixture
def data(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "data"))


@pytest.fixture
def check(capsys):
    """Check a folder; returns the exit status and the findings by kind."""

    def run(root, *options):
        capsys.readouterr()
        status = main(["check", str(root), "--rgb-map", MAP, "--json", "--workers", "0", *map(str, options)])
        found = {}
        for finding in json.loads(capsys.readouterr().out)["findings"]:
            found.setdefault(finding["kind"], []).append(finding["message"])
        return status, found

    return run


def _pair(root, split, number):
    image = sorted((root / split / "images").iterdir())[number]
    return image, root / split / "masks" / image.name


def test_a_sound_data_set_has_no_findings(data, check):
    assert check(data, "--group-regex", "^([0-9]+)_") == (0, {})


@pytest.mark.parametrize(("first", "second"), [(0, 8), (1, 6), (4, 11), (7, 14)])
def test_swapped_masks_are_found(data, check, first, second):
    _, one = _pair(data, "train", first)
    _, two = _pair(data, "train", second)
    one.rename(one.with_suffix(".tmp"))
    two.rename(one)
    one.with_suffix(".tmp").rename(two)
    status, found = check(data)
    assert status == 1
    named = " ".join(found["misplaced mask"])
    assert f"{one} and {two}: each fits the image of the other better" in named


@pytest.mark.parametrize(("flip", "how"), [(np.fliplr, "left-right"), (np.flipud, "top-bottom")])
def test_a_mirrored_mask_is_named(data, check, flip, how):
    _, mask = _pair(data, "train", 4)
    write_image(mask, np.ascontiguousarray(flip(read_image(mask))))
    _, found = check(data)
    assert any(str(mask) in message and f"mirrored {how}" in message for message in found["misplaced mask"])


def test_a_cut_file_is_named(data, check):
    image, _ = _pair(data, "valid", 0)
    image.write_bytes(image.read_bytes()[:-200])
    _, found = check(data)
    assert str(image) in found["unusable file"][0]


def test_one_new_colour_is_named(data, check):
    _, mask = _pair(data, "train", 3)
    pixels = read_image(mask).copy()
    pixels[10:14, 10:13] = (255, 255, 0)
    write_image(mask, pixels)
    _, found = check(data)
    messages = found.get("colour off the map", []) + found.get("unusable file", [])
    assert any(str(mask) in message and "255, 255, 0" in message for message in messages)


def test_a_mask_saved_as_bgr_is_named(data, check):
    _, mask = _pair(data, "train", 5)
    write_image(mask, np.ascontiguousarray(read_image(mask)[..., ::-1]))
    _, found = check(data)
    assert [str(mask) in message for message in found["channels exchanged"]] == [True]


def test_indices_shown_as_black_are_named(data, check):
    _, mask = _pair(data, "train", 5)
    write_image(mask, read_mask(mask, PHANTOM_MAP))
    _, found = check(data)
    assert any(str(mask) in message and "class indices" in message for message in found["unusable file"])


def test_a_mask_of_another_size_is_named(data, check):
    _, mask = _pair(data, "test", 1)
    write_image(mask, read_image(mask)[:-1])
    _, found = check(data)
    assert "mask is 95x96 px" in found["unusable file"][0]


@pytest.mark.case("D5")
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_in_two_splits_is_named(data, check, suffix):
    image, mask = _pair(data, "train", 2)
    copy = data / "test" / "images" / f"900_00{suffix}"
    Image.open(image).save(copy)
    shutil.copy(mask, data / "test" / "masks" / "900_00.png")
    _, found = check(data)
    assert any(str(image) in message and str(copy) in message for message in found["duplicate across splits"])
    assert len(found["duplicate across splits"]) == 1


def test_a_patient_in_two_splits_is_named(data, check):
    image, mask = _pair(data, "train", 2)
    shutil.move(image, data / "test" / "images")
    shutil.move(mask, data / "test" / "masks")
    _, found = check(data, "--group-regex", "^([0-9]+)_")
    assert found["group across splits"][0].startswith(f"group `{image.stem[:3]}`: 2 in train, 1 in test")


def test_an_empty_folder_is_named(data, check):
    shutil.rmtree(data / "train" / "images")
    (data / "train" / "images").mkdir()
    status, found = check(data)
    assert status == 1
    assert any(str(data / "train") in message for message in found["pairing"])


def test_a_missing_split_is_named(data, check):
    shutil.rmtree(data / "train")
    _, found = check(data)
    assert found["pairing"] == [f"{data / 'train'}: no such folder; `flexunet split` makes all three"]


@pytest.mark.case("D6")
def test_names_of_all_kinds_are_read(data, check):
    for i, name in enumerate(("a b (1)", "é ü", "日本", "x.y", "UPPER")):
        image, mask = _pair(data, "train", i)
        image.rename(image.with_name(f"~{name}.PNG"))
        mask.rename(mask.with_name(f"~{name}.Png"))
    assert check(data) == (0, {})


@pytest.mark.case("D4")
def test_what_does_not_pair_is_named_all_of_it(data, check):
    lonely = [_pair(data, "train", i)[1] for i in (1, 3)]
    for mask in lonely:
        mask.unlink()
    loop = data / "train" / "images" / "loop.png"
    loop.symlink_to(loop)
    _, found = check(data)
    assert len(found["pairing"]) == 3
    assert any(str(loop) in message and "leads nowhere" in message for message in found["pairing"])


@pytest.mark.case("D8")
def test_a_class_that_a_split_lacks_is_named(data, check):
    for mask in (data / "valid" / "masks").iterdir():
        pixels = read_image(mask).copy()
        pixels[(pixels == (0, 255, 0)).all(axis=2)] = 0
        write_image(mask, pixels)
    _, found = check(data)
    assert found["class absent"] == ["valid: no mask shows `heart`; split again, by patient and class"]


def test_augmented_copies_are_named(data, check):
    image, mask = _pair(data, "train", 2)
    name = f"barrdistorted_1002_0.3_0.3_{image.name}"
    write_image(data / "valid" / "images" / name, np.ascontiguousarray(read_image(image)[:, ::-1]))
    write_image(data / "valid" / "masks" / name, np.ascontiguousarray(read_image(mask)[:, ::-1]))
    _, found = check(data)
    assert f"train/{image.name}, valid/{name}" in found["augmented copy across splits"][0]
    assert found["augmented copy"][0].startswith("valid: 1 pictures are augmented copies")


def test_pictures_table_and_weights(data, tmp_path, capsys):
    assert main(["check", str(data), "--rgb-map", MAP, "--out", str(tmp_path / "out"), "--workers", "2"]) == 0
    table = capsys.readouterr().out
    assert "no findings" in table
    assert "lung" in table
    assert read_image(tmp_path / "out" / "statistics.png").std() > 10
    assert read_image(tmp_path / "out" / "samples.png").shape[1] == 3 * 196
    weights = yaml.safe_load((tmp_path / "out" / "class_weights.yaml").read_text())["model"]["class_weights"]
    assert list(weights) == list(PHANTOM_MAP.names)
    saved = json.loads((tmp_path / "out" / "check.json").read_text())
    assert weights == saved["class_weights"]
    pixels = {name: sum(s["pixels"][name] for s in saved["splits"].values()) for name in PHANTOM_MAP.names}
    masks = [read_mask(p, PHANTOM_MAP) for p in sorted(data.rglob("masks/*.png"))]
    assert pixels["lung"] == sum(int((mask == 3).sum()) for mask in masks)
    weights = saved["class_weights"]
    assert weights["trachea"] > weights["heart"] > weights["background"]
    assert np.mean(list(weights.values())) == pytest.approx(1, abs=1e-3)


def test_without_a_map_one_is_proposed(data, capsys):
    assert main(["check", str(data), "--json", "--workers", "0"]) == 0
    captured = capsys.readouterr()
    proposed = json.loads(captured.out)["rgb_map"]
    assert sorted(proposed.values()) == sorted(PHANTOM_MAP.to_dict().values())
    assert next(iter(proposed.items())) == ("background", [0, 0, 0])
    assert "no rgb_map was given" in captured.err


def test_fit_warns_of_copies_before_it_trains(data, flexunet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image, mask = _pair(data, "train", 2)
    for kind, path in (("images", image), ("masks", mask)):
        shutil.copy(path, data / "valid" / kind / "900_00.png")
        shutil.copy(path, data / "valid" / kind / f"hfliped_{path.name}")
    # fmt: off
    output = flexunet("fit", "--data.root", data, "--model.rgb_map", MAP, "--model.image_size", "[32, 32]",
                      "--model.network", "flexunet_pl.FlexUNet", "--model.network.init_args.num_layers", 2,
                      "--model.network.init_args.base_filters", 2, "--data.num_workers", 0, "--trainer.max_epochs", 1,
                      "--trainer.limit_train_batches", 1, "--trainer.enable_progress_bar", "false")
    # fmt: on
    warnings = [line for line in output.splitlines() if line.startswith("warning: ")]
    assert any("its copies lie in train and valid" in line for line in warnings)
    assert any(str(image) in line and "900_00.png: the same pixels" in line for line in warnings)


def test_processes_find_the_same_as_one(data):
    pairs = [("train", pair) for pair in list_pairs(data / "train")]
    one, two = ([repr(s) for s in scan_pairs(pairs, PHANTOM_MAP, None, workers)] for workers in (0, 2))
    assert one == two


def test_what_cannot_be_checked_is_one_line(tmp_path, data, mistake):
    assert "no such folder" in mistake("check", tmp_path / "none")
    assert "images: no such folder" in mistake("check", tmp_path)
    assert "finds a patient in none of the names" in mistake("check", data, "--group-regex", "^x")
    assert "is no regular expression" in mistake("check", data, "--group-regex", "(")
    assert "has no model.rgb_map" in mistake("check", data, "--experiment", _yaml(tmp_path))


def _yaml(folder):
    (folder / "x.yaml").write_text("data: 1\n")
    return folder / "x.yaml"


@pytest.mark.parametrize(
    ("stem", "source"),
    [
        ("barrdistorted_1002_0.3_0.3_76", "76"),
        ("pincdistorted_101_0.3_-0.3_a_7", "a_7"),
        ("hfliped_12", "12"),
        ("hvflipped_sheared_0_1_12", "12"),
        ("rotated_90_p1_3", "p1_3"),
        ("shrinked_0_8_12", "12"),
        ("deformed_alpha_1300_sigmoid_8_12", "12"),
        ("distorted_0.02_rsigma0.5_sigma40_12", "12"),
        ("sharpened_1.0_12", "12"),
        ("brightened_1.2_10_12", "12"),
        ("hfliped_rotated_90_12", "12"),
        ("12_34", None),
        ("rotated", None),
    ],
)
def test_copies_are_known_by_their_names(stem, source):
    assert copy_source(stem) == source


def test_groups_are_those_of_the_source(tmp_path):
    regex = parse_group_regex("^([0-9]+)_")
    assert group_of(tmp_path / "10_3.png", regex) == group_of(tmp_path / "hfliped_10_4.png", regex) == "10"
    assert group_of(tmp_path / "x.png", regex) is None


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "regex", "groups", "copies"),
    [
        ("Chest-CT-Subset", None, 0, 0),
        ("COVID-19", None, 0, 10),
        ("3D-Liver-Tumor", "^([0-9]+)_", 2, 0),
        ("Lung-Tumor", "^([0-9]+)_", 5, 0),
        ("NBM", None, 0, 0),
    ],
)
def test_real_sets(shared, capsys, name, regex, groups, copies):
    experiment = Path(__file__).parents[2] / "configs" / "experiment" / f"{name.lower()}.yaml"
    options = ["--group-regex", regex] if regex else []
    folder = shared / "real" / name
    main(["check", str(folder), "--experiment", str(experiment), "--json", "--workers", "0", *options])
    found = json.loads(capsys.readouterr().out)
    split = found["splits"]["all"]
    assert (len(split["groups"]), split["augmented_copies"]) == (groups, copies)
    if name == "Chest-CT-Subset":
        assert 0.15 < split["off_map_share"] < 0.25


def test_pictures_that_look_alike_across_splits_are_ranked_and_drawn_but_are_no_finding(data, tmp_path, capsys):
    source = sorted((data / "train" / "images").iterdir())[0]
    rng = np.random.default_rng(0)
    for number, noise in ((1, 40), (2, 25)):
        noisy = read_image(source) + rng.normal(8, noise, (96, 96, 1))
        write_image(data / "valid" / "images" / f"n{number}.png", noisy.clip(0, 255).astype(np.uint8))
        shutil.copy(data / "train" / "masks" / source.name, data / "valid" / "masks" / f"n{number}.png")
    out = tmp_path / "out"
    assert main(["check", str(data), "--rgb-map", MAP, "--out", str(out), "--workers", "0"]) == 0
    assert "most alike across splits" in capsys.readouterr().out
    ranked = json.loads((out / "check.json").read_text())["look_alikes"]
    assert [Path(image).stem for pair in ranked[:2] for image in pair["images"]] == [
        source.stem,
        "n2",
        source.stem,
        "n1",
    ]
    assert [pair["grey_levels"] for pair in ranked] == sorted(pair["grey_levels"] for pair in ranked)
    assert read_image(out / "look_alikes.png").shape[1] == 2 * 196


def test_masks_that_are_all_mirrored_are_found(phantoms, tmp_path, capsys):
    shutil.copytree(phantoms, tmp_path / "data")
    for mask in (tmp_path / "data").glob("*/masks/*.png"):
        picture = read_image(mask)
        write_image(mask, np.ascontiguousarray(picture[::-1]))
    assert main(["check", str(tmp_path / "data")]) == 1
    assert "masks fit their images better mirrored top-bottom" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("move", "how"),
    [
        (lambda mask: mask[::-1, ::-1], "turned by 180 degrees"),
        (np.rot90, "turned by 270 degrees"),  # which brings it back
        (lambda mask: np.rot90(mask, 3), "turned by 90 degrees"),
        (lambda mask: mask.transpose(1, 0, 2), "with rows and columns exchanged"),
    ],
)
def test_masks_that_are_all_turned_are_found(phantoms, tmp_path, capsys, move, how):
    shutil.copytree(phantoms, tmp_path / "data")
    for mask in (tmp_path / "data").glob("*/masks/*.png"):
        write_image(mask, np.ascontiguousarray(move(read_image(mask))))
    assert main(["check", str(tmp_path / "data")]) == 1
    assert f"masks fit their images better {how}, such as" in capsys.readouterr().out


def test_what_cannot_be_judged_is_said(data, capsys):
    blank(data / "valid")
    main(["check", str(data)])
    assert "note: whether they lie on their images was not judged of 6 of 30 masks" in capsys.readouterr().out
    blank(data / "train")
    main(["check", str(data)])
    assert "borders long enough and an image with edges, 8 are needed" in capsys.readouterr().out


def blank(split):
    """Take all that there is to see from its images."""
    for image in (split / "images").iterdir():
        write_image(image, np.full_like(read_image(image), 90))


def test_a_picture_that_exif_turns_and_its_mask_not_is_found_by_check_and_fit(phantoms, tmp_path, capsys):
    shutil.copytree(phantoms, tmp_path / "data")
    image = sorted((tmp_path / "data" / "train" / "images").iterdir())[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(image) as picture:
        picture.convert("RGB").save(image.with_suffix(".jpg"), exif=exif)
    image.unlink()
    said = f"{image.with_suffix('.jpg')}: EXIF turns it (orientation 6), and its mask {image.name} not alike (1)"
    assert main(["check", str(tmp_path / "data")]) == 1
    assert said in " ".join(capsys.readouterr().out.split())
    pairs = {"train": list_pairs(tmp_path / "data" / "train")}
    assert any(said in finding.message for finding in quick_check(pairs))
