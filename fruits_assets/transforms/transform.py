"""What a transform is, and the one way in which transforms spread work over a cluster."""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
import zipimport
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, TypeVar

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark import Broadcast
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from fruits_assets.core import errors
from fruits_assets.core.interruptible import interruptible
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import File, Origin, part_once, write_part
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.increment import Merge

Item = TypeVar("Item")
Result = TypeVar("Result")
Log = Callable[[str], None]
PROGRESS_SECONDS = 5.0
KILLED_FOR_MEMORY = re.compile(
    r"exceeding (?:physical )?memory limits\.\s*([\d.]+ \w+ of [\d.]+ \w+)"
)
"""Spark's words for a container that YARN has ended."""
FIGURES_SCHEMA = pa.schema(
    [pa.field("name", pa.string(), nullable=False), pa.field("value", pa.float64(), nullable=False)]
)
"""A table of figures: what a measure has found."""


@dataclass(frozen=True)
class Transform:
    """A Spark computation: `function(spark, *, question, log, **inputs, **outputs, **params)`.

    Inputs are snapshots, outputs are folders of tables, params are JSON values. The function reads
    its inputs, writes parts into the outputs, and returns an `Output` for each of them, by name.
    `question` is a hash of all that its parts depend on beside the rows that they are made from.

    Attributes:
        function: a plain function.
        code_version: changes whenever the results would.
        outputs: the tables that it writes: name -> schema. The first is published last: it leads.
        grows_with: the input that may have grown since an earlier version, whose snapshot the
            function is then given as `earlier`, to take over what still holds; empty where there is
            none.
    """

    function: Callable[..., dict[str, Output]]
    code_version: str
    outputs: Mapping[str, pa.Schema]
    grows_with: str = ""

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def address(self) -> str:
        """`module:name`, by which another process finds it."""
        return f"{self.function.__module__}:{self.name}"

    @property
    def lead(self) -> str:
        """Name of the table that is published last."""
        return next(iter(self.outputs))


def transform_at(address: str) -> Transform:
    """The transform of this package at an address. Raises ValueError where there is none."""
    module, _, name = address.partition(":")
    own = module.startswith(f"{__package__}.")
    found = getattr(import_module(module), name, None) if own else None
    if not isinstance(found, Transform):
        raise ValueError(f"there is no transform at {address!r}")  # noqa: TRY004 - of its value
    return found


def transform(
    *, code_version: str, outputs: Mapping[str, pa.Schema], grows_with: str = ""
) -> Callable[..., Transform]:
    """Declares a function to be a transform."""

    def declare(function: Callable[..., dict[str, Output]]) -> Transform:
        return Transform(function, code_version, dict(outputs), grows_with)

    return declare


@dataclass(frozen=True)
class Done:
    """What one task reports.

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


@dataclass(frozen=True)
class Merging:
    """The task of making one part of a version from parts of an earlier one.

    Attributes:
        key: of the file in what the task reports.
        earlier: the version that the parts belong to.
        merge: which, and what they become.
        gone: paths of the rows to leave out.
        folder: of the table.
        incompressible: columns kept plain.
    """

    key: str
    earlier: Snapshot
    merge: Merge
    gone: Collection[str]
    folder: Folder
    incompressible: tuple[str, ...]

    def run(self) -> Done:
        """Does it, unless an interrupted run has."""

        def table() -> pa.Table:
            return self.merge.table(self.earlier, self.gone)

        plain = self.incompressible
        file, _ = part_once(self.folder, self.merge.origin, table, incompressible=plain)
        return Done(0, {self.key: [vars(file)]})


def for_each(
    spark: SparkSession,
    tasks: Sequence[Item],
    work: Callable[[Item], Done],
    *,
    doing: str,
    total: int,
    log: Log,
) -> list[Any]:
    """Runs `work` on every task, each a Spark task of its own, and returns the values in order.

    Only the tasks and what they report pass through Spark: the data go between the lake and the
    worker that needs them, as Arrow, and neither the JVM nor the driver ever holds them.

    Args:
        spark: where to run.
        tasks: small picklable descriptions.
        work: runs on the workers.
        doing: what this is, for the log.
        total: rows of all tasks.
        log: told the progress every `PROGRESS_SECONDS`, and at the end.

    Raises:
        FruitsError: the one that `work` raised.
        PySparkException: anything else went wrong.
    """
    if not tasks:
        return []
    done = spark.sparkContext.accumulator(0)
    started = time.monotonic()

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        _keep_archive_listings()
        for batch in batches:
            for index in batch.column("id").to_pylist():
                result = work(tasks[index])
                done.add(result.rows)
                yield pa.RecordBatch.from_pydict(
                    {"id": [index], "value": [json.dumps(result.value)]}
                )

    def progress() -> str:
        rows, seconds = done.value, time.monotonic() - started
        if not rows:
            return f"{doing}: 0 of {total}"
        left = (total - rows) * seconds / rows
        return f"{doing}: {rows} of {total}, {rows / seconds:.0f} per second, {left:.0f} s left"

    frame = spark.range(0, len(tasks), 1, len(tasks)).mapInArrow(run, "id long, value string")
    rows = run_logged(spark, frame.collect, log=log, progress=progress)
    log(progress())
    return [json.loads(row.value) for row in sorted(rows)]


@contextlib.contextmanager
def broadcast(spark: SparkSession, value: Result) -> Iterator[Broadcast[Result]]:
    """A value that every worker has while this is open; no disk keeps it."""
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


def write_figures(folder: Folder, question: str, figures: Mapping[str, float]) -> File:
    """Writes figures as a table of them (`FIGURES_SCHEMA`)."""
    columns = [list(figures), [float(value) for value in figures.values()]]
    table = pa.Table.from_arrays(
        [
            pa.array(column, field.type)
            for column, field in zip(columns, FIGURES_SCHEMA, strict=True)
        ],
        schema=FIGURES_SCHEMA,
    )
    return write_part(folder, Origin(question, 0, len(figures)), table)


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
