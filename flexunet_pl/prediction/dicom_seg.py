"""Label volumes as DICOM Segmentation objects, for viewers and archives that speak DICOM."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.common.files import written_in_place
from flexunet_pl.io.dicom_series import find_series
from flexunet_pl.io.volumes import Volume, to_file_order
from flexunet_pl.rgb_map import RgbMap

_PACKAGE = "flexunet-pl"
# elements that the standard lets be empty but not be missing, and that anonymizers remove
_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_LONGEST_LABEL = 64  # letters


def require_highdicom() -> None:
    """Check that highdicom is installed.

    Raises:
        UserError: If it is not.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise UserError(
            "DICOM SEG is written by highdicom, which is missing; `pip install 'flexunet-pl[dicom]'`"
        ) from error


def write_dicom_seg(
    path: Path, labels: NDArray[np.uint8], series: Path, like: Volume, rgb_map: RgbMap, comment: str = ""
) -> None:
    """Write a DICOM Segmentation object that refers to the series it was made from; one binary segment per class.

    Args:
        path: The file, ending in ``.dcm``.
        labels: Class index per voxel, shape ``(D, H, W)``, as `read_volume` turns it.
        series: Folder of the DICOM series.
        like: The volume that was read from it.
        rgb_map: The classes; the background has no segment.
        comment: What stands there as its Image Comments.

    Raises:
        DataError: If the series lacks what the standard asks for, such as the patient's data.
    """
    try:
        segmentation = _make_segmentation(labels, series, like, rgb_map)
        if comment:
            segmentation.ImageComments = comment
    except (AttributeError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{series}: no DICOM SEG can be made of it ({reason}); leave prediction.dicom_seg out"
        ) from error
    with written_in_place(path) as temporary:
        segmentation.save_as(temporary)


def _make_segmentation(labels: NDArray[np.uint8], series: Path, like: Volume, rgb_map: RgbMap) -> Any:
    import highdicom
    import pydicom
    from highdicom.color import CIELabColor
    from pydicom.sr.codedict import codes

    found = find_series(series)
    sources = [pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in found.files]
    for source in sources:
        for keyword in _EMPTY:
            if keyword not in source:
                setattr(source, keyword, "")
        if not source.get("SliceThickness"):
            source.SliceThickness = like.spacing_mm[2]
    # frames of one file stay in its order
    order = np.argsort([here.frame for here in found.slices], kind="stable")
    values = to_file_order(labels, like).transpose(2, 1, 0)[order]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="flexunet_pl", version=version(_PACKAGE), family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:_LONGEST_LABEL],
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.MorphologicallyAbnormalStructure,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            display_color=CIELabColor.from_rgb(*rgb_map.colors[number]),
        )
        for number, name in enumerate(rgb_map.names[1:], start=1)
    ]
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=values,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=900,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="flexunet_pl",
        manufacturer_model_name="flexunet_pl",
        software_versions=version(_PACKAGE),
        device_serial_number="0",
        series_description="flexunet_pl segmentation",
        specific_character_set="ISO_IR 192",  # UTF-8: classes are named in any script
    )
