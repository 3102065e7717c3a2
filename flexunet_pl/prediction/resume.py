"""What of a prediction is done, by checkpoint, settings and files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flexunet_pl.common.checkpoint_set import checkpoint_files, checkpoint_sha256
from flexunet_pl.io.cases import Case, fingerprint
from flexunet_runtime.record import Record


def result_path(folder: Path, case: Case) -> Path:
    """Return the file for the mask of a case.

    Args:
        folder: The output folder.
        case: An image, or a volume.
    """
    suffix = ".npy" if case.is_array else ".nii.gz" if case.is_volume else ".png"
    return folder / f"{case.name}{suffix}"


class PredictionRecord(Record):
    """Keeps the checkpoint and the settings of a prediction, and which cases are done.

    Args:
        folder: The output folder.
        checkpoint: The checkpoint, or None where the weights come from elsewhere.
        settings: By section of the configuration.
    """

    def __init__(self, folder: Path, checkpoint: str | Path | None, settings: dict[str, Any]) -> None:
        digest = (
            checkpoint_sha256(checkpoint)
            if checkpoint and all(map(Path.is_file, checkpoint_files(checkpoint)))
            else None
        )
        super().__init__(folder, {"checkpoint_sha256": digest, **settings}, "--prediction.overwrite true")

    def left(self, cases: Sequence[Case]) -> list[Case]:
        """Return the cases that are not done, or have changed since.

        Args:
            cases: All cases.
        """
        done = self.done()
        return [
            case
            for case in cases
            if done.get(case.name) != fingerprint(case) or not result_path(self.folder, case).is_file()
        ]

    def add_case(self, case: Case) -> None:
        """Note that a case is done.

        Args:
            case: The case, all of whose files are written.
        """
        self.add(case.name, fingerprint(case))
