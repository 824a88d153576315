"""The search for what an erasure has left: in every file of the lake, and every version of one."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fruits_assets.core.errors import ErasureError, S3Error
from fruits_assets.erasure.matching import Wanted, is_in, paths_in, texts
from fruits_assets.erasure.plan import JOURNAL, RECORDS, Plan
from fruits_assets.lake.lake import Lake
from fruits_assets.sources.store import PhotoStore
from fruits_assets.spark import private
from fruits_assets.storage.base import Storage, Stored, join
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.parquet import FILES_SCHEMA, READ_ERRORS

SCRATCH = ("fruits-notebook-", private.PREFIX)
"""Beginnings of the names of folders that the notebook and Spark make, among temporary files."""
SEARCHED_AT_ONCE = 4
"""Files, each in memory as a whole: a part has some 64 MB."""
PARQUET = b"PAR1"
NO_NAME = re.compile(rb"[^A-Za-z0-9_./\\-]")
"""What stands before and after a path in a text: no letter of another path."""


@dataclass(frozen=True)
class Search:
    """Looks for what a plan was to remove.

    Attributes:
        plan: what was to go.
    """

    plan: Plan

    def check(self, lake: Lake, photos: PhotoStore, *, keep_source: bool) -> int:
        """Searches lake, scratch folders and source; returns how many files were searched.

        Raises:
            ErasureError: something is left; its text says in which files of the lake, for these
                are named after nothing that was erased, and how many are left in the source.
        """
        journal = join(lake.base, RECORDS, JOURNAL)
        try:
            places = [(lake.storage, one) for one in lake.storage.everything(lake.base)]
            places += [(LocalStorage(), one) for one in _scratch()]
        except OSError as error:
            raise ErasureError(
                f"a folder cannot be looked into ({error}), so nobody knows whether anything is "
                "left in it. Make it readable, and repeat the erasure."
            ) from error
        with ThreadPoolExecutor(SEARCHED_AT_ONCE) as pool:
            found = list(pool.map(lambda one: self._holds(*one), places))
        left = [
            stored.uri
            for (_, stored), holds in zip(places, found, strict=True)
            if holds and stored.uri != journal
        ]
        in_source = [] if keep_source else self._in_source(photos)
        if left or in_source:
            raise ErasureError(
                f"the erasure is not complete. It was found again in {len(left)} files "
                f"({', '.join(sorted(left)[:5]) or 'none of them in the lake'}) and in "
                f"{len(in_source)} files of the source. What is not a table of this lake is left "
                "for you to remove; then repeat the erasure: it goes on from here."
            )
        return len(places)

    def _holds(self, storage: Storage, stored: Stored) -> bool:
        if stored.is_link:
            return False
        try:
            content = storage.read_stored(stored)
        except (*READ_ERRORS, S3Error) as error:
            if isinstance(error, FileNotFoundError):
                return False
            raise ErasureError(
                f"{stored.uri} cannot be read ({error}), so nobody knows whether anything is left "
                "in it. Make it readable, or remove it, and repeat the erasure."
            ) from error
        return self.is_in(content)

    def is_in(self, content: bytes) -> bool:
        """Whether a file holds a path, a hash or a picture that was to go."""
        if not content.startswith(PARQUET):
            return self._in_text(content)
        groups = _row_groups(content)
        while True:
            try:
                table = next(groups, None)
            except READ_ERRORS:
                return self._in_text(content)
            if table is None:
                return False
            if self._in_table(table):
                return True

    def _in_table(self, table: pa.Table) -> bool:
        if table.schema.metadata and self._in_text(repr(table.schema.metadata).encode()):
            return True
        of_files = table.column_names == FILES_SCHEMA.names  # all of its columns are searched
        for column in table.columns:
            if pa.types.is_string(column.type):
                if pc.any(is_in(column, self._cells)).as_py():  # type: ignore[attr-defined]
                    return True
            elif pa.types.is_binary(column.type):
                for cell in column:
                    content = cell.as_py() or b""
                    if hashlib.sha256(content).hexdigest() in self.plan.content_sha256:
                        return True
                    if of_files and self._in_text(content):
                        return True
        return False

    def _in_text(self, content: bytes) -> bool:
        if hashlib.sha256(content).hexdigest() in self.plan.sha256 | self.plan.content_sha256:
            return True
        if self._hashes is not None and self._hashes.search(content):
            return True
        return self._paths is not None and _at_a_beginning(self._paths, content)

    @cached_property
    def _names(self) -> frozenset[str]:
        """Paths that were to go, in both Unicode forms."""
        paths = self.plan.paths | self.plan.source
        spelled = {unicodedata.normalize(form, path) for path in paths for form in ("NFC", "NFD")}
        return frozenset(paths | spelled)

    @cached_property
    def _cells(self) -> pa.Array:
        """Cells of a table that were to go."""
        return texts(self._names | self.plan.sha256 | self.plan.content_sha256)

    @cached_property
    def _paths(self) -> re.Pattern[bytes] | None:
        """A path up to its end: `1.jpg` is not in `1.jpg2`."""
        names = sorted(re.escape(one.encode()) for one in self._names)
        if not names:
            return None
        return re.compile(rb"(?:%b)(?:\Z|%b)" % (b"|".join(names), NO_NAME.pattern))

    @cached_property
    def _hashes(self) -> re.Pattern[bytes] | None:
        hashes = sorted(one.encode() for one in self.plan.sha256 | self.plan.content_sha256)
        return re.compile(b"|".join(hashes)) if hashes else None

    def _in_source(self, photos: PhotoStore) -> list[str]:
        listing = photos.list(recursive=True, allow_empty=True)
        wanted = Wanted(paths=self.plan.source)
        found = (paths.filter(wanted.names(paths)) for paths in paths_in(listing))
        return [path for paths in found for path in paths.to_pylist()]


def _row_groups(content: bytes) -> Iterator[pa.Table]:
    """Texts and bytes of a Parquet file, one row group at a time.

    Raises what is in `READ_ERRORS`.
    """
    with pq.ParquetFile(pa.BufferReader(content)) as parquet:
        schema = parquet.schema_arrow
        yield schema.empty_table()  # its metadata are searched, too
        searched = [
            one.name
            for one in schema
            if pa.types.is_string(one.type) or pa.types.is_binary(one.type)
        ]
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group, columns=searched, use_threads=False)


def _at_a_beginning(paths: re.Pattern[bytes], content: bytes) -> bool:
    """Whether one of some paths is found that no other begins before: `1.jpg` is not in `11.jpg`.

    A pattern that began with what stands before a path would be tried at every byte, which takes a
    hundred times longer.
    """
    found = paths.search(content)
    while found and found.start() and not NO_NAME.match(content, found.start() - 1):
        found = paths.search(content, found.start() + 1)
    return found is not None


def _scratch() -> Iterator[Stored]:
    """Temporary files of this user's runs. Those of other users cannot be read from here."""
    private.sweep()
    for prefix in SCRATCH:
        for folder in private.own(prefix):
            yield from LocalStorage().everything(str(folder))
