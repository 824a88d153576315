"""What an erasure is to remove: found before anything is changed, and kept until it is done."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

import pyarrow as pa

from fruits_assets.core.decoder import Decoder, shared
from fruits_assets.core.errors import DatasetError, ErasureError
from fruits_assets.core.images import RejectedImage
from fruits_assets.lake.lake import Lake
from fruits_assets.sources import layout
from fruits_assets.sources.leftovers import named_after
from fruits_assets.sources.listing import LISTING, LISTING_SCHEMA, Listing, labels_of
from fruits_assets.sources.store import PhotoStore
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import READ_ERRORS

RECORDS = "erasures"
"""Folder of the lake that holds what was done: counts only."""
JOURNAL = "journal.json"
"""File in it that holds the plan of an erasure that has not ended yet."""
COLUMNS = {
    "raw_images": ("path", "sha256", "content_sha256"),
    "rejected_images": ("path", "sha256"),
}
"""What tells a photo, or a file that is not one."""
LABELLED = ("path", "label")
MAX_BYTES = 2**31 - 1
"""No cell of a table holds more, so that no run can have taken in a larger file."""
MAX_PIXELS = 10**9
"""Of a file that no run has seen: what a run would refuse for its size is compared all the same."""


def normal(name: str) -> str:
    """A name as it is compared: the same letters may be spelled in two ways (NFC, NFD)."""
    return unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class Asked:
    """What somebody wants erased, as it is compared.

    Attributes:
        paths: relative to the source.
        sha256: of files, hexadecimal.
        labels: of classes.
    """

    paths: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, paths: Iterable[str], sha256: Iterable[str], labels: Iterable[str]) -> Self:
        """From what was typed."""
        return cls(
            tuple(map(normal, paths)),
            tuple(one.strip().lower() for one in sha256),
            tuple(map(layout.normal, labels)),
        )

    def names(self, path: str, labels: Collection[str]) -> bool:
        """Whether a file is named by its path, or by one of the labels that it has had."""
        return normal(path) in self.paths or not set(self.labels).isdisjoint(labels)

    def unmatched(
        self, paths: Iterable[str], hashes: Iterable[str], labels: Iterable[str]
    ) -> dict[str, list[int]]:
        """Which names match none of some files: kind -> their numbers, from 1."""
        found = set(map(normal, paths))
        known = {"paths": found, "sha256": set(hashes), "labels": set(labels)}
        missing = {
            kind: [i for i, name in enumerate(names, start=1) if name not in known[kind]]
            for kind, names in vars(self).items()
        }
        return {kind: numbers for kind, numbers in missing.items() if numbers}

    def counts(self) -> dict[str, int]:
        """How many names of each kind."""
        return {kind: len(names) for kind, names in vars(self).items()}


@dataclass(frozen=True)
class Plan:
    """What is to go.

    Attributes:
        paths: of rows of the lake, as they stand there.
        sha256: of the files of these rows, and of files of the source.
        content_sha256: of the pictures, without their metadata.
        source: files of the source, as it is configured now.
    """

    paths: frozenset[str] = frozenset()
    sha256: frozenset[str] = frozenset()
    content_sha256: frozenset[str] = frozenset()
    source: frozenset[str] = frozenset()

    def __or__(self, other: Plan) -> Plan:
        return Plan(
            **{one.name: getattr(self, one.name) | getattr(other, one.name) for one in fields(self)}
        )

    def to_json(self) -> bytes:
        """As the journal holds it."""
        return json.dumps({name: sorted(names) for name, names in asdict(self).items()}).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """The reverse of `to_json`. Raises ErasureError where it is damaged."""
        try:
            found = json.loads(content)
            return cls(**{one.name: frozenset(found[one.name]) for one in fields(cls)})
        except (ValueError, KeyError, TypeError) as error:
            raise ErasureError(
                f"the journal of an earlier erasure ({RECORDS}/{JOURNAL}) cannot be read "
                f"({error!r}). Delete that file, and name everything that it was to erase again."
            ) from error


@dataclass(frozen=True)
class Row:
    """A file that the lake knows.

    Attributes:
        path: as it stands in the lake.
        sha256: of the file; None where it could not be read.
        content_sha256: of the picture; None where it is not one.
    """

    path: str
    sha256: str | None
    content_sha256: str | None


def make(lake: Lake, photos: PhotoStore, asked: Asked, *, keep_source: bool) -> Plan:
    """Finds everything that is named, and everything that shows the same picture.

    Args:
        lake: its current tables, and every version of them that is still there.
        photos: the source that is configured now.
        asked: what is named.
        keep_source: plan nothing for the source.

    Raises:
        ErasureError: a name matches nothing, or nothing is named and no erasure was interrupted;
            nothing was changed.
        SourceError: the source cannot be listed.
    """
    earlier = read(lake)
    if not any(vars(asked).values()):
        if earlier == Plan():
            raise ErasureError(
                "nothing is named to be erased. Give paths, sha256 or labels: "
                "`fruits erase Apple/1.jpg`, or ops: {erase: {config: {paths: [Apple/1.jpg]}}}."
            )
        return earlier
    known = list(_rows(lake))
    listing = _listing(lake, photos, keep_source=keep_source)
    labels = _labels(lake, listing)
    there = [*listing.files["path"].to_pylist(), *listing.beside]

    def is_named(path: str) -> bool:
        return asked.names(path, labels.get(path, ()))

    named = [row for row in known if is_named(row.path) or row.sha256 in asked.sha256]
    hashes = {row.sha256 for row in named if row.sha256} | set(asked.sha256)
    pictures = {row.content_sha256 for row in named if row.content_sha256}
    strangers = list(_strangers(photos, _new(lake, listing)))
    named_there = [path for path in there if is_named(path)]
    for stranger in strangers:
        if stranger.path in named_there or stranger.sha256 in hashes:
            hashes |= {stranger.sha256} - {None}
            pictures |= {stranger.content_sha256} - {None}

    def goes(row: Row) -> bool:
        return is_named(row.path) or row.sha256 in hashes or row.content_sha256 in pictures

    gone = [row for row in known if goes(row)]
    strange = [row for row in strangers if goes(row)]
    # What lies where a photo of the lake lay may be another photo by now.
    unchanged = set(there) - {row.path for row in strangers}
    in_source = {row.path for row in gone} & unchanged
    in_source |= {*named_there, *(row.path for row in strange)}
    in_source |= {*named_after(in_source, listing.beside)}
    matched = [row.path for row in known] + there + list(earlier.paths | earlier.source)
    missing = asked.unmatched(
        matched,
        {row.sha256 for row in (*known, *strangers) if row.sha256} | earlier.sha256,
        {label for found in labels.values() for label in found},
    )
    if missing:
        raise ErasureError(
            "nothing was erased, for some names match no file of the lake or the source: "
            + ", ".join(
                f"{kind} number {', '.join(map(str, numbers))} of {len(getattr(asked, kind))}"
                for kind, numbers in missing.items()
            )
            + ". Paths are relative to the source, as raw_images has them; check their spelling."
        )
    if in_source and not keep_source and photos.not_erasable:
        raise ErasureError(f"nothing was erased: {photos.not_erasable}")
    rows = (*gone, *strange)
    found = Plan(
        frozenset(row.path for row in gone),
        frozenset(row.sha256 for row in rows if row.sha256),
        frozenset(row.content_sha256 for row in rows if row.content_sha256),
        frozenset() if keep_source else frozenset(in_source),
    )
    return found | earlier


def _listing(lake: Lake, photos: PhotoStore, *, keep_source: bool) -> Listing:
    """The files of the source, as a run lists them; none where it is not to be touched."""
    if keep_source:
        return Listing(photos.root, LISTING_SCHEMA.empty_table(), 0)
    held = lake.find(LISTING)
    labels = labels_of(held) if held else "parent"
    return photos.list(recursive=True, allow_empty=True, labels=labels)


def _rows(lake: Lake) -> Iterator[Row]:
    """Every file that a version of the tables knows whose parts are still there."""
    for name, columns in COLUMNS.items():
        for rows in _parts(lake, name, columns):
            for row in rows.to_pylist():
                yield Row(row["path"], row["sha256"], row.get("content_sha256"))


def _labels(lake: Lake, listing: Listing) -> Mapping[str, Collection[str]]:
    """The labels that each file has, or has had: another rule may have been in force."""
    found: dict[str, set[str]] = defaultdict(set)
    tables = [*_parts(lake, LISTING, LABELLED), *_parts(lake, "raw_images", LABELLED)]
    for table in (*tables, listing.files):
        for path, label in zip(*(table[name].to_pylist() for name in LABELLED), strict=True):
            if label is not None:
                found[path].add(layout.normal(label))
    return found


def _parts(lake: Lake, name: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Columns of every part of every version of a table that is still there."""
    seen: set[str] = set()
    for number, _ in lake.table(name).publishes():
        snapshot = lake.table(name).open(number)
        for file in snapshot.files:
            if file.name not in seen:
                seen.add(file.name)
                with contextlib.suppress(DatasetError):  # it is gone: an older version had it
                    yield replace(snapshot, files=(file,)).arrow(columns)


