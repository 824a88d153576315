"""Photos of a source -> `raw_images` and `rejected_images`."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import methodcaller
from typing import Any, Self

import pyarrow as pa
from PIL import Image
from pyspark.sql import SparkSession

from fruits_assets.core.decoder import SECONDS, Decoder, shared
from fruits_assets.core.errors import DatasetError
from fruits_assets.core.images import RejectedImage
from fruits_assets.sources.listing import LISTING, LISTING_SCHEMA, Entry, Listing
from fruits_assets.sources.places import photos_at
from fruits_assets.sources.store import PhotoStore
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import (
    File,
    Origin,
    address_of,
    finished_part,
    read_rows,
    write_part,
)
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.increment import Merging, PartSize, Takeover, evenly, takeover
from fruits_assets.transforms.spread import Done, Log, Task, for_each
from fruits_assets.transforms.transform import transform

RAW_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("label", pa.string()),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("content", pa.binary(), nullable=False),
        pa.field("content_sha256", pa.string(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("orientation", pa.int8(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("modified_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
REJECTED_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)
THUMBNAILS = "_thumbnails"
"""Table of a few small pictures, for people to look at."""
THUMBNAIL_SCHEMA = pa.schema([("path", pa.string()), ("label", pa.string()), ("jpeg", pa.binary())])
CLASSES = "_classes"
"""Table of how many photos each class has in each split."""
CLASSES_SCHEMA = pa.schema(
    [
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
        pa.field("images", pa.int64(), nullable=False),
    ]
)
THUMBNAIL_SIZE = 96
MAX_THUMBNAILS = 60

TRIED = 64
"""Files that a bucket may choose from, to see whether any can be read."""
PART_BYTES = 64 * 2**20
"""Photos in one part file, at most (one larger photo is a part of its own)."""
PART_ROWS = 320
"""A worker holds one part at a time, so this keeps its memory flat as the photos grow in number."""
PART = PartSize(PART_ROWS, PART_BYTES)
PLAIN = ("content",)
"""Columns that photos have compressed already."""
MIN_PART_ROWS = 32
PARTS_PER_CORE = 8
"""Parts are the unit of work of all later stages: enough of them even out the cores' loads."""


UNREAD = "the file cannot be read: "
"""Begins the detail of what may be readable another time."""
TABLES = {
    "raw_images": RAW_SCHEMA,
    "rejected_images": REJECTED_SCHEMA,
    LISTING: LISTING_SCHEMA,
    THUMBNAILS: THUMBNAIL_SCHEMA,
    CLASSES: CLASSES_SCHEMA,
}
"""What an ingest writes: name -> schema."""


@transform(code_version="4", outputs=TABLES, grows_with="source")
def ingest(
    spark: SparkSession,
    *,
    source: Snapshot,
    photos: Folder,
    raw_images: Folder,
    rejected_images: Folder,
    _listing: Folder,
    _thumbnails: Folder,
    _classes: Folder,
    max_pixels: int,
    max_bytes: int,
    max_seconds: float = SECONDS,
    earlier: Snapshot | None = None,
    question: str,
    log: Log,
) -> dict[str, Output]:
    """Examines every file of a listing once; each ends in exactly one of the two tables.

    Files that an earlier version has examined, and that the listing still says the same of, are
    not read again.

    Args:
        spark: where to run.
        source: the listing.
        photos: the folder whose files it lists.
        raw_images: folder to write the photos to.
        rejected_images: folder to write the rejected files to.
        _listing: folder that the listing lies in.
        _thumbnails: folder to write a few small pictures to.
        _classes: folder to write the counts by class and split to.
        max_pixels: larger pictures are rejected before they are decoded.
        max_bytes: larger files are rejected before they are read.
        max_seconds: that the decoding of one photo may take.
        earlier: an earlier version of raw_images with its siblings, if there is one.
        question: see `Transform`.
        log: told the progress.
    """
    listing = Listing.of(source)
    before = _Earlier.of(earlier, listing)
    new = before.missing_from(listing)
    to_read = source
    if new.rows < listing.rows:
        log(f"ingest: {new.rows} of {listing.rows} files are new; {len(before.gone)} are gone")
        to_read = new.write(_listing)
    if not before.still:
        some = pa.array(evenly(new.rows, TRIED), pa.int64())
        photos_at(photos).check(new.files.take(some).to_pylist())
    to = _Folders(raw_images, rejected_images)
    limits = _Limits(max_pixels, max_bytes, max_seconds)
    examiner = _Examiner(to_read, photos, to, limits, question)
    carried = before.summary(listing)
    tasks: list[Task] = [
        *before.merges(to),
        *(
            _Examination(examiner, chunk)
            for chunk in _chunks(
                new.files["bytes"].to_pylist(),
                spark.sparkContext.defaultParallelism,
                thumbnails=MAX_THUMBNAILS - len(carried["thumbnails"]),
            )
        ),
    ]
    run = methodcaller("run")
    done = for_each(spark, tasks, run, doing="ingest", total=new.rows, log=log)
    if new.rows:
        log(f"ingest: {_confinement(done)}")
    folders = {THUMBNAILS: _thumbnails, CLASSES: _classes}
    return outputs(folders, [carried, *done], listing, source)


