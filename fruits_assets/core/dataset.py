"""Datasets: immutable handles to one version of one asset, and the files that make it up.

A version is a folder of files and a `manifest.json` that lists every one of them with its size and
SHA-256; a file that the manifest does not list is not part of the version. A version may list files
that lie in the folder of an earlier one: what has not changed is neither computed nor copied again.
All data are read and written with Arrow, in the process that needs them: on a Spark worker as on a
laptop.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fruits_assets.core.errors import DatasetError
from fruits_assets.core.storage import join, storage_of

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

MANIFEST = "manifest.json"
PART_NAME = re.compile(r"part-(?P<address>.+)-(?P<start>\d+)-(?P<stop>\d+)\.parquet")
REPAIR = (
    "Run `make repair`: it removes what is damaged, and names what to materialise again; only "
    "what is missing is computed."
)
VECTOR = pa.list_(pa.field("element", pa.float32()))
"""`array<float>` as Spark and Parquet name its parts."""
ROW_GROUP_BYTES = 16 * 2**20
"""Rows are read back one row group at a time, so this bounds a reader's memory (bytes)."""
READ_ERRORS = (OSError, ValueError, KeyError, pa.ArrowException)
"""What reading a Parquet file may raise whose footer is damaged: it has no checksum."""
READS_IN_FLIGHT = 16
"""Files of a table that are read at once: in a bucket, each is a few round trips."""


def read(uri: str) -> bytes:
    """The whole content of a file. Raises OSError."""
    return storage_of(uri).read(uri)


@dataclass(frozen=True)
class File:
    """One file of a version.

    Attributes:
        name: relative to the version's folder.
        bytes: its size.
        sha256: of its content, hexadecimal.
        rows: number of rows, for Parquet files; 0 for others.
        version: the earlier version in whose folder it lies; empty for that of the manifest.
    """

    name: str
    bytes: int
    sha256: str
    rows: int = 0
    version: str = ""


def uri_of(folder: str, file: File) -> str:
    """Where a file of the version in `folder` lies."""
    if file.version:
        folder = join(folder.rpartition("/")[0], file.version)
    return join(folder, file.name)


def write_file(folder: str, name: str, content: bytes | memoryview, *, rows: int = 0) -> File:
    """Writes one file of a version, whole, and returns its entry for the manifest."""
    uri = join(folder, name)
    storage_of(uri).write(uri, content)
    return File(name, len(content), hashlib.sha256(content).hexdigest(), rows)


def file_of(folder: str, name: str) -> File:
    """The entry of a file that was written as a stream."""
    digest, size = hashlib.sha256(), 0
    uri = join(folder, name)
    with storage_of(uri).open(uri) as file:
        while block := file.read(2**20):
            digest.update(block)
            size += len(block)
    return File(name, size, digest.hexdigest())


