"""What is predicted, and where it goes: settled before the first image is read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from flexunet_pl.common.console import say
from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.io.cases import Case, list_cases, passed_over
from flexunet_pl.io.volume_slices import SliceRules, count_slices
from flexunet_pl.models.inference import Inference
from flexunet_pl.prediction.dicom_seg import require_highdicom
from flexunet_pl.prediction.resume import PredictionRecord

SUBFOLDERS = ("overlays", "probabilities", "uncertainty")

_OF_A_CALL = ("output_dir", "overwrite", "flag_below")  # settings that change no file of a case
_OF_VOLUME = ("slices", "masks", "overlays", "probabilities")  # folders in that of a volume


@dataclass(frozen=True)
class PredictionOutput:
    """Where masks go, and what is written beside them.

    One palette PNG is written per image, of the image's own size, under its stem, and one label volume per volume: a
    NIfTI file that lies where the volume lies, or an array for an array. A folder that was begun with the same
    checkpoint and settings is gone on with: what is there is not predicted again.

    Args:
        output_dir: Folder for the masks; other files go to folders in it, those of a volume to one of its name.
        overlay: Whether to write pictures with the classes tinted and a legend, in ``overlays``.
        probabilities: Whether to write ``probabilities/<stem>.npz`` too (`probabilities`, float32, K x H x W).
        slices: Whether to write the slices of volumes and their masks as pictures, in ``slices`` and ``masks``.
        video: Whether to write the overlays of a volume as a film, ``overlays.gif`` or ``overlays.mp4``.
        dicom_seg: Whether to write a DICOM Segmentation object for each DICOM series.
        overwrite: Whether a folder that is not empty may be written to, and all of it predicted again.
        flag_below: Trust, 0..1, below which a case is flagged for a human in ``confidence.csv``, which lists how far
            each mask can be trusted.
    """

    output_dir: Path | None = None
    overlay: bool = False
    probabilities: bool = False
    slices: bool = False
    video: Literal["none", "gif", "mp4"] = "none"
    dicom_seg: bool = False
    overwrite: bool = False
    flag_below: float | None = None

    def check(self, source: Path) -> Path:
        """Refuse a place that cannot be written to, or what cannot be written.

        Args:
            source: The images: a folder or a file.

        Returns:
            The folder.

        Raises:
            UserError: If there is none, it is a file, or it holds the images; or if a package is missing.
        """
        folder = self.output_dir
        if folder is None:
            raise UserError("prediction.output_dir is missing: name the folder for the masks")
        if self.dicom_seg:
            require_highdicom()
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file; name a folder as prediction.output_dir")
        images = (source.parent if source.is_file() else source).resolve()
        if folder.resolve() == images:
            raise UserError(f"{folder}: holds the images, which the masks would replace; name another output_dir")
        if source.is_dir() and images in folder.resolve().parents:
            raise UserError(
                f"{folder}: lies in the folder of the images, which is looked through; name one outside of it"
            )
        return folder


@dataclass(frozen=True)
class PredictionPlan:
    """What is left to predict, of all processes, and this one's part of it.

    Attributes:
        cases: Images and volumes that are left.
        done: How many were there already.
        pictures: Of this process: case, and number of the slice; those of a volume in a row.
        unusable: Files of this process's part that cannot be predicted, and why.
        record: What was made of which file; None where nothing is written.
    """

    cases: tuple[Case, ...]
    done: int
    pictures: tuple[tuple[Case, int], ...]
    unusable: dict[str, str]
    record: PredictionRecord | None

    @cached_property
    def slices(self) -> Counter[str]:
        """Number of pictures of each case of this process, by path."""
        return Counter(str(case.path) for case, _ in self.pictures)


def plan_prediction(
    source: Path,
    rules: SliceRules,
    output: PredictionOutput | None,
    inference: Inference,
    checkpoint: str | Path | None,
    process: tuple[int, int] = (0, 1),
    *,
    windowed: bool = False,
) -> PredictionPlan:
    """Find what there is to predict, and leave out what is done. Nothing is written.

    Args:
        source: A folder of images and volumes, with all below it, or one file.
        rules: How volumes are cut.
        output: Where the masks go; None where they are not written.
        inference: How the network is applied.
        checkpoint: File of the weights, where it is known.
        process: Rank of this process and number of all.
        windowed: Whether there is a window for volumes even where the rules name none.

    Returns:
        The plan.

    Raises:
        UserError: If the output folder cannot be used, or holds something else.
        DataError: If there is nothing to predict.
    """
    folder = output.check(source) if output is not None else None
    cases, record = list_cases(source), None
    todo = cases
    if output is not None and folder is not None:
        twin = _colliding(cases)
        if twin is not None:
            raise UserError(f"{twin.path}: its folder has the name of one of our own; rename it, or predict it alone")
        made = {key: value for key, value in asdict(output).items() if key not in _OF_A_CALL}
        settings: dict[str, Any] = {"prediction": made, "inference": asdict(inference), "volume": asdict(rules)}
        record = PredictionRecord(folder, checkpoint, settings)
        if not output.overwrite and record.goes_on():
            todo = record.left(cases)
    first = next((case for case in cases if case.is_volume), None)
    if first is not None and not windowed and rules.window is None:
        raise UserError(
            f"{first.path}: the checkpoint does not say which values of a volume become black and white; give those of "
            "the training, such as --data.volume.window '[-160, 240]', or --data.volume.window slice, as in the "
            "original: each slice from its own lowest to its own highest value"
        )
    if output is not None and not process[0]:
        _say_what_is_passed_over(source)
    pictures: list[tuple[Case, int]] = []
    unusable: dict[str, str] = {}
    rank, world_size = process
    for case in todo[rank::world_size]:
        try:
            pictures += [(case, number) for number in range(count_slices(case, rules))]
        except DataError as error:
            unusable[str(case.path)] = str(error)
    return PredictionPlan(tuple(todo), len(cases) - len(todo), tuple(pictures), unusable, record)


def _say_what_is_passed_over(source: Path) -> None:
    others = passed_over(source) if source.is_dir() else {}
    if others:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        say(f"note: {sum(others.values())} passed over: {listed}")


def _colliding(cases: Sequence[Case]) -> Case | None:
    """Return a case whose mask would lie where other files of a prediction may lie, if there is one."""
    volumes = {case.name for case in cases if case.is_volume}
    for case in cases:
        parts = Path(case.name).parts
        inside = any("/".join(parts[:i]) in volumes and parts[i] in _OF_VOLUME for i in range(1, len(parts) - 1))
        if (
            inside
            or (parts[0] in SUBFOLDERS and len(parts) > 1)
            or case.name.removesuffix(".uncertainty") in volumes - {case.name}
        ):
            return case
    return None
