"""Volumes: the same slices whatever the format and the orientation in the file; damage is an error, never zeros."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.volumes import check_same_grid, read_volume

ANGLE = 0.3
OBLIQUE = (np.cos(ANGLE), -np.sin(ANGLE), 0, np.sin(ANGLE), np.cos(ANGLE), 0, 0, 0, 1)


def make_image(seed=137, dtype=np.int16):
    values = np.random.default_rng(seed).normal(0, 300, (5, 6, 7)).astype(dtype)
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-11.0, 22.0, 33.0))
    image.SetDirection(OBLIQUE)
    return image, values


def write(image, path: Path, *, packed=False):
    SimpleITK.WriteImage(image, str(path), packed)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.nrrd"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_gives_the_values_and_the_grid(tmp_path, name, packed):
    image, values = make_image()
    volume = read_volume(write(image, tmp_path / name, packed=packed))
    np.testing.assert_array_equal(volume.values, values)
    np.testing.assert_allclose(volume.spacing_mm, (0.7, 0.8, 2.5), rtol=1e-6)
    np.testing.assert_allclose(volume.origin_mm, (-11, 22, 33), rtol=1e-5)
    np.testing.assert_allclose(volume.direction, OBLIQUE, atol=1e-6)


@pytest.mark.parametrize("code", ["RAS", "LPI", "SAR", "PIR", "ILA"])
def test_slices_are_axial_from_the_feet_and_stand_upright_whatever_the_order_in_the_file(tmp_path, code):
    image, values = make_image()
    volume = read_volume(write(SimpleITK.DICOMOrient(image, code), tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(volume.values, values)
    np.testing.assert_allclose(volume.origin_mm, (-11, 22, 33), rtol=1e-5)


def test_another_reader_puts_each_voxel_to_the_same_place(tmp_path):
    image, _ = make_image()
    path = write(SimpleITK.DICOMOrient(image, "RAS"), tmp_path / "a.nii")
    volume, theirs = read_volume(path), nibabel.load(path)
    i, j, k = 3, 1, 4
    x, y, z = theirs.affine @ (i, j, k, 1) @ np.diag([-1, -1, 1, 0])[:, :3]  # from R, A, S to L, P, S
    step = np.reshape(volume.direction, (3, 3)).T @ ((x, y, z) - np.asarray(volume.origin_mm)) / volume.spacing_mm
    column, row, number = np.rint(step).astype(int)
    np.testing.assert_allclose(step, np.rint(step), atol=1e-4)
    assert volume.values[number, row, column] == np.asarray(theirs.dataobj)[i, j, k]


@pytest.mark.case("E1")
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.nrrd"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_file_cut_short_is_refused(tmp_path, name, packed, share):
    whole = write(make_image()[0], tmp_path / f"whole_{name}", packed=packed).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=f"^{path}: .*(cut short|damaged|no NIfTI|no end)"):
        read_volume(path)


@pytest.mark.case("E3")
@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"NDims = 3", b"NDims = 333", "is invalid"),  # SimpleITK 2.5 crashes
        (b"NDims = 3", b"NDims = 2", "is invalid"),
        (b"NDims = 3", b"NDims = 3\nNDims = 333", "has a field twice"),
        (b"NDims = 3", b"", "is invalid"),
    ],
)
def test_the_dimensions_of_a_metaimage_are_those_of_its_size(tmp_path, old, new, why):
    path = write(make_image()[0], tmp_path / "a.mha")
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(DataError, match=f"^{path}: its header {why}"):
        read_volume(path)


@pytest.mark.case("E3")
def test_a_header_that_declares_terabytes_is_refused_unread(tmp_path):
    path = write(make_image()[0], tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    struct.pack_into("<3h", content, 42, 32767, 32767, 32767)
    path.write_bytes(content)
    with pytest.raises(DataError, match="over the limit"):
        read_volume(path)


@pytest.mark.case("E2")
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.nrrd"])
def test_voxels_that_are_not_finite_are_counted(tmp_path, name):
    image, values = make_image(dtype=np.float32)
    image[1, 2, 3] = float("nan")
    image[4, 2, 3] = float("inf")
    with pytest.raises(DataError, match=f"2 of {values.size} voxels are not finite"):
        read_volume(write(image, tmp_path / name))


@pytest.mark.case("E2")
@pytest.mark.parametrize(("offset", "form"), [(280, "<4f"), (80, "<4f")])
def test_an_affine_that_is_not_finite_is_refused(tmp_path, offset, form):
    path = write(make_image()[0], tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, *[float("nan")] * 4)
    path.write_bytes(content)
    with pytest.raises(DataError, match="affine is not finite"):
        read_volume(path)


@pytest.mark.case("E2")
def test_a_series_in_time_and_colours_are_refused(tmp_path):
    image, _ = make_image()
    with pytest.raises(DataError, match=r"7x6x5x2 voxels.*three dimensions"):
        read_volume(write(SimpleITK.JoinSeries([image, image]), tmp_path / "a.nii"))
    with pytest.raises(DataError, match="7x6x5x1x3 voxels"):
        read_volume(write(SimpleITK.Compose([image, image, image]), tmp_path / "b.nii"))
    with pytest.raises(DataError, match="3 values each"):
        read_volume(write(SimpleITK.Compose([image, image, image]), tmp_path / "b.mha"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nii", b"<html>not found</html>" * 40),
        ("a.nii.gz", gzip.compress(b"x" * 1000, mtime=0)),
        ("a.mha", b"NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = secret.raw\n"),
        ("a.nrrd", b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: secret.raw\n\n"),
        ("a.mha", b"BinaryData = True\nDimSize = 9 x\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"),
        ("a.txt", b""),
    ],
)
def test_what_is_no_volume_or_points_elsewhere_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "secret.raw").write_bytes(bytes(8))
    with pytest.raises(DataError, match=f"^{tmp_path / name}: "):
        read_volume(tmp_path / name)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_volume(tmp_path / "a.nii")


def write_series(folder: Path, values, step=2.5, leave_out=(), series="1.2.3.4"):
    folder.mkdir(exist_ok=True)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z, plane in enumerate(values):
        if z in leave_out:
            continue
        image = SimpleITK.GetImageFromArray(plane[None])
        image.SetSpacing((0.5, 0.5, step))
        tags = {"0008|0060": "CT", "0020|000d": "1.2.3", "0020|000e": series, "0020|0013": str(z)}
        tags |= {"0020|0032": f"0\\0\\{z * step}", "0020|0037": "1\\0\\0\\0\\1\\0"}
        for tag, text in tags.items():
            image.SetMetaData(tag, text)
        writer.SetFileName(str(folder / f"{len(values) - z:02d}_{series}.dcm"))
        writer.Execute(image)


def test_a_dicom_series_is_put_in_order_by_position(tmp_path):
    values = make_image()[1]
    write_series(tmp_path / "s", values)
    volume = read_volume(tmp_path / "s")
    np.testing.assert_array_equal(volume.values, values)
    np.testing.assert_allclose(volume.spacing_mm, (0.5, 0.5, 2.5))


def test_a_dicom_series_with_a_gap_or_a_second_one_beside_it_is_refused(tmp_path):
    values = make_image()[1]
    write_series(tmp_path / "gap", values, leave_out={2})
    with pytest.raises(DataError, match=r"slices 1 and 2 lie 5.00 mm apart"):
        read_volume(tmp_path / "gap")
    write_series(tmp_path / "two", values)
    write_series(tmp_path / "two", values, series="1.2.3.5")
    with pytest.raises(DataError, match="holds 2 DICOM series"):
        read_volume(tmp_path / "two")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds 0 DICOM series"):
        read_volume(tmp_path / "none")


@pytest.mark.case("E4")
def test_a_mask_on_another_grid_is_refused(tmp_path):
    image, _ = make_image()
    volume = read_volume(write(image, tmp_path / "a.nii"))
    image.SetOrigin((-11.0, 22.0, 35.5))
    with pytest.raises(DataError, match=r"origin_mm \(-11, 22, 35.5\) but its image has \(-11, 22, 33\)"):
        check_same_grid(tmp_path / "m.nii", read_volume(write(image, tmp_path / "m.nii")), volume)
    with pytest.raises(DataError, match=r"\(4, 6, 7\) voxels"):
        check_same_grid(tmp_path / "m.nii", read_volume(write(image[:, :, 1:], tmp_path / "m.nii")), volume)


@pytest.mark.parametrize("offset", [0.0, 300.0, 348.0, float(1 << 30)])
def test_voxels_that_begin_within_the_header_are_refused(tmp_path, offset):
    path = write(make_image()[0], tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[108:112] = struct.pack("<f", offset)
    path.write_bytes(content)
    with pytest.raises(DataError, match="puts the voxels at byte"):
        read_volume(path)


def test_a_kind_of_voxel_and_its_size_must_agree(tmp_path):
    path = write(make_image()[0], tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[72:74] = struct.pack("<h", 8)  # of 16-bit voxels
    path.write_bytes(content)
    with pytest.raises(DataError, match="header is invalid"):
        read_volume(path)


def test_whole_numbers_of_64_bits_are_read(tmp_path):
    for name in ("a.mha", "a.nrrd", "a.nii"):
        image, values = make_image(dtype=np.int64)
        np.testing.assert_array_equal(read_volume(write(image, tmp_path / name)).values, values)


def test_a_name_that_is_not_utf_8_is_refused_not_fatal(tmp_path):
    with pytest.raises(DataError, match="not in UTF-8"):
        read_volume(tmp_path / "p\udce9.nii")
