"""Photos in an archive of this machine: read where they lie, never unpacked to a disk.

An archive is as little to be trusted as a folder that strangers write to. Its names lead nowhere,
for nothing is written; an entry is read up to the size that it declares, and rejected by itself
where it is a link, encrypted, or would unpack to many times its size.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import stat
import struct
import tarfile
import weakref
import zipfile
import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Any

from fruits_assets.core.errors import SourceError
from fruits_assets.sources.layout import Labels
from fruits_assets.sources.leftovers import first_hidden
from fruits_assets.sources.listing import Listing, Row, found_files, listing_of
from fruits_assets.sources.reading import read_ahead
from fruits_assets.sources.store import PhotoStore
from fruits_assets.sources.walk import NO_UTF8, leads_out, moment, plain, printable
from fruits_assets.storage.opening import CHANGED, NOT_REGULAR, open_regular

PASS_BYTES = 2**26
"""Photos that one pass through a compressed archive collects: as many as a part holds."""
RATIO = 300
"""An entry, or a compressed archive, that unpacks to more than so many times its size is a bomb."""
SMALL = 2**20
"""Bytes that anything may unpack to, whatever its ratio."""
BLOCK = 2**16
"""Bytes that are read of a compressed archive at once."""
HEADERS = 2**20
"""Bytes that the headers of one entry of a tar file may have: they are held in memory."""
BOMB = (
    f"it would unpack to more than {RATIO} times its size, as bombs do: if it is a photo, pack it "
    "without compression"
)
ENCRYPTED = "it is encrypted: pack it again without a password"
LEADS_OUT = (
    "its name is absolute or holds `..`, and so leads out of the archive: pack it again by a name "
    "inside"
)
LINK = "it is a link: pack the file itself"
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)
"""Errors that libraries raise for archives that contradict themselves."""


@dataclass(frozen=True)
class Member:
    """An entry of an archive that is not a folder.

    Attributes:
        name: as the archive has it.
        size: that it declares, in bytes.
        modified_at: in seconds since 1970.
        mark: changes with its content.
        problem: why it may not be read, where that is known.
        at: whatever it takes to read it.
    """

    name: str
    size: int
    modified_at: float
    mark: str
    problem: str | None
    at: Any = None

    @property
    def path(self) -> str:
        """Its path in a listing. A name that leads out of the archive stays as it is."""
        if self.problem == LEADS_OUT:
            return printable(self.name)
        return printable(plain(self.name))

    @property
    def row(self) -> Row:
        """Its row of a listing."""
        problem = NO_UTF8 if printable(self.name) != self.name else self.problem
        return self.path, self.size, moment(self.modified_at), self.mark, problem


class ArchivePhotos(PhotoStore):
    """The files of an archive. Of several entries of one name, the last counts."""

    def list(  # noqa: D102 - see PhotoStore
        self, *, recursive: bool, allow_empty: bool = False, labels: Labels = "parent"
    ) -> Listing:
        seen: list[Member] = []

        def work() -> Listing:
            hidden, repeated = Counter[str](), 0
            rows: dict[str, Row] = {}
            passed_over: set[str] = set()
            with self._told():
                for member in self._members():
                    seen.append(member)
                    path = member.path
                    if not recursive and "/" in path:
                        continue
                    found = None if member.problem == LEADS_OUT else first_hidden(path)
                    if found:
                        hidden[found[1]] += found[0] not in passed_over
                        passed_over.add(found[0])
                        continue
                    repeated += path in rows
                    rows[path] = member.row
            return listing_of(
                self.root,
                found_files(rows.values()),
                recursive=recursive,
                hidden=hidden,
                repeated=repeated,
                allow_empty=allow_empty,
                labels=labels,
            )

        return self._watched(work, progress=lambda: len(seen))

    def erase(self, paths: Sequence[str]) -> int:  # noqa: D102 - see PhotoStore
        raise SourceError(f"{len(paths)} photos cannot be erased: {self.not_erasable}")

    @property
    def not_erasable(self) -> str:  # noqa: D102 - see PhotoStore
        return (
            f"the source {self.root} is an archive, and no photo can be removed from it alone. Put "
            "an archive without these photos in its place, and repeat the erasure; or leave the "
            "source as it is (keep_source, --keep-source): the next run takes them in again."
        )

    @abstractmethod
    def _members(self) -> Iterator[Member]:
        """Every entry that is not a folder. Raises what is in `DAMAGED`."""

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise SourceError(
                f"the source {self.root} does not exist. Point FRUITS_SOURCE at an archive or a "
                "folder of photos."
            ) from error
        except DAMAGED as error:
            raise SourceError(
                f"the archive {self.root} cannot be read ({error}), so the photos in it would be "
                "lost. Copy it again, or pack it again as .zip, .tar or .tar.gz."
            ) from error


State = tuple[str, int, int, int]
"""Path, inode, size and modification time of an archive: another archive has others."""


def _state(root: str) -> State:
    """Raises OSError."""
    found = os.stat(root)  # noqa: PTH116 - it is a plain path
    return root, found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True, eq=False)
class _Opened:
    """An archive that is kept open between tasks: to read its directory may take seconds.

    Attributes:
        file: is closed when this goes.
        members: path -> entry.
        read: returns the content of an entry.
    """

    file: IO[bytes]
    members: Mapping[str, Member]
    read: Callable[[Member], bytes]

    def __post_init__(self) -> None:
        weakref.finalize(self, self.file.close)


class IndexedPhotos(ArchivePhotos):
    """The files of an archive of which each can be read without the others."""

    def fetch(  # noqa: D102 - see PhotoStore
        self, rows: Sequence[Mapping[str, Any]]
    ) -> Iterator[Callable[[], bytes]]:
        return read_ahead(self._read, rows, root=self.root)

    @abstractmethod
    def _kept(self) -> _Opened:
        """The archive as it is now. Raises what is in `DAMAGED`."""

    def _read(self, row: Mapping[str, Any]) -> bytes:
        with self._told():
            archive = self._kept()
        member = _same(archive.members.get(row["path"]), row)
        try:
            content = archive.read(member)
        except OSError:
            raise
        except DAMAGED as error:
            raise OSError(errno.EIO, f"its entry in the archive is damaged ({error})") from error
        if len(content) != row["bytes"]:
            raise OSError(errno.EAGAIN, CHANGED)
        return content


class ZipPhotos(IndexedPhotos):
    """The files of a zip file."""

    def _members(self) -> Iterator[Member]:
        with open_regular(self.root) as file, zipfile.ZipFile(file) as archive:
            yield from _in_zip(archive)

    def _kept(self) -> _Opened:
        return _opened_zip(_state(self.root))


@lru_cache(maxsize=1)
def _opened_zip(state: State) -> _Opened:
    file = open_regular(state[0])
    archive = zipfile.ZipFile(file)

    def read(member: Member) -> bytes:
        with archive.open(member.at) as content:
            return content.read()  # no more than it declares, and its checksum is compared

    return _Opened(file, {member.path: member for member in _in_zip(archive)}, read)


def _in_zip(archive: zipfile.ZipFile) -> Iterator[Member]:
    return (_zipped(entry) for entry in archive.infolist() if not entry.is_dir())


def _zipped(entry: zipfile.ZipInfo) -> Member:
    try:
        time = datetime(*entry.date_time, tzinfo=UTC).timestamp()
    except ValueError:  # a month 0
        time = 0.0
    mark = f"{entry.CRC:08x}-{entry.compress_size}"
    return Member(entry.filename, entry.file_size, time, mark, _problem_zipped(entry), entry)


def _problem_zipped(entry: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    method = (
        f"it is compressed by method {entry.compress_type} of zip files, which is not read: pack "
        "it again with Deflate"
    )
    problems = {
        LEADS_OUT: leads_out(entry.filename),
        LINK: kind == stat.S_IFLNK,
        NOT_REGULAR: kind not in {0, stat.S_IFREG, stat.S_IFLNK},
        ENCRYPTED: bool(entry.flag_bits & 1),
        method: entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED},
        BOMB: entry.file_size > max(SMALL, RATIO * entry.compress_size),
    }
    return next((problem for problem, found in problems.items() if found), None)


def _same(member: Member | None, row: Mapping[str, Any]) -> Member:
    """The entry of a row, if it still is what was listed, else OSError."""
    if member is None:
        raise FileNotFoundError(errno.ENOENT, "it is not in the archive any more")
    if (member.mark, member.size) != (row["etag"], row["bytes"]):
        raise OSError(errno.EAGAIN, CHANGED)
    return member


class TarPhotos(IndexedPhotos):
    """The files of a tar file without compression: each is read where it lies."""

    def _members(self) -> Iterator[Member]:
        with open_regular(self.root) as file:
            yield from _tarred(_Metered(file), "r:")

    def _kept(self) -> _Opened:
        return _opened_tar(_state(self.root))


@lru_cache(maxsize=1)
def _opened_tar(state: State) -> _Opened:
    file = open_regular(state[0])
    members = {member.path: member for member in _tarred(_Metered(file), "r:")}
    return _Opened(file, members, lambda it: os.pread(file.fileno(), it.size, it.at))


class CompressedTarPhotos(ArchivePhotos):
    """The files of a tar file that is compressed as a whole: it is read from its beginning."""

    def _members(self) -> Iterator[Member]:
        with self._decompressed() as file:
            yield from _tarred(file, "r|")

    def fetch(  # noqa: D102 - see PhotoStore
        self, rows: Sequence[Mapping[str, Any]]
    ) -> Iterator[Callable[[], bytes]]:
        for group in _groups(rows):
            wanted = {row["path"]: row for row in group}
            file = self._decompressed()

            def work(
                wanted: Mapping[str, Mapping[str, Any]] = wanted, file: _Metered = file
            ) -> dict[str, bytes]:
                with self._told(), file:
                    return dict(_collected(file, wanted))

            contents = self._watched(work, progress=file.position, doing="reading")
            for row in group:
                yield _Given(contents.pop(row["path"], None))

    def _decompressed(self) -> _Metered:
        raw = open_regular(self.root)
        size = os.fstat(raw.fileno()).st_size
        return _Metered(gzip.GzipFile(fileobj=raw), limit=max(SMALL, RATIO * size), under=raw)


@dataclass(frozen=True)
class _Given:
    """Returns what was collected of a row."""

    content: bytes | None

    def __call__(self) -> bytes:
        if self.content is None:
            raise OSError(errno.EAGAIN, CHANGED)
        return self.content


def _groups(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Rows in order, in groups that fit into memory."""
    group: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        if group and size + row["bytes"] > PASS_BYTES:
            yield group
            group, size = [], 0
        group.append(row)
        size += row["bytes"]
    if group:
        yield group


