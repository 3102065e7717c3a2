"""NIfTI files whose two affines disagree: labels lie on their image for readers of either."""

import nibabel
import numpy as np
import pytest

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.nifti_forms import read_forms
from flexunet_pl.io.volumes import read_volume, write_volume

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


def test_affines_that_agree_or_stand_alone_are_left_to_the_reader(tmp_path):
    save(tmp_path / "same.nii.gz", QFORM, QFORM)
    save(tmp_path / "one.nii.gz", SFORM, QFORM, (1, 0))
    assert read_forms(tmp_path / "same.nii.gz") is None
    assert read_forms(tmp_path / "one.nii.gz") is None


def test_a_sheared_affine_is_named_as_what_it_is(tmp_path):
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    image = nibabel.Nifti1Image(np.zeros((8, 8, 4), np.int16), np.eye(4))
    image.set_sform(sheared, 1)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=r"a\.nii\.gz: its affine is sheared") as refused:
        read_volume(tmp_path / "a.nii.gz")
    assert "damaged" not in str(refused.value)
