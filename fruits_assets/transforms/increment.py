"""What a version takes over from an earlier one of the same asset.

Parts whose rows all still hold are listed again. The others are rewritten without
the rows that are gone, and small ones are merged once there are many, so that a table that grows
by small steps does not end as thousands of small files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import File, Origin, address_of, part_once
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.spread import Done

MAX_SMALL_PARTS = 100
"""More of them are merged."""
SMALL = 0.25
"""Of a full part, in rows and in bytes."""


@dataclass(frozen=True)
class PartSize:
    """How large a part may be; whichever is reached first.

    Attributes:
        rows: at most.
        bytes: at most.
    """

    rows: int
    bytes: int

    def is_small(self, file: File) -> bool:
        """Whether a file is one of those that are merged when they are many."""
        return file.rows < SMALL * self.rows and file.bytes < SMALL * self.bytes

    def groups(self, files: Iterable[File]) -> list[list[File]]:
        """Consecutive files that fit into one part together."""
        groups: list[list[File]] = []
        rows = size = 0
        for file in files:
            rows, size = rows + file.rows, size + file.bytes
            if not groups or rows > self.rows or size > self.bytes:
                groups.append([])
                rows, size = file.rows, file.bytes
            groups[-1].append(file)
        return groups


@dataclass(frozen=True)
class Merge:
    """Parts of an earlier version that become one part, without the rows that are gone.

    Attributes:
        sources: the parts.
        origin: of the new part.
    """

    sources: tuple[File, ...]
    origin: Origin

    def table(self, earlier: Snapshot, gone: Collection[str]) -> pa.Table:
        """The new part. Raises DatasetError where a source is damaged.

        Args:
            earlier: the version that the sources belong to.
            gone: paths of the rows to leave out.
        """
        return pa.concat_tables(without(earlier.table(file), gone) for file in self.sources)


@dataclass(frozen=True)
class Merging:
    """The task of making one part of a version from parts of an earlier one.

    Attributes:
        key: of the file in what the task reports.
        earlier: the version that the parts belong to.
        merge: which, and what they become.
        gone: paths of the rows to leave out.
        folder: of the table.
        incompressible: columns kept plain.
    """

    key: str
    earlier: Snapshot
    merge: Merge
    gone: Collection[str]
    folder: Folder
    incompressible: tuple[str, ...]

    def run(self) -> Done:
        """Does it, unless an interrupted run has."""

        def table() -> pa.Table:
            return self.merge.table(self.earlier, self.gone)

        plain = self.incompressible
        file, _ = part_once(self.folder, self.merge.origin, table, incompressible=plain)
        return Done(0, {self.key: [vars(file)]})


@dataclass(frozen=True)
class Takeover:
    """What becomes of the parts of an earlier version.

    Attributes:
        kept: they are listed again, as they are.
        merges: they are rewritten.
    """

    kept: tuple[File, ...] = ()
    merges: tuple[Merge, ...] = ()


def takeover(earlier: Snapshot, paths: pa.Table, gone: Collection[str], full: PartSize) -> Takeover:
    """What becomes of the parts of an earlier version.

    Args:
        earlier: the version, or what remains of it.
        paths: columns `path` and `part` of all its rows, in order.
        gone: paths of the rows that do not hold any more.
        full: how large a part may be.
    """
    left: dict[str, list[str]] = {file.name: [] for file in earlier.files}
    for path, part in zip(paths["path"].to_pylist(), paths["part"].to_pylist(), strict=True):
        if path not in gone:
            left[part].append(path)
    whole = [file for file in earlier.files if len(left[file.name]) == file.rows]
    groups = [[file] for file in earlier.files if 0 < len(left[file.name]) < file.rows]
    small = [file for file in whole if full.is_small(file)]
    if len(small) > MAX_SMALL_PARTS:
        groups += full.groups(small)
        whole = [file for file in whole if not full.is_small(file)]
    kept = tuple(file for file in whole if file.rows)
    return Takeover(kept, tuple(_merge(group, left) for group in groups))


def _merge(group: Sequence[File], left: dict[str, list[str]]) -> Merge:
    kept = [left[file.name] for file in group]
    rows = sum(map(len, kept))
    made_from = address_of([file.name for file in group], kept)
    return Merge(tuple(group), Origin(made_from, 0, rows))


def without(table: pa.Table, gone: Collection[str]) -> pa.Table:
    """A table without the rows of some paths, and without metadata, which may name them."""
    kept = [path not in gone for path in table["path"].to_pylist()]
    return table.filter(pa.array(kept, pa.bool_())).replace_schema_metadata(None)


def evenly(rows: int, count: int) -> list[int]:
    """Positions of `count` rows, or of all where there are fewer, evenly spread."""
    count = min(count, rows)
    return [(2 * i + 1) * rows // (2 * count) for i in range(count)]
