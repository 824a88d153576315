"""Snapshots: immutable handles to one version of one table.

A snapshot lists the parts of its version and the metadata of the commit that published it; it knows
nothing of the log that they were read from, so that a Spark worker can open it without Delta.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from fruits_assets.core.errors import DatasetError
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import (
    READ_ERRORS,
    File,
    intact,
    parquet_file,
    read_intact,
    rows_in,
)

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

REPAIR = (
    "Run `make repair`: it removes what is damaged, and names what to materialise again; only "
    "what is missing is computed."
)
READS_IN_FLIGHT = 16
"""Files of a table that are read at once: in a bucket, each is a few round trips."""
DRAFT = -1
"""Number of a snapshot that is not published yet."""


@dataclass(frozen=True)
class Output:
    """What was written for one version of one table.

    Attributes:
        files: all of its parts.
        figures: numbers for people; neither labels nor paths, for the log of a table keeps them.
        provisional: rows that may come out otherwise when they are tried again.
    """

    files: tuple[File, ...]
    figures: dict[str, Any] = field(default_factory=dict)
    provisional: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The reverse of `to_dict`."""
        return cls(**{**fields, "files": tuple(File(**file) for file in fields["files"])})


@dataclass(frozen=True)
class Commit:
    """How a version came to be: the metadata of the commit that published it.

    Attributes:
        recipe: hash of everything that it was made from, 16 hexadecimal digits.
        transform: name of the function that made it.
        code_version: of that function.
        params: its parameters.
        inputs: recipe hash of each input, by name.
        numbers: number (Delta version) of each input that is a table, by name.
        siblings: number of each table that was made together with it, by name.
        run_id: the Dagster run that made it.
        created_at: when it was made, ISO 8601, UTC.
        seconds: that it took to make, wall clock.
        figures: numbers for people (counts, images/s, ...).
        provisional: rows that may come out otherwise when they are tried again: the next run does.
    """

    recipe: str
    transform: str
    code_version: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    run_id: str
    created_at: str
    seconds: float
    numbers: Mapping[str, int] = field(default_factory=dict)
    siblings: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    provisional: int = 0


