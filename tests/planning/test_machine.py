import json

import pytest

from flexunet_pl.common.errors import UserError
from flexunet_pl.planning.machine import describe_machine, measure_machine, read_machine


def test_timings_are_taken_kept_and_given_back(tmp_path):
    machine = measure_machine(3, 1, longest=100, startup=5.0)
    assert [timing.side for timing in machine.timings] == [96]
    assert machine.timings[0].forward < machine.timings[0].step
    assert machine.timings[0].memory > 96 * 96 * 16 * 4  # at least one layer's features
    machine.save(tmp_path / "a.json")
    assert read_machine(tmp_path / "a.json") == machine
    assert dict(describe_machine(machine))["machine"].endswith("GiB free")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"timings": []},
        {"timings": [{"side": 96, "step": -1, "forward": 1, "memory": 1}]},
        {"timings": [{"side": 96}]},
        {"cores": "2"},
        {"precision": "64-true"},
        {"surprise": 1},
    ],
)
def test_other_files_are_refused(tmp_path, change):
    timing = {"side": 96, "step": 0.1, "forward": 0.1, "memory": 10}
    content = {"format": 1, "device": "cpu", "name": "", "cores": 2, "memory": 10, "precision": "32-true"}
    content |= {"speedup": 1.0, "startup": 5.0, "augmentation": 0.1, "timings": [timing], **change}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"a\.json: holds no timings of flexunet plan"):
        read_machine(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\x00"])
def test_damaged_files_are_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match="holds no timings"):
        read_machine(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_machine(tmp_path / "b.json")
