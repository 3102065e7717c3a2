"""DICOM Segmentation objects: each voxel of the series it was made from, and names in any script."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import EnhancedCTImageStorage

from flexunet_pl.io.volumes import read_volume
from flexunet_pl.prediction.dicom_seg import write_dicom_seg
from flexunet_pl.rgb_map import RgbMap
from tests.dicom import write_object
from tests.io.test_dicom_series import SHAPE, STORED, enhanced, write_series

NAMES = RgbMap.parse({"фон": [0, 0, 0], "肺": [0, 0, 255], "الورم": [255, 0, 0], "x" * 90: [0, 255, 0]})
STUDY = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.3.9", "PatientName": "a^b"}


def classes_by_place(path):
    """Class per voxel of a written object, by the height at which a frame lies."""
    written = pydicom.dcmread(path)
    found = {}
    frames = written.pixel_array.reshape(-1, *SHAPE[1:])
    for frame, group in zip(frames, written.PerFrameFunctionalGroupsSequence, strict=True):
        height = float(group.PlanePositionSequence[0].ImagePositionPatient[2])
        number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        found.setdefault(height, np.zeros(SHAPE[1:], int))[frame > 0] = number
    return written, found


@pytest.mark.parametrize("kind", ["series", "enhanced"])
def test_segments_lie_on_their_slices_and_are_named_in_any_script(tmp_path, kind):
    source = tmp_path / "s"
    if kind == "series":
        write_series(source, change=dict.fromkeys(range(SHAPE[0]), STUDY))
    else:
        order = [2, 0, 3, 1]
        elements = enhanced([2.5 * k for k in order], [1] * 4, STORED[order], **STUDY)
        elements |= {"ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "InstanceNumber": 1}
        write_object(source / "a.dcm", EnhancedCTImageStorage, **elements)
    volume = read_volume(source)
    labels = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    write_dicom_seg(tmp_path / "seg.dcm", labels, source, volume, NAMES)
    written, found = classes_by_place(tmp_path / "seg.dcm")
    assert [segment.SegmentLabel for segment in written.SegmentSequence] == ["肺", "الورم", "x" * 64]
    for k in range(SHAPE[0]):
        assert np.array_equal(found[2.5 * k], labels[k]), k
