"""How the masks in a folder were made, and of which files: so that a prediction goes on, and nothing stale is kept."""

import csv
import json
from pathlib import Path
from typing import Any

from flexunet_runtime.errors import UserError
from flexunet_runtime.files import written_in_place

_NAME = "prediction.json"
_LOG = "predicted"  # .csv, one for each process


class Record:
    """Keeps ``prediction.json``, how masks are made, and ``predicted.csv``, a line per image or volume that is done.

    Args:
        folder: The output folder.
        content: How they are made, as plain data.
        option: What the option is called that does all again.
    """

    def __init__(self, folder: Path, content: dict[str, Any], option: str) -> None:
        self.folder = folder
        self.content: dict[str, Any] = json.loads(json.dumps(content))
        self._remedy = f"name another folder or give {option}"
        self._log = Path()

    def goes_on(self) -> bool:
        """Tell whether the folder was begun in the same way.

        Raises:
            UserError: If it holds something else.
        """
        # a record alone, or half of one, stands for nothing
        if not self.folder.is_dir() or not any(_NAME not in path.name for path in self.folder.iterdir()):
            return False
        path = self.folder / _NAME
        if not path.is_file():
            raise UserError(f"{self.folder}: is not empty; {self._remedy}")
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: is damaged; {self._remedy}") from error
        if before != self.content:
            old = before if isinstance(before, dict) else {}
            changed = [key for key in self.content if old.get(key) != self.content[key]]
            raise UserError(f"{self.folder}: holds masks made with another {' and '.join(changed)}; {self._remedy}")
        return True

    def done(self) -> dict[str, str]:
        """Return the names that are done, with the fingerprints of what they were made of."""
        done: dict[str, str] = {}
        for log in sorted(self.folder.glob(f"{_LOG}*.csv")):
            with log.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                done |= {row[0]: row[1] for row in csv.reader(file) if len(row) == 2}  # a crash may have cut the last
        return done

    def begin(self, rank: int = 0, *, again: bool) -> None:
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
            raise UserError(f"{self.folder}: cannot be made ({error.strerror}); name another output folder") from error

    def add(self, name: str, fingerprint: str) -> None:
        """Note that one is done.

        Args:
            name: What its file is called, without the suffix.
            fingerprint: Of what it was made of.
        """
        with self._log.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([name, fingerprint])
