"""How work is spread: which task gets which rows, and what becomes of it when interrupted."""

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as PySpark's own documentation writes it

from fruits_assets.storage.base import Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.parquet import Origin, write_part
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms import spread
from fruits_assets.transforms.spread import (
    Done,
    for_each,
    for_each_group,
    keys_of,
    light_rows,
    rows_of,
)

SECONDS = 60


def test_an_interrupted_job_is_cancelled(session: SparkSession, tmp_path: Path):
    driver, done = os.getpid(), tmp_path / "done"

    def work(_: int) -> Done:
        os.kill(driver, signal.SIGINT)
        threading.Event().wait(SECONDS)
        done.touch()
        return Done(0, None)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            for_each(session, [0], work, doing="waiting", total=1, log=list[str]().append)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not done.exists()
    assert not session.sparkContext.statusTracker().getActiveJobsIds()


def test_keys_are_hashed_as_spark_hashes_them(session: SparkSession):
    keys = [0, 1, 2, 41, 2**20, 2**31 - 1]
    frame = rows_of(session, [(key,) for key in keys], "key int").select(F.hash("key"))
    assert [row[0] for row in frame.collect()] == spread._hashed(np.array(keys)).tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 1024, 3000])
def test_every_partition_gets_as_many_tasks_as_the_others(count: int):
    partitions = min(count, spread.MAX_PARTITIONS)
    keys = keys_of(count)
    places = np.bincount(spread._hashed(np.array(keys)) % partitions, minlength=partitions)
    assert len(set(keys)) == count
    assert places.max() - places.min() <= 1


def test_every_task_gets_its_own_rows(session: SparkSession, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spread, "MAX_PARTITIONS", 2)  # several tasks in one Spark task
    keys_of.cache_clear()
    names = ["a", "b", "c", "d", "e"]
    keys = keys_of(len(names))
    rows = rows_of(
        session,
        [(keys[i % 4], f"{names[i % 4]}{i}") for i in range(40)],
        "task int, path string",
    )

    def work(name: str, own: pa.Table) -> Done:
        return Done(len(own), [name, sorted(own["path"].to_pylist())])

    done = for_each_group(session, names, rows, work, doing="tried", total=40, log=print)
    keys_of.cache_clear()
    expected = [
        [name, sorted(f"{name}{i}" for i in range(40) if i % 4 == at)]
        for at, name in enumerate(names[:4])
    ]
    assert done == [*expected, ["e", []]]


def test_rows_say_in_which_part_they_lie_and_where(session: SparkSession, tmp_path: Path):
    folder = Folder(LocalStorage(), str(tmp_path))
    schema = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("content", pa.binary())])
    files = [
        write_part(
            folder,
            Origin("0" * 16, i, i + 2),
            pa.table([[f"{i}a", f"{i}b"], [i, i + 1], [b"", b""]], schema=schema),
        )
        for i in range(3)
    ]
    snapshot = Snapshot.unpublished(folder, "photos", schema, tuple(files))
    frame = light_rows(session, snapshot, ["path", "bytes"], files=files[1:])
    assert sorted(map(tuple, frame.collect())) == [
        ("1a", 1, files[1].name, 0),
        ("1b", 2, files[1].name, 1),
        ("2a", 2, files[2].name, 0),
        ("2b", 3, files[2].name, 1),
    ]
