"""How work is spread over a cluster.

There are two ways. `for_each` runs a list of tasks, one per part of a table. `for_each_group` runs
tasks that each get rows of a DataFrame, where what is to be done was found out by Spark and is
known to no single machine. In both, the driver holds a description per part, and nothing per photo.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
import zipimport
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark import Broadcast, StorageLevel
from pyspark.errors import PySparkException
from pyspark.serializers import CPickleSerializer
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as PySpark's own documentation writes it

from fruits_assets.core import errors
from fruits_assets.core.interruptible import interruptible
from fruits_assets.storage.parquet import File
from fruits_assets.storage.snapshot import Snapshot

Item = TypeVar("Item")
Result = TypeVar("Result")
Log = Callable[[str], None]
PROGRESS_SECONDS = 5.0
MAX_PARTITIONS = 1024
"""Spark tasks of one job, at most: where there are more tasks, a Spark task runs several."""
TASK = "task"
"""Column that names the task of each row, for `for_each_group`."""
REPORT = "key int, value string"
KILLED_FOR_MEMORY = re.compile(
    r"exceeding (?:physical )?memory limits\.\s*([\d.]+ \w+ of [\d.]+ \w+)"
)
"""Spark's words for a container that YARN has ended."""


@dataclass(frozen=True)
class Done:
    """Report of one task.

    Attributes:
        rows: how many it treated, for the progress.
        value: any JSON value.
    """

    rows: int
    value: Any


class Task(Protocol):
    """A piece of work that runs on a worker."""

    def run(self) -> Done:
        """Does it."""
        ...


def for_each(
    spark: SparkSession,
    tasks: Sequence[Item],
    work: Callable[[Item], Done],
    *,
    doing: str,
    total: int,
    log: Log,
) -> list[Any]:
    """Runs `work` on every task and returns the values in order.

    Only the tasks and what they report pass through Spark: the data go between the lake and the
    worker that needs them, as Arrow, and neither the JVM nor the driver ever holds them.

    Args:
        spark: where to run.
        tasks: small picklable descriptions, without broadcasts: these belong into `work`.
        work: runs on the workers.
        doing: what this is, for the log.
        total: rows of all tasks.
        log: receives the progress every `PROGRESS_SECONDS`, and at the end.

    Raises:
        FruitsError: the one that `work` raised.
        PySparkException: anything else went wrong.
    """
    if not tasks:
        return []
    partitions = min(len(tasks), MAX_PARTITIONS)
    keys = spark.range(0, len(tasks), 1, partitions).selectExpr(f"CAST(id AS INT) AS {TASK}")

    def groups(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, None]]:
        for batch in batches:
            yield from ((key, None) for key in batch.column(TASK).to_pylist())

    def alone(item: Item, _: None) -> Done:
        return work(item)

    given = dict(enumerate(tasks))
    return _run(spark, keys, given, groups=groups, work=alone, doing=doing, total=total, log=log)