def _confinement(done: Iterable[dict[str, Any]]) -> str:
    """How the decoders of all workers were confined, for people."""
    lacking = sorted({measure for one in done for measure in one.get("lacking", ())})
    if lacking:
        return f"photos were decoded with less protection, for workers lack {', '.join(lacking)}"
    return "photos were decoded without access to network, files and other processes"


@dataclass(frozen=True)
class _Folders:
    """The folders of the two tables that are written by workers."""

    raw: Folder
    rejected: Folder


@dataclass(frozen=True)
class _Examiner:
    """What all chunks of new files have in common."""

    listing: Snapshot
    photos: Folder
    to: _Folders
    limits: _Limits
    question: str


@dataclass(frozen=True)
class _Examination:
    """New files that become a part in each table."""

    of: _Examiner
    chunk: _Chunk

    def run(self) -> Done:
        chunk, to, listing = self.chunk, self.of.to, self.of.listing
        rows = read_rows(listing.folder, listing.files[0].name, chunk.start, chunk.stop).to_pylist()
        origin = Origin(address_of(self.of.question, rows), chunk.start, chunk.stop)
        raw = finished_part(to.raw, origin)
        rejected = finished_part(to.rejected, origin) if raw else None
        if not _is_final(rows, raw, rejected):
            tables = _ingest_chunk(rows, photos_at(self.of.photos), self.of.limits)
            rejected = write_rows(to.rejected, origin, tables[1])
            raw = write_rows(to.raw, origin, tables[0])
        seconds = self.of.limits.max_seconds
        found = summary(raw, rejected, chunk.thumbnails, max_seconds=seconds)
        lacking = shared(seconds=seconds).lacking
        return Done(len(rows), {**found, "read": len(rows), "lacking": lacking})


