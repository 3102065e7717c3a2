"""The files of a download, from its folder or straight out of its zip archive."""

import errno
import hashlib
import lzma
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath

from flexunet_pl.common.errors import DataError

MAX_MEMBERS = 1_000_000
MAX_RATIO = 100  # unpacked to packed bytes, over the whole archive; a mask alone may pack better
_SMALL = 1 << 30  # bytes unpacked, below which the ratio does no harm


class RawFiles:
    """What lies under a folder or in a zip archive.

    A member of an archive is unpacked alone, to a temporary file, for as long as it is read: names in the archive are
    never places on the disk.

    Args:
        root: The folder or the archive.

    Raises:
        DataError: If it is missing, or an archive that is damaged, or that has names which leave its folder, links,
            passwords or absurd sizes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if root.is_dir():
            names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        elif root.exists():
            names = [member.filename for member in _open_archive(root).infolist() if not member.is_dir()]
        else:
            raise DataError(f"{root}: no such folder or zip archive")
        hidden = ("._", ".DS_Store", "__MACOSX/")  # what a Mac leaves behind
        self.names = sorted(n for n in names if not n.startswith(hidden) and not PurePosixPath(n).name.startswith("."))

    def fingerprint(self, name: str) -> str:
        """Tell a file from another one of the same name: by its size and its beginning, or by its check sum.

        Args:
            name: Name below the root; a folder ends with a slash.

        Returns:
            16 hexadecimal digits.
        """
        names = [n for n in self.names if n.startswith(name)] if name.endswith("/") else [name]
        digest = hashlib.sha256()
        for part in names:
            if self.root.is_dir():
                path = self.root / part
                with path.open("rb") as file:
                    digest.update(f"{path.stat().st_size} ".encode() + file.read(1 << 16))
            else:
                member = _open_archive(self.root).getinfo(part)
                digest.update(f"{member.file_size} {member.CRC} ".encode())
        return digest.hexdigest()[:16]

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Give a file, or a folder that ends with a slash, as a path, for as long as it is read.

        Args:
            name: Name below the root.

        Yields:
            The path.

        Raises:
            DataError: If it cannot be unpacked.
        """
        if self.root.is_dir():
            yield self.root / name
            return
        with tempfile.TemporaryDirectory(prefix="flexunet-") as folder:
            # the end of a name alone: it tells the kind of file
            place = Path(folder) / PurePosixPath(name).name[-40:]
            if name.endswith("/"):
                place.mkdir()
                for number, member in enumerate(n for n in self.names if n.startswith(name)):
                    self._unpack(member, place / f"{number:06d}")
            else:
                self._unpack(name, place)
            yield place

    def _unpack(self, name: str, target: Path) -> None:
        try:
            with _open_archive(self.root).open(name) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
                raise
            raise DataError(f"{self.root}: its member {name} is damaged ({error}); download it again") from error


_DAMAGE = (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error, lzma.LZMAError, OSError, ValueError)


@lru_cache(maxsize=1)  # in each worker process: to read the list of members takes time
def _open_archive(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:  # a name may be no UTF-8
        raise DataError(
            f"{path}: is no folder and no whole zip archive ({error}); unpack other archives yourself"
        ) from error
    try:
        _check_archive(path, archive.infolist())
    except DataError:
        archive.close()
        raise
    return archive


def _check_archive(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{path}: has {len(members)} members, over the limit of {MAX_MEMBERS}; refused")
    seen: set[str] = set()
    for member in members:
        # ZipFile has cut the name at a NUL and turned back-slashes; what it was stands in orig_filename
        parts = PurePosixPath(member.orig_filename.replace("\\", "/")).parts
        kind = stat.S_IFMT(member.external_attr >> 16)
        if ".." in parts or parts[:1] == ("/",) or ":" in member.orig_filename or "\0" in member.orig_filename:
            raise DataError(f"{path}: its member {member.orig_filename!r} leaves the folder; refused")
        if not member.filename or any(ord(letter) < 32 for letter in member.filename):
            raise DataError(f"{path}: its member {member.orig_filename!r} has a name that is none; refused")
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise DataError(f"{path}: its member {member.filename!r} is a link or a device; refused")
        if member.flag_bits & 1:
            raise DataError(f"{path}: its member {member.filename!r} has a password; unpack it yourself")
        if member.filename in seen:
            raise DataError(f"{path}: has the member {member.filename!r} twice; refused")
        seen.add(member.filename)
    unpacked, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if unpacked > _SMALL and unpacked > MAX_RATIO * packed:
        raise DataError(f"{path}: would unpack to {unpacked / 2**30:.0f} GiB, {unpacked // max(1, packed)}:1; refused")
