"""The list of all files of a source, which a run ingests.

Listing is separate from reading: the listing is small, says what there is to do, and its
fingerprint tells whether anything changed since the last run.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from fruits_assets.core.errors import SourceError
from fruits_assets.sources.layout import LABELS, Labels, Place, folder_of, places_of
from fruits_assets.sources.leftovers import sidecars
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import PART_NAME, File, Origin, write_part
from fruits_assets.storage.snapshot import Snapshot

LISTING = "_listing"
"""Table of the lake that holds the files of the source as the last run saw them."""
PART_FILES = 2**14
"""Files in a part of a listing, on average."""
BLOCK_FILES = 2**13
"""Files held as Python objects at a time, where there are many."""
LISTING_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("modified_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("etag", pa.string()),
        pa.field("problem", pa.string()),
        pa.field("split", pa.string()),
        pa.field("label", pa.string()),
    ]
)
FOUND_SCHEMA = pa.schema([LISTING_SCHEMA.field(it) for it in LISTING_SCHEMA.names[:5]])
"""Files as they were found, before their places in the layout are known."""
PASSED_OVER = ("hidden", "repeated", "sidecars")
"""Attributes of a listing that count files which are not listed."""
Entry = tuple[str, int, int, str | None, str | None, str | None, str | None]
"""A row of `LISTING_SCHEMA`, its modification time in microseconds."""
Row = tuple[str, int, datetime, str | None, str | None]
"""Path, bytes, modification time, ETag and problem of one file: a row of `FOUND_SCHEMA`."""


@dataclass(frozen=True)
class Listing:
    """Every file of a source, in path order.

    Attributes:
        root: absolute path or URI of the source.
        files: `LISTING_SCHEMA`; `etag` is a bucket's own fingerprint of an object, `problem` says
            why a file cannot be read, where that is known; `split` and `label` are those of its
            place in the layout.
        hidden: files and folders of systems, passed over for their names.
        repeated: links, and other names, passed over because what they name is listed already.
        sidecars: files passed over because they belong to a photo, or describe the data set.
        kinds: of hidden files and sidecars -> how many: `{"@eaDir": 2, ".xml": 3}`.
        labels: which folder is the label, by `layout.Layout`.
        recursive: whether sub-folders were looked into.
        inventory: URI of the manifest of the S3 Inventory that it was taken from; empty where the
            source itself was listed.
        beside: paths of the sidecars, where it was just made: no table holds them.
    """

    root: str
    files: pa.Table
    hidden: int
    repeated: int = 0
    sidecars: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    labels: Labels = "parent"
    recursive: bool = True
    inventory: str = ""
    beside: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """Its name among the inputs of a recipe."""
        return "source"

    @property
    def version(self) -> str:
        """Fingerprint of all that it says of files: 16 hexadecimal digits, a hash of hashes."""
        return hashlib.sha256("".join(self._digests).encode()).hexdigest()[:16]

    @cached_property
    def parts(self) -> Sequence[pa.Table]:
        """The files, cut where the hash of a path says so.

        Whatever comes or goes, the other parts stay as they are, so that two listings differ in
        few parts.
        """
        ends = [
            row + 1
            for row, path in enumerate(_each(self.files["path"]))
            if not zlib.crc32(path.encode()) % PART_FILES
        ]
        bounds = sorted({0, *ends, self.rows})
        return [self.files.slice(start, stop - start) for start, stop in pairwise(bounds)]

    @cached_property
    def _digests(self) -> Sequence[str]:
        """Fingerprint of each of the parts."""
        found = []
        for part in self.parts:
            digest = hashlib.sha256()
            for entry in entries(part):
                digest.update(repr(entry).encode())
            found.append(digest.hexdigest()[:16])
        return found

    def entries(self) -> Iterator[Entry]:
        """Everything that it says of each file, in order."""
        return entries(self.files)

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
        return int(self.files["bytes"].to_numpy().sum())

    @property
    def passed_over(self) -> str:
        """How many files of which kind were passed over, for people: `2 @eaDir, 3 .xml`."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))

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

    def against(self, held: Snapshot | None) -> tuple[set[Entry], set[Entry]]:
        """The files that a version of `_listing` says nothing, or something else, of.

        Only parts that one of the two lacks are read.

        Returns:
            Entries that only this listing has, and entries that only the version has.

        Raises:
            DatasetError: a part of the version is damaged.
        """
        held_files = held.files if held else ()
        own = dict(zip(self._digests, self.parts, strict=True))
        shared = {it.origin.made_from for it in held_files if it.origin} & own.keys()
        now = {entry for name in own.keys() - shared for entry in entries(own[name])}
        then: set[Entry] = set()
        for file in held_files:
            if held and not (file.origin and file.origin.made_from in shared):
                then.update(entries(held.table(file)))
        return now - then, then - now

    @property
    def figures(self) -> dict[str, Any]:
        """Numbers that its table keeps beside the files."""
        passed_over = {name: getattr(self, name) for name in PASSED_OVER}
        return {
            "files": self.rows,
            "bytes": self.bytes,
            "labels": self.labels,
            "recursive": self.recursive,
            "inventory": self.inventory,
            "kinds": dict(self.kinds),
            **passed_over,
        }

    def write(self, folder: Folder) -> Snapshot:
        """Writes the listing as parts of its table, which are not published yet."""
        there = folder.sizes()
        names = {it.made_from: name for name in there if (it := Origin.of(name))}
        files = []
        for digest, part in zip(self._digests, self.parts, strict=True):
            # What lies there has this very content, and is not read again.
            if name := names.get(digest):
                files.append(File(name, there[name], part.num_rows))
            else:
                files.append(write_part(folder, Origin(digest, 0, part.num_rows), part))
        snapshot = Snapshot.unpublished(folder, LISTING, LISTING_SCHEMA, tuple(files))
        return replace(snapshot, commit=replace(snapshot.commit, figures=self.figures))

    @classmethod
    def of(cls, snapshot: Snapshot, root: str) -> Listing:
        """Reads all that `write` wrote of the source at `root`. Raises DatasetError."""
        figures = snapshot.figures
        return cls(
            root,
            snapshot.arrow(LISTING_SCHEMA.names).sort_by(ORDER),
            *(figures.get(name, 0) for name in PASSED_OVER),
            kinds=figures.get("kinds", {}),
            labels=labels_of(snapshot),
            recursive=figures.get("recursive", True),
            inventory=figures.get("inventory", ""),
        )


