"""Reports on a source: files by kind and outcome, classes, copies, the largest and slowest."""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fruits_assets.core.decoder import shared
from fruits_assets.core.images import RejectedImage
from fruits_assets.sources import oddities
from fruits_assets.sources.layout import TRAINING
from fruits_assets.sources.leftovers import extension_of
from fruits_assets.sources.store import PhotoStore

ACCEPTED = "accepted"
"""Outcome of a photo; that of any other file is the reason for its rejection."""
SHOWN = 5
"""Examples of each kind."""
BEGINNING = b"\xff\xd8\xff"
"""Begins a JPEG, and is none."""
Cell = str | int | float


class Surveyed(NamedTuple):
    """A file that was examined.

    Attributes:
        path: relative to the source.
        bytes: of the file.
        split: of its place in the layout.
        label: of its place in the layout.
        kind: format of a photo; extension of another file.
        outcome: `accepted`, or why it is rejected, as one word.
        sha256: of the file; None where it was not read, or is not a photo.
        seconds: that reading and examining took; None where they were not measured.
    """

    path: str
    bytes: int
    split: str | None
    label: str | None
    kind: str
    outcome: str
    sha256: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Section:
    """A part of a report: a table with its heading.

    Attributes:
        title: of the table.
        head: names of the columns.
        rows: their cells. What is a text may be a stranger's: whoever shows it escapes it.
    """

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]


def extension(path: str) -> str:
    """The kind of a file that is not a photo, for people."""
    found = extension_of(path.rstrip("/"))
    return f".{found}" if found else "no extension"


def survey(
    photos: PhotoStore,
    rows: Sequence[Mapping[str, Any]],
    *,
    max_pixels: int,
    max_bytes: int,
    max_seconds: float,
) -> Iterator[Surveyed]:
    """Examines files as a run would, and keeps nothing of them.

    Args:
        photos: the source.
        rows: of its listing.
        max_pixels: larger pictures are rejected before they are decoded.
        max_bytes: larger files are rejected before they are read.
        max_seconds: that the decoding of one photo may take.

    Raises:
        SourceError: the place does not answer, or forbids to read; or S3Error.
    """
    readable = [row for row in rows if not row["problem"] and row["bytes"] <= max_bytes]
    contents = photos.fetch(readable)
    decoder = shared(seconds=max_seconds)
    with contextlib.suppress(RejectedImage):  # it starts, which is not the time of the first file
        decoder.examine(BEGINNING, max_pixels=max_pixels)
    for row in rows:
        path, size = row["path"], row["bytes"]
        place = (path, size, row["split"], row["label"])
        if row["problem"] or size > max_bytes:
            why = "unreadable" if row["problem"] else "too_large"
            yield Surveyed(*place, extension(path), why)
            continue
        began = time.monotonic()
        try:
            content = next(contents)()
            photo = decoder.examine(content, max_pixels=max_pixels)
        except OSError:
            yield Surveyed(*place, extension(path), "unreadable")
        except RejectedImage as error:
            seconds = time.monotonic() - began
            yield Surveyed(*place, extension(path), error.reason, None, seconds)
        else:
            digest = hashlib.sha256(content).hexdigest()
            seconds = time.monotonic() - began
            yield Surveyed(*place, photo.format, ACCEPTED, digest, seconds)


def report(files: Sequence[Surveyed], passed_over: Mapping[str, int]) -> list[Section]:
    """Tables of the files of a source, and of what is odd about them.

    Args:
        files: that were examined.
        passed_over: kinds of files that were not listed -> how many.
    """
    photos = [file for file in files if file.outcome == ACCEPTED]
    largest = heapq.nlargest(SHOWN, files, key=lambda file: file.bytes)
    measured = [(file.seconds, file) for file in files if file.seconds is not None]
    slowest = heapq.nlargest(SHOWN, measured, key=lambda it: it[0])
    size = ("file", "kind", "megabytes")
    found = [
        Section("Files", ("kind", "outcome", "files", "example"), _outcomes(files, passed_over)),
        Section("Splits", ("split", "photos", "classes", "smallest class"), _splits(photos)),
        Section("Odd", ("what", "example"), _odd(files, photos)),
        Section("Copies", ("where", "photos", "example"), _copies(photos)),
        Section("Largest", size, [(it.path, it.kind, it.bytes / 1e6) for it in largest]),
        Section(
            "Slowest", ("file", "kind", "seconds"), [(it.path, it.kind, s) for s, it in slowest]
        ),
    ]
    return [section for section in found if section.rows]


def _outcomes(files: Iterable[Surveyed], passed_over: Mapping[str, int]) -> list[tuple[Cell, ...]]:
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for file in files:
        key = file.kind, file.outcome
        counts[key] += 1
        examples.setdefault(key, file.path)
    rows: list[tuple[Cell, ...]] = [
        (*key, count, examples[key]) for key, count in counts.most_common()
    ]
    beside = sorted(passed_over.items(), key=lambda it: (-it[1], it[0]))
    return rows + [(kind, "passed over", count, "") for kind, count in beside]


def _splits(photos: Iterable[Surveyed]) -> list[tuple[Cell, ...]]:
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for photo in photos:
        classes[photo.split or "none"][photo.label or "no label"] += 1
    rows: list[tuple[Cell, ...]] = []
    for split, labels in sorted(classes.items()):
        smallest, count = labels.most_common()[-1]
        rows.append((split, labels.total(), len(labels), f"{smallest} ({count})"))
    return rows


def _odd(files: Iterable[Surveyed], photos: Sequence[Surveyed]) -> list[tuple[Cell, ...]]:
    placed = [(photo.split, photo.label) for photo in photos]
    classes = oddities.classes_of(placed)
    counts = Counter(label for _, label in placed if label)
    rows: list[tuple[str, Sequence[str]]] = [
        (f"{split} and {TRAINING} share no class", sorted(classes[split]))
        for split in oddities.strangers(classes)
    ]
    rows += [
        (f"{len(labels)} classes are only in {split}", labels)
        for split, labels in oddities.in_one_split(classes).items()
    ]
    rows += [("names of classes are nearly equal", it) for it in oddities.near_equal(counts)]
    contents = ((photo.path, photo.sha256) for photo in photos if photo.sha256)
    rows += [("a folder is there twice", [str(copy)]) for copy in oddities.copies(contents)]
    single = sorted(label for label, count in counts.items() if count == 1)
    unlabelled = [photo.path for photo in photos if photo.label is None]
    backslashes = [file.path for file in files if "\\" in file.path]
    rows += [
        (f"{len(found)} {what}", found)
        for what, found in (
            ("classes have one photo: no other can recognise it", single),
            ("photos have no label", unlabelled),
            ("names hold backslashes, as of a zip file made on Windows", backslashes),
        )
        if found
    ]
    return [(what, ", ".join(found[:SHOWN])) for what, found in rows]


def _copies(photos: Iterable[Surveyed]) -> list[tuple[Cell, ...]]:
    """Photos that are there more than once, within a split and across splits."""
    groups: dict[str, list[Surveyed]] = defaultdict(list)
    for photo in photos:
        if photo.sha256:
            groups[photo.sha256].append(photo)
    rows: list[tuple[Cell, ...]] = []
    repeated = [group for group in groups.values() if len(group) > 1]
    across = [group for group in repeated if len({photo.split for photo in group}) > 1]
    within = [group for group in repeated if len({photo.split for photo in group}) < len(group)]
    for where, some in (("across splits", across), ("within a split", within)):
        if some:
            pair = " = ".join(photo.path for photo in some[0][:2])
            rows.append((where, sum(map(len, some)), pair))
    return rows
