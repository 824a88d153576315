"""Versions without some images: what a run would make if these had never been in the source.

Nothing is computed again that does not depend on the erased images: rows are filtered. What is
erased is told by what remains, so that no path, hash or label of it is written anywhere.
"""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from pyspark.sql import SparkSession

from fruits_assets.core.dataset import (
    Dataset,
    File,
    Output,
    read,
    schema_of,
    write_parquet,
)
from fruits_assets.core.increment import without
from fruits_assets.core.source import LISTING, Listing
from fruits_assets.transforms.featurize import (
    FEATURES_SCHEMA,
    read_unreadable,
    write_unreadable,
)
from fruits_assets.transforms.ingest import (
    raw_output,
    rejected_output,
    summary,
    thumbnail_quotas,
    write_part,
)
from fruits_assets.transforms.transform import Done, Log, for_each, transform


@transform(code_version="1", outputs=["raw_images", "rejected_images"])
def erase_images(
    spark: SparkSession,
    *,
    source: str,
    images: str,
    rejected: str,
    raw_images: str,
    rejected_images: str,
    log: Log,
) -> dict[str, Output]:
    """Keeps the rows of the files that a shorter listing still has.

    Args:
        spark: where to run.
        source: URI of the listing of what remains.
        images: URI of the version of `raw_images` to filter.
        rejected: URI of the version of `rejected_images` to filter.
        raw_images: URI of the version to write.
        rejected_images: URI of the version to write.
        log: told the progress.
    """
    listing = Listing.read(read(source))
    old_raw, old_rejected = Dataset.open(images), Dataset.open(rejected)
    before = Listing.read(old_raw.read(LISTING)).files["path"]
    erased = _missing(before, listing.files["path"])
    raw_parts = {file.name for file in old_raw.parts}
    rejected_parts = {file.name for file in old_rejected.parts}
    parts = sorted(raw_parts | rejected_parts)

    def work(task: tuple[str, int]) -> Done:
        name, thumbnails = task
        raw = other = None
        if name in raw_parts:
            raw = write_part(raw_images, name, without(old_raw.table(name), erased))
        if name in rejected_parts:
            other = write_part(rejected_images, name, without(old_rejected.table(name), erased))
        rows = sum(part[0].rows for part in (raw, other) if part)
        return Done(rows, summary(raw, other, thumbnails))

    tasks = list(zip(parts, thumbnail_quotas(len(parts)), strict=True))
    total = listing.files.num_rows
    done = for_each(spark, tasks, work, doing="erasure, images kept", total=total, log=log)
    return {
        "raw_images": raw_output(raw_images, done, listing),
        "rejected_images": rejected_output(rejected_images, done, listing),
    }


@transform(code_version="1", outputs=["features"])
def erase_features(
    spark: SparkSession, *, images: str, old: str, features: str, log: Log
) -> dict[str, Output]:
    """Keeps the features of the images that are still there.

    Args:
        spark: where to run.
        images: URI of the version of `raw_images` that remains.
        old: URI of the version of `features` to filter.
        features: URI of the version to write.
        log: told the progress.
    """
    source = Dataset.open(old)
    remaining = Dataset.open(images).arrow(["path"])["path"]
    erased = _missing(source.arrow(["path"])["path"], remaining)
    kept = set(remaining.to_pylist())

    def work(name: str) -> Done:
        table = without(source.table(name), erased)
        file = write_parquet(features, name, table, incompressible=["features"])
        return Done(table.num_rows, [vars(file), list(Counter(table["split"].to_pylist()).items())])

    names = [file.name for file in source.parts]
    total = len(remaining)
    done = for_each(spark, names, work, doing="erasure, features kept", total=total, log=log)
    splits: Counter[str | None] = Counter()
    for _, counts in done:
        splits.update(dict(counts))
    unreadable = [row for row in read_unreadable(source) if row[0] in kept]
    figures = {
        "images": splits.total(),
        "inferences": 0,
        "unreadable": len(unreadable),
        "features_per_image": source.manifest.figures["features_per_image"],
        "images_per_second": 0.0,
        "splits": [[split, count] for split, count in sorted(splits.items(), key=str)],
    }
    parts = (File(**file) for file, _ in done if file["rows"])
    files = (*parts, write_unreadable(features, unreadable))
    return {"features": Output(files, figures, schema_of(FEATURES_SCHEMA))}


def _missing(before: pa.ChunkedArray, after: pa.ChunkedArray) -> frozenset[str]:
    """What was there and is not any more."""
    return frozenset(before.to_pylist()) - frozenset(after.to_pylist())