ORDER = [("path", "ascending"), ("problem", "ascending")]
"""Names that are not valid UTF-8 may look like others: then the problem decides."""


def labels_of(listing: Snapshot) -> Labels:
    """The rule for labels that a version of `_listing` was made with.

    Raises:
        ValueError: another version of the project made it, with a rule that is unknown here.
    """
    return LABELS[LABELS.index(listing.figures.get("labels", "parent"))]


def entries(files: pa.Table) -> Iterator[Entry]:
    """Rows of `LISTING_SCHEMA`, in order."""
    for batch in files.to_batches(max_chunksize=BLOCK_FILES):
        paths, sizes, times, *others = batch.columns
        columns = (paths, sizes, times.cast(pa.int64()), *others)
        yield from zip(*(column.to_pylist() for column in columns), strict=True)


def found_files(rows: Iterable[Row]) -> pa.Table:
    """Files as they were found, in any order, as a table: a tenth of the memory of tuples."""
    rows, batches = iter(rows), []
    while block := list(islice(rows, BLOCK_FILES)):
        columns = zip(*block, strict=True)
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(columns, FOUND_SCHEMA, strict=True)
        ]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=FOUND_SCHEMA))
    return pa.Table.from_batches(batches, FOUND_SCHEMA)


def _each(column: pa.ChunkedArray) -> Iterator[Any]:
    """The values of a column, few of them as Python objects at a time."""
    for chunk in column.chunks:
        for start in range(0, len(chunk), BLOCK_FILES):
            yield from chunk.slice(start, BLOCK_FILES).to_pylist()


def listing_of(
    root: str,
    files: pa.Table,
    *,
    recursive: bool,
    hidden: Mapping[str, int],
    repeated: int = 0,
    allow_empty: bool = False,
    labels: Labels = "parent",
    given: Mapping[str, Place] | None = None,
) -> Listing:
    """A listing, in path order.

    Args:
        root: of the source.
        files: `FOUND_SCHEMA`, in any order; see `found_files`.
        recursive: whether sub-folders were looked into.
        hidden: kinds of files and folders that were passed over for their names -> how many.
        repeated: how many other names of listed files were passed over.
        allow_empty: no file is no error.
        labels: which folder is the label.
        given: split and label of each path, where they are not those of its folders; no file is
            taken for a sidecar then.

    Raises:
        SourceError: there is no file.
    """
    paths = files["path"]
    beside = sidecars(lambda: _each(paths)) if given is None else {}
    if beside:
        kept = pa.array([path not in beside for path in _each(paths)], pa.bool_())
        files = files.filter(kept)
    found = Listing(
        root,
        LISTING_SCHEMA.empty_table(),
        hidden=sum(hidden.values()),
        repeated=repeated,
        sidecars=len(beside),
        kinds={**hidden, **Counter(beside.values())},
        labels=labels,
        recursive=recursive,
        beside=tuple(beside),
    )
    if not files.num_rows and allow_empty:
        return found
    if not files.num_rows:
        passed_over = f" ({found.passed_over} were passed over)" if found.kinds else ""
        deeper = "" if recursive else " at its top level (`recursive` is false)"
        raise SourceError(
            f"the source {root} holds no file{deeper}{passed_over}. "
            "Put photos there, or point FRUITS_SOURCE at the folder that holds them."
        )
    return replace(found, files=_placed(files.sort_by(ORDER), labels, given))


def _placed(files: pa.Table, labels: Labels, given: Mapping[str, Place] | None) -> pa.Table:
    """Files with their split and label."""
    if given is None:
        names = {folder: i for i, folder in enumerate(dict.fromkeys(_folders(files)))}
        found = places_of(names, labels)
        places = [found[name] for name in names]
        rows = np.fromiter((names[name] for name in _folders(files)), np.int32, len(files))
    else:
        places = [given[path] for path in _each(files["path"])]
        rows = np.arange(len(files), dtype=np.int32)
    for i, name in enumerate(LISTING_SCHEMA.names[-2:]):
        values = pa.array([place[i] for place in places], pa.string())
        files = files.append_column(name, values.take(pa.array(rows)))
    return files.cast(LISTING_SCHEMA)


def _folders(files: pa.Table) -> Iterator[str]:
    return map(folder_of, _each(files["path"]))
