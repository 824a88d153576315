"""Photos in a bucket: many small objects, so many requests at once."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC
from functools import lru_cache
from typing import Any

from fruits_assets.core.errors import S3Error, SourceError
from fruits_assets.sources import archive, table
from fruits_assets.sources.layout import Labels
from fruits_assets.sources.leftovers import hidden_kind, is_hidden
from fruits_assets.sources.listing import Listing, Row, found_files, listing_of
from fruits_assets.sources.reading import Readers
from fruits_assets.sources.store import PhotoStore
from fruits_assets.storage.base import Folder
from fruits_assets.storage.endpoints import split
from fruits_assets.storage.s3 import IN_FLIGHT, REPLACED, S3Storage, denied

READS_IN_FLIGHT = IN_FLIGHT
"""A request to S3 takes 20 to 50 ms, whatever its size: waiting for one costs nothing while others
are under way, and a core examines 2,000 small photos a second."""
READ_AHEAD, READ_AHEAD_BYTES = 320, 2**26
"""Files that are read ahead of the one that is examined, and their bytes, at most."""
READ_SECONDS = 180.0
"""Time limit of a read with all its repetitions, beside a second for each MiB."""
LISTINGS_IN_FLIGHT = 32
PROBES, FEWEST_PROBES = 8, 3
"""Objects that are tried before a run, and how many refusals mean that all are refused."""
ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes that must be restored before they can be read."""

_Found = tuple[list[Mapping[str, Any]], list[str]]


@lru_cache(maxsize=1)
def _readers() -> Readers:
    """Kept between tasks: starting threads again costs CPU time with each of them."""
    return Readers(READS_IN_FLIGHT, ahead=READ_AHEAD, ahead_bytes=READ_AHEAD_BYTES)


class BucketPhotos(PhotoStore):
    """The objects below a prefix of a bucket."""

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        assert isinstance(folder.storage, S3Storage)  # noqa: S101 - what `s3://` is
        self._storage = folder.storage
        key = split(folder.uri)[1]
        self._prefix = f"{key}/" if key else ""

    def list(  # noqa: D102
        self, *, recursive: bool, allow_empty: bool = False, labels: Labels = "parent"
    ) -> Listing:
        hidden: Counter[str] = Counter()
        files = found_files(self._files(hidden, recursive=recursive))
        if (
            not files.num_rows
            and not allow_empty
            and (archive.kind_of(self.root) or table.kind_of(self.root))
        ):
            raise SourceError(
                f"the source {self.root} is not a folder of a bucket. Archives and tables of "
                "photos are read from this machine only: copy it here, or unpack it there."
            )
        return listing_of(
            self.root,
            files,
            recursive=recursive,
            hidden=hidden,
            allow_empty=allow_empty,
            labels=labels,
        )

    def _files(self, hidden: Counter[str], *, recursive: bool) -> Iterator[Row]:
        """Rows of all files but hidden ones, which are counted by kind."""
        for objects, folders in self._walk(recursive=recursive):
            # An object may have the very key of the source, as a folder's marker has.
            inside = [found for found in objects if found["Key"] != self._prefix]
            yield from map(self._row, (it for it in inside if not is_hidden(_name(it["Key"]))))
            names = [*(_name(found["Key"]) for found in objects), *map(_name, folders)]
            hidden.update(kind for name in names if (kind := hidden_kind(name)))

    def fetch(  # noqa: D102 - see PhotoStore
        self, rows: Sequence[Mapping[str, Any]]
    ) -> Iterator[Callable[[], bytes]]:
        return _readers().fetch(self._read, rows, root=self.root, seconds=READ_SECONDS)

    def _read(self, row: Mapping[str, Any]) -> bytes:
        """The very bytes that were listed: another ETag or size is an OSError."""
        key, size = self._prefix + row["path"], row["bytes"]
        try:
            content = self._storage.get_object(key, etag=row["etag"], most=size)
        except FileNotFoundError as error:
            raise self._of_one(error.errno, "it has vanished since it was listed", key) from error
        except OSError as error:
            raise self._of_one(error.errno, error.strerror, key) from error
        except S3Error as error:
            why = denied(error)
            # Where not even a listing is allowed, it is about the bucket, and not about one object.
            if why is None or not self._storage.is_listed(self._prefix):
                raise
            raise self._of_one(errno.EACCES, why, key) from error
        if len(content) != size:
            raise self._of_one(errno.ESTALE, REPLACED, key)
        return content

    def _of_one(self, number: int | None, why: str | None, key: str) -> OSError:
        """An error that costs one object and not the run."""
        uri = f"s3://{self._storage.bucket.name}/{key}"
        return OSError(number or errno.EIO, f"{why} ({uri})")

    def check(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """See PhotoStore: a few of the objects are asked for a byte each."""
        tried = [row for row in rows if row["bytes"] and not row["problem"]]
        chosen = tried[:: max(1, len(tried) // PROBES)][:PROBES]
        refusals: list[S3Error] = []
        for row in chosen:
            try:
                self._storage.get_object(self._prefix + row["path"], stop=1)
            except S3Error as error:
                if not denied(error):
                    raise
                refusals.append(error)
            except OSError:  # it is gone, or in an archive
                return
            else:
                return
        if len(refusals) >= FEWEST_PROBES:
            raise refusals[0]

    def erase(self, paths: Sequence[str]) -> int:  # noqa: D102 - see PhotoStore
        return sum(self._storage.purge_object(self._prefix + path) > 0 for path in paths)

    def _walk(self, *, recursive: bool) -> Iterator[_Found]:
        """Objects and sub-folders, one folder after the other, in no particular order."""
        with ThreadPoolExecutor(LISTINGS_IN_FLIGHT) as pool:
            waiting: set[Future[_Found]] = {pool.submit(self._storage.listed, self._prefix)}
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    objects, folders = future.result()
                    yield objects, folders
                    seen = [folder for folder in folders if not is_hidden(_name(folder))]
                    if recursive:
                        waiting |= {pool.submit(self._storage.listed, it) for it in seen}

    def _row(self, found: Mapping[str, Any]) -> Row:
        restored = found.get("RestoreStatus")
        problem = None
        if restored and restored.get("IsRestoreInProgress"):
            problem = "it is being restored from an archive (Glacier): run again once it is there"
        elif found.get("StorageClass") in ARCHIVES and not restored:
            problem = "it is in an archive (Glacier): restore it first"
        modified_at = found["LastModified"].astimezone(UTC)
        path = found["Key"].removeprefix(self._prefix)
        return path, found["Size"], modified_at, found["ETag"], problem


def _name(key: str) -> str:
    return key.removesuffix("/").rpartition("/")[2]
