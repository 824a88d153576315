"""Oddities of the files of a source, counted, with a few examples, for the asset checks.

Paths are compared by sums of hashes, which are kept for each part, so that only new parts are read.
Only where sums differ are paths compared with paths. Contents are compared by Spark.
"""

from __future__ import annotations

import hashlib
import math
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import groupby
from operator import itemgetter
from typing import Any, Self

import pyarrow as pa
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as PySpark's own documentation writes it

from fruits_assets.sources import oddities
from fruits_assets.sources.layout import folder_of
from fruits_assets.sources.listing import LISTING
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import File, Origin, address_of, write_part
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.changes import CLASSES
from fruits_assets.transforms.spread import (
    MAX_PARTITIONS,
    Done,
    Log,
    for_each,
    light_rows,
    run_logged,
)
from fruits_assets.transforms.transform import transform

SHOWN = 20
"""Examples of each kind, at most."""
TALLY = "_tally"
TALLY_SCHEMA = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("paths", pa.int64(), nullable=False),
    ]
)
"""Rows of each part, and the sum of the hashes of their paths."""
ODDITIES = "_oddities"
ODDITIES_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("number", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("photos", pa.int64(), nullable=False),
    ]
)
"""Examples: one row for each path of each."""

LOST, INVENTED, REPEATED = "lost", "not_from_the_source", "repeated"
PAIRS, UNLABELLED, COPIES, CONTENTS = "pairs", "unlabelled", "copies", "contents"
"""Kinds of what is found."""
FOUND = "kind string, paths array<string>, photos long"
FOUND_SCHEMA = pa.schema(
    [("kind", pa.string()), ("paths", pa.list_(pa.string())), ("photos", pa.int64())]
)
"""A count of a kind, without paths, or an example."""
MAX_FOUND = 50_000
"""Pairs of folders with the same photos, and folders, that the driver looks at."""
TASKS_PER_CORE = 8
"""Enough of them to even out the cores' loads."""
ROWS_PER_PARTITION = 25_000
"""Paths and hashes that a worker compares at a time: some 4 MB."""


@transform(
    code_version="1", outputs={TALLY: TALLY_SCHEMA, ODDITIES: ODDITIES_SCHEMA}, grows_with="images"
)
def inspect_images(
    spark: SparkSession,
    *,
    images: Snapshot,
    _tally: Folder,
    _oddities: Folder,
    earlier: Snapshot | None = None,
    question: str,
    log: Log,
) -> dict[str, Output]:
    """Finds files that are in no table or in two, contents in two splits, and copied folders.

    Args:
        spark: where to run.
        images: a version of `raw_images` with its siblings.
        _tally: folder to write the sums of each part to.
        _oddities: folder to write examples to.
        earlier: an earlier version, whose parts are not read again, if there is one.
        question: see `Transform`.
        log: told the progress.
    """
    listing, rejected = images.siblings[LISTING], images.siblings["rejected_images"]
    source = images.alone()
    rows = _tallied(spark, (listing, source, rejected), earlier, log=log)
    listed, accepted, refused = (
        Tally.of(row for row in rows if row["table"] == one.name)
        for one in (listing, source, rejected)
    )
    found = _contents(spark, source, log=log)
    if listed != accepted + refused:
        found |= compare_paths(spark, [listing], [source, rejected], log=log)
    shared = _shared_classes(spark, images, log=log)
    figures = {
        "files_found": listed.rows,
        "accepted": accepted.rows,
        "rejected": refused.rows,
        **{kind: found[kind].total for kind in (LOST, INVENTED, REPEATED)},
        "contents": found[CONTENTS].total,
        "in_more_than_one": found[PAIRS].total,
        "without_label": found[UNLABELLED].total,
        "shared": shared,
    }
    table = pa.Table.from_pylist(rows, TALLY_SCHEMA)
    tally = write_part(_tally, Origin(question, 0, len(rows)), table)
    return {
        TALLY: Output((tally,), figures),
        ODDITIES: Output(write_examples(_oddities, found)),
    }


