"""What a version takes over from an earlier one of the same asset.

Parts whose rows all still hold are listed again. The others are rewritten without
the rows that are gone, and small ones are merged once there are many, so that a table that grows
by small steps does not end as thousands of small files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
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
class Merging:
    """The task of making one part of a version from parts of an earlier one.

    Attributes:
        key: of the file in what the task reports.
        earlier: the version that the parts belong to.
        sources: the parts.
        folder: of the table.
        incompressible: columns kept plain.
    """

    key: str
    earlier: Snapshot
    sources: tuple[File, ...]
    folder: Folder
    incompressible: tuple[str, ...]

    def run(self, rows: pa.Table) -> Done:
        """Does it, unless an interrupted run has. Raises DatasetError where a source is damaged.

        Args:
            rows: `path` of the rows that do not hold any more.
        """
        gone = set(rows["path"].to_pylist())

        def table() -> pa.Table:
            return pa.concat_tables(
                without(self.earlier.table(file), gone) for file in self.sources
            )

        made_from = address_of([file.name for file in self.sources], sorted(gone))
        origin = Origin(made_from, 0, sum(file.rows for file in self.sources) - len(gone))
        file, _ = part_once(self.folder, origin, table, incompressible=self.incompressible)
        return Done(0, {self.key: [vars(file)]})


@dataclass(frozen=True)
class Takeover:
    """What becomes of the parts of an earlier version.

    Attributes:
        kept: they are listed again, as they are.
        merges: they are rewritten, each group as one part.
    """

    kept: tuple[File, ...] = ()
    merges: tuple[tuple[File, ...], ...] = ()


def takeover(earlier: Snapshot, gone: Mapping[str, int], full: PartSize) -> Takeover:
    """What becomes of the parts of an earlier version.

    Args:
        earlier: the version, or what remains of it.
        gone: name of a part -> how many of its rows do not hold any more.
        full: how large a part may be.
    """
    whole = [file for file in earlier.files if file.rows and not gone.get(file.name)]
    groups = [[file] for file in earlier.files if 0 < gone.get(file.name, 0) < file.rows]
    small = [file for file in whole if full.is_small(file)]
    if len(small) > MAX_SMALL_PARTS:
        groups += full.groups(small)
        whole = [file for file in whole if not full.is_small(file)]
    return Takeover(tuple(whole), tuple(map(tuple, groups)))


def without(table: pa.Table, gone: Collection[str]) -> pa.Table:
    """A table without the rows of some paths, and without metadata, which may name them."""
    kept = [path not in gone for path in table["path"].to_pylist()]
    return table.filter(pa.array(kept, pa.bool_())).replace_schema_metadata(None)


def evenly(rows: int, count: int) -> list[int]:
    """Positions of `count` rows, or of all where there are fewer, evenly spread."""
    count = min(count, rows)
    return [(2 * i + 1) * rows // (2 * count) for i in range(count)]
