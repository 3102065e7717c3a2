"""The same facts give the same plan; more time buys larger images."""

from dataclasses import replace
from pathlib import Path

import pytest

from flexunet_pl.common.errors import UserError
from flexunet_pl.planning.choices import make_plan
from flexunet_pl.planning.data_facts import ClassFacts, DataFacts, describe_data
from flexunet_pl.planning.machine import Machine, Timing
from flexunet_pl.planning.peers import make_peer_plan
from flexunet_pl.planning.plan import describe_plan
from flexunet_pl.rgb_map import RgbMap

MAP = RgbMap.parse({"background": [0, 0, 0], "liver": [0, 255, 0], "tumour": [255, 0, 0]})
DATA = DataFacts(
    images={"train": 20, "valid": 5},
    read=20,
    patients={"train": 4, "valid": 1},
    size=(512, 512),
    one_size=True,
    is_grey=True,
    grey=(0.0, 200.0),
    classes={
        "background": ClassFacts(0.9, 20, 100_000),
        "liver": ClassFacts(0.09, 20, 2000),
        "tumour": ClassFacts(0.01, 8, 60),
    },
    without_foreground=0,
    is_numbered=False,
)
MACHINE = Machine(
    device="cpu",
    name="",
    cores=2,
    memory=8 * 2**30,
    precision="bf16-mixed",
    speedup=1.7,
    startup=8.0,
    augmentation=0.05,
    timings=tuple(Timing(side, 1.5e-6 * side**2, 0.5e-6 * side**2, 600 * side**2) for side in (96, 128, 256, 512)),
)


def plan(minutes=10.0, data=DATA, machine=MACHINE):
    return make_plan(Path("/data"), MAP, data, machine, minutes)


def test_the_same_facts_give_the_same_plan_with_a_reason_behind_what_is_chosen():
    one, two = plan(), plan()
    assert one == two
    assert {"model.image_size", "data.batch_size", "trainer.max_time", "trainer.precision"} <= one.reasons.keys()
    assert next(iter(one.config["model"])) == "rgb_map"


def test_more_time_buys_larger_images():
    sides = [plan(minutes).config["model"]["image_size"][0] for minutes in (1, 3, 10, 60, 600)]
    assert sides == sorted(sides)
    assert sides[0] < sides[-1] == 512


def test_many_images_are_trained_with_batch_norm_and_light_augmentation():
    few, many = plan(), plan(data=replace(DATA, images={"train": 2000, "valid": 5}))
    for found, norm, name in ((few, False, "StrongCTAugmentation"), (many, True, "CTAugmentation")):
        assert found.config["model"]["network"]["init_args"]["normalization"] is norm
        assert found.config["data"]["train_transform"]["class_path"].endswith(f".{name}")


def test_the_time_is_that_from_the_key_press():
    assert plan().config["trainer"]["max_time"] == "00:00:09:49"
    assert plan().config["trainer"]["max_epochs"] == -1


def test_images_keep_their_shape_and_colours():
    model = plan(data=replace(DATA, size=(600, 800), is_grey=False)).config["model"]
    height, width = model["image_size"]
    assert height / width == pytest.approx(0.75, abs=0.05)
    assert model["in_channels"] == 3
    assert all(side % 2 ** (model["network"]["init_args"]["num_layers"] - 1) == 0 for side in (height, width))


def test_empty_images_are_drawn_less_often():
    assert "foreground_share" not in plan().config["data"]
    assert plan(data=replace(DATA, without_foreground=15)).config["data"]["foreground_share"] == 0.5


def test_what_memory_cannot_hold_is_read_from_the_disk():
    assert plan().config["data"]["cache"] == "ram"
    assert plan(data=replace(DATA, images={"train": 10**6, "valid": 5})).config["data"]["cache"] == "disk"


def test_the_largest_size_fits_the_memory():
    small = replace(MACHINE, memory=400 * 2**20)
    chosen = plan(600, machine=small)
    assert chosen.config["model"]["image_size"] == [256, 256]
    assert chosen.expected.memory < small.memory


@pytest.mark.parametrize(
    ("minutes", "machine", "message"),
    [
        (0.1, MACHINE, r"--minutes 0\.1 is too short for 10 steps here; give 0\.\d or more"),
        (10, replace(MACHINE, memory=2**24), r"0\.0 GiB of memory are free, but training needs"),
    ],
)
def test_too_little_is_said_with_what_would_do(minutes, machine, message):
    with pytest.raises(UserError, match=message):
        plan(minutes, machine=machine)


def test_what_cannot_be_known_is_said():
    assert len(plan().open_questions) == 1
    assert "horizontal_flip" in plan().open_questions[0]
    assert "--group-regex" in plan(data=replace(DATA, patients=None)).open_questions[1]
    assert "data.neighbours 1 with model.in_channels 3" in plan(data=replace(DATA, is_numbered=True)).open_questions[1]
    (_, lost) = plan(1).open_questions
    assert lost.startswith("small parts of tumour have 2 px at this size, and may be lost: model.patches true")


def test_the_table_names_the_classes_and_what_is_expected():
    rows = dict([*describe_data(DATA), *describe_plan(plan())])
    assert rows["tumour"] == "1.00% of the pixels, in 8 images, small parts of 60 px"
    assert "steps" in rows["expected"]
    assert "of 4 and 1 patients" in rows["data"]


@pytest.mark.parametrize("like", ["nnunet", "original"])
def test_the_choices_of_others_know_of_the_machine_nothing_but_time_and_precision(like):
    one = make_peer_plan(like, Path("/data"), MAP, DATA, MACHINE, 10)
    two = make_peer_plan(like, Path("/data"), MAP, DATA, replace(MACHINE, timings=MACHINE.timings[:1]), 10)
    assert one == two
    assert one.expected is None
    assert one.config["trainer"]["max_time"] == "00:00:09:52"


def test_nnunet_halves_until_four_pixels_are_left():
    arguments = make_peer_plan("nnunet", Path("/data"), MAP, DATA, MACHINE, 10).config["model"]
    assert arguments["image_size"] == [512, 512]
    assert len(arguments["network"]["init_args"]["strides"]) == 8
    small = make_peer_plan("nnunet", Path("/data"), MAP, replace(DATA, size=(100, 70)), MACHINE, 10).config["model"]
    assert small["image_size"] == [96, 64]
    assert len(small["network"]["init_args"]["strides"]) == 5
