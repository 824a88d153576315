"""The photos that an erasure removes, and the search for them in the lake and in the source.

An erasure names few photos of many: tables and listings are read piece by piece, and of each piece
only the rows that match are kept.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fruits_assets.core.decoder import Decoder, shared
from fruits_assets.core.errors import DatasetError, ErasureError
from fruits_assets.core.images import RejectedImage
from fruits_assets.lake.lake import Lake
from fruits_assets.sources import layout
from fruits_assets.sources.listing import LISTING, LISTING_SCHEMA, Listing
from fruits_assets.sources.store import PhotoStore
from fruits_assets.storage.parquet import File
from fruits_assets.storage.snapshot import READS_IN_FLIGHT, Snapshot

COLUMNS = {
    "raw_images": ("path", "sha256", "content_sha256"),
    "rejected_images": ("path", "sha256"),
}
"""What tells a photo, or a file that is not one, by table."""
ROWS_SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS["raw_images"]])
LABELLED = ("path", "label")
PIECE = 4096
"""Rows of a listing that are looked at together."""
MAX_BYTES = 2**31 - 1
"""No cell of a table holds more, so that no run can have taken in a larger file."""
MAX_PIXELS = 10**9
"""Of a file that no run has seen: what a run would refuse for its size is compared all the same."""


@dataclass(frozen=True)
class Row:
    """A file that the lake knows, or that was examined in the source.

    Attributes:
        path: as it stands there.
        sha256: of the file; None where it could not be read.
        content_sha256: of the picture; None where it is not one.
    """

    path: str
    sha256: str | None
    content_sha256: str | None = None


@dataclass(frozen=True)
class Wanted:
    """Names, hashes and labels of which any makes a row go.

    Attributes:
        paths: names, in whatever Unicode form: the same letters may be spelled in two ways.
        labelled: paths, as they stand, of files that have or had a label that is named.
        sha256: of files.
        content_sha256: of pictures.
    """

    paths: frozenset[str] = frozenset()
    labelled: frozenset[str] = frozenset()
    sha256: frozenset[str] = frozenset()
    content_sha256: frozenset[str] = frozenset()

    def names(self, paths: pa.Array) -> pa.Array:
        """(n,) bool: whether each of n paths is named, itself or by a label."""
        named = is_in(_normalized(paths), _normalized(self._texts["paths"]))
        return _either(named, is_in(paths, self._texts["labelled"]))

    def rows_in(self, table: pa.Table) -> list[Row]:
        """The rows of a table that go.

        Args:
            table: `path`, and `sha256` and `content_sha256` where it has them.
        """
        goes = self.names(table["path"])
        for name in table.column_names[1:]:
            goes = _either(goes, is_in(table[name], self._texts[name]))
        return [Row(**row) for row in table.filter(goes).to_pylist()]

    def and_same(self, rows: Iterable[Row]) -> Wanted:
        """With all that is the same file as one of some rows, or shows the same picture."""
        files, pictures = set(self.sha256), set(self.content_sha256)
        for row in rows:
            files |= {row.sha256} - {None}
            pictures |= {row.content_sha256} - {None}
        return replace(self, sha256=frozenset(files), content_sha256=frozenset(pictures))

    @cached_property
    def _texts(self) -> Mapping[str, pa.Array]:
        return {name: texts(names) for name, names in vars(self).items()}


def texts(names: Iterable[str]) -> pa.Array:
    """Names as Arrow compares them. What was typed need not be valid Unicode, as all files are."""
    return pa.array([name for name in names if _is_valid(name)], pa.string())


def is_in(values: pa.Array, some: pa.Array) -> pa.Array:
    """(n,) bool: whether each of n texts is one of a few."""
    return pc.is_in(values, value_set=some)  # type: ignore[attr-defined]


def _either(one: pa.Array, other: pa.Array) -> pa.Array:
    return pc.or_(one, other)  # type: ignore[attr-defined]


def _normalized(names: pa.Array) -> pa.Array:
    return pc.utf8_normalize(names, "NFC")  # type: ignore[attr-defined]


def _is_valid(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def in_lake(lake: Lake, wanted: Wanted) -> Iterator[Row]:
    """The rows that go, of every version of the tables whose parts are still there."""
    for name, columns in COLUMNS.items():
        for rows in _of_parts(lake, name, columns, wanted.rows_in):
            yield from rows


def in_source(photos: PhotoStore, new: pa.Table, wanted: Wanted) -> Iterator[Row]:
    """The new files of a source that go."""
    for table in examined(photos, new):
        yield from wanted.rows_in(table)


def labelled(
    lake: Lake, listing: Listing, labels: Collection[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Paths of files that have, or had, one of some labels; and which labels there are.

    Another rule for labels may have been in force. All labels are as `layout.normal` makes them.
    """
    if not labels:
        return frozenset(), frozenset()

    def rows(table: pa.Table) -> list[tuple[str, str]]:
        there = {one: layout.normal(one) for one in table["label"].unique().to_pylist() if one}
        chosen = {one for one, compared in there.items() if compared in labels}
        found = table.filter(is_in(table["label"], texts(chosen))).to_pylist()
        return [(row["path"], there[row["label"]]) for row in found]

    pieces = [
        *_of_parts(lake, LISTING, LABELLED, rows),
        *_of_parts(lake, "raw_images", LABELLED, rows),
        *(rows(piece) for piece in pieces_of(listing.files.select(LABELLED))),
    ]
    pairs = {pair for piece in pieces for pair in piece}
    return frozenset(path for path, _ in pairs), frozenset(label for _, label in pairs)