def _new(lake: Lake, listing: Listing) -> list[Mapping[str, Any]]:
    """What the source has that the lake's listing does not say the same of."""
    found = lake.find(LISTING)
    held = set(Listing.of(found, listing.root).entries()) if found else set()
    rows = zip(listing.files.to_pylist(), listing.entries(), strict=True)
    return [row for row, entry in rows if entry not in held]


def _strangers(photos: PhotoStore, rows: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Files of the source that no run has seen: by content, they may be the same picture."""
    decoder = shared()
    readable = [row for row in rows if not row["problem"] and row["bytes"] <= MAX_BYTES]
    for row, read_it in zip(readable, photos.fetch(readable), strict=True):
        try:
            content = read_it()
        except OSError as error:
            if error.errno == errno.EACCES:
                raise ErasureError(
                    "nothing was erased, for a file of the source that no run has seen may not be "
                    f"read, and may show the same picture: {error.strerror}."
                ) from error
            continue  # it can be named by its path only
        digest = hashlib.sha256(content).hexdigest()
        yield Row(row["path"], digest, _picture(content, decoder))


def _picture(content: bytes, decoder: Decoder) -> str | None:
    try:
        return hashlib.sha256(decoder.examine(content, max_pixels=MAX_PIXELS).content).hexdigest()
    except RejectedImage:
        return None


def folder(lake: Lake) -> Folder:
    """Where the journal and the records lie."""
    return lake.folder.child(RECORDS)


def read(lake: Lake) -> Plan:
    """The plan of an erasure that was interrupted; an empty one where there is none."""
    try:
        content = folder(lake).read(JOURNAL)
    except FileNotFoundError:
        return Plan()
    except READ_ERRORS as error:
        raise ErasureError(f"the journal {RECORDS}/{JOURNAL} cannot be read ({error}).") from error
    return Plan.from_json(content)


def write(lake: Lake, plan: Plan) -> None:
    """Keeps a plan until it is done, so that repeating the command finishes it."""
    folder(lake).write(JOURNAL, plan.to_json())


def forget(lake: Lake) -> None:
    """Removes the names, once all of them are gone."""
    folder(lake).remove([JOURNAL])
