"""A version is read back whole, and damage never passes for data."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from fruits_assets.core.errors import DatasetError
from fruits_assets.storage import snapshot as storage_snapshot
from fruits_assets.storage.base import Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.parquet import (
    FILES_SCHEMA,
    VECTOR,
    File,
    Origin,
    vectors_array,
    write_files,
    write_part,
)
from fruits_assets.storage.snapshot import DRAFT, Commit, Output, Snapshot
from fruits_assets_tests.places import Place

VERSION = "0123456789abcdef"
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("content", pa.binary(), nullable=False),
        pa.field("features", VECTOR, nullable=False),
    ]
)
COMMIT = Commit(
    recipe=VERSION,
    transform="featurize",
    code_version="1",
    params={"size": 96, "nested": {"à": [1.5, None]}},
    inputs={"raw_images": "fedcba9876543210"},
    run_id="run",
    created_at="2026-01-01T00:00:00.000000+00:00",
    seconds=1.25,
    numbers={"raw_images": 3},
    siblings={"unreadable_photos": 2},
    figures={"images": 3, "splits": [["Training", 2], [None, 1]]},
    provisional=1,
)
CONTENTS = {"model.tflite": b"a model" * 100, "model.json": b"{}"}


def _table(rows: int, *, first: int = 0) -> pa.Table:
    random = np.random.default_rng(first)
    columns = [
        pa.array([f"Training/Pêche n° {first + i}.jpg" for i in range(rows)], pa.string()),
        pa.array([None if i % 3 else "Pêche" for i in range(rows)], pa.string()),
        pa.array([random.bytes(500) for _ in range(rows)], pa.binary()),
        vectors_array(random.normal(size=(rows, 7))),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _snapshot(folder: Folder, *tables: pa.Table) -> Snapshot:
    """A version of a table whose parts hold some rows each."""
    files = tuple(
        write_part(folder, Origin(f"{number:016x}", 0, table.num_rows), table)
        for number, table in enumerate(tables)
    )
    return Snapshot(folder, "features", SCHEMA, 7, COMMIT, files)


def _model(folder: Folder) -> Snapshot:
    """A version of a table of files."""
    files = (write_files(folder, "0" * 16, CONTENTS), write_files(folder, "1" * 16, {"more": b""}))
    return Snapshot(folder, "model_weights", FILES_SCHEMA, 7, COMMIT, files)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder of this machine."""
    return Folder(LocalStorage(), str(tmp_path / "table"))


def _path(snapshot: Snapshot, part: int = 0) -> Path:
    return Path(snapshot.uri, snapshot.files[part].name)


