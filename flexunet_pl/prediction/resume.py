"""How the masks in a folder were made, and of which files: so that a prediction goes on, and nothing stale is kept."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flexunet_pl.common.errors import UserError
from flexunet_pl.common.files import sha256_of, written_in_place
from flexunet_pl.io.cases import Case, fingerprint

_NAME = "prediction.json"
_LOG = "predicted"  # .csv, one for each process


def result_path(folder: Path, case: Case) -> Path:
    """Return the file for the mask of a case.

    Args:
        folder: The output folder.
        case: An image, or a volume.
    """
    suffix = ".npy" if case.is_array else ".nii.gz" if case.is_volume else ".png"
    return folder / f"{case.name}{suffix}"


class PredictionRecord:
    """Keeps ``prediction.json``, the checkpoint and the settings, and ``predicted.csv``, a line per case that is done.

    Args:
        folder: The output folder.
        checkpoint: The checkpoint, or None where the weights come from elsewhere.
        settings: By section of the configuration.
    """

    def __init__(self, folder: Path, checkpoint: str | Path | None, settings: dict[str, Any]) -> None:
        self.folder = folder
        digest = None
        if checkpoint and Path(checkpoint).is_file():
            digest = sha256_of(Path(checkpoint))
        self.content: dict[str, Any] = json.loads(json.dumps({"checkpoint_sha256": digest, **settings}))
        self._log = Path()

    def goes_on(self) -> bool:
        """Tell whether the folder was begun in the same way.

        Raises:
            UserError: If it holds something else.
        """
        # a record alone, or half of one, stands for nothing
        if not self.folder.is_dir() or not any(_NAME not in path.name for path in self.folder.iterdir()):
            return False
        remedy = "name another folder or give --prediction.overwrite true"
        path = self.folder / _NAME
        if not path.is_file():
            raise UserError(f"{self.folder}: is not empty; {remedy}")
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: is damaged; {remedy}") from error
        if before != self.content:
            old = before if isinstance(before, dict) else {}
            changed = [key for key in self.content if old.get(key) != self.content[key]]
            raise UserError(f"{self.folder}: holds masks made with another {' and '.join(changed)}; {remedy}")
        return True

    def left(self, cases: Sequence[Case]) -> list[Case]:
        """Return the cases that are not done, or have changed since.

        Args:
            cases: All cases.
        """
        done: dict[str, str] = {}
        for log in sorted(self.folder.glob(f"{_LOG}*.csv")):
            with log.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                done |= {row[0]: row[1] for row in csv.reader(file) if len(row) == 2}  # a crash may have cut the last
        return [
            case
            for case in cases
            if done.get(case.name) != fingerprint(case) or not result_path(self.folder, case).is_file()
        ]

    def begin(self, rank: int, *, again: bool) -> None:
        """Write the record, and forget what was done where all is done again.

        Args:
            rank: Number of this process; the first one writes.
            again: Whether all is done again.

        Raises:
            UserError: If the folder cannot be written to.
        """
        self._log = self.folder / f"{_LOG}{rank or ''}.csv"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if rank:
                return
            for log in self.folder.glob(f"{_LOG}*.csv") if again else ():
                log.unlink()
            with written_in_place(self.folder / _NAME) as temporary:
                temporary.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be made ({error.strerror}); name another prediction.output_dir"
            ) from error

    def add(self, case: Case) -> None:
        """Note that a case is done.

        Args:
            case: The case, all of whose files are written.
        """
        with self._log.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([case.name, fingerprint(case)])
