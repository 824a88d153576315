"""Parquet files: the parts of tables, each written whole and named after its content.

A part's name is `part-<made from>-<first row>-<last row>-<digest>.parquet`. The first three say
what it was made from, so that an interrupted run finds its finished parts; the digest is the
beginning of the SHA-256 of the file, so that damage is found wherever a part is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fruits_assets.storage.base import Folder

PART_NAME = re.compile(
    r"part-(?P<made_from>[0-9a-f]{16})-(?P<start>\d{6,})-(?P<stop>\d{6,})-(?P<digest>[0-9a-f]{16})"
    r"\.parquet"
)
DIGEST_DIGITS = 16
"""Hexadecimal digits of a SHA-256 in a part's name: 64 bits."""
VECTOR = pa.list_(pa.field("element", pa.float32()))
"""`array<float>` with the field names that Spark and Parquet use."""
FILES_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("content", pa.binary(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
"""A table of files, one per row: what is a file by nature, such as a model."""
ROW_GROUP_BYTES = 16 * 2**20
"""Rows are read back one row group at a time, so this bounds a reader's memory (bytes)."""
READ_ERRORS = (OSError, ValueError, KeyError, pa.ArrowException)
"""What reading a Parquet file may raise whose footer is damaged: it has no checksum."""


@dataclass(frozen=True)
class File:
    """One part of a table.

    Attributes:
        name: of the file, directly in the table's folder.
        bytes: its size.
        rows: number of rows.
    """

    name: str
    bytes: int
    rows: int

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of its content, as its name has them."""
        found = PART_NAME.fullmatch(self.name)
        return found["digest"] if found else ""

    @property
    def origin(self) -> Origin | None:
        """What it was made from, as its name says."""
        return Origin.of(self.name)

    def is_intact(self, content: bytes) -> bool:
        """Whether a content is what was written."""
        return len(content) == self.bytes and digest_of(content) == self.digest


@dataclass(frozen=True)
class Origin:
    """What a part is made from: the first three fields of its name.

    Attributes:
        made_from: 16 hexadecimal digits; see `address_of`.
        start: first row of what it is made from.
        stop: the row after the last.
    """

    made_from: str
    start: int
    stop: int

    @property
    def prefix(self) -> str:
        """What the names of all parts of this origin begin with."""
        return f"part-{self.made_from}-{self.start:06d}-{self.stop:06d}-"

    @classmethod
    def of(cls, name: str) -> Self | None:
        """From the name of a part; None for other files."""
        found = PART_NAME.fullmatch(name)
        if not found:
            return None
        return cls(found["made_from"], int(found["start"]), int(found["stop"]))


def address_of(*made_from: object) -> str:
    """Names what a part is made from, all that its rows depend on: 16 hexadecimal digits.

    Args:
        *made_from: values whose `repr` is the same wherever it is computed.
    """
    return hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]


def digest_of(content: bytes | memoryview) -> str:
    """The digest in the name of a part with this content."""
    return hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS]


def rows_in(name: str) -> int:
    """How many rows a part was made from, as its name says; 0 for other files."""
    origin = Origin.of(name)
    return origin.stop - origin.start if origin else 0


def write_part(
    folder: Folder,
    origin: Origin,
    table: pa.Table,
    *,
    incompressible: Sequence[str] = (),
    group_bytes: int = ROW_GROUP_BYTES,
    group_rows: int | None = None,
) -> File:
    """Writes a table as one part, whole or not at all.

    Args:
        folder: of the table.
        origin: what the part is made from.
        table: any number of rows.
        incompressible: columns kept plain, for it costs time to compress them and saves nothing.
        group_bytes: approximate size of a row group.
        group_rows: rows of a row group, instead.

    Raises:
        LakeError: it cannot be written.
    """
    sink = pa.BufferOutputStream()
    group = group_rows or max(1, table.num_rows * group_bytes // max(table.nbytes, group_bytes))
    plain = {*incompressible, *(f"{column}.list.element" for column in incompressible)}
    columns = _leaf_paths(table.schema)
    encoding: dict[str, Any] = {
        "compression": {path: "NONE" if path in plain else "ZSTD" for path in columns},
        "use_dictionary": [path for path in columns if path not in plain],
    }
    pq.write_table(table, sink, row_group_size=group, write_page_checksum=True, **encoding)
    content = memoryview(sink.getvalue())
    name = f"{origin.prefix}{digest_of(content)}.parquet"
    folder.write_once(name, content)
    return File(name, len(content), table.num_rows)


def write_files(folder: Folder, made_from: str, contents: Mapping[str, bytes]) -> File:
    """Writes files as the rows of one part of a table of files (`FILES_SCHEMA`)."""
    rows = [
        {"name": name, "content": content, "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    ]
    table = pa.Table.from_pylist(rows, FILES_SCHEMA)
    origin = Origin(made_from, 0, len(rows))
    return write_part(folder, origin, table, incompressible=["content"], group_rows=1)


def finished_part(folder: Folder, origin: Origin) -> tuple[File, pa.Table] | None:
    """A part that an interrupted run already wrote, if it is intact, or None."""
    for name, size in sorted(folder.sizes(prefix=origin.prefix).items()):
        with contextlib.suppress(*READ_ERRORS):
            content = folder.read(name)
            if File(name, size, 0).is_intact(content):
                table = _table(content)
                return File(name, size, table.num_rows), table
    return None


def part_once(
    folder: Folder,
    origin: Origin,
    make: Callable[[], pa.Table],
    *,
    incompressible: Sequence[str] = (),
    group_bytes: int = ROW_GROUP_BYTES,
) -> tuple[File, pa.Table]:
    """A part that an interrupted run already wrote, or that is made now; see `write_part`."""
    if found := finished_part(folder, origin):
        return found
    table = make()
    file = write_part(folder, origin, table, incompressible=incompressible, group_bytes=group_bytes)
    return file, table


def read_intact(folder: Folder, file: File) -> pa.Table:
    """A whole part.

    Raises:
        OSError, ValueError, ArrowException: it is missing, or is not what was written.
    """
    return _table(intact(folder, file))


def intact(folder: Folder, file: File) -> bytes:
    """The content of a part, compared with the digest in its name. Raises OSError or ValueError."""
    content = folder.read(file.name)
    if not file.is_intact(content):
        raise ValueError("it is not what was written: its checksum differs")
    return content


def _table(content: bytes) -> pa.Table:
    with parquet_file(pa.BufferReader(content)) as parquet:  # `read_table` would import pandas
        return parquet.read()


@contextlib.contextmanager
def parquet_file(source: pa.NativeFile) -> Iterator[pq.ParquetFile]:
    """Fetches the columns of a row group at once: in a bucket, each request costs its time."""
    with pq.ParquetFile(source, pre_buffer=True, page_checksum_verification=True) as parquet:
        yield parquet


def vectors_array(matrix: np.ndarray) -> pa.ListArray:
    """(n, d) float32 -> an Arrow array of n lists of d."""
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
    values = pa.array(matrix.astype(np.float32, copy=False).ravel())
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=VECTOR)


def vectors_matrix(batch: pa.RecordBatch, column: str) -> np.ndarray:
    """The reverse of `vectors_array`: (n, d) float32, without a copy; (0, 0) of no rows."""
    values = batch.column(column).flatten().to_numpy()
    return values.reshape(batch.num_rows, -1 if batch.num_rows else 0)


def _leaf_paths(schema: pa.Schema) -> list[str]:
    return [
        f"{column.name}.list.element" if pa.types.is_list(column.type) else column.name
        for column in schema
    ]
