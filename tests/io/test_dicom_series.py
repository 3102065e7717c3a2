"""DICOM series: values of each slice's own rescaling, one grid or none, and what lies beside the slices."""

import shutil

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from flexunet_pl.common.errors import DataError
from flexunet_pl.io.cases import list_cases, passed_over
from flexunet_pl.io.images import ImageReader
from flexunet_pl.io.volume_slices import SliceReader, SliceRules
from flexunet_pl.io.volumes import read_volume
from flexunet_runtime.window import Window
from tests.dicom import compress, write_object

SHAPE = (4, 20, 28)
STORED = np.random.default_rng(1).integers(0, 1000, SHAPE).astype(np.uint16)


def write_series(folder, slopes=(1,) * 4, intercepts=(-500,) * 4, step=(0, 0, 2.5), change=None):
    """A series; `change` gives other elements of a slice by its number."""
    for k, pixels in enumerate(STORED):
        elements = {
            "SeriesInstanceUID": "1.2.3.4", "Modality": "CT", "Rows": SHAPE[1], "Columns": SHAPE[2],
            "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16,
            "HighBit": 15, "PixelRepresentation": 0, "PixelData": pixels.tobytes(), "PixelSpacing": [0.8, 0.7],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [k * float(s) for s in step],
            "RescaleSlope": str(slopes[k]), "RescaleIntercept": str(intercepts[k]), "InstanceNumber": k + 1,
        } | ((change or {}).get(k) or {})  # fmt: skip
        write_object(folder / f"{k}.dcm", **elements)


@pytest.mark.parametrize(
    ("slopes", "intercepts"),
    [((1, 0.25, 0.003, 2), (0,) * 4), ((1,) * 4, (0, -500, -500, -500)), ((1,) * 4, (-500,) * 4)],
)
def test_voxels_are_stored_values_times_the_slope_of_their_own_slice(tmp_path, slopes, intercepts):
    write_series(tmp_path / "s", slopes, intercepts)
    found = read_volume(tmp_path / "s").values
    for k, plane in enumerate(found):
        header = pydicom.dcmread(tmp_path / "s" / f"{k}.dcm")
        expected = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
        np.testing.assert_allclose(plane, expected, atol=1e-3)


def test_the_grid_is_that_of_the_slices(tmp_path):
    write_series(tmp_path / "s")
    volume = read_volume(tmp_path / "s")
    assert volume.values.shape == SHAPE
    assert volume.spacing_mm == pytest.approx((0.7, 0.8, 2.5))
    assert volume.origin_mm == pytest.approx((0, 0, 0))
    assert np.array_equal(volume.values, STORED.astype(int) - 500)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"step": (0, 1.5, 4)}, r"gantry tilted by 20\.6 degrees"),
        ({"change": {2: {"ImageOrientationPatient": [0.9986, 0.0523, 0, -0.0523, 0.9986, 0]}}}, "slice 3 is turned"),
        ({"change": {2: {"PixelSpacing": [1.0, 1.0]}}}, "the pixel spacing changes from"),
        ({"change": {2: {"ImagePositionPatient": [0.9, 0, 5]}}}, "slice 3 does not lie at an equal step"),
        ({"change": {3: {"ImagePositionPatient": [0, 0, 12]}}}, "the series is not complete"),
        ({"change": {2: {"ImagePositionPatient": [0, 0, 2.5]}}}, "at one place: copies, or two phases"),
    ],
)
def test_slices_that_lie_on_no_grid_are_refused_by_the_true_reason(tmp_path, options, reason):
    write_series(tmp_path / "s", **options)
    with pytest.raises(DataError, match=reason) as refused:
        read_volume(tmp_path / "s")
    assert "damaged" not in str(refused.value)


@pytest.mark.parametrize(
    ("sop_class", "kind"),
    [
        ("1.2.840.10008.5.1.4.1.1.481.3", "RT Structure Set"),
        ("1.2.840.10008.5.1.4.1.1.88.11", "Basic Text SR"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "Grayscale Softcopy Presentation State"),
    ],
)
def test_objects_without_pixels_are_passed_over_and_counted(tmp_path, sop_class, kind):
    write_series(tmp_path / "s")
    write_object(tmp_path / "s" / "other.dcm", sop_class, Modality="OT")
    assert read_volume(tmp_path / "s").values.shape == SHAPE
    assert [case.name for case in list_cases(tmp_path)] == ["s"]
    assert passed_over(tmp_path) == {kind: 1}


def test_what_is_passed_over_is_counted_by_suffix(tmp_path):
    write_series(tmp_path / "s")
    for name in ("a.nhdr", "b.nhdr", "notes", ".hidden", "c.img", "d.img", "d.hdr"):
        (tmp_path / name).write_bytes(b"x")
    assert passed_over(tmp_path) == {".nhdr": 2, "without suffix": 1, ".img": 1}  # d.img belongs to its header


def enhanced(positions, slopes, pixels, **elements):
    """Elements of an enhanced CT: one file, each frame with a place and a rescaling of its own."""
    groups = []
    for position, slope in zip(positions, slopes, strict=True):
        place, values, group = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, position]
        values.RescaleSlope, values.RescaleIntercept = slope, -1000
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [place], [values]
        groups.append(group)
    measures, turn, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.7], 2.5
    turn.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turn]
    return {
        "SeriesInstanceUID": "1.2.3.4", "Modality": "CT", "Rows": SHAPE[1], "Columns": SHAPE[2], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
        "PixelRepresentation": 0, "NumberOfFrames": len(groups), "PixelData": np.asarray(pixels).tobytes(),
        "SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": groups,
    } | elements  # fmt: skip


