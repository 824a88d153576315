"""Photos of a source -> `raw_images` and `rejected_images`."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from fruits_assets.core.dataset import (
    File,
    Output,
    finished_parquet,
    read,
    read_rows,
    schema_of,
    write_parquet,
)
from fruits_assets.core.images import RejectedImage, examine, upright_rgb
from fruits_assets.core.source import Listing, PhotoStore, label_of, photos_at, split_of
from fruits_assets.transforms.transform import Done, Log, for_each, transform

RAW_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("label", pa.string()),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("content", pa.binary(), nullable=False),
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
THUMBNAILS = "thumbnails.parquet"
THUMBNAIL_SCHEMA = pa.schema([("path", pa.string()), ("label", pa.string()), ("jpeg", pa.binary())])
THUMBNAIL_SIZE = 96
MAX_THUMBNAILS = 60

PART_BYTES = 64 * 2**20
"""Photos in one part file, at most (one larger photo is a part of its own)."""
PART_ROWS = 320
"""A worker holds one part at a time, so this keeps its memory flat as the photos grow in number."""
MIN_PART_ROWS = 32
PARTS_PER_CORE = 8
"""Parts are the unit of work of all later stages: enough of them even out the cores' loads."""


@transform(code_version="1", outputs=["raw_images", "rejected_images"])
def ingest(
    spark: SparkSession,
    *,
    source: str,
    raw_images: str,
    rejected_images: str,
    max_pixels: int,
    max_bytes: int,
    log: Log,
) -> dict[str, Output]:
    """Examines every file of a listing once; each ends in exactly one of the two tables.

    Args:
        spark: where to run.
        source: URI of the listing.
        raw_images: URI of the version to write the photos to.
        rejected_images: URI of the version to write the rejected files to.
        max_pixels: larger pictures are rejected before they are decoded.
        max_bytes: larger files are rejected before they are read.
        log: told the progress.
    """
    listing = Listing.read(read(source))
    limits = _Limits(max_pixels=max_pixels, max_bytes=max_bytes)
    root = listing.root
    chunks = _chunks(listing.files["bytes"].to_pylist(), spark.sparkContext.defaultParallelism)

    def work(chunk: _Chunk) -> Done:
        rows = read_rows(source, chunk.start, chunk.stop).to_pylist()
        name = f"part-{chunk.start:09d}-{_address(rows)}.parquet"
        # The part of raw_images is written last: where it exists, its sibling is whole too.
        raw = finished_parquet(raw_images, name)
        rejected = finished_parquet(rejected_images, name) if raw else None
        if raw is None:
            accepted_rows, rejected_rows = _ingest_chunk(rows, photos_at(root), limits)
            rejected = write_part(rejected_images, name, rejected_rows)
            raw = write_part(raw_images, name, accepted_rows)
        return Done(len(rows), summary(raw, rejected, chunk.thumbnails))

    done = for_each(spark, chunks, work, doing="ingest", total=listing.files.num_rows, log=log)
    return {
        "raw_images": raw_output(raw_images, done, listing),
        "rejected_images": rejected_output(rejected_images, done, listing),
    }


Part = tuple[File, pa.Table]


def write_part(folder: str, name: str, table: pa.Table) -> Part | None:
    """Writes a part, unless it has no rows."""
    if not table.num_rows:
        return None
    return write_parquet(folder, name, table, incompressible=["content"]), table


def summary(raw: Part | None, rejected: Part | None, thumbnails: int) -> dict[str, Any]:
    """What the driver needs to know of a chunk, as JSON."""
    found: dict[str, Any] = {"raw": None, "rejected": None}
    if raw:
        file, table = raw
        classes = Counter(
            zip(*(table[name].to_pylist() for name in ("label", "split")), strict=True)
        )
        found["raw"] = vars(file)
        found["classes"] = [[*key, count] for key, count in classes.items()]
        found["formats"] = Counter(table["format"].to_pylist())
        found["thumbnails"] = _thumbnails(table, thumbnails)
    if rejected:
        file, table = rejected
        found["rejected"] = vars(file)
        found["reasons"] = Counter(table["reason"].to_pylist())
    return found


