"""The source: what photos there are to ingest, and how one of them is read.

Listing is separate from reading: the listing is small, says what there is to do, and its
fingerprint tells whether anything changed since the last run.
"""

from __future__ import annotations

import errno
import hashlib
import operator
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from fruits_assets.core.errors import SourceError
from fruits_assets.storage.base import S3, Folder
from fruits_assets.storage.parquet import PART_NAME, Origin, address_of, part_once
from fruits_assets.storage.snapshot import Snapshot

LISTING = "_listing"
"""Table of the lake that holds the files of the source as the last run saw them."""
LISTING_GROUP_BYTES = 2**18
"""A task reads only the row groups of its own files: small ones, about 2,000 files each."""
LISTING_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("modified_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("etag", pa.string()),
        pa.field("problem", pa.string()),
    ]
)
Entry = tuple[str, int, int, str | None, str | None]
"""Path, bytes, modification time in microseconds, ETag and problem of one file."""
LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""File systems hold modification times that no calendar does; they are clamped to [1970, 9999]."""
HIDDEN_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
"""Passed over beside the names that begin with a dot."""

SPLITS = {
    "training": "Training",
    "train": "Training",
    "test": "Test",
    "validation": "Validation",
    "val": "Validation",
}
"""Folder names that say which split a photo belongs to, in lower case -> the split."""
TRAINING, TEST = SPLITS["training"], SPLITS["test"]
AUTO, ALL = "auto", "all"
"""What may be asked for instead of a split: Training where there is one, else all; or all."""


@dataclass(frozen=True)
class Listing:
    """Every file of a source, in path order.

    Attributes:
        root: absolute path or URI of the source.
        files: `LISTING_SCHEMA`; `etag` is a bucket's own fingerprint of an object, `problem` says
            why a file cannot be read, where that is known.
        hidden: files and folders passed over for their names.
    """

    root: str
    files: pa.Table
    hidden: int

    @property
    def name(self) -> str:
        """Its name among the inputs of a recipe."""
        return "source"

    @property
    def version(self) -> str:
        """Fingerprint of paths, sizes, modification times and ETags: 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for entry in self.entries():
            digest.update(repr(entry).encode())
        return digest.hexdigest()[:16]

    def entries(self) -> Iterator[Entry]:
        """Everything that it says of each file, in order."""
        paths, sizes, times, etags, problems = self.files.columns
        columns = (paths, sizes, times.cast(pa.int64()), etags, problems)
        return zip(*(column.to_pylist() for column in columns), strict=True)

    @property
    def place(self) -> str:
        """The source itself, which workers read."""
        return self.root

    @property
    def rows(self) -> int:
        """How many files."""
        return self.files.num_rows

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files["bytes"].to_pylist())

    def done(self, unpublished: Mapping[str, int]) -> float:
        """Share of its bytes, 0 to 1, that an interrupted run has already put into parts.

        Args:
            unpublished: name -> size of the parts that it has left.
        """
        found = sum(size for name, size in unpublished.items() if PART_NAME.fullmatch(name))
        return min(1.0, found / max(1, self.bytes))

    def stage(self, folders: Mapping[str, Folder]) -> Snapshot:
        """Writes the listing into the lake, where a transform finds it."""
        return self.write(folders[LISTING])

    def write(self, folder: Folder) -> Snapshot:
        """Writes the listing as one part of its table, which is not published yet."""
        metadata = {"root": self.root, "hidden": str(self.hidden)}
        files = self.files.replace_schema_metadata(metadata)
        origin = Origin(address_of(self.root, self.hidden, self.version), 0, self.rows)
        file, _ = part_once(folder, origin, lambda: files, group_bytes=LISTING_GROUP_BYTES)
        return Snapshot.unpublished(folder, LISTING, LISTING_SCHEMA, (file,))

    @classmethod
    def of(cls, snapshot: Snapshot) -> Listing:
        """Reads what `write` wrote. Raises DatasetError."""
        (file,) = snapshot.files
        table = snapshot.table(file)
        metadata = table.schema.metadata
        return cls(
            metadata[b"root"].decode(),
            table.replace_schema_metadata(None),
            int(metadata[b"hidden"]),
        )