@dataclass(frozen=True)
class Tally:
    """Rows, and the sum of the hashes of their paths, modulo 2^64.

    Equal tallies are of the same paths, each as often, but for one in 2^64 of others.
    """

    rows: int = 0
    paths: int = 0

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Self:
        """Tally of some rows of `TALLY_SCHEMA`."""
        counted = [(row["rows"], row["paths"]) for row in rows]
        return cls(sum(rows for rows, _ in counted), sum(paths for _, paths in counted) % 2**64)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.rows + other.rows, (self.paths + other.paths) % 2**64)


def sum_of(paths: Iterable[str]) -> int:
    """The sum of 64-bit hashes of paths, modulo 2^64, as a signed number: Delta has no other."""
    digests = (hashlib.blake2b(path.encode(), digest_size=8).digest() for path in paths)
    total = sum(int.from_bytes(digest) for digest in digests)
    return (total + 2**63) % 2**64 - 2**63


def _tallied(
    spark: SparkSession, tables: Sequence[Snapshot], earlier: Snapshot | None, *, log: Log
) -> list[dict[str, Any]]:
    """A row of `TALLY_SCHEMA` for each part of some tables; only parts without one are read."""
    rows = earlier.arrow(TALLY_SCHEMA.names).to_pylist() if earlier else []
    seen = {(row["table"], row["part"]): row for row in rows}
    handles = {one.name: one.only(()) for one in tables}
    parts = [(one.name, file) for one in tables for file in one.files]

    def work(task: tuple[str, File]) -> dict[str, Any]:
        name, file = task
        paths = handles[name].only((file,)).arrow(["path"])["path"].to_pylist()
        row = (name, file.name, len(paths), sum_of(paths))
        return dict(zip(TALLY_SCHEMA.names, row, strict=True))

    new = [(name, file) for name, file in parts if (name, file.name) not in seen]
    for row in each_part(spark, new, work, doing="files counted", log=log):
        seen[row["table"], row["part"]] = row
    return [seen[name, file.name] for name, file in parts]


def each_part(
    spark: SparkSession,
    parts: Sequence[tuple[str, File]],
    work: Callable[[tuple[str, File]], dict[str, Any]],
    *,
    doing: str,
    log: Log,
) -> list[dict[str, Any]]:
    """Runs `work` on every part and returns what it reports, in any order.

    A task treats several parts: of many small ones, starting tasks would cost more than reading.

    Args:
        spark: where to run.
        parts: name of a table, and a part of it.
        work: runs on the workers.
        doing: what this is, for the log.
        log: told the progress.
    """
    count = min(len(parts), TASKS_PER_CORE * spark.sparkContext.defaultParallelism)
    blocks = [parts[i::count] for i in range(count)]

    def every(block: Sequence[tuple[str, File]]) -> Done:
        return Done(sum(file.rows for _, file in block), [work(part) for part in block])

    total = sum(file.rows for _, file in parts)
    done = for_each(spark, blocks, every, doing=doing, total=total, log=log)
    return [report for reports in done for report in reports]


@dataclass
class Kind:
    """How many there are of a kind, and the first of them.

    Attributes:
        total: how many.
        examples: their paths, and photos, in order; `SHOWN` at most.
    """

    total: int = 0
    examples: list[tuple[list[str], int]] = field(default_factory=list)

    def add(self, *paths: str) -> None:
        """Counts one more."""
        self.total += 1
        self.show([*paths], 1)

    def show(self, paths: list[str], photos: int) -> None:
        """Keeps an example, if it is one of the first."""
        insort(self.examples, (paths, photos))
        del self.examples[SHOWN:]


def merged(rows: Iterable[tuple[str, Sequence[str], int]]) -> defaultdict[str, Kind]:
    """Counts and examples of all partitions, by kind."""
    found: defaultdict[str, Kind] = defaultdict(Kind)
    for kind, paths, photos in rows:
        if paths:
            found[kind].show([*paths], photos)
        else:
            found[kind].total += photos
    return found