def raw_output(folder: str, done: list[dict[str, Any]], listing: Listing) -> Output:
    """`raw_images` from what its parts' summaries say."""
    thumbnails = [
        {**row, "jpeg": base64.b64decode(row["jpeg"])}
        for one in done
        for row in one.get("thumbnails", ())
    ]
    table = pa.Table.from_pylist(thumbnails, schema=THUMBNAIL_SCHEMA)
    counts: Counter[tuple[str | None, str | None]] = Counter()
    for one in done:
        for label, split, count in one.get("classes", ()):
            counts[label, split] += count
    images = sum(counts.values())
    files = (
        *_files(done, "raw"),
        listing.write(folder),
        write_parquet(folder, THUMBNAILS, table, incompressible=["jpeg"]),
    )
    figures = {
        "images": images,
        "files_found": listing.files.num_rows,
        "hidden_passed_over": listing.hidden,
        "classes": [
            [label, split, counts[label, split]] for label, split in sorted(counts, key=str)
        ],
        "formats": _total(one.get("formats", {}) for one in done),
    }
    return Output(files, figures, schema_of(RAW_SCHEMA))


def rejected_output(folder: str, done: list[dict[str, Any]], listing: Listing) -> Output:
    """`rejected_images` from what its parts' summaries say."""
    files = _files(done, "rejected")
    if not files:
        files = (write_parquet(folder, "part-none.parquet", REJECTED_SCHEMA.empty_table()),)
    reasons = _total(one.get("reasons", {}) for one in done)
    figures = {
        "rejected": sum(reasons.values()),
        "files_found": listing.files.num_rows,
        "reasons": reasons,
    }
    return Output(files, figures, schema_of(REJECTED_SCHEMA))


def _files(done: list[dict[str, Any]], table: str) -> tuple[File, ...]:
    return tuple(File(**one[table]) for one in done if one[table])


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


def _chunks(sizes: list[int], cores: int) -> list[_Chunk]:
    """Consecutive files, bounded in number and bytes, enough of them to keep all cores busy."""
    max_rows = min(PART_ROWS, max(MIN_PART_ROWS, math.ceil(len(sizes) / (cores * PARTS_PER_CORE))))
    bounds: list[tuple[int, int]] = []
    start = filled = 0
    for row, size in enumerate(sizes):
        if row > start and (row - start == max_rows or filled + size > PART_BYTES):
            bounds.append((start, row))
            start, filled = row, 0
        filled += size
    bounds.append((start, len(sizes)))
    quotas = thumbnail_quotas(len(bounds))
    return [_Chunk(*bound, quota) for bound, quota in zip(bounds, quotas, strict=True)]


def thumbnail_quotas(parts: int) -> list[int]:
    """How many thumbnails each part contributes: evenly, `MAX_THUMBNAILS` in all."""
    share = MAX_THUMBNAILS / parts
    return [math.floor((i + 1) * share) - math.floor(i * share) for i in range(parts)]


def _address(rows: list[dict[str, Any]]) -> str:
    """Names a part by what it is made from: only the same files make it the same part."""
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class _Limits:
    max_pixels: int
    max_bytes: int

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
            accepted.append(_accepted(row, next(contents), max_pixels=limits.max_pixels))
        except _Rejected as error:
            rejected.append(error.row)
    return (
        pa.Table.from_pylist(accepted, schema=RAW_SCHEMA),
        pa.Table.from_pylist(rejected, schema=REJECTED_SCHEMA),
    )


def _accepted(
    row: dict[str, Any], read_it: Callable[[], bytes], *, max_pixels: int
) -> dict[str, Any]:
    """A row of `RAW_SCHEMA`. Raises _Rejected."""
    digest = None
    try:
        data = _read(read_it)
        digest = hashlib.sha256(data).hexdigest()
        photo = examine(data, max_pixels=max_pixels)
    except RejectedImage as error:
        raise _Rejected(_rejected(row, error, digest)) from None
    return {
        "path": row["path"],
        "split": split_of(row["path"]),
        "label": label_of(row["path"]),
        "sha256": digest,
        "content": photo.content,
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
        raise RejectedImage(
            "unreadable", f"the file cannot be read: {error.strerror or type(error).__name__}"
        ) from None


def _thumbnails(photos: pa.Table, count: int) -> list[dict[str, Any]]:
    """`count` rows of `THUMBNAIL_SCHEMA`, evenly spread over the photos; base64 for JSON."""
    count = min(count, photos.num_rows)
    chosen = [(2 * i + 1) * photos.num_rows // (2 * count) for i in range(count)]
    thumbnails = []
    for row in photos.take(pa.array(chosen, pa.int64())).to_pylist():
        picture = upright_rgb(row["content"], orientation=row["orientation"])
        picture.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        jpeg = base64.b64encode(buffer.getvalue()).decode()
        thumbnails.append({"path": row["path"], "label": row["label"], "jpeg": jpeg})
    return thumbnails