def _flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def _flip_in_page(path: Path, column: int) -> None:
    """One bit in the middle of a column, where its pages of data lie."""
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    _flip(path, start + chunk.total_compressed_size // 2)


def _fails(read: Callable[[], object], *words: str) -> None:
    """Reading fails with a sentence that names what is damaged, and says what to do."""
    with pytest.raises(DatasetError) as caught:
        read()
    text = str(caught.value)
    assert all(word in text for word in (*words, VERSION, "is damaged: ")), text
    assert "Run `make repair`: it removes what is damaged" in text
    assert "materialise again" in text


# Reading


@pytest.mark.parametrize("name", ["with space", "a#b", "100%25", "[x]", "*", "été", "{a,b}", "q?"])
def test_a_version_is_read_back_from_any_path(place: Place, name: str) -> None:
    first, second = _table(30), _table(5, first=30)
    snapshot = _snapshot(place.opened.child(name), first, second)
    whole = pa.concat_tables([first, second])
    assert snapshot.arrow(whole.column_names).equals(whole)
    assert snapshot.pandas(["label"])["label"].tolist() == whole["label"].to_pylist()
    assert snapshot.table(snapshot.files[1]).equals(second)
    batches = list(snapshot.batches(snapshot.files[0], ["features", "path"], rows=7))
    assert [batch.num_rows for batch in batches] == [7, 7, 7, 7, 2]
    assert pa.Table.from_batches(batches)["path"].equals(first["path"])


@pytest.mark.parametrize("name", ["[x]", "{a,b}", "* q?", "back\\slash"])
def test_spark_reads_a_version_from_any_path(
    session: SparkSession, tmp_path: Path, name: str
) -> None:
    """Hadoop takes some characters for patterns, which must not lead to other folders either."""
    storage = LocalStorage()
    snapshot = _snapshot(Folder(storage, str(tmp_path / name)), _table(3), _table(2, first=3))
    for other in ("x", "a", "b"):
        _snapshot(Folder(storage, str(tmp_path / other)), _table(3, first=100))
    rows = snapshot.spark(session).select("path", "features").collect()
    assert {row.path for row in rows} == set(snapshot.arrow(["path"])["path"].to_pylist())
    assert len(rows) == 5


def test_a_version_knows_what_was_written(place: Place) -> None:
    snapshot = _snapshot(place.opened.child("table"), _table(30), _table(5, first=30))
    assert (snapshot.name, snapshot.version, snapshot.number) == ("features", VERSION, 7)
    assert snapshot.figures == COMMIT.figures
    assert [file.rows for file in snapshot.files] == [30, 5]
    assert snapshot.rows == 35
    assert snapshot.bytes == sum(len(place.get(name)) for name in place.names())
    assert snapshot.place == snapshot.uri == place.uri("table")
    assert set(snapshot.by_name.values()) == set(snapshot.files)
    assert snapshot.stage({}) == snapshot


def test_rows_say_which_part_they_lie_in(folder: Folder) -> None:
    snapshot = _snapshot(folder, _table(3), _table(0), _table(2, first=3))
    table = snapshot.arrow_with_parts(["path"])
    first, _, last = (file.name for file in snapshot.files)
    assert table["part"].to_pylist() == [first] * 3 + [last] * 2
    assert table["path"].equals(snapshot.arrow(["path"])["path"])


def test_a_table_is_read_part_by_part(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_snapshot, "READS_IN_FLIGHT", 2)
    snapshot = _snapshot(folder, *(_table(2, first=2 * i) for i in range(5)))
    pieces = list(snapshot.pieces(["path"]))
    assert tuple(file for file, _ in pieces) == snapshot.files
    assert pa.concat_tables(piece for _, piece in pieces) == snapshot.arrow(["path"])


def test_the_files_of_a_table_of_files_are_read_by_name(place: Place) -> None:
    model = _model(place.opened.child("model"))
    assert model.names() == [*CONTENTS, "more"]
    for name, content in {**CONTENTS, "more": b""}.items():
        assert model.read(name) == content
    _fails(lambda: model.read("missing"), "model_weights", "it has no file 'missing'")


def test_a_table_without_parts_is_an_empty_one(place: Place) -> None:
    """A version in which nothing was rejected, for one, has none; its columns are known."""
    empty = _snapshot(place.opened.child("table"))
    assert place.names() == set()
    columns = ["features", "path"]
    table = empty.arrow(columns)
    assert table.schema == pa.schema([SCHEMA.field(name) for name in columns])
    assert table.num_rows == empty.rows == empty.bytes == 0
    with_parts = empty.arrow_with_parts(columns)
    assert with_parts.column_names == [*columns, "part"]
    assert with_parts.num_rows == 0
    assert list(empty.pandas(columns)) == columns
    assert empty.check() == empty
    assert empty.remains() == empty
    assert Snapshot(empty.folder, "model", FILES_SCHEMA, 0, COMMIT, ()).names() == []


def test_a_part_without_rows_is_read(folder: Folder) -> None:
    snapshot = _snapshot(folder, _table(0))
    assert snapshot.arrow(["features"]).schema.field("features").type == VECTOR
    assert snapshot.arrow(["path"]).num_rows == 0
    assert list(snapshot.batches(snapshot.files[0], ["path"])) == []


def test_a_file_that_a_version_does_not_list_is_not_part_of_it(folder: Folder) -> None:
    snapshot = _snapshot(folder, _table(3))
    write_part(folder, Origin("f" * 16, 0, 3), _table(3, first=3))
    assert snapshot.check().arrow(["path"]).num_rows == 3


def test_a_version_is_sent_to_workers_without_its_siblings(folder: Folder) -> None:
    sibling = _model(folder)
    snapshot = replace(_snapshot(folder, _table(3)), siblings={"model": sibling})
    assert snapshot.alone().siblings == {}
    assert snapshot.alone() == snapshot


@pytest.mark.parametrize(
    ("names", "share"),
    [
        ([], 0.0),
        (["part-{}-000000-000020-{}.parquet"], 0.5),
        (["part-{}-000000-000020-{}.parquet", "part-{}-000020-000030-{}.parquet"], 0.75),
        (["part-{}-000000-000999-{}.parquet"], 1.0),
        (["of somebody else.parquet"], 0.0),
    ],
)
def test_the_parts_of_an_interrupted_run_say_what_is_done(
    names: Sequence[str], share: float
) -> None:
    files = (File("a", 1, 30), File("b", 1, 10))
    snapshot = Snapshot(Folder(LocalStorage(), "/"), "raw_images", SCHEMA, 0, COMMIT, files)
    assert snapshot.done({name.format("0" * 16, "1" * 16): 9 for name in names}) == share


# From and to JSON


def test_an_output_comes_back_from_json_as_it_was() -> None:
    output = Output((File("part", 10, 4), File("other", 1, 0)), {"images": 4}, provisional=2)
    assert Output.from_dict(json.loads(json.dumps(output.to_dict()))) == output
    assert Output.from_dict(json.loads(json.dumps(Output(()).to_dict()))) == Output(())


def test_a_version_comes_back_from_json_as_it_was(place: Place) -> None:
    base = place.opened
    siblings = {"model_weights": _model(base.child("model"))}
    snapshot = replace(_snapshot(base.child("table"), _table(3), _table(2)), siblings=siblings)
    fields = json.loads(json.dumps(snapshot.to_dict()))
    copy = Snapshot.from_dict(fields, base.child("table"))
    assert copy == snapshot
    assert copy.siblings == snapshot.siblings
    assert copy.schema.equals(SCHEMA, check_metadata=True)
    assert copy.arrow(SCHEMA.names).equals(snapshot.arrow(SCHEMA.names))
    assert copy.siblings["model_weights"].read("model.json") == CONTENTS["model.json"]


def test_parts_that_belong_to_no_version_are_a_draft(folder: Folder) -> None:
    files = _snapshot(folder, _table(3)).files
    draft = Snapshot.unpublished(folder, "features", SCHEMA, files)
    assert (draft.number, draft.version) == (DRAFT, "")
    assert draft.arrow(["path"]).num_rows == 3


# Damage


def test_a_missing_part_is_reported(place: Place) -> None:
    snapshot = _snapshot(place.opened.child("table"), _table(3), _table(2, first=3))
    first, second = snapshot.files
    place.remove(f"table/{second.name}")
    _fails(snapshot.check, "features", snapshot.uri, f"{second.name} is missing")
    assert snapshot.damage(second) == "it is missing"
    assert snapshot.damage(first) is None
    for read in (
        lambda: snapshot.table(second),
        lambda: list(snapshot.batches(second, ["path"])),
        lambda: snapshot.arrow(["path"]),
        lambda: snapshot.arrow_with_parts(["path"]),
        lambda: list(snapshot.pieces(["path"])),
        lambda: snapshot.pandas(["path"]),
    ):
        _fails(read, "features", snapshot.uri, f"{second.name} cannot be read")
    assert snapshot.remains().files == (first,)
    assert snapshot.remains().arrow(["path"]).num_rows == 3


def test_a_truncated_part_is_reported(place: Place) -> None:
    snapshot = _snapshot(place.opened.child("table"), _table(30), _table(2, first=30))
    part, other = snapshot.files
    place.put(f"table/{part.name}", place.get(f"table/{part.name}")[:-7])
    sizes = f"has {part.bytes - 7} bytes instead of {part.bytes}"
    _fails(snapshot.check, "features", f"{part.name} {sizes}")
    assert snapshot.damage(part) == f"it {sizes}"
    _fails(lambda: snapshot.table(part), f"{part.name} cannot be read", "checksum differs")
    _fails(lambda: snapshot.arrow(["path"]), f"{part.name} cannot be read")
    assert snapshot.remains().files == (other,)


@pytest.mark.parametrize("column", [0, 1, 2, 3])
def test_one_flipped_bit_in_a_data_page_is_reported(folder: Folder, column: int) -> None:
    snapshot = _snapshot(folder, _table(200))
    (part,) = snapshot.files
    _flip_in_page(_path(snapshot), column)
    assert snapshot.check() == snapshot, "sizes alone do not show it"
    columns = [SCHEMA.names[column]]
    _fails(lambda: snapshot.arrow(columns), f"{part.name} cannot be read")
    for read in (lambda: list(snapshot.batches(part, columns)), lambda: snapshot.table(part)):
        _fails(read, f"{part.name} cannot be read", "it is not what was written")
    assert snapshot.damage(part) == "its checksum differs"


def test_one_flipped_bit_is_reported_in_every_place(place: Place) -> None:
    snapshot = _snapshot(place.opened.child("table"), _table(30))
    (part,) = snapshot.files
    content = bytearray(place.get(f"table/{part.name}"))
    content[len(content) // 2] ^= 1
    place.put(f"table/{part.name}", bytes(content))
    _fails(lambda: snapshot.table(part), "it is not what was written")
    assert snapshot.damage(part) == "its checksum differs"


def test_a_replaced_part_is_reported(folder: Folder) -> None:
    """A whole Parquet file of the same size, with the same columns, and with other rows."""
    snapshot = _snapshot(folder, _table(3), _table(3, first=3))
    first, second = snapshot.files
    _path(snapshot, 0).write_bytes(_path(snapshot, 1).read_bytes())
    assert snapshot.damage(first) is not None
    _fails(lambda: snapshot.table(first), f"{first.name} cannot be read", "it is not what was")
    _fails(lambda: list(snapshot.batches(first, ["path"])), f"{first.name} cannot be read")
    assert snapshot.damage(second) is None


def test_a_damaged_file_of_a_table_of_files_is_reported(place: Place) -> None:
    model = _model(place.opened.child("model"))
    name = f"model/{model.files[0].name}"
    content = bytearray(place.get(name))
    content[content.index(b"a model") + 345] ^= 1
    place.put(name, bytes(content))
    for file in CONTENTS:  # whichever of them is damaged, for the part is compared as a whole
        _fails(lambda file=file: model.read(file), "model_weights", "it is not what was written")


def test_a_part_that_cannot_be_read_is_damage(folder: Folder) -> None:
    snapshot = _snapshot(folder, _table(3))
    path = _path(snapshot)
    path.unlink()
    path.mkdir()
    damage = snapshot.damage(snapshot.files[0])
    assert damage is not None
    assert damage.startswith("it cannot be read (")


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"path": ["a"]}, "'path': 'string'}"),
        ({"path": [1], "label": ["b"], "content": [b""], "features": [[1.0]]}, "'path': 'int64'"),
    ],
)
def test_a_part_with_other_columns_is_reported(
    folder: Folder, columns: dict[str, list[object]], found: str
) -> None:
    """Another release, or other software, has put it there: a column is never taken for another."""
    file = write_part(folder, Origin("0" * 16, 0, 1), pa.table(columns))
    snapshot = Snapshot(folder, "features", SCHEMA, 7, COMMIT, (file,))
    _fails(lambda: snapshot.arrow(["path"]), file.name, "it has the columns {", found, "not {")


