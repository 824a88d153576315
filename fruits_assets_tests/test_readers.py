"""Other software reads the rows that the project reads, whatever has happened to a lake.

One lake is run, grown, rolled back and erased from, and copied after each of these; its tables are
then opened without any code of this project. Spark is read by the program of docs/data.md, in a
process of its own, so that the session of the tests stays without Delta.
"""

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from PIL import Image
from pyspark.sql import SparkSession

from fruits_assets.core.errors import DatasetError, SparkError
from fruits_assets.lake.history import rollback
from fruits_assets.lake.lake import Lake
from fruits_assets.spark.jars import fetched
from fruits_assets_tests.conftest import REPOSITORY, Pipeline, made_once
from fruits_assets_tests.erasure.traces import erase
from fruits_assets_tests.pages import blocks

STATES = ("run", "increment", "rollback", "erasure", "checkpoint")
"""What has happened to a lake last; each comes after the one before."""
TABLES = (
    *("raw_images", "rejected_images", "features", "pca_features", "unreadable_photos"),
    *("model_weights", "_listing"),
)
"""The tables that Spark reads, which takes seconds for each; the others read all that there are."""
CONFIG = {"ingest": {"max_rejected": 1.0}, "features": {"max_seconds": 0.1}}
GONE, NEW, ERASED = "Test/Banana/1.jpg", "Training/Lime/new.jpg", "Training/Banana/2.jpg"
HUGE = "Training/Lime/huge.png"
"""It takes longer to decode than `CONFIG` allows, and so has no features."""
BROKEN = "Training/Lime/broken.jpg"

Row = Mapping[str, Any]
Reader = Callable[[str, int | None], Iterable[Row]]
"""URI of a table, and number of a version or None -> its rows, with all columns."""


@dataclass(frozen=True)
class State:
    """A lake after one of `STATES`.

    Attributes:
        lake: it.
        photos: paths that `raw_images` must hold.
    """

    lake: Lake
    photos: frozenset[str]

    @cached_property
    def rows(self) -> Mapping[str, list[Row]]:
        """Rows of every table, as the project reads them."""
        return {name: rows_of(self.lake, name) for name in self.lake.tables()}


@pytest.fixture(scope="module")
def states(
    tmp_path_factory: pytest.TempPathFactory,
    photos: Path,
    session: SparkSession,
    _model_lake: Path,
    worker_id: str,
) -> Mapping[str, State]:
    """A copy of one lake after everything that happened to it."""

    def make(folder: Path) -> None:
        source, lake = folder / "photos", Lake.at(str(folder / "lake"))
        for label in ("Banana", "Lime", "Orange"):
            for split in ("Training", "Test"):
                shutil.copytree(photos / split / label, source / split / label)
        # No split and no label, and the content of another photo.
        shutil.copy(source / "Test" / "Orange" / "1.jpg", source / "loose.jpg")
        (source / BROKEN).write_bytes(b"\xff\xd8\xff not a photo")
        Image.new("RGB", (4000, 4000), "green").save(source / HUGE)
        shutil.copytree(_model_lake, lake.base)
        own = Pipeline(lake, source)
        assert own.run(config=CONFIG).success
        first = _keep(folder, "run", lake, _paths(source))
        (source / GONE).unlink()
        shutil.copy(photos / "Training" / "Pear" / "1.jpg", source / NEW)
        assert own.run(config={**CONFIG, "pca_model": {"refit": "never"}}).success
        _keep(folder, "increment", lake, _paths(source))
        rollback(lake, "0")
        _keep(folder, "rollback", lake, first)
        assert erase(own, paths=[ERASED]).success
        left = _keep(folder, "erasure", lake, first - {ERASED})
        for name in lake.tables():
            DeltaTable(lake.table(name).folder.uri).create_checkpoint()
        _keep(folder, "checkpoint", lake, left)

    folder = made_once(tmp_path_factory, worker_id, "readers", make)
    return {
        state: State(
            Lake.at(str(folder / state / "lake")),
            frozenset(json.loads((folder / state / "photos.json").read_text())),
        )
        for state in STATES
    }