def for_each_group(
    spark: SparkSession,
    tasks: Sequence[Item],
    rows: DataFrame,
    work: Callable[[Item, pa.Table], Done],
    *,
    doing: str,
    total: int,
    log: Log,
) -> list[Any]:
    """Runs `work` on every task and the rows that belong to it, and returns the values in order.

    The rows go from Spark to the worker that needs them, and are never collected.

    Args:
        spark: where to run.
        tasks: see `for_each`.
        rows: column `TASK`, int: the key of each row's task, from `keys_of(len(tasks))`; and other
            columns, the first of which is never null. A task may have no row.
        work: runs on the workers, on a task and its rows, in no particular order.
        doing: see `for_each`.
        total: see `for_each`.
        log: see `for_each`.

    Raises:
        FruitsError: the one that `work` raised.
        PySparkException: anything else went wrong.
    """
    if not tasks:
        return []
    keys = keys_of(len(tasks))
    always = next(name for name in rows.columns if name != TASK)
    everyone = rows_of(spark, [(key,) for key in keys], f"{TASK} int")
    frame = (
        rows.unionByName(everyone, allowMissingColumns=True)
        .repartition(min(len(tasks), MAX_PARTITIONS), TASK)
        .sortWithinPartitions(TASK)
    )

    def groups(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
        for key, table in _consecutive(batches):
            yield key, table.filter(table[always].is_valid()).drop_columns([TASK])

    given = dict(zip(keys, tasks, strict=True))
    return _run(spark, frame, given, groups=groups, work=work, doing=doing, total=total, log=log)


def _run(
    spark: SparkSession,
    frame: DataFrame,
    tasks: Mapping[int, Item],
    *,
    groups: Callable[[Iterable[pa.RecordBatch]], Iterator[tuple[int, Any]]],
    work: Callable[[Item, Any], Done],
    doing: str,
    total: int,
    log: Log,
) -> list[Any]:
    done = spark.sparkContext.accumulator(0)
    started = time.monotonic()

    def progress() -> str:
        rows, seconds = done.value, time.monotonic() - started
        if not rows:
            return f"{doing}: 0 of {total}"
        left = (total - rows) * seconds / rows
        return f"{doing}: {rows} of {total}, {rows / seconds:.0f} per second, {left:.0f} s left"

    # Each worker process unpickles the list once and then only its own tasks: as part of the
    # closure, every Spark task would unpickle all of them.
    pickler = CPickleSerializer()
    pickled = {key: pickler.dumps(task) for key, task in tasks.items()}
    with broadcast(spark, pickled) as everywhere:

        def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            _keep_archive_listings()
            for key, rows in groups(batches):
                result = work(pickler.loads(everywhere.value[key]), rows)
                done.add(result.rows)
                yield pa.RecordBatch.from_pydict(
                    {"key": pa.array([key], pa.int32()), "value": [json.dumps(result.value)]}
                )

        reports = frame.mapInArrow(run, REPORT)
        rows = run_logged(spark, reports.collect, log=log, progress=progress)
    log(progress())
    values = {row.key: row.value for row in rows}
    return [json.loads(values[key]) for key in tasks]


def _consecutive(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    """Rows with the same key, which follow one another but may lie in several batches."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        keys = batch.column(TASK).to_numpy()
        bounds = [0, *(np.flatnonzero(np.diff(keys)) + 1), len(keys)] if len(keys) else []
        for start, stop in pairwise(bounds):
            if held and held[-1].column(TASK)[0].as_py() != keys[start]:
                yield held[0].column(TASK)[0].as_py(), pa.Table.from_batches(held)
                held = []
            held.append(batch.slice(start, stop - start))
    if held:
        yield held[0].column(TASK)[0].as_py(), pa.Table.from_batches(held)


def with_tasks(
    rows: DataFrame, on: Sequence[str], groups: Sequence[Sequence[tuple[Any, ...]]]
) -> DataFrame:
    """Rows with the key of the task that gets them, for `for_each_group`.

    Args:
        rows: any; those that no group asks for are dropped.
        on: columns that say which task a row belongs to.
        groups: for each task, the values in these columns of the rows that it gets.
    """
    keys = keys_of(len(groups)) if groups else ()
    pairs = [(*values, key) for key, group in zip(keys, groups, strict=True) for values in group]
    types = dict(rows.dtypes)
    schema = ", ".join([*(f"{name} {types[name]}" for name in on), f"{TASK} int"])
    return rows.join(F.broadcast(rows_of(rows.sparkSession, pairs, schema)), list(on))


@contextlib.contextmanager
def kept(frame: DataFrame) -> Iterator[DataFrame]:
    """A DataFrame whose rows are computed once while this is open, and lie on workers' disks.

    In memory, they would fill the heap of a JVM that is small on purpose.
    """
    frame = frame.persist(StorageLevel.DISK_ONLY)
    try:
        yield frame
    finally:
        with contextlib.suppress(Exception):  # the JVM may be gone, as may be why this ends
            frame.unpersist()


def rows_of(
    spark: SparkSession, rows: Sequence[tuple[Any, ...]], schema: str, *, partitions: int = 1
) -> DataFrame:
    """A DataFrame of a few rows that the driver holds, such as one per part.

    They are a constant of the query: `createDataFrame` would send them through Python workers.

    Args:
        spark: where to run.
        rows: strings, integers and None.
        schema: names and types of the columns, as DDL.
        partitions: that the rows lie in, evenly.
    """
    names = [column.split()[0] for column in schema.split(", ")]
    text = json.dumps([dict(zip(names, row, strict=True)) for row in rows])
    every = F.from_json(
        F.lit(text), f"array<struct<{schema.replace(' ', ':').replace(',:', ', ')}>>"
    )
    place = (F.col("id") + 1).cast("int")
    return (
        spark.range(0, len(rows), 1, max(1, partitions))
        .select(F.element_at(every, place).alias("row"))
        .select("row.*")
    )


def light_rows(
    spark: SparkSession,
    snapshot: Snapshot,
    columns: Sequence[str],
    *,
    files: Sequence[File] | None = None,
) -> DataFrame:
    """Some columns of a snapshot as a DataFrame that workers read with Arrow, lazily.

    Spark itself reads no file, so that it needs no packages for buckets; and only these columns of
    a part are fetched, so that it is their pages' checksums that are verified.

    Args:
        spark: where to run.
        snapshot: to read.
        columns: light ones, strings and integers; neither photos nor vectors.
        files: some of its parts; all of them without.

    Returns:
        The columns; `part`, name of the part that a row lies in; `position`, its number in it.
    """
    chosen = snapshot.files if files is None else tuple(files)
    handle = snapshot.only(())

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        _keep_archive_listings()
        for batch in batches:
            for row in batch.to_pylist():
                file = File(row["name"], row["bytes"], row["rows"])
                table = handle.only((file,)).arrow(columns)
                table = table.append_column("part", pa.repeat(file.name, len(table)))
                numbers = pa.array(np.arange(len(table)), pa.int64())
                yield from table.append_column("position", numbers).to_batches()

    types = {"int64": "long", "int32": "int", "int8": "byte", "timestamp[us, tz=UTC]": "timestamp"}
    described = [
        f"{name} {types.get(str(snapshot.schema.field(name).type), 'string')}" for name in columns
    ]
    names = rows_of(
        spark,
        [(it.name, it.bytes, it.rows) for it in chosen],
        "name string, bytes long, rows long",
        partitions=min(len(chosen), spark.sparkContext.defaultParallelism),
    )
    return names.mapInArrow(read, ", ".join([*described, "part string", "position long"]))


@cache
def keys_of(count: int) -> tuple[int, ...]:
    """A key for each of so many tasks: Spark puts the rows of each into a partition of its own.

    Spark chooses the partition of a row by a hash of its key. Of consecutive keys, some would meet
    in one partition and leave others empty, so keys are chosen by their hash. Where there are more
    than `MAX_PARTITIONS` tasks, each partition gets about as many.
    """
    partitions = min(count, MAX_PARTITIONS)
    quotas = [count // partitions + (place < count % partitions) for place in range(partitions)]
    found: list[int] = []
    block = np.arange(4 * count + 64, dtype=np.int64)
    while len(found) < count:
        for key, place in zip(block.tolist(), (_hashed(block) % partitions).tolist(), strict=True):
            if quotas[place]:
                quotas[place] -= 1
                found.append(key)
        block += len(block)
    return tuple(found)


def _hashed(keys: np.ndarray) -> np.ndarray:
    """Spark's hash of (n,) int keys (`hash`): 32-bit Murmur3 with seed 42, as int64.

    Source: A. Appleby, MurmurHash3 (public domain); Spark's `Murmur3Hash` hashes an int like four
    bytes.
    """
    mask = np.uint64(0xFFFFFFFF)

    def rotated(values: np.ndarray, bits: int) -> np.ndarray:
        return ((values << np.uint64(bits)) | (values >> np.uint64(32 - bits))) & mask

    mixed = rotated(keys.astype(np.uint64) * np.uint64(0xCC9E2D51) & mask, 15)
    mixed = mixed * np.uint64(0x1B873593) & mask
    found = rotated(np.uint64(42) ^ mixed, 13) * np.uint64(5) + np.uint64(0xE6546B64) & mask
    found = found ^ np.uint64(4)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        found = (found ^ (found >> np.uint64(shift))) * np.uint64(factor) & mask
    found ^= found >> np.uint64(16)
    return found.astype(np.uint32).astype(np.int32).astype(np.int64)


@contextlib.contextmanager
def broadcast(spark: SparkSession, value: Result) -> Iterator[Broadcast[Result]]:
    """A value that every worker has while this is open; no disk keeps it.

    Args:
        spark: where the workers are.
        value: is pickled without arrays, such as bytes: PySpark 4.0 cannot encrypt buffers
            (`TypeError: object of type 'pickle.PickleBuffer' has no len()`).
    """
    everywhere = spark.sparkContext.broadcast(value)
    try:
        yield everywhere
    finally:
        with contextlib.suppress(Exception):  # the JVM may be gone, as may be why this ends
            everywhere.destroy()


def run_logged(
    spark: SparkSession, action: Callable[[], Result], *, log: Log, progress: Callable[[], str]
) -> Result:
    """Runs a Spark action, logs its progress meanwhile, and cancels it when interrupted."""
    group = uuid.uuid4().hex

    def act() -> Result:
        spark.sparkContext.setJobGroup(group, progress(), interruptOnCancel=True)
        return action()

    try:
        return interruptible(
            act,
            stop=lambda: spark.sparkContext.cancelJobGroup(group),
            meanwhile=lambda: log(progress()),
            every_seconds=PROGRESS_SECONDS,
        )
    except (PySparkException, Py4JJavaError) as error:  # of SQL, and of RDDs
        raise _own_error(error) from error


def _keep_archive_listings() -> None:
    """Saves a worker 0.2 s per task.

    PySpark calls `importlib.invalidate_caches()` before every task, and so reads the thousands of
    entries of `pyspark.zip` and of Spark's jar, which never change while a worker lives, again.
    """
    zipimport.zipimporter.invalidate_caches = lambda _: None  # type: ignore[method-assign]


def _own_error(error: Exception) -> Exception:
    """The FruitsError that a worker raised, out of the traceback that Spark reports."""
    text = str(error)
    if found := re.search(rf"{re.escape(errors.__name__)}\.(\w+): (.+)", text):
        return getattr(errors, found[1])(found[2])
    if found := KILLED_FOR_MEMORY.search(text):
        return errors.SparkError(
            f"an executor was ended because it took more memory than it has ({found[1]}), again "
            "and again. What is finished is kept. Let a machine work on fewer photos at once, so "
            "that each has more memory (on EMR: FRUITS_EMR_EXECUTOR_CORES=2 or 1), or find the "
            "photos of unusual size by `max_pixels` of ingest; then run again."
        )
    return error