def test_what_remains_of_a_version_is_what_is_whole(folder: Folder) -> None:
    model = _model(folder.child("model"))
    snapshot = _snapshot(folder, _table(3), _table(2, first=3), _table(1, first=5))
    snapshot = replace(snapshot, siblings={"model_weights": model})
    _path(snapshot, 0).unlink()
    _path(snapshot, 1).write_bytes(b"")
    _path(model, 1).unlink()
    left = snapshot.remains()
    assert left.files == snapshot.files[2:]
    assert left.siblings["model_weights"].files == model.files[:1]
    assert replace(left, files=snapshot.files) == snapshot


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_every_flipped_byte_of_a_part_is_noticed_by_those_who_read_its_rows(
    folder: Folder, stride: int
) -> None:
    """Headers of pages and the footer too, which Parquet has no checksums of."""
    snapshot = _snapshot(folder, _table(1))
    (part,), path = snapshot.files, _path(snapshot)
    content = path.read_bytes()
    for position in range(0, len(content), stride):
        _flip(path, position)
        with pytest.raises(DatasetError, match=part.name):
            list(snapshot.batches(part, ["path"]))
        path.write_bytes(content)


def test_light_columns_of_a_damaged_part_are_never_an_error_without_a_sentence(
    folder: Folder,
) -> None:
    snapshot = _snapshot(folder, _table(1))
    (part,), path = snapshot.files, _path(snapshot)
    content = path.read_bytes()
    positions = range(0, len(content), 5)
    told = 0
    for position in positions:
        _flip(path, position)
        try:
            snapshot.arrow(["path", "label"])
        except DatasetError as error:
            told += part.name in str(error)
        path.write_bytes(content)
    assert told > len(positions) / 10