def _paths(source: Path) -> frozenset[str]:
    """The photos of a source: every file but the broken one."""
    files = (it.relative_to(source).as_posix() for it in source.rglob("*") if it.is_file())
    return frozenset(files) - {BROKEN}


def _keep(folder: Path, state: str, lake: Lake, photos: frozenset[str]) -> frozenset[str]:
    shutil.copytree(lake.base, folder / state / "lake")
    (folder / state / "photos.json").write_text(json.dumps(sorted(photos)))
    return photos


# ------------------------------------------------------------------------------ readers


def read_deltalake(uri: str, number: int | None) -> Iterable[Row]:
    return DeltaTable(uri, version=number).to_pyarrow_table().to_pylist()


def read_polars(uri: str, number: int | None) -> Iterable[Row]:
    return pl.scan_delta(uri, version=number).collect().to_dicts()


def read_duckdb(uri: str, number: int | None) -> Iterable[Row]:
    files = DeltaTable(uri, version=number).file_uris()
    if not files:  # DuckDB refuses to read none
        return []
    return duckdb.read_parquet(files).to_arrow_table().to_pylist()


def read_pandas(uri: str, number: int | None) -> Iterable[Row]:
    return DeltaTable(uri, version=number).to_pandas().to_dict("records")


READERS = (read_deltalake, read_polars, read_duckdb, read_pandas)


def rows_of(lake: Lake, name: str) -> list[Row]:
    """What the project reads."""
    snapshot = lake.current(name)
    return _in_order(snapshot.arrow(snapshot.schema.names).to_pylist())


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows as plain Python values, in an order of their own: a table has none."""
    plain = [{name: _plain(row[name]) for name in sorted(row)} for row in rows]
    return sorted(plain, key=repr)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, datetime):
        return value.astimezone(UTC).timestamp()
    return value


def _uri(state: State, name: str) -> str:
    return state.lake.table(name).folder.uri


# ------------------------------------------------------------------------------ the tests


@pytest.mark.parametrize("state", STATES)
def test_the_rows_are_those_of_the_photos(states: Mapping[str, State], state: str):
    """Without this, all readers could agree on something that is wrong."""
    rows, photos = states[state].rows, states[state].photos
    paths = {name: {row["path"] for row in rows[name]} for name in TABLES[:5]}
    assert paths["raw_images"] == photos
    assert paths["rejected_images"] == {BROKEN}
    assert HUGE in paths["unreadable_photos"]
    # On a machine that is very busy, more photos take too long to decode.
    assert not paths["features"] & paths["unreadable_photos"]
    assert paths["features"] | paths["unreadable_photos"] == photos
    assert paths["pca_features"] == paths["features"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("read", READERS)
def test_other_software_reads_what_the_project_reads(
    states: Mapping[str, State], read: Reader, state: str
):
    assert states[state].rows.keys() >= {*TABLES, "_classes", "_map", "_moments", "pca_model"}
    for name, expected in states[state].rows.items():
        assert _in_order(read(_uri(states[state], name), None)) == expected, name


@pytest.mark.parametrize("read", READERS)
def test_an_earlier_version_is_read_by_its_number(states: Mapping[str, State], read: Reader):
    before, now = states["run"], states["increment"]
    for name in TABLES:
        number = before.lake.current(name).number
        assert _in_order(read(_uri(now, name), number)) == before.rows[name], name
    assert before.rows["raw_images"] != now.rows["raw_images"]


@pytest.mark.parametrize("read", READERS)
def test_versions_from_before_an_erasure_cannot_be_read_any_more(
    states: Mapping[str, State], read: Reader
):
    with pytest.raises(Exception, match=r"(?i)not found|no such file|no files found"):
        read(_uri(states["erasure"], "raw_images"), 0)


def test_duckdb_reads_what_the_project_reads_by_its_extension(states: Mapping[str, State]):
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as database:
        try:
            database.execute("LOAD delta")
        except duckdb.Error:
            pytest.skip("DuckDB's extension delta is not installed here (INSTALL delta)")
        for state in states.values():
            for name, expected in state.rows.items():
                uri = _uri(state, name)
                found = database.sql("SELECT * FROM delta_scan(?)", params=[uri])
                assert _in_order(found.to_arrow_table().to_pylist()) == expected


# ------------------------------------------------------------------------------ Spark


DELTA = "io.delta:delta-spark_2.13:4.0.0"
SPARK = textwrap.dedent("""
    import pyarrow.feather
    spark.conf.set("spark.databricks.delta.snapshotPartitions", "2")
    spark.conf.set("spark.sql.shuffle.partitions", "2")
    for state in {states!r}:
        for name in {tables!r}:
            table = spark.read.format("delta").load(f"../{{state}}/lake/{{name}}").toArrow()
            pyarrow.feather.write_feather(table, f"{to}/{{state}} {{name}}")
    spark.stop()
