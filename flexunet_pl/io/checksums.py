"""data.lock: the SHA-256 of every file of a data set, so that one that changes is noticed whatever its format."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flexunet_pl.common.errors import DataError
from flexunet_pl.common.files import sha256_of, written_in_place
from flexunet_pl.io.pairs import Pair

NAME = "data.lock"

_MAX_BYTES = 500_000_000  # some three million files
_LINE = re.compile(r"([0-9a-f]{64})  ([^\\\n]+)")  # the format of sha256sum, which checks it with -c


def write_lock(root: Path, pairs: Sequence[Pair]) -> int:
    """Write ``data.lock`` into a data set.

    Args:
        root: The data set's folder.
        pairs: Its images and masks, which lie below it.

    Returns:
        The number of files.

    Raises:
        DataError: If a file's name holds a line break or backslash.
    """
    found = _hash(root, pairs)
    for name in found:
        if "\n" in name or "\\" in name:
            raise DataError(f"{root / name}: has a line break or backslash in its name; rename it")
    with written_in_place(root / NAME) as temporary:
        temporary.write_text("".join(f"{digest}  {name}\n" for name, digest in found.items()), encoding="utf-8")
    return len(found)


def find_changes(root: Path, pairs: Sequence[Pair]) -> list[str]:
    """Compare files with ``data.lock``, where the data set has one.

    Args:
        root: The data set's folder.
        pairs: The images and masks to compare, all of their folders; of other folders nothing is said.

    Returns:
        One line for each file that was changed, added or removed.

    Raises:
        DataError: If the lock is damaged.
    """
    if not (root / NAME).is_file():
        return []
    known, found = _read(root / NAME), _hash(root, pairs)
    folders = {name.rpartition("/")[0] for name in found}
    problems = {
        name: "is not there any more" for name in known if name not in found and name.rpartition("/")[0] in folders
    }
    problems |= {name: "was added" for name in found if name not in known}
    problems |= {name: "was changed" for name, digest in found.items() if known.get(name, digest) != digest}
    return [f"{root / name}: {problems[name]} since {NAME} was written" for name in sorted(problems)]


def _hash(root: Path, pairs: Sequence[Pair]) -> dict[str, str]:
    files = [path for pair in pairs for path in pair]
    with ThreadPoolExecutor() as threads:  # hashing leaves other threads alone
        digests = list(threads.map(_hash_file, files))
    return {path.relative_to(root).as_posix(): digest for path, digest in zip(files, digests, strict=True)}


def _hash_file(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _read(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: has more than {_MAX_BYTES // 10**6} MB, which no data set needs; remove it")
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); write it again with flexunet check --lock") from error
    known = {}
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{path}, line {number}: is no hash and name; write it again with flexunet check --lock")
        known[match[2]] = match[1]
    return known
