"""Kinds of volume files: each read right, labels where their image lies, or refused by its true name."""

import nibabel
import numpy as np
import pytest
import SimpleITK

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.cases import list_cases, passed_over
from flexunet_pl.io.volumes import read_volume, read_volume_shape, write_volume

TURN = np.deg2rad(12)
SFORM = np.array(
    [[np.cos(TURN), -np.sin(TURN), 0, -40], [np.sin(TURN), np.cos(TURN), 0, -30], [0, 0, 1, 20], [0, 0, 0, 1]]
)
QFORM = np.array([[-1.0, 0, 0, 60], [0, 1, 0, -30], [0, 0, 1, 0], [0, 0, 0, 1]])


def save(path, sform, qform, codes=(1, 1)):
    values = np.random.default_rng(0).integers(0, 100, (12, 10, 5)).astype(np.int16)
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.set_sform(sform, codes[0])
    image.set_qform(qform, codes[1])
    nibabel.save(image, path)
    return values


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("codes", [(4, 1), (2, 1), (1, 1)])
def test_a_label_has_both_affines_of_its_image(tmp_path, name, codes):
    values = save(tmp_path / name, SFORM, QFORM, codes)
    volume = read_volume(tmp_path / name)
    write_volume(tmp_path / "label.nii.gz", (volume.values > 50).astype(np.uint8), volume)
    image, label = nibabel.load(tmp_path / name), nibabel.load(tmp_path / "label.nii.gz")
    np.testing.assert_allclose(label.get_sform(), image.get_sform(), atol=1e-4)
    np.testing.assert_allclose(label.get_qform(), image.get_qform(), atol=1e-4)
    assert (int(label.header["sform_code"]), int(label.header["qform_code"])) == codes
    assert np.array_equal(np.asarray(label.dataobj), values > 50)


def test_affines_that_agree_or_stand_alone_do_not_disagree(tmp_path):
    for name, forms in {"same": (QFORM, QFORM), "one": (SFORM, QFORM, (1, 0)), "both": (SFORM, QFORM)}.items():
        save(tmp_path / f"{name}.nii.gz", *forms)
        assert read_volume(tmp_path / f"{name}.nii.gz").forms_disagree == (name == "both")


SHEARED = np.array([[0.7, 0.2, 0, -40], [0, 0.8, 0.9, -30], [0, 0, 2.5, 20], [0, 0, 0, 1]])


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_a_sheared_volume_is_read_and_its_label_is_sheared_alike(tmp_path, flip):
    affine = SHEARED @ np.diag([*flip, 1])
    values = save(tmp_path / "a.nii.gz", affine, affine, (1, 0))
    volume = read_volume(tmp_path / "a.nii.gz")
    write_volume(tmp_path / "label.nii.gz", (volume.values > 50).astype(np.uint8), volume)
    label = nibabel.load(tmp_path / "label.nii.gz")
    np.testing.assert_allclose(label.affine, affine, atol=1e-5)
    assert np.array_equal(np.asarray(label.dataobj), values > 50)


def test_the_label_of_a_sheared_nrrd_is_sheared_too(tmp_path):
    path = tmp_path / "a.nrrd"
    head = "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\nencoding: raw\n"
    axes = "space directions: (1,0,0) (0.3,1,0) (0,0,1)\nspace origin: (5,0,0)\n\n"
    path.write_bytes(f"{head}{axes}".encode() + bytes(range(8)))
    volume = read_volume(path)
    write_volume(tmp_path / "label.nii.gz", volume.values, volume)
    label = nibabel.load(tmp_path / "label.nii.gz")
    expected = [[-1, -0.3, 0, -5], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(label.affine, expected, atol=1e-6)
    assert not read_volume(tmp_path / "label.nii.gz").forms_disagree
    assert np.asarray(label.dataobj)[:, 1, 1].tolist() == [6, 7]


@pytest.mark.parametrize("slope", [None, 0.5])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (nibabel.Nifti1Image, "a.nii.gz"),
        (nibabel.Nifti2Image, "a.nii"),
        (nibabel.Nifti1Pair, "a.hdr"),
        (nibabel.Nifti2Pair, "a.hdr"),
        (nibabel.MGHImage, "a.mgz"),
        (nibabel.MGHImage, "a.mgh"),
    ],
)
def test_each_kind_of_file_gives_the_voxels_that_nibabel_gives(tmp_path, kind, name, slope):
    values = np.random.default_rng(1).integers(-500, 500, (7, 6, 5)).astype(np.int16)
    image = kind(values, SHEARED if kind is not nibabel.MGHImage else np.diag([-0.7, 0.8, 2.5, 1]))
    if slope is not None and kind is not nibabel.MGHImage:
        image.header.set_slope_inter(slope, 3)
    nibabel.save(image, tmp_path / name)
    theirs = nibabel.load(tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert read_volume_shape(tmp_path / name) == volume.values.shape
    write_volume(tmp_path / "back.nii.gz", volume.values, volume)
    back = nibabel.load(tmp_path / "back.nii.gz")
    np.testing.assert_allclose(back.affine, theirs.affine, atol=1e-5)
    np.testing.assert_allclose(back.get_fdata(), theirs.get_fdata(), atol=1e-3)


@pytest.mark.parametrize("packed", [False, True])
def test_a_metaimage_header_is_read_with_the_voxels_beside_it(tmp_path, packed):
    values = np.random.default_rng(1).integers(-500, 500, (5, 6, 7)).astype(np.int16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), tmp_path / "a.mhd", packed)
    assert np.array_equal(read_volume(tmp_path / "a.mhd").values, values)
    voxels = next(file for file in tmp_path.iterdir() if file.suffix != ".mhd")
    assert [case.path.name for case in list_cases(tmp_path)] == ["a.mhd"]
    assert passed_over(tmp_path) == {}
    with pytest.raises(DataError, match=r"holds the voxels of a\.mhd; name that file"):
        list_cases(voxels)
    voxels.write_bytes(voxels.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"cut short|damaged"):
        read_volume(tmp_path / "a.mhd")
    voxels.unlink()
    with pytest.raises(DataError, match=rf"a\.mhd: its voxels are not beside it; copy {voxels.name} here"):
        read_volume(tmp_path / "a.mhd")


@pytest.mark.parametrize("named", ["../secret.raw", "/etc/passwd", "sub/x.raw", "LIST", "a%03d.raw 1 5 1"])
def test_voxels_elsewhere_are_not_followed(tmp_path, named):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((2, 2, 2), np.uint8)), tmp_path / "a.mhd")
    text = (tmp_path / "a.mhd").read_text()
    (tmp_path / "a.mhd").write_text(text.replace("ElementDataFile = a.raw", f"ElementDataFile = {named}"))
    with pytest.raises(DataError, match=r"a\.mhd: keeps its voxels in another file"):
        read_volume(tmp_path / "a.mhd")


def test_analyze_headers_and_headers_without_voxels_are_named(tmp_path):
    nibabel.save(nibabel.AnalyzeImage(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "a.hdr")
    with pytest.raises(DataError, match=r"a\.hdr: is an Analyze 7\.5 header"):
        read_volume(tmp_path / "a.hdr")
    nibabel.save(nibabel.Nifti1Pair(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "b.hdr")
    (tmp_path / "b.img").unlink()
    with pytest.raises(DataError, match=r"b\.hdr: its voxels are not beside it; copy b\.img here"):
        read_volume(tmp_path / "b.hdr")
