"""The files of a prediction: masks, label volumes, overlays, probabilities, uncertainty, films."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_pl.common.console import say
from flexunet_pl.common.files import written_in_place
from flexunet_pl.io.arrays import write_array
from flexunet_pl.io.cases import Case
from flexunet_pl.io.images import write_image
from flexunet_pl.io.masks import write_mask
from flexunet_pl.io.overlays import add_legend, draw_overlay
from flexunet_pl.io.volume_slices import SliceReader, join_slices, read_case
from flexunet_pl.io.volumes import Volume, write_volume
from flexunet_pl.models.inference import Answer
from flexunet_pl.prediction.dicom_seg import write_dicom_seg
from flexunet_pl.prediction.plan import PredictionOutput
from flexunet_pl.prediction.resume import result_path
from flexunet_pl.prediction.video import write_video
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.confidence import Confidence


def write_image_result(
    folder: Path, case: Case, answer: Answer, source: SliceReader, rgb_map: RgbMap, output: PredictionOutput
) -> None:
    """Write the files of an image.

    Args:
        folder: The output folder.
        case: The image.
        answer: What the network says of it, on the CPU.
        source: Reads it once more, for the overlay.
        rgb_map: The classes.
        output: What is written beside the mask.
    """
    mask = answer.mask.numpy()
    if output.overlay:
        picture = add_legend(draw_overlay(source.read(case, 0), mask, rgb_map), rgb_map)
        write_image(folder / "overlays" / f"{case.name}.png", picture)
    if output.probabilities:
        _write_probabilities(folder / "probabilities" / f"{case.name}.npz", answer)
    if answer.uncertainty is not None:
        write_image(folder / "uncertainty" / f"{case.name}.png", _as_grey(answer.uncertainty.numpy()))
    write_mask(result_path(folder, case), mask, rgb_map)


class VolumeResult:
    """Collects what the network says of the slices of a volume, and writes it.

    Args:
        folder: The output folder.
        case: The volume.
        source: Reads it once more, for its geometry and pictures.
        rgb_map: The classes.
        output: What is written beside the label volume.
    """

    def __init__(
        self, folder: Path, case: Case, source: SliceReader, rgb_map: RgbMap, output: PredictionOutput
    ) -> None:
        self.folder = folder
        self.case = case
        self.source = source
        self.rgb_map = rgb_map
        self.output = output
        self.masks: list[NDArray[np.uint8]] = []
        self.uncertainty: list[NDArray[np.float16]] = []
        self.confidence: Confidence  # of the slices so far; its writer sets it

    def add(self, answer: Answer) -> None:
        """Take the next slice.

        Args:
            answer: On the CPU.
        """
        self.masks.append(answer.mask.numpy())
        if self.output.probabilities:
            path = self.folder / self.case.name / "probabilities" / f"{len(self.masks):04}.npz"
            _write_probabilities(path, answer)
        if answer.uncertainty is not None:
            self.uncertainty.append(answer.uncertainty.numpy().astype(np.float16))  # a volume of them is kept

    def finish(self, comment: str) -> None:
        """Write all but the probabilities, which are written slice by slice.

        Args:
            comment: How far the volume can be trusted, for those who look at a DICOM Segmentation.
        """
        volume = read_case(self.case, self.source.rules)
        if volume.forms_disagree:
            say(f"note: {self.case.path}: sform and qform disagree; the label has both as they are")
        labels = join_slices(self.masks, self.source.rules)
        target = result_path(self.folder, self.case)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._write_values(target, labels, volume)
        if self.uncertainty:
            values = join_slices(self.uncertainty, self.source.rules).astype(np.float32)
            suffix = ".npy" if self.case.is_array else ".nii.gz"
            self._write_values(target.with_name(f"{Path(self.case.name).name}.uncertainty{suffix}"), values, volume)
        if self.output.dicom_seg and self.case.is_dicom:
            path = target.with_name(f"{Path(self.case.name).name}.seg.dcm")
            write_dicom_seg(path, labels, self.case.path, volume, self.rgb_map, comment)
        self._write_pictures()

    def _write_values(self, path: Path, values: NDArray[Any], volume: Volume) -> None:
        if self.case.is_array:
            write_array(path, values)
        else:
            write_volume(path, values, volume)

    def _write_pictures(self) -> None:
        place, output = self.folder / self.case.name, self.output
        if not (output.slices or output.overlay or output.video != "none"):
            return
        frames = []
        for number, mask in enumerate(self.masks):
            picture, name = self.source.read(self.case, number), f"{number + 1:04}.png"
            overlay = add_legend(draw_overlay(picture, mask, self.rgb_map), self.rgb_map)
            if output.slices:
                write_image(place / "slices" / name, picture[..., 0] if picture.shape[2] == 1 else picture)
                write_mask(place / "masks" / name, mask, self.rgb_map)
            if output.overlay:
                write_image(place / "overlays" / name, overlay)
            if output.video != "none":
                frames.append(overlay)
        if frames:
            place.mkdir(parents=True, exist_ok=True)
            write_video(place / f"overlays.{output.video}", frames)


def _write_probabilities(path: Path, answer: Answer) -> None:
    arrays = {"probabilities": answer.probabilities.numpy()}
    if answer.uncertainty is not None:
        arrays["uncertainty"] = answer.uncertainty.numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_in_place(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _as_grey(share: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(share * 255).astype(np.uint8)
