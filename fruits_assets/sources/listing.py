"""The list of all files of a source, which a run ingests.

Listing is separate from reading: the listing is small, says what there is to do, and its
fingerprint tells whether anything changed since the last run.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import pyarrow as pa

from fruits_assets.core.errors import SourceError
from fruits_assets.sources.layout import LABELS, Labels, Place, places
from fruits_assets.sources.leftovers import sidecars
from fruits_assets.storage.base import Folder
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
        pa.field("split", pa.string()),
        pa.field("label", pa.string()),
    ]
)
PASSED_OVER = ("hidden", "repeated", "sidecars")
"""Attributes of a listing that count files which are not listed."""
Entry = tuple[str, int, int, str | None, str | None, str | None, str | None]
"""A row of `LISTING_SCHEMA`, its modification time in microseconds."""
Row = tuple[str, int, datetime, str | None, str | None]
"""Path, bytes, modification time, ETag and problem of one file: a row of `LISTING_SCHEMA` before
its place in the layout is known."""


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
        beside: paths of the sidecars, where it was just made: no table holds them.
    """

    root: str
    files: pa.Table
    hidden: int
    repeated: int = 0
    sidecars: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    labels: Labels = "parent"
    beside: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """Its name among the inputs of a recipe."""
        return "source"

    @property
    def version(self) -> str:
        """Fingerprint of all that `entries` say: 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for entry in self.entries():
            digest.update(repr(entry).encode())
        return digest.hexdigest()[:16]

    def entries(self) -> Iterator[Entry]:
        """Everything that it says of each file, in order."""
        paths, sizes, times, *others = self.files.columns
        columns = (paths, sizes, times.cast(pa.int64()), *others)
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

    def write(self, folder: Folder) -> Snapshot:
        """Writes the listing as one part of its table, which is not published yet."""
        numbers = {name: str(getattr(self, name)) for name in PASSED_OVER}
        kinds = json.dumps(self.kinds, sort_keys=True)
        how = {"root": self.root, "labels": self.labels, "kinds": kinds, **numbers}
        files = self.files.replace_schema_metadata(how)
        made_from = address_of(how, self.version)
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
            _placed(table.replace_schema_metadata(None)),
            *(int(metadata.get(name.encode(), 0)) for name in PASSED_OVER),
            kinds=json.loads(metadata.get(b"kinds", b"{}")),
            labels=_labels(metadata.get(b"labels", b"parent").decode()),
        )


def listing_of(
    root: str,
    files: Iterable[Row],
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
        files: in any order.
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
    files = list(files)
    beside = sidecars([row[0] for row in files]) if given is None else {}
    if beside:
        files = [row for row in files if row[0] not in beside]
    found = Listing(
        root,
        LISTING_SCHEMA.empty_table(),
        hidden=sum(hidden.values()),
        repeated=repeated,
        sidecars=len(beside),
        kinds={**hidden, **Counter(beside.values())},
        labels=labels,
        beside=tuple(beside),
    )
    # Names that are not valid UTF-8 may look like others: then the problem decides.
    rows = sorted(files, key=lambda row: (row[0], row[4] or ""))
    if not rows and allow_empty:
        return found
    if not rows:
        passed_over = f" ({found.passed_over} were passed over)" if found.kinds else ""
        deeper = "" if recursive else " at its top level (`recursive` is false)"
        raise SourceError(
            f"the source {root} holds no file{deeper}{passed_over}. "
            "Put photos there, or point FRUITS_SOURCE at the folder that holds them."
        )
    paths = [row[0] for row in rows]
    placed = places(paths, labels) if given is None else [given[path] for path in paths]
    columns = [*zip(*rows, strict=True), *zip(*placed, strict=True)]
    arrays = [
        pa.array(column, type=field.type)
        for column, field in zip(columns, LISTING_SCHEMA, strict=True)
    ]
    return replace(found, files=pa.Table.from_arrays(arrays, schema=LISTING_SCHEMA))


def _placed(files: pa.Table) -> pa.Table:
    """The files with the columns that listings of earlier versions do not have."""
    if files.column_names == LISTING_SCHEMA.names:
        return files
    found = places(files["path"].to_pylist())
    splits = pa.array([split for split, _ in found], pa.string())
    labels = pa.array([label for _, label in found], pa.string())
    return files.append_column("split", splits).append_column("label", labels)


def _labels(name: str) -> Labels:
    """Raises ValueError where a listing of another version names a rule that is unknown here."""
    return LABELS[LABELS.index(name)]  # type: ignore[arg-type] - that is what is found out