def _batch(found: Mapping[str, Kind], pairs: Mapping[oddities.Pair, int]) -> pa.RecordBatch:
    """Findings of a partition, as rows of `FOUND_SCHEMA`."""
    rows: list[tuple[str, list[str], int]] = [
        (kind, [], one.total) for kind, one in found.items() if one.total
    ]
    rows += [(kind, *example) for kind, one in found.items() for example in one.examples]
    rows += [(COPIES, [*pair], count) for pair, count in pairs.items()]
    columns = [[row[i] for row in rows] for i in range(3)]
    return pa.RecordBatch.from_pydict(
        dict(zip(FOUND_SCHEMA.names, columns, strict=True)), FOUND_SCHEMA
    )


def compare_paths(
    spark: SparkSession, listed: Sequence[Snapshot], held: Sequence[Snapshot], *, log: Log
) -> defaultdict[str, Kind]:
    """Which paths of some tables others lack, have beside them, or have twice.

    Args:
        spark: where to run.
        listed: tables that say which paths there are.
        held: tables that should hold each of them once.
        log: told the progress.

    Returns:
        `LOST`, `INVENTED` and `REPEATED`: those of them that there are.
    """
    both = [(one, "1", "0") for one in listed] + [(one, "0", "1") for one in held]
    frames = [
        light_rows(spark, one, ["path"]).selectExpr("path", f"{i} AS listed", f"{j} AS held")
        for one, i, j in both
    ]
    rows = sum(one.rows for one in listed)
    counts = (
        _together(reduce(DataFrame.union, frames), rows, "path")
        .groupBy("path")
        .agg(F.sum("listed").alias("listed"), F.sum("held").alias("held"))
    )
    found = counts.where("listed <> held").mapInArrow(differing, FOUND)
    return merged(_collected(spark, found, "paths compared", log))


