"""The source: what photos there are to ingest, and how one of them is read.

Listing is separate from reading: the listing is small, says what there is to do, and its
fingerprint tells whether anything changed since the last run.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from fruits_assets.core import reading
from fruits_assets.core.errors import SourceError
from fruits_assets.core.reading import Readers, Result, watched
from fruits_assets.core.walk import (
    LEADS_OUT,
    Row,
    Target,
    Walk,
    modified_at,
    names_of,
    printable,
    reason,
)
from fruits_assets.storage.base import S3, Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.opening import (
    CHANGED,
    Identity,
    LinkError,
    Names,
    Tree,
    identity,
    read_at_most,
)
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
        repeated: links, and other names, passed over because what they name is listed already.
    """

    root: str
    files: pa.Table
    hidden: int
    repeated: int = 0

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
        passed_over = {"hidden": str(self.hidden), "repeated": str(self.repeated)}
        files = self.files.replace_schema_metadata({"root": self.root, **passed_over})
        made_from = address_of(self.root, self.hidden, self.repeated, self.version)
        origin = Origin(made_from, 0, self.rows)
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
            int(metadata.get(b"repeated", 0)),
        )


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

        Names that are hidden (`.git`, `.DS_Store`, `Thumbs.db`, ...) are passed over and counted,
        and so are other names of files that are listed already.

        Args:
            recursive: look into sub-folders, to any depth.
            allow_empty: a source without a file is a listing without a row, not an error.

        Raises:
            SourceError: it is missing, not readable, or holds no file.
        """

    @abstractmethod
    def fetch(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Callable[[], bytes]]:
        """For each row of a listing, in order, a function that returns the bytes of its file.

        Files are read ahead. Never is more read of one than was listed, and none is waited for
        without end.

        Raises:
            OSError: by the function: the file is something else by now, gone, or not readable.
            SourceError: by the function: the place does not answer, or forbids to read.
        """

    def read(self, row: Mapping[str, Any]) -> bytes:
        """The bytes of the file of one row of a listing; see `fetch`."""
        (read_it,) = self.fetch([row])
        return read_it()

    @abstractmethod
    def erase(self, paths: Sequence[str]) -> int:
        """Removes files for good, with every older version; returns how many there were.

        Raises:
            SourceError: some are left; its text says how many.
            S3Error: the bucket refuses.
        """


READ_AHEAD, READ_AHEAD_BYTES = 16, 2**24
"""Files, and their bytes, that are read from a folder before they are asked for."""


class FolderPhotos(PhotoStore):
    """A folder of this machine, or mounted on it, that strangers may write to.

    Symbolic links that lead out of it are refused, unless its storage follows them.
    """

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        assert isinstance(folder.storage, LocalStorage)  # noqa: S101 - what a path is
        self._follow_links = folder.storage.follow_links

    def list(self, *, recursive: bool, allow_empty: bool = False) -> Listing:  # noqa: D102
        walk = self._walk(recursive=recursive)

        def work() -> Listing:
            rows = list(walk.files())
            return listing_of(
                self.root,
                rows,
                recursive=recursive,
                hidden=walk.hidden,
                repeated=len(walk.repeated),
                allow_empty=allow_empty,
            )

        return self._watched(walk, work, "listing")

    def fetch(  # noqa: D102 - see PhotoStore
        self, rows: Sequence[Mapping[str, Any]]
    ) -> Iterator[Callable[[], bytes]]:
        readers = Readers(1, ahead=READ_AHEAD, ahead_bytes=READ_AHEAD_BYTES)
        try:
            seconds = reading.READ_SECONDS
            yield from readers.fetch(self._read, rows, root=self.root, seconds=seconds)
        finally:
            readers.close()

    def erase(self, paths: Sequence[str]) -> int:
        """Removes files with their other names, and the links that lead to them.

        Raises:
            SourceError: see PhotoStore.
        """
        walk = self._walk(recursive=True)
        return self._watched(walk, lambda: self._erase(paths, walk), "erasing from")

    def _walk(self, *, recursive: bool) -> Walk:
        return Walk(self.root, recursive=recursive, follow_links=self._follow_links)

    def _watched(self, walk: Walk, work: Callable[[], Result], doing: str) -> Result:
        return watched(
            work,
            progress=lambda: walk.looked_at,
            seconds=reading.LISTING_SECONDS,
            doing=f"{doing} the source {self.root}",
        )

    def _read(self, row: Mapping[str, Any]) -> bytes:
        try:
            return self._content(row)
        except PermissionError as error:
            raise SourceError(
                f"{Path(self.root, row['path'])} could be read when it was listed, and cannot be "
                "any more: permission denied. Grant this user the permission to read the source "
                "again, and run again: what is finished is kept."
            ) from error

    def _content(self, row: Mapping[str, Any]) -> bytes:
        """The very bytes that were listed."""
        with Tree(self.root) as tree:
            try:
                return _content_of(tree, names_of(row["path"]), row)
            except LinkError:
                target = self._target(str(Path(self.root, row["path"])))
            if target is None:
                raise OSError(errno.EXDEV, LEADS_OUT)
            if target.inside:
                return _content_of(tree, target.names, row)
        with Tree("/") as tree:
            return _content_of(tree, target.names, row)

    def _target(self, path: str) -> Target | None:
        """Where a path with links leads; None where it may not be followed. Raises OSError."""
        target = Target.of(path, source=os.path.realpath(self.root))
        return target if target.inside or self._follow_links else None

    def _erase(self, paths: Sequence[str], walk: Walk) -> int:
        erased, refusals = 0, []
        for _ in walk.files():
            pass
        with Tree(self.root) as tree, Tree("/") as elsewhere:
            find = partial(self._find, tree=tree, elsewhere=elsewhere)
            doomed: set[Identity] = set()
            for path in paths:
                with contextlib.suppress(OSError):  # it is found again below
                    doomed |= {found.identity for found in find(path)}
            names = [path for path, which in walk.repeated if which in doomed]
            for path in dict.fromkeys([*paths, *names]):
                try:
                    for found in find(path):
                        found.unlink()
                        erased += 1
                except OSError as error:
                    refusals.append(reason(error))
        if refusals:
            raise SourceError(
                f"{len(refusals)} of {len(paths)} files could not be deleted from the source "
                f"({refusals[0]}), and are still there. Grant this user the permission to delete "
                "them, and repeat the erasure: it goes on from here."
            )
        return erased

    def _find(self, path: str, *, tree: Tree, elsewhere: Tree) -> list[_Found]:
        """The file, or the link, of a listed path, whose name on the disk need not be valid UTF-8.

        Empty where there is none, or where only a link leads to it that may not be followed.
        """
        found = _Found(tree, ())
        try:
            for name in path.split("/"):
                try:
                    found = found.child(name)
                except LinkError:
                    target = self._target(str(Path(found.tree.root, *found.names)))
                    if target is None:
                        return []
                    where = tree if target.inside else elsewhere
                    found = _Found(where, target.names).child(name)
            return [] if stat.S_ISDIR(found.status().st_mode) else [found]
        except (FileNotFoundError, NotADirectoryError, LinkError):
            return []


@dataclass(frozen=True)
class _Found:
    """A file, folder or link that is there.

    Attributes:
        tree: that it lies in.
        names: its path there, as it is on the disk.
    """

    tree: Tree
    names: Names

    def child(self, shown: str) -> _Found:
        """Something in this folder, by its name in a listing. Raises OSError."""
        child = _Found(self.tree, (*self.names, shown))
        try:
            child.status()
        except FileNotFoundError:
            with self.tree.scanned(self.names) as (_, entries):
                for entry in entries:
                    if printable(entry.name) == shown:
                        return _Found(self.tree, (*self.names, entry.name))
            raise
        return child

    def status(self) -> os.stat_result:
        """Status of the link itself, where it is one. Raises OSError."""
        return self.tree.status(self.names)

    @property
    def identity(self) -> Identity:
        """Identity of the file, or of the one that a link leads to. Raises OSError."""
        folder = self.tree.folder(self.names[:-1])
        return identity(os.stat(self.names[-1], dir_fd=folder))

    def unlink(self) -> None:
        """Removes the file, or the link itself. Raises OSError."""
        os.unlink(self.names[-1], dir_fd=self.tree.folder(self.names[:-1]))


def _content_of(tree: Tree, names: Names, row: Mapping[str, Any]) -> bytes:
    """The content of a file that is still what a row says of it, else OSError."""
    listed = row["bytes"], row["modified_at"]
    with tree.opened(names) as descriptor:
        if _state(descriptor) == listed:  # nothing is read of a file that has become a huge one
            content = read_at_most(descriptor, row["bytes"] + 1)
            if len(content) == row["bytes"] and _state(descriptor) == listed:
                return content
    raise OSError(errno.EAGAIN, CHANGED)


def _state(descriptor: int) -> tuple[int, datetime]:
    status = os.fstat(descriptor)
    return status.st_size, modified_at(status)


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
    hidden: int,
    repeated: int = 0,
    allow_empty: bool = False,
) -> Listing:
    """A listing, in path order.

    Args:
        root: of the source.
        files: in any order.
        recursive: whether sub-folders were looked into.
        hidden: how many files and folders were passed over for their names.
        repeated: how many other names of listed files were passed over.
        allow_empty: no file is no error.

    Raises:
        SourceError: there is no file.
    """
    # Names that are not valid UTF-8 may look like others: then the problem decides.
    rows = sorted(files, key=lambda row: (row[0], row[4] or ""))
    if not rows and allow_empty:
        return Listing(root, LISTING_SCHEMA.empty_table(), hidden, repeated)
    if not rows:
        passed_over = f" ({hidden} hidden ones were passed over)" if hidden else ""
        deeper = "" if recursive else " at its top level (`recursive` is false)"
        raise SourceError(
            f"the source {root} holds no file{deeper}{passed_over}. "
            "Put photos there, or point FRUITS_SOURCE at the folder that holds them."
        )
    arrays = [
        pa.array(column, type=field.type)
        for column, field in zip(zip(*rows, strict=True), LISTING_SCHEMA, strict=True)
    ]
    files = pa.Table.from_arrays(arrays, schema=LISTING_SCHEMA)
    return Listing(root, files, hidden, repeated)


def split_of(path: str) -> str | None:
    """`Training`, `Test` or `Validation`, from the first folder that is named so; else None."""
    folders = PurePosixPath(path).parts[:-1]
    return next((SPLITS[name.lower()] for name in folders if name.lower() in SPLITS), None)


def label_of(path: str) -> str | None:
    """The parent folder's name; None at the top level or directly in a split's folder."""
    folder = PurePosixPath(path).parent.name
    return folder if folder and folder.lower() not in SPLITS else None
