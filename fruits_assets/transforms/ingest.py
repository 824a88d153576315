"""Photos of a source -> `raw_images` and `rejected_images`."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as PySpark's own documentation writes it

from fruits_assets.core.decoder import SECONDS, Decoder, shared
from fruits_assets.core.errors import DatasetError
from fruits_assets.core.images import RejectedImage
from fruits_assets.sources.listing import LISTING, LISTING_SCHEMA, ORDER, PASSED_OVER, entries
from fruits_assets.sources.places import photos_at
from fruits_assets.sources.store import PhotoStore
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import (
    File,
    Origin,
    address_of,
    finished_part,
    write_part,
)
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.changes import (
    BLOCK,
    CLASSES,
    NEW,
    RAW,
    REJECTED,
    UNREAD,
    Changes,
    changes,
)
from fruits_assets.transforms.increment import Merging, PartSize, Takeover, evenly, takeover
from fruits_assets.transforms.spread import Done, Log, for_each_group, with_tasks
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
TRIED_PARTS = 8
"""Parts of the listing that they are taken from, at most."""
PART_BYTES = 64 * 2**20
"""Photos in one part file, at most (one larger photo is a part of its own)."""
PART_ROWS = 16_384
"""Photos in one part file, at most: 10^8 small ones are some thousands of files."""
PART = PartSize(PART_ROWS, PART_BYTES)
PLAIN = ("content",)
"""Columns that photos have compressed already."""
MIN_PART_ROWS = 32
PARTS_PER_CORE = 8
"""Parts are the unit of work of all later stages: enough of them even out the cores' loads."""


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
    cores = spark.sparkContext.defaultParallelism
    to = _Folders(raw_images, rejected_images)
    limits = _Limits(max_pixels, max_bytes, max_seconds)
    block = files_per_task(source.rows, source.figures["bytes"], cores)
    with changes(spark, source, earlier, block=block) as found:
        if earlier:
            log(f"ingest: {found.files} of {source.rows} files are new; {found.removed} are gone")
        still = source.rows - found.files
        if not still:
            photos_at(photos).check(_some(source))
        pictures = _taken_pictures(earlier, found, still / source.rows)
        tasks = [
            *_merges(earlier, found, to),
            *_examinations(found, cores, source, MAX_THUMBNAILS - len(pictures)),
        ]
        examiner = _Examiner(photos, to, limits, question)

        def work(task: _Planned, rows: pa.Table) -> Done:
            if isinstance(task.what, Merging):
                return Done(0, [task.what.run(rows).value])
            return examiner.run(rows, task.what)

        rows = found.new
        if found.gone is not None:
            gone = found.gone.withColumn(BLOCK, F.lit(0).cast("long"))
            rows = rows.unionByName(gone, allowMissingColumns=True)
        rows = with_tasks(rows, ["kind", "part", BLOCK], [task.gets for task in tasks])
        reports = for_each_group(
            spark, tasks, rows, work, doing="ingest", total=found.files, log=log
        )
        done = [one for report in reports for one in report]
        if found.files:
            log(f"ingest: {_confinement(done)}")
        carried = _carried(earlier, found, pictures)
    folders = {THUMBNAILS: _thumbnails, CLASSES: _classes}
    return outputs(folders, [carried, *done], source)


def files_per_task(files: int, size: int, cores: int) -> int:
    """How many files a task examines: enough tasks to keep all cores busy, and no larger parts.

    Args:
        files: how many there are.
        size: of all of them, bytes.
        cores: that work on them.
    """
    fair = max(MIN_PART_ROWS, math.ceil(files / (cores * PARTS_PER_CORE)))
    heavy = PART_BYTES * files // size if size else fair
    return max(1, min(PART_ROWS, fair, heavy))