""")


@pytest.fixture(scope="module")
def spark_rows(
    states: Mapping[str, State], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], list[Row]]:
    """The rows of a table after one of `STATES`, as Spark reads them with delta-spark.

    The session is that of docs/data.md.
    """
    to = tmp_path_factory.mktemp("spark")
    (block,) = [
        it
        for it in blocks(REPOSITORY / "docs" / "data.md")
        if "delta-spark" in it.text and it.marker
    ]
    try:
        jars = ",".join(map(str, fetched("delta")))
    except SparkError as error:
        pytest.skip(f"Spark's package for Delta cannot be downloaded from here: {error}")
    # What the page asks Maven Central for, by its hash.
    asked = f'"spark.jars.packages": "{DELTA}"'
    assert block.text.count(asked) == 1
    program = block.text.replace(asked, f'"spark.jars": "{jars}"')
    program += SPARK.format(states=STATES, tables=TABLES, to=to)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(states["run"].lake.base).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]

    def rows(state: str, name: str) -> list[Row]:
        table = pa.ipc.open_file(str(to / f"{state} {name}")).read_all()
        return _in_order(table.to_pylist())

    return rows


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_spark_reads_what_the_project_reads(
    states: Mapping[str, State], spark_rows: Callable[[str, str], list[Row]], state: str
):
    for name in TABLES:
        assert spark_rows(state, name) == states[state].rows[name], name


# ------------------------------------------------------------------------------ who writes


@pytest.fixture
def lake(states: Mapping[str, State], tmp_path: Path) -> Lake:
    """With two versions of everything, to be written to by others."""
    shutil.copytree(states["increment"].lake.base, tmp_path / "lake")
    return Lake.at(str(tmp_path / "lake"))


def test_rows_of_other_software_are_passed_over_and_go_with_the_next_version(lake: Lake):
    before = rows_of(lake, "pca_features")
    uri = lake.table("pca_features").folder.uri
    write_deltalake(uri, DeltaTable(uri).to_pyarrow_table().slice(0, 3), mode="append")
    DeltaTable(uri).delete("split = 'Test'")
    assert rows_of(lake, "pca_features") == before
    assert _in_order(read_deltalake(uri, None)) != before
    rollback(lake, "0")
    assert rows_of(lake, "pca_features") != before
    for read in READERS:
        assert _in_order(read(uri, None)) == rows_of(lake, "pca_features")


def test_a_vacuum_takes_earlier_versions_and_what_was_compacted(lake: Lake):
    before = rows_of(lake, "pca_features")
    uri = lake.table("pca_features").folder.uri
    now: dict[str, Any] = {"retention_hours": 0, "enforce_retention_duration": False}
    DeltaTable(uri).vacuum(dry_run=False, **now)
    assert rows_of(lake, "pca_features") == before
    with pytest.raises(DatasetError, match="is missing"):
        rollback(lake, "0")
    DeltaTable(uri).optimize.compact()
    assert rows_of(lake, "pca_features") == before
    DeltaTable(uri).vacuum(dry_run=False, **now)
    with pytest.raises(DatasetError, match=r"is missing.*make repair"):
        lake.current("pca_features")
    assert _in_order(read_deltalake(uri, None)) == before