Row = tuple[str, int, datetime, str | None, str | None]
"""Of `LISTING_SCHEMA`."""


class PhotoStore(ABC):
    """Where photos are listed, read, and, when the law asks for it, erased.

    Attributes:
        folder: that holds them.
        root: its absolute path or URI.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.root = folder.uri

    @abstractmethod
    def list(self, *, recursive: bool, allow_empty: bool = False) -> Listing:
        """Every file there is.

        Names that are hidden (`.git`, `.DS_Store`, `Thumbs.db`, ...) are passed over and counted.

        Args:
            recursive: look into sub-folders, to any depth.
            allow_empty: a source without a file is a listing without a row, not an error.

        Raises:
            SourceError: it is missing, not readable, or holds no file.
        """

    @abstractmethod
    def read(self, row: Mapping[str, Any]) -> bytes:
        """The bytes of the file of one row of a listing, if it still is what was listed.

        Raises:
            OSError: it is something else by now, gone, or not readable.
        """

    @abstractmethod
    def erase(self, paths: Sequence[str]) -> int:
        """Removes files for good, with every older version; returns how many there were.

        Raises:
            SourceError: some are left; its text says how many.
            S3Error: the bucket refuses.
        """

    def fetch(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Callable[[], bytes]]:
        """The files of some rows, in order: calling what is yielded does what `read` does."""
        for row in rows:
            yield partial(self.read, row)


class FolderPhotos(PhotoStore):
    """A folder of this machine. Symbolic links are followed, but never round in a circle."""

    def list(self, *, recursive: bool, allow_empty: bool = False) -> Listing:  # noqa: D102
        walk = _Walk(Path(self.root), recursive)
        return listing_of(
            self.root,
            walk.files(),
            recursive=recursive,
            hidden=lambda: walk.hidden,
            allow_empty=allow_empty,
        )

    def read(self, row: Mapping[str, Any]) -> bytes:
        """The very bytes that were listed: another size or modification time is an OSError.

        Raises:
            OSError: see PhotoStore.
            SourceError: the permission to read it was lost since it was listed.
        """
        try:
            with Path(self.root, row["path"]).open("rb") as file:
                content = file.read()
                status = os.fstat(file.fileno())
        except PermissionError as error:
            raise SourceError(
                f"{Path(self.root, row['path'])} could be read when it was listed, and cannot be "
                "any more: permission denied. Grant this user the permission to read the source "
                "again, and run again: what is finished is kept."
            ) from error
        if (len(content), _modified_at(status)) != (row["bytes"], row["modified_at"]):
            raise OSError(errno.EAGAIN, "it changed after it had been listed")
        return content

    def erase(self, paths: Sequence[str]) -> int:  # noqa: D102 - see PhotoStore
        erased, refusals = 0, []
        for path in paths:
            file = _as_named(Path(self.root), path)
            try:
                if file and (file.is_file() or file.is_symlink()):
                    file.unlink()
                    erased += 1
            except OSError as error:
                refusals.append(_reason(error))
        if refusals:
            raise SourceError(
                f"{len(refusals)} of {len(paths)} files could not be deleted from the source "
                f"({refusals[0]}), and are still there. Grant this user the permission to delete "
                "them, and repeat the erasure: it goes on from here."
            )
        return erased


def photos_at(folder: Folder) -> PhotoStore:
    """The photos of a folder, or of a prefix of a bucket."""
    if folder.uri.startswith(S3):
        from fruits_assets.core.bucket_photos import BucketPhotos  # noqa: PLC0415 - AWS only

        return BucketPhotos(folder)
    return FolderPhotos(folder)


def listing_of(
    root: str,
    files: Iterable[Row],
    *,
    recursive: bool,
    hidden: Callable[[], int],
    allow_empty: bool = False,
) -> Listing:
    """A listing, in path order.

    Args:
        root: of the source.
        files: in any order.
        recursive: whether sub-folders were looked into.
        hidden: how many names were passed over, once all files have been seen.
        allow_empty: no file is no error.

    Raises:
        SourceError: there is no file.
    """
    rows = sorted(files, key=operator.itemgetter(0))
    if not rows and allow_empty:
        return Listing(root, LISTING_SCHEMA.empty_table(), hidden())
    if not rows:
        passed_over = f" ({hidden()} hidden ones were passed over)" if hidden() else ""
        deeper = "" if recursive else " at its top level (`recursive` is false)"
        raise SourceError(
            f"the source {root} holds no file{deeper}{passed_over}. "
            "Put photos there, or point FRUITS_SOURCE at the folder that holds them."
        )
    arrays = [
        pa.array(column, type=field.type)
        for column, field in zip(zip(*rows, strict=True), LISTING_SCHEMA, strict=True)
    ]
    return Listing(root, pa.Table.from_arrays(arrays, schema=LISTING_SCHEMA), hidden())


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return name.startswith(".") or name.lower() in HIDDEN_NAMES


def split_of(path: str) -> str | None:
    """`Training`, `Test` or `Validation`, from the first folder that is named so; else None."""
    folders = PurePosixPath(path).parts[:-1]
    return next((SPLITS[name.lower()] for name in folders if name.lower() in SPLITS), None)


def label_of(path: str) -> str | None:
    """The parent folder's name; None at the top level or directly in a split's folder."""
    folder = PurePosixPath(path).parent.name
    return folder if folder and folder.lower() not in SPLITS else None


@dataclass
class _Walk:
    root: Path
    recursive: bool
    hidden: int = field(default=0, init=False)

    def files(self) -> Iterator[Row]:
        try:
            status = self.root.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise SourceError(
                f"the source {self.root} does not exist. Point FRUITS_SOURCE at a folder of photos."
            ) from None
        except OSError as error:
            raise self._unreadable(self.root, error) from error
        if not stat.S_ISDIR(status.st_mode):
            raise SourceError(
                f"the source {self.root} is a file, not a folder. "
                "Point FRUITS_SOURCE at the folder that holds the photos."
            )
        yield from self._folder(self.root, frozenset())

    def _folder(self, folder: Path, ancestors: frozenset[tuple[int, int]]) -> Iterator[Row]:
        try:
            status = folder.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in ancestors:
                return
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            raise self._unreadable(folder, error) from error
        for entry in found:
            if is_hidden(entry.name):
                self.hidden += 1
            elif not _is_folder(entry):
                yield self._file(entry)
            elif self.recursive:
                yield from self._folder(Path(entry.path), ancestors | {identity})

    def _file(self, entry: os.DirEntry[str]) -> Row:
        path = Path(entry.path).relative_to(self.root).as_posix()
        printable = _printable(path)
        try:
            status = entry.stat()
        except OSError as error:
            return printable, 0, datetime.fromtimestamp(0, UTC), None, _reason(error)
        problem = None
        if printable != path:
            problem = "the file's name is not valid UTF-8: rename it"
        elif not stat.S_ISREG(status.st_mode):
            problem = "it is not a regular file (a pipe, a socket or a device)"
        elif not os.access(entry.path, os.R_OK):
            problem = "this user may not read it (chmod u+r)"
        return printable, status.st_size, _modified_at(status), None, problem

    def _unreadable(self, folder: Path, error: OSError) -> SourceError:
        return SourceError(
            f"the folder {folder} cannot be read ({_reason(error)}), so the photos in it would be "
            "lost. Grant this user the permission to read it (chmod u+rx) where that is what is "
            "missing, or move it out of the source."
        )


def _printable(name: str) -> str:
    """A name as a listing has it, even one that is not valid UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def _as_named(root: Path, path: str) -> Path | None:
    """The file of a listed path, whose name on the disk need not be valid UTF-8."""
    found, parts = root, PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts:
        return None  # it leads out of the source
    for part in parts:
        below = found / part
        if not (below.exists() or below.is_symlink()):
            try:
                below = next(it for it in found.iterdir() if _printable(it.name) == part)
            except (StopIteration, OSError):
                return None
        found = below
    return found


def _modified_at(status: os.stat_result) -> datetime:
    return datetime.fromtimestamp(min(max(status.st_mtime, 0), LATEST), UTC)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle, or to where this user may not look
        return False


def _reason(error: OSError) -> str:
    return error.strerror or repr(error)