def write_parquet(
    folder: str,
    name: str,
    table: pa.Table,
    *,
    incompressible: Sequence[str] = (),
    group_bytes: int = ROW_GROUP_BYTES,
) -> File:
    """Writes a table as one Parquet file of a version.

    Args:
        folder: URI of the version.
        name: file name.
        table: any number of rows.
        incompressible: columns kept plain, for it costs time to compress them and saves nothing.
        group_bytes: size of a row group, about.
    """
    sink = pa.BufferOutputStream()
    group = max(1, table.num_rows * group_bytes // max(table.nbytes, group_bytes))
    plain = {*incompressible, *(f"{column}.list.element" for column in incompressible)}
    columns = _leaf_paths(table.schema)
    encoding: dict[str, Any] = {
        "compression": {path: "NONE" if path in plain else "ZSTD" for path in columns},
        "use_dictionary": [path for path in columns if path not in plain],
    }
    pq.write_table(table, sink, row_group_size=group, write_page_checksum=True, **encoding)
    return write_file(folder, name, memoryview(sink.getvalue()), rows=table.num_rows)


def finished_parquet(folder: str, name: str) -> tuple[File, pa.Table] | None:
    """A file that an interrupted run already wrote, or None."""
    try:
        content = read(join(folder, name))
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except READ_ERRORS:
        return None
    return File(name, len(content), hashlib.sha256(content).hexdigest(), table.num_rows), table


def parquet_once(
    folder: str, name: str, make: Callable[[], pa.Table], *, incompressible: Sequence[str] = ()
) -> tuple[File, pa.Table]:
    """A file that an interrupted run already wrote, or that is made now; see `write_parquet`."""
    if found := finished_parquet(folder, name):
        return found
    table = make()
    return write_parquet(folder, name, table, incompressible=incompressible), table


def read_table(uri: str) -> pa.Table:
    """A whole Parquet file, its page checksums verified. Raises OSError or ArrowInvalid."""
    return pq.read_table(pa.BufferReader(read(uri)), page_checksum_verification=True)


def read_rows(uri: str, start: int, stop: int) -> pa.Table:
    """Rows `start` to `stop` of one Parquet file, reading only the row groups they lie in."""
    with (
        storage_of(uri).open(uri) as source,
        _parquet(source) as parquet,
    ):
        groups, first, row = [], start, 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if row < stop and row + rows > start:
                first = row if not groups else first
                groups.append(group)
            row += rows
        return parquet.read_row_groups(groups).slice(start - first, stop - start)


def _parquet(source: pa.NativeFile) -> pq.ParquetFile:
    """Fetches the columns of a row group at once: in a bucket, each request costs its time."""
    return pq.ParquetFile(source, pre_buffer=True, page_checksum_verification=True)


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


@dataclass(frozen=True)
class Output:
    """What was written into one version.

    Attributes:
        files: all of them.
        figures: numbers for people.
        schema: column -> Arrow type of the part files; empty where there are none.
        provisional: rows that may come out otherwise when they are tried again.
    """

    files: tuple[File, ...]
    figures: dict[str, Any] = field(default_factory=dict)
    schema: dict[str, str] = field(default_factory=dict)
    provisional: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Output:
        """The reverse of `to_dict`."""
        return cls(**{**fields, "files": tuple(File(**file) for file in fields["files"])})


def schema_of(schema: pa.Schema) -> dict[str, str]:
    """Column -> Arrow type, for the manifest."""
    return {column.name: str(column.type) for column in schema}


@dataclass(frozen=True)
class Manifest:
    """What a version holds and how it came to be.

    Attributes:
        asset: name of the asset.
        version: address of the recipe, 16 hexadecimal digits.
        transform: name of the function that made it.
        code_version: of that function.
        params: its parameters.
        inputs: version of each input, by name.
        run_id: the Dagster run that made it.
        created_at: ISO 8601, UTC.
        seconds: that it took to make, wall clock.
        files: every file of the version.
        figures: numbers for people (counts, images/s, ...).
        schema: column name -> Arrow type; empty where the files are not tables.
        provisional: rows that may come out otherwise when they are tried again: the next run does.
    """

    asset: str
    version: str
    transform: str
    code_version: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    run_id: str
    created_at: str
    seconds: float
    files: tuple[File, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, str] = field(default_factory=dict)
    provisional: int = 0

    @property
    def rows(self) -> int:
        """Rows of all part files (side files such as thumbnails do not count)."""
        return sum(file.rows for file in self.files if is_part(file.name))

    @property
    def bytes(self) -> int:
        """Size of all files, in bytes."""
        return sum(file.bytes for file in self.files)

    def to_json(self) -> bytes:
        """As `manifest.json` holds it, with a checksum of all the rest."""
        fields = {**asdict(self), "rows": self.rows, "bytes": self.bytes}
        return _pretty({**fields, "sha256": _checksum(fields)})

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Reads `manifest.json`.

        Raises:
            ValueError: it is not as it was written.
            KeyError, TypeError: it is none.
        """
        fields = json.loads(content)
        written = fields["sha256"]
        del fields["sha256"]
        if written != _checksum(fields):
            raise ValueError("its checksum differs")
        fields["files"] = tuple(File(**file) for file in fields["files"])
        for file in fields["files"]:
            if not (_is_name(file.name) and (file.version == "" or _is_name(file.version))):
                raise ValueError(f"it names a file outside its folder: {file.name!r}")
        del fields["rows"], fields["bytes"]
        return cls(**fields)


def _is_name(text: str) -> bool:
    """Whether a text names something in a folder, and leads nowhere else."""
    return "/" not in text and "\0" not in text and text not in {"", ".", ".."}


def _checksum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_pretty(fields)).hexdigest()


def _pretty(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, indent=2, ensure_ascii=False).encode()


def is_part(name: str) -> bool:
    """Whether a file holds rows of the table itself."""
    return name.startswith("part-")


def part_name(address: str, start: int, stop: int) -> str:
    """The name of a part.

    Args:
        address: of what it is made from, among which
        start: is the first row, and
        stop: the row after the last.
    """
    return f"part-{address}-{start:06d}-{stop:06d}.parquet"


def rows_in(name: str) -> int:
    """How many rows a part was made from, as its name says; 0 for other files."""
    found = PART_NAME.fullmatch(name)
    return int(found["stop"]) - int(found["start"]) if found else 0


@dataclass(frozen=True)
class Pointer:
    """What `current.json` was when it was looked at.

    Attributes:
        content: of the file; None where there was none.
    """

    content: bytes | None


@dataclass(frozen=True)
class Dataset:
    """One version of one asset: where it lies and what its manifest says.

    Attributes:
        uri: of its folder.
        manifest: what it holds.
        follows: what was current when it was made, for the lake to publish it in no other's place.
    """

    uri: str
    manifest: Manifest
    follows: Pointer | None = field(default=None, compare=False)

    @classmethod
    def open(cls, uri: str) -> Dataset:
        """Opens a finished version.

        Raises:
            DatasetError: it is missing, unfinished, or files are missing or of another size.
        """
        dataset = cls(uri, read_manifest(uri))
        for file, size in zip(dataset.manifest.files, dataset._sizes(), strict=True):
            if size is None:
                raise dataset._damaged(f"{file.name} is missing")
            if size != file.bytes:
                raise dataset._damaged(f"{file.name} has {size} bytes instead of {file.bytes}")
        return dataset

    @classmethod
    def remains(cls, uri: str) -> Self:
        """What is still whole of a version, even of a damaged one: files there with their size.

        Raises:
            DatasetError: it has no manifest, or an unreadable one.
        """
        dataset = cls(uri, read_manifest(uri))
        pairs = zip(dataset.manifest.files, dataset._sizes(), strict=True)
        files = tuple(file for file, size in pairs if size == file.bytes)
        return cls(uri, replace(dataset.manifest, files=files))

    @property
    def name(self) -> str:
        """The asset's name."""
        return self.manifest.asset

    @property
    def version(self) -> str:
        """Address of the recipe, 16 hexadecimal digits."""
        return self.manifest.version

    @property
    def parts(self) -> list[File]:
        """The Parquet files of the table, in order."""
        return [file for file in self.manifest.files if is_part(file.name)]

    @property
    def place(self) -> str:
        """Its folder, which workers read."""
        return self.uri

    @property
    def rows(self) -> int:
        """Of the table."""
        return self.manifest.rows

    @property
    def bytes(self) -> int:
        """Of all files."""
        return self.manifest.bytes

    def done(self, folder: str) -> float:
        """Share of its rows, 0 to 1, that the parts of an interrupted version in `folder` hold."""
        rows = sum(rows_in(name) for name in storage_of(folder).sizes(folder))
        return min(1.0, rows / max(1, self.rows))

    def stage(self, folder: str) -> str:  # noqa: ARG002 - the protocol of transform inputs
        """Where a transform finds it: a dataset already lies in the lake."""
        return self.uri

    def read(self, name: str) -> bytes:
        """The content of one of its files, compared with the manifest's checksum.

        Raises:
            DatasetError: the file is missing or is not what was written.
        """
        file = self._file(name)
        with self._told(name):
            content = read(self.uri_of(file))
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise self._damaged(f"{name} is not what was written (its checksum differs)")
        return content

    def uri_of(self, file: File) -> str:
        """Where one of its files lies: in its own folder, or in that of an earlier version."""
        return uri_of(self.uri, file)

    def carried(self, file: File) -> File:
        """One of its files, as the manifest of a later version lists it."""
        return replace(file, version=file.version or self.version)

    def table(self, name: str) -> pa.Table:
        """One Parquet file, whole, as it was written. Raises DatasetError, as `read` does."""
        content = self.read(name)
        with self._told(name):
            return pq.read_table(pa.BufferReader(content), page_checksum_verification=True)

    def batches(
        self, name: str, columns: Sequence[str], *, rows: int = 4096
    ) -> Iterator[pa.RecordBatch]:
        """Some columns of one Parquet file, decoded one row group at a time.

        Raises:
            DatasetError: the file is missing or is not what was written, compared as a whole: pages
                have checksums of their own, but neither their headers nor the footer do.
        """
        with self._told(name), _parquet(pa.BufferReader(self.read(name))) as parquet:
            for group in range(parquet.num_row_groups):
                yield from parquet.iter_batches(
                    rows, row_groups=[group], columns=list(columns), use_threads=False
                )

    def arrow(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of the whole table, in memory: for light columns, not for pixels.

        Only these columns are read, so it is their pages' checksums that are verified.

        Raises:
            DatasetError: a file is missing or damaged, or there are none.
        """
        if not self.parts:
            raise self._damaged("it has no part files")
        return pa.concat_tables(self._light(columns))

    def arrow_with_parts(self, columns: Sequence[str]) -> pa.Table:
        """The same, with a column `part`: the name of the file that each row lies in."""
        tables = [
            table.append_column("part", pa.repeat(file.name, table.num_rows).dictionary_encode())
            for file, table in zip(self.parts, self._light(columns), strict=True)
        ]
        names = [*columns, "part"]
        return pa.concat_tables(tables) if tables else pa.table({name: [] for name in names})

    def _light(self, columns: Sequence[str]) -> list[pa.Table]:
        def read_columns(file: File) -> pa.Table:
            with self._opened(file.name) as parquet:
                return parquet.read(columns=list(columns)).replace_schema_metadata(None)

        with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
            return list(pool.map(read_columns, self.parts))

    def pandas(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns of the whole table as a frame."""
        return self.arrow(columns).to_pandas()

    def spark(self, session: SparkSession) -> DataFrame:
        """The whole table, lazily."""
        path_of = storage_of(self.uri).spark_path
        return session.read.parquet(
            *(_without_glob(path_of(self.uri_of(file))) for file in self.parts)
        )

    def damage(self, file: File) -> str | None:
        """What is wrong with one of its files, read to the end; None where nothing is."""
        folder, _, name = self.uri_of(file).rpartition("/")
        try:
            found = file_of(folder, name)
        except FileNotFoundError:
            return "it is missing"
        except OSError as error:
            return f"it cannot be read ({error})"
        if found.bytes != file.bytes:
            return f"it has {found.bytes} bytes instead of {file.bytes}"
        return None if found.sha256 == file.sha256 else "its checksum differs"

    @cached_property
    def _files(self) -> dict[str, File]:
        return {file.name: file for file in self.manifest.files}

    def _file(self, name: str) -> File:
        if name not in self._files:
            raise self._damaged(f"it has no file {name!r}")
        return self._files[name]

    def _sizes(self) -> list[int | None]:
        """Of all its files, as they lie there now; None for those that do not."""
        folders = [self.uri_of(file).rpartition("/")[0] for file in self.manifest.files]
        sizes = {folder: storage_of(folder).sizes(folder) for folder in set(folders)}
        pairs = zip(folders, self.manifest.files, strict=True)
        return [sizes[folder].get(file.name) for folder, file in pairs]

    def _damaged(self, what: str) -> DatasetError:
        return DatasetError(
            f"{self.manifest.asset}, version {self.version} ({self.uri}) is damaged: {what}. "
            f"{REPAIR}"
        )

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[pq.ParquetFile]:
        uri = self.uri_of(self._file(name))
        with (
            self._told(name),
            storage_of(uri).open(uri) as source,
            _parquet(source) as parquet,
        ):
            found = schema_of(parquet.schema_arrow)
            if is_part(name) and found != self.manifest.schema:
                raise ValueError(f"it has the columns {found}, not {self.manifest.schema}")
            yield parquet

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except READ_ERRORS as error:
            raise self._damaged(f"{name} cannot be read ({error})") from error


def read_manifest(uri: str) -> Manifest:
    """The manifest of the version at `uri`.

    Raises:
        DatasetError: there is none, or it is not readable.
    """
    try:
        return Manifest.from_json(read(join(uri, MANIFEST)))
    except FileNotFoundError:
        raise DatasetError(
            f"{uri} is not a finished version: it has no {MANIFEST}. Materialise the asset again."
        ) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DatasetError(f"{join(uri, MANIFEST)} cannot be read ({error!r}). {REPAIR}") from error


def _without_glob(path: str) -> str:
    """Hadoop takes these characters of a path for a pattern."""
    return re.sub(r"([\\*?\[\]{}])", r"\\\1", path)