class _Metered(io.RawIOBase):
    """A file of which a library may read so much and no more, until it is allowed more.

    Args:
        file: to read.
        limit: bytes that may be read in all; None for as many as there are.
        under: is closed with it.
    """

    def __init__(self, file: Any, *, limit: int | None = None, under: Any = None) -> None:
        super().__init__()
        self._file, self._under, self._limit = file, under, limit
        self._read = 0
        self._left = HEADERS
        self.last = b""

    def allow(self, size: int) -> None:
        """Lets an entry of this size be read, and the headers after it."""
        self._left = size + HEADERS

    def position(self) -> int:
        """How much has been read so far."""
        return self._read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._limit is None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._left:
            raise tarfile.ReadError(f"a header of more than {HEADERS} bytes")
        data = self._file.read(size)
        self._read += len(data)
        self._left -= len(data)
        self.last = data[-tarfile.BLOCKSIZE :] or self.last
        if self._limit is not None and self._read > self._limit:
            raise tarfile.ReadError(BOMB)
        return data

    def close(self) -> None:
        if self._under:
            self._file.close()
            self._under.close()
        super().close()


def _entries(file: _Metered, mode: str) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Every entry of a tar file, up to its end mark. Raises tarfile.TarError where there is none.

    The library takes a damaged header for the end.
    """
    opened: Any = tarfile.open  # it has an overload for each mode
    archive = opened(fileobj=file, mode=mode, bufsize=BLOCK)
    while entry := archive.next():
        archive.members.clear()  # they would be kept in memory
        file.allow(entry.size + 2 * BLOCK)
        yield archive, entry
    if file.last.strip(b"\0"):
        raise tarfile.ReadError("it ends without an end mark: it is cut short, or damaged")


def _tarred(file: _Metered, mode: str) -> Iterator[Member]:
    return (_in_tar(entry) for _, entry in _entries(file, mode) if not entry.isdir())


def _collected(
    file: _Metered, wanted: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, bytes]]:
    """The content of some entries. Of several entries of one name, only one is what was listed."""
    left = set(wanted)
    for archive, entry in _entries(file, "r|"):
        member = _in_tar(entry)
        row = wanted.get(member.path)
        if row and (member.mark, member.size) == (row["etag"], row["bytes"]):
            content = archive.extractfile(entry)
            if content:
                yield member.path, content.read(member.size)
                left.discard(member.path)
        if not left:
            return


def _in_tar(entry: tarfile.TarInfo) -> Member:
    mark = f"{entry.offset_data:x}-{entry.chksum:x}"
    problem = _problem_in_tar(entry)
    size = entry.size if entry.isreg() else 0
    return Member(entry.name, size, entry.mtime, mark, problem, entry.offset_data)


def _problem_in_tar(entry: tarfile.TarInfo) -> str | None:
    if leads_out(entry.name):
        return LEADS_OUT
    if entry.issym() or entry.islnk():
        return LINK
    if not entry.isreg():
        return NOT_REGULAR
    return "it is sparse: pack it again without holes" if entry.issparse() else None


KINDS: Mapping[str, type[ArchivePhotos]] = {
    ".zip": ZipPhotos,
    ".tar": TarPhotos,
    ".tar.gz": CompressedTarPhotos,
    ".tgz": CompressedTarPhotos,
}
"""Ending of a name, in lower case -> what reads such an archive."""


def kind_of(name: str) -> type[ArchivePhotos] | None:
    """The class that reads an archive of this name; None if the name is not that of an archive."""
    endings: Iterable[str] = sorted(KINDS, key=len, reverse=True)
    return next((KINDS[it] for it in endings if name.lower().endswith(it)), None)