@dataclass(frozen=True)
class Snapshot:
    """One version of one table.

    Attributes:
        folder: of the table; its parts lie directly in it.
        name: of the table.
        schema: of its rows.
        number: Delta version; `DRAFT` for one that is not published yet.
        commit: how it came to be.
        files: its parts, in order.
        siblings: snapshots of the tables that were made together with it, by name.
        follows: number of the version that was the latest when this one was asked for, so that it
            is not published in place of another that it does not know.
    """

    folder: Folder
    name: str
    schema: pa.Schema
    number: int
    commit: Commit
    files: tuple[File, ...]
    siblings: Mapping[str, Snapshot] = field(default_factory=dict, compare=False, repr=False)
    follows: int = field(default=DRAFT, compare=False)

    @classmethod
    def unpublished(
        cls, folder: Folder, name: str, schema: pa.Schema, files: tuple[File, ...]
    ) -> Self:
        """Parts that were written and belong to no version yet."""
        commit = Commit("", "", "", {}, {}, "", "", 0.0)
        return cls(folder, name, schema, DRAFT, commit, files)

    @property
    def version(self) -> str:
        """Hash of its recipe, 16 hexadecimal digits: its data version in Dagster."""
        return self.commit.recipe

    @property
    def figures(self) -> Mapping[str, Any]:
        """Numbers for people."""
        return self.commit.figures

    @property
    def place(self) -> str:
        """URI of the folder that workers read."""
        return self.folder.uri

    @property
    def uri(self) -> str:
        """URI of the table: what other software opens."""
        return self.folder.uri

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """Size of all parts, in bytes."""
        return sum(file.bytes for file in self.files)

    def alone(self) -> Self:
        """The same without its siblings: small enough to be sent to every worker."""
        return replace(self, siblings={})

    def only(self, files: Sequence[File]) -> Self:
        """Some of its parts, without siblings: of none, it still says how to read one."""
        return replace(self, files=tuple(files), siblings={})

    def done(self, unpublished: Mapping[str, int]) -> float:
        """Share of its rows, 0 to 1, that an interrupted run has already treated.

        Args:
            unpublished: name -> size of the parts that it has left.
        """
        return min(1.0, sum(map(rows_in, unpublished)) / max(1, self.rows))

    def stage(self, folders: Mapping[str, Folder]) -> Self:  # noqa: ARG002 - see spark.target.Input
        """What a transform is given: a table already lies in the lake."""
        return self

    def read(self, name: str) -> bytes:
        """The content of one file of a table of files.

        Raises:
            DatasetError: there is no such file, or it is damaged.
        """
        for file in self.files:
            table = self.table(file)
            names = table["name"].to_pylist()
            if name in names:
                return table["content"][names.index(name)].as_py()
        raise self._damaged(f"it has no file {name!r}")

    def names(self) -> list[str]:
        """Names of the files of a table of files, in order. Raises DatasetError."""
        return self.arrow(["name"])["name"].to_pylist()

    def table(self, file: File) -> pa.Table:
        """One part, whole, compared with the digest in its name. Raises DatasetError."""
        with self._told(file):
            return read_intact(self.folder, file)

    def batches(
        self, file: File, columns: Sequence[str], *, rows: int = 4096
    ) -> Iterator[pa.RecordBatch]:
        """Some columns of one part, decoded one row group at a time.

        Raises:
            DatasetError: the part is missing or is not what was written, compared as a whole: pages
                have checksums of their own, but neither their headers nor the footer do.
        """
        with self._told(file), parquet_file(pa.BufferReader(intact(self.folder, file))) as parquet:
            for group in range(parquet.num_row_groups):
                yield from parquet.iter_batches(
                    rows, row_groups=[group], columns=list(columns), use_threads=False
                )

    def arrow(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of the whole table, in memory: for light columns, not for pixels.

        Only these columns are read, so it is their pages' checksums that are verified.

        Raises:
            DatasetError: a part is missing or damaged.
        """
        tables = self._light(columns)
        return pa.concat_tables(tables) if tables else self._some(columns).empty_table()

    def arrow_with_parts(self, columns: Sequence[str]) -> pa.Table:
        """The same, with a column `part`: the name of the part that each row lies in."""
        tables = [
            table.append_column("part", pa.repeat(file.name, table.num_rows).dictionary_encode())
            for file, table in zip(self.files, self._light(columns), strict=True)
        ]
        if not tables:
            empty = self._some(columns).empty_table()
            return empty.append_column("part", pa.array([], pa.string()))
        return pa.concat_tables(tables)

    def _some(self, columns: Sequence[str]) -> pa.Schema:
        return pa.schema([self.schema.field(name) for name in columns])

    def pieces(self, columns: Sequence[str]) -> Iterator[tuple[File, pa.Table]]:
        """The same part by part, a few of them at once: for tables of any size."""
        files = iter(self.files)
        with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
            while some := list(islice(files, READS_IN_FLIGHT)):
                yield from zip(some, pool.map(partial(self._columns, columns), some), strict=True)

    def head(self, columns: Sequence[str], rows: int) -> pa.Table:
        """Some columns of the first rows."""
        found = [self._some(columns).empty_table()]
        for _, table in self.pieces(columns):
            found.append(table.slice(0, rows))
            rows -= found[-1].num_rows
            if not rows:
                break
        return pa.concat_tables(found)

    def _light(self, columns: Sequence[str]) -> list[pa.Table]:
        with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
            return list(pool.map(partial(self._columns, columns), self.files))

    def _columns(self, columns: Sequence[str], file: File) -> pa.Table:
        with self._told(file), self.folder.open(file.name) as source:
            with parquet_file(source) as parquet:
                found, expected = _columns(parquet.schema_arrow), _columns(self.schema)
                if found != expected:
                    raise ValueError(f"it has the columns {found}, not {expected}")
                table = parquet.read(columns=list(columns)).replace_schema_metadata(None)
            return table.cast(self._some(columns))

    def pandas(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns of the whole table as a frame."""
        return self.arrow(columns).to_pandas()

    def spark(self, session: SparkSession) -> DataFrame:
        """The whole table, lazily."""
        path_of = self.folder.storage.spark_path
        return session.read.parquet(
            *(_without_glob(path_of(self.folder.at(file.name))) for file in self.files)
        )

    def damage(self, file: File) -> str | None:
        """What is wrong with one of its parts, read to the end; None where nothing is."""
        try:
            content = self.folder.read(file.name)
        except FileNotFoundError:
            return "it is missing"
        except OSError as error:
            return f"it cannot be read ({error})"
        if len(content) != file.bytes:
            return f"it has {len(content)} bytes instead of {file.bytes}"
        return None if file.is_intact(content) else "its checksum differs"

    def check(self) -> Self:
        """This snapshot, if all of its parts are there with their sizes. Raises DatasetError."""
        sizes = self.folder.sizes()
        for file in self.files:
            found = sizes.get(file.name)
            if found is None:
                raise self._damaged(f"{file.name} is missing")
            if found != file.bytes:
                raise self._damaged(f"{file.name} has {found} bytes instead of {file.bytes}")
        return self

    def remains(self) -> Self:
        """What is whole of it: the parts that are there with their sizes."""
        sizes = self.folder.sizes()
        whole = tuple(file for file in self.files if sizes.get(file.name) == file.bytes)
        siblings = {name: one.remains() for name, one in self.siblings.items()}
        return replace(self, files=whole, siblings=siblings)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it, for a process on a cluster."""
        return {
            "folder": self.folder.to_dict(),
            "name": self.name,
            "schema": base64.b64encode(self.schema.serialize()).decode(),
            "number": self.number,
            "commit": asdict(self.commit),
            "files": [[file.name, file.bytes, file.rows] for file in self.files],
            "siblings": {name: one.to_dict() for name, one in self.siblings.items()},
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], folder: Folder) -> Self:
        """The reverse of `to_dict`.

        Args:
            fields: as `to_dict` made them.
            folder: of the table, as this process reaches it.
        """
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(fields["schema"])))
        siblings = {
            name: cls.from_dict(one, Folder(folder.storage, one["folder"]["uri"]))
            for name, one in fields["siblings"].items()
        }
        files = tuple(File(*file) for file in fields["files"])
        commit = Commit(**fields["commit"])
        return cls(folder, fields["name"], schema, fields["number"], commit, files, siblings)

    @cached_property
    def by_name(self) -> Mapping[str, File]:
        """Its parts by their names."""
        return {file.name: file for file in self.files}

    def _damaged(self, what: str) -> DatasetError:
        return DatasetError(
            f"{self.name}, version {self.version} ({self.uri}) is damaged: {what}. {REPAIR}"
        )

    @contextlib.contextmanager
    def _told(self, file: File) -> Iterator[None]:
        try:
            yield
        except READ_ERRORS as error:
            raise self._damaged(f"{file.name} cannot be read ({error})") from error


def _columns(schema: pa.Schema) -> dict[str, str]:
    return {column.name: str(column.type) for column in schema}


def _without_glob(path: str) -> str:
    """Hadoop takes these characters of a path for a pattern."""
    return re.sub(r"([\\*?\[\]{}])", r"\\\1", path)
