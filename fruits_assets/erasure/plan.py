"""What an erasure is to remove: found before anything is changed, and kept until it is done."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Self

import pyarrow as pa

from fruits_assets.core.errors import ErasureError
from fruits_assets.erasure import matching
from fruits_assets.erasure.matching import Row, Wanted, is_in, texts
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


def _normal(name: str) -> str:
    """A path as it is compared: the same letters may be spelled in two ways (NFC, NFD)."""
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
            tuple(map(_normal, paths)),
            tuple(one.strip().lower() for one in sha256),
            tuple(map(layout.normal, labels)),
        )

    def unmatched(
        self, paths: Iterable[str], hashes: Iterable[str], labels: Iterable[str]
    ) -> dict[str, list[int]]:
        """Which names match none of some files: kind -> their numbers, from 1."""
        found = set(map(_normal, paths))
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
    listing = _listing(lake, photos, keep_source=keep_source)
    labelled, labels = matching.labelled(lake, listing, asked.labels)
    wanted = Wanted(frozenset(asked.paths), labelled, frozenset(asked.sha256))
    found = _found(lake, photos, listing, wanted)
    missing = asked.unmatched(
        found.paths | found.source | earlier.paths | earlier.source,
        found.sha256 | earlier.sha256,
        labels,
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
    if found.source and photos.not_erasable:
        raise ErasureError(f"nothing was erased: {photos.not_erasable}")
    return found | earlier


def _listing(lake: Lake, photos: PhotoStore, *, keep_source: bool) -> Listing:
    """The files of the source, as a run lists them; none where it is not to be touched."""
    if keep_source:
        return Listing(photos.root, LISTING_SCHEMA.empty_table(), 0)
    held = lake.find(LISTING)
    labels = labels_of(held) if held else "parent"
    return photos.list(recursive=True, allow_empty=True, labels=labels)


def _found(lake: Lake, photos: PhotoStore, listing: Listing, wanted: Wanted) -> Plan:
    """What goes, of the lake and of the source."""
    new = matching.new_in(lake.find(LISTING), listing)
    named = new.filter(wanted.names(new["path"]))
    for table in matching.examined(photos, named):
        wanted = wanted.and_same(wanted.rows_in(table))
    while True:
        gone, wanted = _closed(lake, wanted)
        strange = list(matching.in_source(photos, new, wanted))
        # Hardly ever do new files show what neither the lake nor a name has led to.
        if (more := wanted.and_same(strange)) == wanted:
            break
        wanted = more
    paths = frozenset(row.path for row in gone)
    lying = set(_there(listing, partial(is_in, some=texts(paths))))
    # What lies where a photo of the lake lay may be another photo by now.
    replaced = matching.examined(photos, new.filter(is_in(new["path"], texts(lying))))
    in_source = lying.difference(*(table["path"].to_pylist() for table in replaced))
    in_source |= {*_there(listing, wanted.names), *(row.path for row in strange)}
    in_source |= {*named_after(in_source, listing.beside)}
    rows = (*gone, *strange)
    return Plan(
        paths,
        frozenset(row.sha256 for row in rows if row.sha256),
        frozenset(row.content_sha256 for row in rows if row.content_sha256),
        frozenset(in_source),
    )


def _closed(lake: Lake, wanted: Wanted) -> tuple[list[Row], Wanted]:
    """The rows of the lake that go, with all that are the same as one of them."""
    while True:
        rows = list(matching.in_lake(lake, wanted))
        if (more := wanted.and_same(rows)) == wanted:
            return rows, wanted
        wanted = more


def _there(listing: Listing, choose: Callable[[pa.Array], pa.Array]) -> Iterator[str]:
    """Some of the paths of the source."""
    for paths in matching.paths_in(listing):
        yield from paths.filter(choose(paths)).to_pylist()


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
