"""`flexunet split`: whole patients, even classes, the same split whatever the order."""

import csv
import hashlib
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexunet_pl.io.images import read_image, write_image
from flexunet_pl.prepare.assign import assign_folds, assign_splits
from flexunet_pl.prepare.phantom import PHANTOM_MAP, write_phantom

MAP = json.dumps(PHANTOM_MAP.to_dict())
_CASES = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abc")), min_size=20, max_size=120)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """20 patients with 3 slices each, in one folder."""
    folder = tmp_path_factory.mktemp("whole")
    write_phantom(folder / "splits", patients=20, slices=3, size=64, seed=137)
    for kind in ("images", "masks"):
        (folder / "src" / kind).mkdir(parents=True)
        for path in folder.glob(f"splits/*/{kind}/*.png"):
            shutil.copy(path, folder / "src" / kind)
    return folder / "src"


def _sides(groups, places):
    return [{p for g, p in zip(groups, places, strict=True) if g == group} for group in set(groups)]


@given(_CASES, st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_no_group_is_on_two_sides_whatever_the_groups(cases, seed):
    groups, labels = [str(g) for g, _ in cases], [label for _, label in cases]
    if len(set(groups)) < 3:
        return
    assert all(len(sides) == 1 for sides in _sides(groups, assign_splits(labels, groups, seed)))
    assert set(assign_splits(labels, groups, seed)) == {"train", "valid", "test"}
    assert all(len(sides) == 1 for sides in _sides(groups, assign_folds(labels, groups, 3, seed)))


@given(_CASES, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_cases_has_no_influence(cases, shuffler):
    if len({g for g, _ in cases}) < 3:
        return
    order = list(range(len(cases)))
    shuffler.shuffle(order)
    places = assign_splits([c[1] for c in cases], [str(c[0]) for c in cases], 137)
    mixed = [cases[i] for i in order]
    shuffled = assign_splits([c[1] for c in mixed], [str(c[0]) for c in mixed], 137)
    assert {(cases[i][0], places[i]) for i in order} == {(c[0], p) for c, p in zip(mixed, shuffled, strict=True)}


def test_classes_are_spread_evenly_and_sizes_are_those_asked_for():
    rng = random.Random(1)
    groups = [f"p{i}" for i in range(200) for _ in range(5)]
    labels = [rng.choice(["with", "without", "without"]) for _ in groups]
    places = assign_splits(labels, groups, 137)
    sizes = Counter(places)
    assert {split: round(count / 1000, 2) for split, count in sizes.items()} == {
        "train": 0.8,
        "valid": 0.15,
        "test": 0.05,
    }
    shares = [sum(label == "with" for label, p in zip(labels, places, strict=True) if p == s) / sizes[s] for s in sizes]
    assert max(shares) - min(shares) < 0.12


def test_the_same_seed_gives_the_same_split_and_another_another():
    groups = [str(i) for i in range(60)]
    labels = ["a"] * 60
    assert assign_splits(labels, groups, 1) == assign_splits(labels, groups, 1)
    assert assign_splits(labels, groups, 1) != assign_splits(labels, groups, 2)


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_a_folder_is_split_by_patient(whole, tmp_path, flexunet, mode):
    out = tmp_path / "out"
    output = flexunet("split", whole, out, "--group-regex", "^([0-9]+)_", "--rgb-map", MAP, "--mode", mode)
    assert "train: 48 images in 16 groups" in output
    patients = {s: {p.stem[:3] for p in (out / s / "images").iterdir()} for s in ("train", "valid", "test")}
    assert [len(patients[s]) for s in ("train", "valid", "test")] == [16, 3, 1]
    assert len(set.union(*patients.values())) == 20
    for image in out.glob("*/images/*"):
        assert image.read_bytes() == (whole / "images" / image.name).read_bytes()
        assert (image.parents[1] / "masks" / image.name).is_file()
        assert image.is_symlink() == (mode == "link")
    rows = list(csv.DictReader((out / "split.csv").read_text().splitlines()))
    assert len(rows) == 60
    first = rows[0]
    source = whole / "images" / first["image"]
    assert first["image_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (out / first["place"] / "images" / first["image"]).is_file()
    assert first["group"] == first["image"][:3]


def test_links_lead_to_their_files_through_linked_folders(whole, tmp_path, flexunet):
    (tmp_path / "far" / "away" / "real").mkdir(parents=True)
    (tmp_path / "near").symlink_to(tmp_path / "far" / "away" / "real")
    flexunet("split", whole, tmp_path / "near" / "out", "--rgb-map", MAP, "--mode", "link")
    flexunet("split", whole, tmp_path / "near" / "folds", "--rgb-map", MAP, "--mode", "link", "--folds", 3)
    links = [p for d in ("out", "folds") for p in (tmp_path / "near" / d).rglob("*.png")]
    assert len(links) == 2 * 60 + 2 * 60 * 4
    assert all(link.is_file() for link in links)


def test_folds_are_taken_by_fit(whole, tmp_path, flexunet, mistake, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flexunet("split", whole, "folds", "--group-regex", "^([0-9]+)_", "--folds", 4)
    seen = Counter()
    for fold in range(4):
        train, valid = ({p.stem for p in Path(f"folds/fold_{fold}/{s}/images").iterdir()} for s in ("train", "valid"))
        assert len(train) + len(valid) == 60
        assert not {s[:3] for s in train} & {s[:3] for s in valid}
        seen.update(valid)
    assert set(seen.values()) == {1}
    # fmt: off
    fit = ("fit", "--data.root", "folds", "--model.rgb_map", MAP, "--model.image_size", "[32, 32]",
           "--model.network", "flexunet_pl.FlexUNet", "--model.network.init_args.num_layers", 2,
           "--model.network.init_args.base_filters", 2, "--data.num_workers", 0, "--trainer.max_epochs", 1,
           "--trainer.limit_train_batches", 2, "--trainer.enable_progress_bar", "false")
    # fmt: on
    flexunet(*fit, "--data.fold", 3)
    assert "no such fold" in mistake(*fit, "--data.fold", 4)


def test_copies_stay_with_their_source(whole, tmp_path, flexunet):
    source = shutil.copytree(whole, tmp_path / "src")
    for kind in ("images", "masks"):
        for path in sorted((source / kind).iterdir()):
            shutil.copy(path, path.with_name(f"hfliped_{path.name}"))
    flexunet("split", source, tmp_path / "out", "--rgb-map", MAP)
    for image in (tmp_path / "out").glob("*/images/hfliped_*"):
        assert image.with_name(image.name.removeprefix("hfliped_")).is_file()


def test_seeds_names_and_places_that_cannot_be_used_are_said(whole, tmp_path, mistake):
    for seed in (-1, 2**40):
        assert "below 2**32" in mistake("split", whole, tmp_path / "out", "--seed", seed)
    assert "lies in the input" in mistake("split", whole, tmp_path / ".." / whole.parent.name / whole.name / "sub")
    source = shutil.copytree(whole, tmp_path / "src")
    for kind in ("images", "masks"):
        first = sorted((source / kind).iterdir())[0]
        try:
            first.rename(first.with_name("00_\udce9.png"))
        except OSError:
            pytest.skip("this file system takes names in UTF-8 alone")
    assert "not in UTF-8" in mistake("split", source, tmp_path / "out", "--rgb-map", MAP)
    assert not (tmp_path / "out").exists()


def test_mistakes_are_one_line_and_leave_nothing(whole, tmp_path, mistake):
    out = tmp_path / "out"
    assert "finds no patient in this name" in mistake("split", whole, out, "--group-regex", "^x")
    assert "cannot be spread" in mistake("split", whole, out, "--group-regex", "()")
    assert "cannot be spread over 30 parts" in mistake(
        "split", whole, out, "--folds", 30, "--group-regex", "^([0-9]+)_"
    )
    assert "lies in the input" in mistake("split", whole, whole / "out")
    assert "no such folder" in mistake("split", tmp_path / "none", out)
    assert not out.exists()
    (out / "x").mkdir(parents=True)
    assert "is not empty" in mistake("split", whole, out)


def test_masks_with_other_colours_are_split_where_it_is_said_what_those_are(whole, tmp_path, flexunet, mistake):
    src = tmp_path / "src"
    shutil.copytree(whole, src)
    mask = read_image(src / "masks" / "000_00.png").copy()
    mask[20:30, 20:30] = (250, 120, 250)
    write_image(src / "masks" / "000_00.png", mask)
    options = ["--rgb-map", MAP, "--group-regex", "^([0-9]+)_"]
    assert "are no class of `rgb_map`" in mistake("split", src, tmp_path / "a", *options)
    flexunet("split", src, tmp_path / "b", *options, "--unknown-colors", "nearest")
    assert (tmp_path / "b" / "split.csv").is_file()