def _of_parts(
    lake: Lake, name: str, columns: Sequence[str], rows: Callable[[pa.Table], list[Any]]
) -> Iterator[list[Any]]:
    """Some rows of every part of every version of a table that is still there."""
    seen: set[str] = set()
    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        for number, _ in lake.table(name).publishes():
            snapshot = lake.table(name).open(number)

            def of_part(file: File, snapshot: Snapshot = snapshot) -> list[Any]:
                with contextlib.suppress(DatasetError):  # it is gone: an older version had it
                    return rows(snapshot.only((file,)).arrow(columns))
                return []

            yield from pool.map(of_part, [file for file in snapshot.files if file.name not in seen])
            seen |= snapshot.by_name.keys()


def pieces_of(table: pa.Table) -> Iterator[pa.Table]:
    """A table a few rows at a time."""
    for batch in table.to_batches(max_chunksize=PIECE):
        yield pa.Table.from_batches([batch])


def paths_in(listing: Listing) -> Iterator[pa.Array]:
    """Paths of all files of a source a few at a time, also of those that are not listed."""
    beside = pa.table({"path": pa.array(listing.beside, pa.string())})
    for table in (listing.files, beside):
        for batch in table.select(["path"]).to_batches(max_chunksize=PIECE):
            yield batch.column("path")


def new_in(held: Snapshot | None, listing: Listing) -> pa.Table:
    """Files of the source that no run has seen, or not as they are now.

    Args:
        held: `_listing`, as the lake has it.
        listing: of the source.

    Returns:
        `LISTING_SCHEMA`.

    Raises:
        DatasetError: the lake's listing is damaged.
    """
    if held is not None and held.schema.names != LISTING_SCHEMA.names:
        held = None  # it is of a version that did not list as much
    came, _ = listing.against(held)
    fresh = [entry in came for entry in listing.entries()]
    return listing.files.filter(pa.array(fresh, pa.bool_()))


def examined(photos: PhotoStore, new: pa.Table) -> Iterator[pa.Table]:
    """Files of the source that no run has seen: by content, they may be the same picture.

    What cannot be read, or is larger than any run can have taken in, is left out: it can be named
    by its path only.

    Returns:
        `ROWS_SCHEMA`, a few rows at a time.

    Raises:
        ErasureError: a file may not be read.
    """
    decoder = shared()
    for piece in pieces_of(new):
        rows = [
            row for row in piece.to_pylist() if not row["problem"] and row["bytes"] <= MAX_BYTES
        ]
        found = []
        for row, read_it in zip(rows, photos.fetch(rows), strict=True):
            try:
                content = read_it()
            except OSError as error:
                if error.errno == errno.EACCES:
                    raise ErasureError(
                        "nothing was erased, for a file of the source that no run has seen may not "
                        f"be read, and may show the same picture: {error.strerror}."
                    ) from error
                continue
            digest = hashlib.sha256(content).hexdigest()
            found.append((row["path"], digest, _picture(content, decoder)))
        columns = zip(*found, strict=True) if found else ([], [], [])
        yield pa.Table.from_arrays(
            [pa.array(it, pa.string()) for it in columns], schema=ROWS_SCHEMA
        )


def _picture(content: bytes, decoder: Decoder) -> str | None:
    try:
        return hashlib.sha256(decoder.examine(content, max_pixels=MAX_PIXELS).content).hexdigest()
    except RejectedImage:
        return None