def test_frames_of_an_enhanced_ct_are_put_in_order_each_with_its_own_rescaling(tmp_path):
    order, slopes = [2, 0, 3, 1], [1, 0.5, 2, 3]
    elements = enhanced([2.5 * k for k in order], slopes, STORED[order])
    write_object(tmp_path / "e" / "a.dcm", EnhancedCTImageStorage, **elements)
    for source in (tmp_path / "e", tmp_path / "e" / "a.dcm"):
        volume = read_volume(source)
        for k, slope in zip(order, slopes, strict=True):
            np.testing.assert_allclose(volume.values[k], STORED[k] * slope - 1000.0, rtol=1e-6)
        assert volume.spacing_mm == pytest.approx((0.7, 0.8, 2.5))
    assert [case.name for case in list_cases(tmp_path)] == ["e"]
    assert [case.is_volume for case in list_cases(tmp_path / "e" / "a.dcm")] == [True]


def test_two_phases_in_one_enhanced_file_and_frames_without_a_place_are_named(tmp_path):
    twice = enhanced([0, 2.5, 0, 2.5], (1,) * 4, STORED)
    write_object(tmp_path / "two" / "a.dcm", EnhancedCTImageStorage, **twice)
    with pytest.raises(DataError, match="at one place: copies, or two phases"):
        read_volume(tmp_path / "two")
    film = {key: value for key, value in twice.items() if "FunctionalGroups" not in key}
    write_object(tmp_path / "film" / "a.dcm", "1.2.840.10008.5.1.4.1.1.3.1", **film)
    with pytest.raises(DataError, match="holds 4 frames that do not say where they lie"):
        read_volume(tmp_path / "film")


def test_localizers_captures_and_segmentations_are_passed_over_two_scans_are_named(tmp_path):
    write_series(tmp_path / "s")
    kinds = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout = {"ImageType": kinds, "SeriesInstanceUID": "1.9", "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    write_series(tmp_path / "scout", change=dict.fromkeys(range(4), scout))
    (tmp_path / "scout" / "0.dcm").rename(tmp_path / "s" / "scout.dcm")
    write_object(tmp_path / "s" / "screen.dcm", "1.2.840.10008.5.1.4.1.1.7", Rows=9, Columns=9, Modality="CT")
    write_object(tmp_path / "s" / "seg.dcm", "1.2.840.10008.5.1.4.1.1.66.4", Rows=9, Columns=9)
    assert np.array_equal(read_volume(tmp_path / "s").values, STORED.astype(int) - 500)
    shutil.rmtree(tmp_path / "scout")
    assert passed_over(tmp_path) == {"localizer": 1, "Secondary Capture Image": 1, "Segmentation": 1}
    two = {k: {"SeriesInstanceUID": "1.8", "SeriesNumber": 7, "SeriesDescription": "thin"} for k in range(4)}
    write_series(tmp_path / "t", change=two)
    (tmp_path / "t" / "0.dcm").rename(tmp_path / "s" / "other.dcm")
    with pytest.raises(DataError, match=r"holds 2 DICOM series \(7: thin\), .*; give a folder with one"):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1], ids=lambda uid: uid.keyword
)
def test_compressed_slices_are_the_values_that_were_compressed(tmp_path, syntax):
    write_series(tmp_path / "s")
    for path in (tmp_path / "s").iterdir():
        compress(path, syntax)
    assert np.array_equal(read_volume(tmp_path / "s").values, STORED.astype(int) - 500)


def test_a_deflated_file_is_refused_by_name_unread(tmp_path):
    write_series(tmp_path / "s")
    path = tmp_path / "s" / "1.dcm"
    item = pydicom.dcmread(path)
    item.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    item.save_as(path, enforce_file_format=True)
    with pytest.raises(DataError, match=r"1\.dcm: is deflated, which is not read"):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize(("slope", "intercept"), [(1, -500), (2, 10), (0.5, 0)])
def test_hounsfield_units_of_monochrome1_are_not_inverted(tmp_path, slope, intercept):
    inverted = {k: {"PhotometricInterpretation": "MONOCHROME1"} for k in range(4)}
    write_series(tmp_path / "s", (slope,) * 4, (intercept,) * 4, change=inverted)
    expected = STORED.astype(float) * slope + intercept
    np.testing.assert_allclose(read_volume(tmp_path / "s").values, expected, atol=1e-2)


def test_radiographs_stand_for_themselves(tmp_path):
    for name in ("a.dcm", "b.dcm"):
        write_object(
            tmp_path / "x" / name, "1.2.840.10008.5.1.4.1.1.1.1", Modality="DX", Rows=20, Columns=28, SamplesPerPixel=1,
            PhotometricInterpretation="MONOCHROME2", BitsAllocated=16, BitsStored=12, HighBit=11, PixelRepresentation=0,
            PixelData=STORED[0].tobytes(), SeriesInstanceUID="1.2.3.9",
        )  # fmt: skip
    write_series(tmp_path / "x" / "s")
    cases = list_cases(tmp_path / "x")
    assert [(case.name, case.is_volume) for case in cases] == [("a", False), ("b", False), ("s", True)]
    assert list_cases(tmp_path / "x" / "a.dcm")[0].name == "a"
    reader = SliceReader(ImageReader((8, 8), 1, Window(0, 1000)), SliceRules())
    assert np.array_equal(reader.read(cases[0], 0)[..., 0], Window(0, 1000).apply(STORED[0]))
    assert passed_over(tmp_path) == {}