@dataclass(frozen=True)
class _Earlier:
    """What an earlier version has that a listing still says the same of.

    Attributes:
        photos: `path`, `label`, `split`, `format` and `part` of all its photos.
        refused: `path`, `reason`, `detail` and `part` of all its rejected files.
        still: paths of what is in the listing, unchanged.
        gone: paths of the others.
    """

    raw: Snapshot | None
    rejected: Snapshot | None
    photos: pa.Table
    refused: pa.Table
    still: frozenset[str]
    gone: frozenset[str]

    @classmethod
    def of(cls, raw: Snapshot | None, listing: Listing) -> Self:
        """Compares an earlier version, or what is whole of it, with a listing."""
        if raw is None:
            nothing = pa.table({"path": []})
            return cls(None, None, nothing, nothing, frozenset(), frozenset())
        rejected = raw.siblings["rejected_images"]
        photos = raw.arrow_with_parts(["path", "label", "split", "format"])
        refused = rejected.arrow_with_parts(["path", "reason", "detail"])
        paths = {*photos["path"].to_pylist(), *refused["path"].to_pylist()}
        unread = {row["path"] for row in refused.to_pylist() if _is_unread(row["detail"])}
        known, held = _listed(raw), paths - unread
        entries = list(listing.entries())
        still = frozenset(one[0] for one in entries if one in known and one[0] in held)
        # What a bucket has taken back into an archive is still what was read when it could be.
        unchanged = {_content(entry) for entry in known} - {None}
        accepted = set(photos["path"].to_pylist())
        still |= {one[0] for one in entries if one[0] in accepted and _content(one) in unchanged}
        return cls(raw, rejected, photos, refused, still, frozenset(paths - still))

    def missing_from(self, listing: Listing) -> Listing:
        """What of a listing it does not have."""
        new = [path not in self.still for path in listing.files["path"].to_pylist()]
        return Listing(listing.root, listing.files.filter(pa.array(new, pa.bool_())), 0)

    def summary(self, listing: Listing) -> dict[str, Any]:
        """What is taken over, as the summary of a chunk."""
        kept = [row for row in self.photos.to_pylist() if row["path"] in self.still]
        reasons = [row["reason"] for row in self.refused.to_pylist() if row["path"] in self.still]
        return {
            **{
                table: [vars(file) for file in taken.kept]
                for table, (_, taken) in self._takeovers.items()
            },
            "classes": [
                [*key, count]
                for key, count in Counter((row["label"], row["split"]) for row in kept).items()
            ],
            "formats": Counter(row["format"] for row in kept),
            "reasons": Counter(reasons),
            "thumbnails": self._thumbnails(len(self.still) / listing.rows),
        }

    def merges(self, to: _Folders) -> list[Merging]:
        """The parts that must be rewritten."""
        folders = vars(to)
        return [
            Merging(table, dataset, merge, self.gone, folders[table], PLAIN)
            for table, (dataset, taken) in self._takeovers.items()
            for merge in taken.merges
        ]

    @cached_property
    def _takeovers(self) -> dict[str, tuple[Snapshot, Takeover]]:
        tables = {"raw": (self.raw, self.photos), "rejected": (self.rejected, self.refused)}
        return {
            table: (dataset, takeover(dataset, paths, self.gone, PART))
            for table, (dataset, paths) in tables.items()
            if dataset
        }

    def _thumbnails(self, share: float) -> list[dict[str, Any]]:
        """Some of its thumbnails, as many as its share of all files asks for."""
        if self.raw is None:
            return []
        try:
            table = self.raw.siblings[THUMBNAILS].arrow(THUMBNAIL_SCHEMA.names)
        except DatasetError:
            return []
        rows = [row for row in table.to_pylist() if row["path"] in self.still]
        chosen = evenly(len(rows), math.floor(share * MAX_THUMBNAILS))
        return [{**rows[i], "jpeg": base64.b64encode(rows[i]["jpeg"]).decode()} for i in chosen]


def _content(entry: Entry) -> Entry | None:
    """An entry whatever its problem; None where no ETag says that its content is the same."""
    path, size, time, etag, _, split, label = entry
    return (path, size, time, etag, None, split, label) if etag else None


def _listed(raw: Snapshot) -> set[Entry]:
    """What a version was made from; nothing where its listing is damaged, for nobody can tell."""
    try:
        return set(Listing.of(raw.siblings[LISTING]).entries())
    except (DatasetError, ValueError):  # it is damaged, or gone
        return set()


Part = tuple[File, pa.Table]


def _is_final(rows: Sequence[object], raw: Part | None, rejected: Part | None) -> bool:
    """Whether the parts of an interrupted run hold every file, and none that was not read.

    Either part may be damaged, or may have been removed since; and a run that failed for files that
    it could not read is not to leave their rejection to those after it.
    """
    if sum(table.num_rows for _, table in (it for it in (raw, rejected) if it)) < len(rows):
        return False
    return not (rejected and any(map(_is_unread, rejected[1]["detail"].to_pylist())))


def write_rows(folder: Folder, origin: Origin, table: pa.Table) -> Part | None:
    """Writes a part, unless it has no rows."""
    if not table.num_rows:
        return None
    return write_part(folder, origin, table, incompressible=PLAIN), table


def summary(
    raw: Part | None, rejected: Part | None, thumbnails: int, *, max_seconds: float = SECONDS
) -> dict[str, Any]:
    """What the driver needs to know of a chunk, as JSON."""
    found: dict[str, Any] = {}
    if raw:
        file, table = raw
        classes = Counter(
            zip(*(table[name].to_pylist() for name in ("label", "split")), strict=True)
        )
        found["raw"] = [vars(file)]
        found["classes"] = [[*key, count] for key, count in classes.items()]
        found["formats"] = Counter(table["format"].to_pylist())
        found["thumbnails"] = _thumbnails(table, thumbnails, shared(seconds=max_seconds))
    if rejected:
        file, table = rejected
        found["rejected"] = [vars(file)]
        found["reasons"] = Counter(table["reason"].to_pylist())
        found["unread"] = sum(map(_is_unread, table["detail"].to_pylist()))
    return found