def _some(listing: Snapshot) -> list[dict[str, Any]]:
    """Rows of at most `TRIED` files, from all over a listing."""
    parts = [listing.files[i] for i in evenly(len(listing.files), TRIED_PARTS)]
    rows = []
    for part in parts:
        table = listing.only((part,)).arrow(LISTING_SCHEMA.names)
        chosen = pa.array(evenly(table.num_rows, -(-TRIED // len(parts))), pa.int64())
        rows += table.take(chosen).to_pylist()
    return rows


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
class _Planned:
    """A task, and the rows that it gets.

    Attributes:
        gets: kind, part and block of the rows; see `Changes`.
        what: parts to merge, or how many thumbnails to make of the files that are examined.
    """

    gets: tuple[tuple[str, str, int], ...]
    what: Merging | int


def _merges(earlier: Snapshot | None, found: Changes, to: _Folders) -> Iterator[_Planned]:
    """The parts that must be rewritten."""
    for kind, (snapshot, taken) in _takeovers(earlier, found).items():
        for group in taken.merges:
            gets = tuple((kind, file.name, 0) for file in group)
            folder = vars(to)[kind]
            yield _Planned(gets, Merging(kind, snapshot.only(()), group, folder, PLAIN))


def _takeovers(earlier: Snapshot | None, found: Changes) -> Mapping[str, tuple[Snapshot, Takeover]]:
    """What becomes of the parts of both tables of an earlier version."""
    if earlier is None:
        return {}
    tables = {RAW: earlier, REJECTED: earlier.siblings["rejected_images"]}
    return {
        kind: (snapshot, takeover(snapshot, found.lost.get(kind, {}), PART))
        for kind, snapshot in tables.items()
    }


def _examinations(found: Changes, cores: int, listing: Snapshot, thumbnails: int) -> list[_Planned]:
    """Files to examine, in tasks of whole blocks of the listing."""
    average = listing.figures["bytes"] // max(1, listing.rows)
    enough = files_per_task(found.files, average * found.files, cores)
    groups: list[list[tuple[str, str, int]]] = []
    filled = enough
    for (part, block), files in found.blocks.items():
        if filled >= enough:
            groups.append([])
            filled = 0
        groups[-1].append((NEW, part, block))
        filled += files
    quotas = thumbnail_quotas(len(groups), thumbnails)
    return [_Planned(tuple(group), quota) for group, quota in zip(groups, quotas, strict=True)]


def _carried(
    earlier: Snapshot | None, found: Changes, pictures: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What is taken over from an earlier version, as the summary of a part."""
    kept = found.kept
    return {
        **{
            kind: [vars(file) for file in taken.kept]
            for kind, (_, taken) in _takeovers(earlier, found).items()
        },
        "classes": [[*key, count] for key, count in kept.classes.items() if count],
        "formats": +kept.formats,
        "reasons": +kept.reasons,
        "thumbnails": pictures,
    }


def _taken_pictures(earlier: Snapshot | None, found: Changes, share: float) -> list[dict[str, Any]]:
    """Some thumbnails of an earlier version, as many as its share of all files asks for."""
    if earlier is None:
        return []
    try:
        rows = earlier.siblings[THUMBNAILS].arrow(THUMBNAIL_SCHEMA.names).to_pylist()
    except DatasetError:
        return []
    if found.gone is not None:
        asked = found.gone.where(F.col("path").isin([row["path"] for row in rows]))
        gone = {row.path for row in asked.select("path").collect()}
        rows = [row for row in rows if row["path"] not in gone]
    chosen = evenly(len(rows), math.floor(share * MAX_THUMBNAILS))
    return [{**rows[i], "jpeg": base64.b64encode(rows[i]["jpeg"]).decode()} for i in chosen]


@dataclass(frozen=True)
class _Examiner:
    """Examines files, and writes them into parts that are cut by size.

    A run that was interrupted finds its finished parts by the positions in their names.
    """

    photos: Folder
    to: _Folders
    limits: _Limits
    question: str

    def run(self, files: pa.Table, thumbnails: int) -> Done:
        """Examines files of the listing.

        Args:
            files: rows of `LISTING_SCHEMA`, in any order.
            thumbnails: how many to make.
        """
        files = files.select(LISTING_SCHEMA.names).sort_by(ORDER)
        rows, address = files.to_pylist(), address_of(self.question, list(entries(files)))
        lacking = shared(seconds=self.limits.max_seconds).lacking
        found, left = [], thumbnails
        for start, stop, raw, rejected in self._parts(address, rows):
            share = left if stop == len(rows) else thumbnails * (stop - start) // len(rows)
            left -= share
            one = summary(raw, rejected, share, max_seconds=self.limits.max_seconds)
            found.append({**one, "read": stop - start, "lacking": lacking})
        return Done(len(rows), found)

    def _parts(
        self, address: str, rows: Sequence[dict[str, Any]]
    ) -> Iterator[tuple[int, int, Part | None, Part | None]]:
        """First row, row after the last, and the parts of both tables; made where not finished."""
        start = 0
        while start < len(rows) and (done := self._finished(address, rows, start)):
            yield start, *done
            start = done[0]
        for raw, rejected in _ingested(rows[start:], photos_at(self.photos), self.limits):
            origin = Origin(address, start, start + raw.num_rows + rejected.num_rows)
            second = write_rows(self.to.rejected, origin, rejected)
            yield start, origin.stop, write_rows(self.to.raw, origin, raw), second
            start = origin.stop

    def _finished(
        self, address: str, rows: Sequence[dict[str, Any]], start: int
    ) -> tuple[int, Part | None, Part | None] | None:
        """Parts of an interrupted run that begin with a row, if they hold all of theirs."""
        names = self.to.raw.sizes(prefix=f"part-{address}-{start:06d}-")
        for origin in {one for name in names if (one := Origin.of(name))}:
            raw, rejected = finished_part(self.to.raw, origin), None
            if raw and raw[1].num_rows < origin.stop - start:
                rejected = finished_part(self.to.rejected, origin)
            if _is_final(rows[start : origin.stop], raw, rejected):
                return origin.stop, raw, rejected
        return None


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
    folders: Mapping[str, Folder], done: list[dict[str, Any]], listing: Snapshot
) -> dict[str, Output]:
    """All tables of an ingest, from what the summaries of its parts say.

    Args:
        folders: of `_thumbnails` and `_classes`, which are written here.
        done: the summaries.
        listing: of the source, as it lies in the lake.
    """
    small = {name: _write_small(folders[name], name, rows) for name, rows in _small(done).items()}
    return {
        "raw_images": _raw_output(done, listing),
        "rejected_images": _rejected_output(done, listing),
        LISTING: Output(listing.files, dict(listing.figures)),
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


def _raw_output(done: list[dict[str, Any]], listing: Snapshot) -> Output:
    """`raw_images` from what its parts' summaries say."""
    classes = [one for summary in done for one in summary.get("classes", ())]
    figures = {
        "images": sum(count for _, _, count in classes),
        "classes": len({label for label, _, _ in classes}),
        "labelled_classes": len({label for label, _, _ in classes if label is not None}),
        "files_found": listing.rows,
        "files_read": sum(one.get("read", 0) for one in done),
        **{f"{name}_passed_over": listing.figures[name] for name in PASSED_OVER},
        "passed_over": listing.figures["kinds"],
        "formats": _total(one.get("formats", {}) for one in done),
    }
    return Output(_files(done, "raw"), figures)


def _is_unread(detail: str) -> bool:
    return detail.startswith(UNREAD)


def _rejected_output(done: list[dict[str, Any]], listing: Snapshot) -> Output:
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


def _ingested(
    rows: Sequence[dict[str, Any]], photos: PhotoStore, limits: _Limits
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Examines files, and yields the rows of both tables whenever they fill a part."""
    refusals = [limits.refusal(row) for row in rows]
    pairs = list(zip(rows, refusals, strict=True))
    contents = photos.fetch([row for row, refusal in pairs if refusal is None])
    accepted, rejected = [], []
    filled = 0
    for row, refusal in pairs:
        if filled >= PART_BYTES:
            yield _tables(accepted, rejected)
            accepted, rejected, filled = [], [], 0
        if refusal:
            rejected.append(_rejected(row, refusal, None))
            continue
        try:
            accepted.append(_accepted(row, next(contents), limits))
            filled += len(accepted[-1]["content"])
        except _Rejected as error:
            rejected.append(error.row)
    if rows:
        yield _tables(accepted, rejected)


def _tables(
    accepted: list[dict[str, Any]], rejected: list[dict[str, Any]]
) -> tuple[pa.Table, pa.Table]:
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
