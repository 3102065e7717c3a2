"""Downloads: a folder and its zip archive give the same; an archive cannot write anywhere, nor fill the disk."""

import os
import stat
import zipfile
from pathlib import Path

import pytest

from flexunet_pl.common.errors import DataError
from flexunet_pl.prepare.raw_files import RawFiles

FILES = {"top/a.txt": b"a", "top/deep/b.txt": b"bb", "top/._a.txt": b"mac", "__MACOSX/a.txt": b"mac", ".hidden": b""}


def make_zip(path: Path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_folder_and_its_archive_hold_the_same(tmp_path):
    for name, content in FILES.items():
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(content)
    folder, archive = RawFiles(tmp_path / "raw"), RawFiles(make_zip(tmp_path / "raw.zip", FILES))
    assert folder.names == archive.names == ["top/a.txt", "top/deep/b.txt"]
    for raw in (folder, archive):
        with raw.local("top/deep/b.txt") as path:
            assert (path.name, path.read_bytes()) == ("b.txt", b"bb")
        with raw.local("top/deep/") as path:
            assert [p.read_bytes() for p in path.iterdir()] == [b"bb"]
    assert not path.exists(), "what was unpacked is gone"


@pytest.mark.case("G9")
@pytest.mark.parametrize("name", ["../x", "top/../../x", "/etc/x", "..\\x", "C:/x", "top\\..\\..\\x", "a\0../x"])
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    path = tmp_path / "raw.zip"
    member = zipfile.ZipInfo("xxxx")
    member.filename = name  # ZipInfo itself would correct it
    member.orig_filename = name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, b"x")
    with pytest.raises(DataError, match="leaves the folder; refused"):
        RawFiles(path)


@pytest.mark.case("G9")
@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(tmp_path, kind):
    member = zipfile.ZipInfo("link")
    member.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match="link or a device"):
        RawFiles(tmp_path / "raw.zip")


@pytest.mark.case("G9")
@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb"])
def test_names_that_are_none_are_one_line(tmp_path, name):
    path = tmp_path / "raw.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x" * len(name), b"x")
    path.write_bytes(path.read_bytes().replace(b"x" * len(name), name.encode()))
    with pytest.raises(DataError, match=r"has a name that is none; refused$"):
        RawFiles(path)


@pytest.mark.case("G9")
def test_a_bomb_is_refused_unread(tmp_path):
    path = tmp_path / "raw.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.nii", "w") as member:
        for _ in range(1100):
            member.write(bytes(1 << 20))
    with pytest.raises(DataError, match="would unpack to 1 GiB"):
        RawFiles(path)


def test_a_member_whose_bytes_are_damaged_is_named(tmp_path):
    path = make_zip(tmp_path / "raw.zip", {"a.bin": os.urandom(5000)})
    content = bytearray(path.read_bytes())
    content[2000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"its member a\.bin is damaged"), RawFiles(path).local("a.bin"):
        pass


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_in_packed_bytes_is_named_too(tmp_path, method):
    path = tmp_path / "raw.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.bin", b"some words " * 5000)
    content = bytearray(path.read_bytes())
    start = 30 + len("a.bin")
    content[start + 4 : start + 16] = b"\xff" * 12
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"its member a\.bin is damaged"), RawFiles(path).local("a.bin"):
        pass


def test_a_long_name_is_no_obstacle(tmp_path):
    name = "x" * 300 + ".nii.gz"
    path = make_zip(tmp_path / "raw.zip", {name: b"content"})
    with RawFiles(path).local(name) as place:
        assert place.read_bytes() == b"content"
        assert place.name.endswith(".nii.gz")


@pytest.mark.case("G9")
def test_passwords_twins_and_other_files_are_refused(tmp_path):
    content = bytearray(make_zip(tmp_path / "raw.zip", {"a": b"a"}).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(content)
    with pytest.raises(DataError, match="has a password"):
        RawFiles(tmp_path / "locked.zip")
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"2")
    with pytest.raises(DataError, match="twice"):
        RawFiles(tmp_path / "twice.zip")
    (tmp_path / "a.tar").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="unpack other archives yourself"):
        RawFiles(tmp_path / "a.tar")
    with pytest.raises(DataError, match="no such folder"):
        RawFiles(tmp_path / "absent")
