"""data.lock: a file that was changed is named, also where its format cannot tell."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from flexunet_pl.cli.main import main
from flexunet_pl.common.errors import DataError
from flexunet_pl.io.checksums import find_changes, write_lock
from flexunet_pl.io.images import read_image
from flexunet_pl.io.pairs import list_pairs
from flexunet_pl.prepare.phantom import PHANTOM_MAP

MAP = json.dumps(PHANTOM_MAP.to_dict())


@pytest.fixture
def data(phantoms, tmp_path):
    root = Path(shutil.copytree(phantoms, tmp_path / "data"))
    image = root / "train" / "images" / "000_00.png"
    Image.open(image).save(image.with_suffix(".tif"))
    image.unlink()
    return root


def pairs_of(root, *splits):
    return [pair for split in splits for pair in list_pairs(root / split)]


@pytest.mark.case("C2")
def test_flipped_bytes_of_an_uncompressed_tiff_are_noticed_by_the_lock_alone(data, capsys, workspace, mistake):
    image = data / "train" / "images" / "000_00.tif"
    check = ["check", str(data), "--rgb-map", MAP, "--workers", "0"]
    assert main([*check, "--lock"]) == 0
    assert "data.lock written, with 36 files" in capsys.readouterr().err
    before = read_image(image)
    content = image.read_bytes()
    image.write_bytes(content[:2000] + bytes(b ^ 0xFF for b in content[2000:2064]) + content[2064:])
    assert (read_image(image) != before).any()  # it is decoded, and is another picture
    line = mistake("fit", "-c", "c.yaml", "--data.root", data)
    assert f"{image}: was changed since data.lock was written; restore it" in line
    assert not (workspace / "runs").exists()
    assert main([*check, "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [finding["kind"] for finding in findings] == ["changed file"]
    assert main([*check, "--lock"]) == 0


def test_files_that_come_and_go_are_named_within_the_splits_that_were_asked_for(data):
    assert find_changes(data, pairs_of(data, "train")) == []  # no lock
    pairs = pairs_of(data, "train", "valid", "test")
    assert write_lock(data, pairs) == 36
    assert find_changes(data, pairs) == []
    shutil.rmtree(data / "test")
    gone, new = list_pairs(data / "train")[3], data / "train" / "images" / "new.png"
    for path, other in zip(gone, (new, data / "train" / "masks" / "new.png"), strict=True):
        path.rename(other)
    changes = find_changes(data, pairs_of(data, "train", "valid"))
    assert len(changes) == 4
    assert f"{gone.image}: is not there any more since data.lock was written" in changes
    assert f"{new}: was added since data.lock was written" in changes


def test_the_lock_is_what_sha256sum_checks(data):
    write_lock(data, pairs_of(data, "train"))
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    assert subprocess.run(["sha256sum", "--check", "--quiet", "data.lock"], cwd=data, check=False).returncode == 0  # noqa: S607


def test_a_data_set_with_broken_files_gets_no_lock(data, capsys):
    (data / "valid" / "images" / next((data / "valid" / "images").iterdir())).write_bytes(b"")
    assert main(["check", str(data), "--rgb-map", MAP, "--workers", "0", "--lock"]) == 1
    assert "not written: 1 of the findings" in capsys.readouterr().err
    assert not (data / "data.lock").exists()


@pytest.mark.parametrize(
    "content", [b"x", b"\xff\xfe", b"0" * 64 + b" a", hashlib.sha256().hexdigest().encode() + b"  a\\nb\n"]
)
def test_a_damaged_lock_is_named(data, content):
    (data / "data.lock").write_bytes(content)
    with pytest.raises(DataError, match=r"data\.lock.*: .*write it again with flexunet check --lock"):
        find_changes(data, pairs_of(data, "valid"))