def differing(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Names what is lost, invented or repeated.

    Args:
        batches: `path`; `listed` and `held`, how often it should be there and how often it is.
    """
    found = {kind: Kind() for kind in (LOST, INVENTED, REPEATED)}
    for batch in batches:
        for row in batch.to_pylist():
            path, listed, held = row["path"], row["listed"], row["held"]
            if held < listed:
                found[LOST].add(path)
            elif not listed:
                found[INVENTED].add(path)
            if held > max(1, listed):
                found[REPEATED].total += held - max(1, listed)
    yield _batch(found, {})


def _contents(spark: SparkSession, images: Snapshot, *, log: Log) -> defaultdict[str, Kind]:
    """Contents in more than one split, photos without label, and folders that are copies."""
    rows = light_rows(spark, images, ["sha256", "path", "split", "label"])
    found = (
        _together(rows, images.rows, "sha256")
        .sortWithinPartitions("sha256", "path")
        .mapInArrow(same_contents, FOUND)
    )
    if images.rows > ROWS_PER_PARTITION:  # else one worker has seen all of them
        found = found.groupBy("kind", "paths").agg(F.sum("photos").alias("photos"))
    few = (
        found.where(f"kind <> '{COPIES}' OR photos > 1")
        .orderBy(F.col("kind") == COPIES, F.desc("photos"))
        .limit(MAX_FOUND)
    )
    done = [tuple(row) for row in _collected(spark, few, "contents compared", log)]
    pairs = {(paths[0], paths[1]): photos for kind, paths, photos in done if kind == COPIES}
    kinds = merged(row for row in done if row[0] != COPIES)
    if pairs and (copies := oddities.confirmed(pairs, _below(spark, images, pairs, log=log))):
        shown = [([it.folder, it.other], it.photos) for it in copies[:SHOWN]]
        kinds[COPIES] = Kind(len(copies), shown)
    return kinds


def same_contents(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Finds what is odd about photos with the same content, in one partition.

    Args:
        batches: `sha256`, `path`, `split` and `label` of photos, in order of the first two.
    """
    found = {kind: Kind() for kind in (PAIRS, UNLABELLED, CONTENTS)}
    pairs: Counter[oddities.Pair] = Counter()
    names = ("sha256", "path", "split", "label")
    rows = (
        row
        for batch in batches
        for row in zip(*(batch.column(name).to_pylist() for name in names), strict=True)
    )
    for _, group in groupby(rows, key=itemgetter(0)):
        splits: dict[str, str] = {}
        first: list[str] = []
        for _, path, split, label in group:
            if label is None:
                found[UNLABELLED].add(path)
            if split:
                splits.setdefault(split, path)
            if len(first) < oddities.COMPARED:
                first.append(path)
        found[CONTENTS].total += bool(splits)
        if len(splits) > 1:
            found[PAIRS].add(*sorted(splits.values()))
        if len(first) > 1:
            pairs.update(oddities.folders_of(first))
    yield _batch(found, pairs)


def _below(
    spark: SparkSession, images: Snapshot, pairs: Iterable[oddities.Pair], *, log: Log
) -> Mapping[str, int]:
    """How many photos lie in each of some folders, at any depth."""
    folders = {folder for pair in pairs for folder in pair}

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        paths = (path for batch in batches for path in batch.column("path").to_pylist())
        below = oddities.photos_below(paths, folders)
        columns = {"folder": [*below], "photos": pa.array(below.values(), pa.int64())}
        yield pa.RecordBatch.from_pydict(columns)

    counted = light_rows(spark, images, ["path"]).mapInArrow(count, "folder string, photos long")
    sums = _together(counted, images.rows, "folder").groupBy("folder").agg(F.sum("photos"))
    return Counter(dict(map(tuple, _collected(spark, sums, "folders counted", log))))


def _shared_classes(
    spark: SparkSession, images: Snapshot, *, log: Log
) -> dict[str, dict[str, int]]:
    """Split that shares no class with Training -> rule for labels -> classes that it would share.

    Only where there is such a split is anything read.
    """
    rows = images.siblings[CLASSES].arrow(["split", "label"]).to_pylist()
    apart = oddities.strangers(oddities.classes_of((row["split"], row["label"]) for row in rows))
    if not apart:
        return {}

    def folders(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = {folder_of(path) for path in batch.column("path").to_pylist()}
            yield pa.RecordBatch.from_pydict({"folder": pa.array([*found], pa.string())})

    frame = light_rows(spark, images.alone(), ["path"]).mapInArrow(folders, "folder string")
    few = _together(frame, images.rows, "folder").distinct().limit(MAX_FOUND)
    names = [row.folder for row in _collected(spark, few, "folders listed", log)]
    return {split: {**oddities.shared_under(names, split)} for split in apart}


def _together(frame: DataFrame, rows: int, column: str) -> DataFrame:
    """A frame of some rows, those with the same value on one worker; few rows are not shuffled."""
    partitions = min(MAX_PARTITIONS, math.ceil(rows / ROWS_PER_PARTITION))
    return frame.repartition(partitions, column) if partitions > 1 else frame.coalesce(1)


def _collected(spark: SparkSession, frame: DataFrame, doing: str, log: Log) -> list[Row]:
    return run_logged(spark, frame.collect, log=log, progress=lambda: doing)


def write_examples(folder: Folder, found: Mapping[str, Kind]) -> tuple[File, ...]:
    """Writes examples of each kind as rows of `ODDITIES_SCHEMA`; nothing where there are none."""
    rows = [
        dict(zip(ODDITIES_SCHEMA.names, (kind, number, path, photos), strict=True))
        for kind, one in found.items()
        for number, (paths, photos) in enumerate(one.examples)
        for path in paths
    ]
    if not rows:
        return ()
    table = pa.Table.from_pylist(rows, ODDITIES_SCHEMA)
    return (write_part(folder, Origin(address_of(rows), 0, len(rows)), table),)


def read_examples(table: Snapshot, kind: str) -> list[tuple[list[str], int]]:
    """The paths of each example of a kind, and its photos. Raises DatasetError."""
    found: dict[int, tuple[list[str], int]] = {}
    for row in table.arrow(ODDITIES_SCHEMA.names).to_pylist():
        if row["kind"] == kind:
            found.setdefault(row["number"], ([], row["photos"]))[0].append(row["path"])
    return [*found.values()]