def outputs(
    folders: Mapping[str, Folder], done: list[dict[str, Any]], listing: Listing, source: Snapshot
) -> dict[str, Output]:
    """All tables of an ingest, from what the summaries of its parts say.

    Args:
        folders: of `_thumbnails` and `_classes`, which are written here.
        done: the summaries.
        listing: of the source.
        source: the same, as it lies in the lake.
    """
    small = {name: _write_small(folders[name], name, rows) for name, rows in _small(done).items()}
    return {
        "raw_images": _raw_output(done, listing),
        "rejected_images": _rejected_output(done, listing),
        LISTING: Output(source.files, {"files": listing.rows}),
        **{name: Output(files) for name, files in small.items()},
    }


def _small(done: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of the two tables that the driver writes."""
    counts: Counter[tuple[str | None, str | None]] = Counter()
    for one in done:
        for label, split, count in one.get("classes", ()):
            counts[label, split] += count
    classes = [
        {"label": label, "split": split, "images": counts[label, split]}
        for label, split in sorted(counts, key=str)
    ]
    thumbnails = [
        {**row, "jpeg": base64.b64decode(row["jpeg"])}
        for one in done
        for row in one.get("thumbnails", ())
    ]
    return {THUMBNAILS: thumbnails, CLASSES: classes}


def _write_small(folder: Folder, name: str, rows: list[dict[str, Any]]) -> tuple[File, ...]:
    if not rows:
        return ()
    table = pa.Table.from_pylist(rows, schema=TABLES[name])
    origin = Origin(address_of(rows), 0, len(rows))
    return (write_part(folder, origin, table, incompressible=["jpeg"]),)


def _raw_output(done: list[dict[str, Any]], listing: Listing) -> Output:
    """`raw_images` from what its parts' summaries say."""
    classes = [one for summary in done for one in summary.get("classes", ())]
    figures = {
        "images": sum(count for _, _, count in classes),
        "classes": len({label for label, _, _ in classes}),
        "labelled_classes": len({label for label, _, _ in classes if label is not None}),
        "files_found": listing.rows,
        "files_read": sum(one.get("read", 0) for one in done),
        "hidden_passed_over": listing.hidden,
        "repeated_passed_over": listing.repeated,
        "sidecars_passed_over": listing.sidecars,
        "passed_over": dict(listing.kinds),
        "formats": _total(one.get("formats", {}) for one in done),
    }
    return Output(_files(done, "raw"), figures)


def _is_unread(detail: str) -> bool:
    return detail.startswith(UNREAD)


def _rejected_output(done: list[dict[str, Any]], listing: Listing) -> Output:
    """`rejected_images` from what its parts' summaries say."""
    reasons = _total(one.get("reasons", {}) for one in done)
    figures = {
        "rejected": sum(reasons.values()),
        "files_found": listing.rows,
        "reasons": reasons,
    }
    unread = sum(one.get("unread", 0) for one in done)
    return Output(_files(done, "rejected"), figures, provisional=unread)


def _files(done: list[dict[str, Any]], table: str) -> tuple[File, ...]:
    return tuple(File(**file) for one in done for file in one.get(table, ()))


def _total(counters: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return dict(total.most_common())


@dataclass(frozen=True)
class _Chunk:
    """Consecutive files of the listing: one task, and one part in each table."""

    start: int
    stop: int
    thumbnails: int


def _chunks(sizes: list[int], cores: int, *, thumbnails: int) -> list[_Chunk]:
    """Consecutive files, bounded in number and bytes, enough of them to keep all cores busy."""
    max_rows = min(PART_ROWS, max(MIN_PART_ROWS, math.ceil(len(sizes) / (cores * PARTS_PER_CORE))))
    bounds: list[tuple[int, int]] = []
    start = filled = 0
    for row, size in enumerate(sizes):
        if row > start and (row - start == max_rows or filled + size > PART_BYTES):
            bounds.append((start, row))
            start, filled = row, 0
        filled += size
    if sizes:
        bounds.append((start, len(sizes)))
    quotas = thumbnail_quotas(len(bounds), thumbnails)
    return [_Chunk(*bound, quota) for bound, quota in zip(bounds, quotas, strict=True)]


def thumbnail_quotas(parts: int, total: int = MAX_THUMBNAILS) -> list[int]:
    """How many thumbnails each part contributes: evenly, `total` in all."""
    share = total / max(1, parts)
    return [math.floor((i + 1) * share) - math.floor(i * share) for i in range(parts)]


@dataclass(frozen=True)
class _Limits:
    max_pixels: int
    max_bytes: int
    max_seconds: float = SECONDS

    def refusal(self, row: dict[str, Any]) -> RejectedImage | None:
        """Why a file is not even read, if it is not."""
        if row["problem"]:
            return RejectedImage("unreadable", row["problem"])
        if row["bytes"] > self.max_bytes:
            return RejectedImage(
                "too_large",
                f"the file has {row['bytes']} bytes; at most {self.max_bytes} are read (max_bytes)",
            )
        return None


def _rejected(row: dict[str, Any], error: RejectedImage, sha256: str | None) -> dict[str, Any]:
    """A row of `REJECTED_SCHEMA`."""
    return {
        "path": row["path"],
        "bytes": row["bytes"],
        "sha256": sha256,
        "reason": str(error.reason),
        "detail": error.detail,
    }


class _Rejected(Exception):  # noqa: N818 - an outcome, not a failure
    """Carries a row of `REJECTED_SCHEMA`."""

    def __init__(self, row: dict[str, Any]) -> None:
        super().__init__(row["reason"])
        self.row = row


def _ingest_chunk(
    rows: list[dict[str, Any]], photos: PhotoStore, limits: _Limits
) -> tuple[pa.Table, pa.Table]:
    refusals = [limits.refusal(row) for row in rows]
    pairs = list(zip(rows, refusals, strict=True))
    contents = photos.fetch([row for row, refusal in pairs if refusal is None])
    accepted, rejected = [], []
    for row, refusal in pairs:
        if refusal:
            rejected.append(_rejected(row, refusal, None))
            continue
        try:
            accepted.append(_accepted(row, next(contents), limits))
        except _Rejected as error:
            rejected.append(error.row)
    return (
        pa.Table.from_pylist(accepted, schema=RAW_SCHEMA),
        pa.Table.from_pylist(rejected, schema=REJECTED_SCHEMA),
    )


def _accepted(row: dict[str, Any], read_it: Callable[[], bytes], limits: _Limits) -> dict[str, Any]:
    """A row of `RAW_SCHEMA`. Raises _Rejected."""
    digest = None
    try:
        data = _read(read_it)
        digest = hashlib.sha256(data).hexdigest()
        photo = shared(seconds=limits.max_seconds).examine(data, max_pixels=limits.max_pixels)
    except RejectedImage as error:
        raise _Rejected(_rejected(row, error, digest)) from None
    return {
        "path": row["path"],
        "split": row["split"],
        "label": row["label"],
        "sha256": digest,
        "content": photo.content,
        "content_sha256": hashlib.sha256(photo.content).hexdigest(),
        "format": photo.format,
        "width": photo.width,
        "height": photo.height,
        "orientation": photo.orientation,
        "bytes": len(data),
        "modified_at": row["modified_at"],
    }


def _read(read_it: Callable[[], bytes]) -> bytes:
    try:
        return read_it()
    except OSError as error:
        told = f"{UNREAD}{error.strerror or type(error).__name__}"
        raise RejectedImage("unreadable", told) from None


def _thumbnails(photos: pa.Table, count: int, decoder: Decoder) -> list[dict[str, Any]]:
    """`count` rows of `THUMBNAIL_SCHEMA`, evenly spread over the photos; base64 for JSON."""
    chosen = evenly(photos.num_rows, count)
    thumbnails = []
    for row in photos.take(pa.array(chosen, pa.int64())).to_pylist():
        size = fitted((row["width"], row["height"]), THUMBNAIL_SIZE)
        try:
            square = decoder.pixels(
                row["content"], orientation=row["orientation"], size=THUMBNAIL_SIZE
            )
        except RejectedImage:  # it kills its decoder only when it is decoded to the last pixel
            continue
        buffer = io.BytesIO()
        Image.fromarray(square).resize(size).save(buffer, "JPEG", quality=80)
        jpeg = base64.b64encode(buffer.getvalue()).decode()
        thumbnails.append({"path": row["path"], "label": row["label"], "jpeg": jpeg})
    return thumbnails


def fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height in the same proportion, the larger of them being `side` pixels."""
    width, height = (max(1, round(length * side / max(size))) for length in size)
    return width, height
