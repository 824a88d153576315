"""What photos there are to ingest.

Listing is separate from reading: the listing is small, says what there is to do, and its
fingerprint tells whether anything changed since the last run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from fruits_assets.core.errors import SourceError
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
    ]
)
Entry = tuple[str, int, int, str | None, str | None]
"""Path, bytes, modification time in microseconds, ETag and problem of one file."""
Row = tuple[str, int, datetime, str | None, str | None]
"""A row of `LISTING_SCHEMA`: path, bytes, modification time, ETag and problem of one file."""


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
