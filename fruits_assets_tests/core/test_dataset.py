"""What is written is read back whole, and damage never passes for data."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fruits_assets.core.dataset import (
    MANIFEST,
    VECTOR,
    Dataset,
    File,
    Manifest,
    Output,
    file_of,
    finished_parquet,
    is_part,
    read_manifest,
    read_rows,
    read_table,
    schema_of,
    vectors_array,
    vectors_matrix,
    write_file,
    write_parquet,
)
from fruits_assets.core.errors import DatasetError
from fruits_assets.core.storage import join, storage_of

VERSION = "0123456789abcdef"
PART = "part-00000.parquet"
MODEL = "model.tflite"


def _table(rows: int, *, first: int = 0) -> pa.Table:
    random = np.random.default_rng(first)
    return pa.table(
        {
            "path": pa.array(
                [f"Training/Pêche n° {first + i}.jpg" for i in range(rows)], pa.string()
            ),
            "label": pa.array([None if i % 3 else "Pêche" for i in range(rows)], pa.string()),
            "content": pa.array([random.bytes(500) for _ in range(rows)], pa.binary()),
            "features": vectors_array(random.normal(size=(rows, 7))),
        }
    )


def _manifest(*files: File) -> Manifest:
    return Manifest(
        asset="features",
        version=VERSION,
        transform="featurize",
        code_version="1",
        params={"size": 96, "nested": {"à": [1.5, None]}},
        inputs={"raw_images": "fedcba9876543210"},
        run_id="run",
        created_at="2026-01-01T00:00:00.000000+00:00",
        seconds=1.25,
        files=files,
        figures={"images": 3},
        schema=schema_of(_table(0).schema),
    )


def _written(folder: Path, *tables: pa.Table, group_bytes: int = 2**20) -> Dataset:
    """A finished version of tables and a model."""
    parts = [
        write_parquet(str(folder), f"part-{i:05}.parquet", table, group_bytes=group_bytes)
        for i, table in enumerate(tables)
    ]
    manifest = _manifest(*parts, write_file(str(folder), MODEL, b"a model" * 100))
    storage_of(str(folder)).write(join(str(folder), MANIFEST), manifest.to_json())
    return Dataset.open(str(folder))


def _flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def _flip_in_page(path: Path, column: int) -> None:
    """One bit in the middle of a column, where its pages of data lie."""
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    _flip(path, start + chunk.total_compressed_size // 2)


def _helps(error: DatasetError, *words: str) -> bool:
    """Whether the text names what is damaged and says what to do."""
    text = str(error)
    return all(word in text for word in words) and "materialise" in text.lower() and "again" in text


@pytest.mark.parametrize("name", ["with space", "a#b", "100%25", "[x]", "*", "été", "{a,b}", "q?"])
def test_a_version_is_read_back_from_any_path(tmp_path: Path, name: str) -> None:
    first, second = _table(30), _table(5, first=30)
    dataset = _written(tmp_path / name, first, second)
    whole = pa.concat_tables([first, second])
    assert dataset.arrow(whole.column_names).equals(whole)
    assert dataset.pandas(["label"])["label"].tolist() == whole["label"].to_pylist()
    assert dataset.read(MODEL) == b"a model" * 100
    assert read_table(join(dataset.uri, PART)).equals(first)
    batches = list(dataset.batches(PART, ["features", "path"], rows=7))
    assert [batch.num_rows for batch in batches] == [7, 7, 7, 7, 2]
    assert pa.Table.from_batches(batches)["path"].equals(first["path"])
    assert dataset.stage(str(tmp_path)) == dataset.uri


def test_the_manifest_says_what_was_written(tmp_path: Path) -> None:
    dataset = _written(tmp_path, _table(30), _table(5, first=30))
    assert (dataset.name, dataset.version) == ("features", VERSION)
    assert [part.name for part in dataset.parts] == [PART, "part-00001.parquet"]
    assert [part.rows for part in dataset.parts] == [30, 5]
    assert dataset.manifest.rows == 35
    assert dataset.manifest.bytes == sum(
        path.stat().st_size for path in tmp_path.iterdir() if path.name != MANIFEST
    )
    for file in dataset.manifest.files:
        assert file.sha256 == hashlib.sha256((tmp_path / file.name).read_bytes()).hexdigest()
        assert replace(file, rows=0) == file_of(dataset.uri, file.name)


def test_the_manifest_is_json_and_comes_back_as_it_was() -> None:
    manifest = _manifest(File(PART, 10, "00", 4), File("thumbnails.parquet", 5, "11", 9))
    assert Manifest.from_json(manifest.to_json()) == manifest
    fields = json.loads(manifest.to_json())
    assert (fields["rows"], fields["bytes"]) == (4, 15)
    assert "à" in manifest.to_json().decode()


def test_an_output_comes_back_from_json_as_it_was() -> None:
    output = Output((File(PART, 10, "00", 4),), {"images": 4}, schema_of(_table(1).schema))
    assert Output.from_dict(json.loads(json.dumps(output.to_dict()))) == output
    assert output.schema["features"] == str(VECTOR)


def test_only_part_files_hold_rows() -> None:
    assert is_part(PART)
    assert not is_part("thumbnails.parquet")


def test_row_groups_are_bounded_by_bytes(tmp_path: Path) -> None:
    table = _table(400)
    write_parquet(str(tmp_path), PART, table, group_bytes=table.nbytes // 10)
    metadata = pq.ParquetFile(tmp_path / PART).metadata
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert sum(sizes) == 400
    assert 10 <= len(sizes) <= 11
    assert max(sizes) <= 40


def test_a_row_larger_than_a_group_has_a_group_of_its_own(tmp_path: Path) -> None:
    write_parquet(str(tmp_path), PART, _table(3), group_bytes=10)
    assert pq.ParquetFile(tmp_path / PART).num_row_groups == 3


def test_only_the_columns_named_incompressible_are_kept_plain(tmp_path: Path) -> None:
    write_parquet(str(tmp_path), PART, _table(3), incompressible=["content", "features"])
    group = pq.ParquetFile(tmp_path / PART).metadata.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    assert {column.path_in_schema: column.compression for column in columns} == {
        "path": "ZSTD",
        "label": "ZSTD",
        "content": "UNCOMPRESSED",
        "features.list.element": "UNCOMPRESSED",
    }


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 400), (0, 1), (39, 41), (120, 280), (399, 400), (390, 500), (7, 7)]
)
def test_rows_are_read_by_position(tmp_path: Path, start: int, stop: int) -> None:
    table = _table(400)
    write_parquet(str(tmp_path), PART, table, group_bytes=table.nbytes // 10)
    rows = read_rows(join(str(tmp_path), PART), start, stop)
    assert rows["path"].to_pylist() == table["path"].to_pylist()[start:stop]


def test_rows_of_a_damaged_file_are_not_read(tmp_path: Path) -> None:
    write_parquet(str(tmp_path), PART, _table(30))
    _flip_in_page(tmp_path / PART, column=2)
    with pytest.raises(OSError, match="CRC"):
        read_rows(join(str(tmp_path), PART), 0, 30)


def test_an_empty_table_is_written_and_read(tmp_path: Path) -> None:
    dataset = _written(tmp_path, _table(0))
    assert dataset.manifest.rows == 0
    assert dataset.arrow(["path", "features"]).num_rows == 0
    assert dataset.arrow(["features"]).schema.field("features").type == VECTOR
    assert list(dataset.batches(PART, ["path"])) == []
    assert read_rows(join(dataset.uri, PART), 0, 10).num_rows == 0


def test_a_finished_file_is_found_again_as_it_was_written(tmp_path: Path) -> None:
    table = _table(30)
    file = write_parquet(str(tmp_path), PART, table)
    found = finished_parquet(str(tmp_path), PART)
    assert found is not None
    assert found[0] == file
    assert found[1].equals(table)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: _flip_in_page(path, column=2),
    ],
    ids=["missing", "empty", "without the last byte", "half", "one bit"],
)
def test_a_damaged_file_is_not_finished(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    write_parquet(str(tmp_path), PART, _table(30))
    damage(tmp_path / PART)
    assert finished_parquet(str(tmp_path), PART) is None


@pytest.mark.parametrize("name", [PART, MODEL])
def test_a_missing_file_is_told(tmp_path: Path, name: str) -> None:
    dataset = _written(tmp_path, _table(30))
    (tmp_path / name).unlink()
    with pytest.raises(DatasetError) as told:
        Dataset.open(dataset.uri)
    assert _helps(told.value, "features", VERSION, dataset.uri, f"{name} is missing", "make repair")
    with pytest.raises(DatasetError) as told:
        dataset.read(name)
    assert _helps(told.value, "features", VERSION, f"{name} cannot be read", "make repair")


@pytest.mark.parametrize("name", [PART, MODEL])
def test_a_truncated_file_is_told(tmp_path: Path, name: str) -> None:
    dataset = _written(tmp_path, _table(30))
    size = (tmp_path / name).stat().st_size
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-7])
    with pytest.raises(DatasetError) as told:
        Dataset.open(dataset.uri)
    assert _helps(told.value, "features", VERSION, f"{name} has {size - 7} bytes instead of {size}")


@pytest.mark.parametrize("column", [0, 1, 2, 3])
def test_one_flipped_bit_in_a_data_page_is_told(tmp_path: Path, column: int) -> None:
    table = _table(200)
    dataset = _written(tmp_path, table)
    _flip_in_page(tmp_path / PART, column)
    dataset = Dataset.open(dataset.uri)
    columns = [table.column_names[column]]
    with pytest.raises(DatasetError) as told:
        dataset.arrow(columns)
    assert _helps(told.value, "features", VERSION, f"{PART} cannot be read", "make repair")
    with pytest.raises(DatasetError) as told:
        list(dataset.batches(PART, columns))
    assert _helps(told.value, "features", VERSION, f"{PART} is not what was written", "make repair")


def test_one_flipped_bit_in_a_file_that_is_not_parquet_is_told(tmp_path: Path) -> None:
    dataset = _written(tmp_path, _table(3))
    _flip(tmp_path / MODEL, 345)
    dataset = Dataset.open(dataset.uri)
    with pytest.raises(DatasetError) as told:
        dataset.read(MODEL)
    assert _helps(told.value, "features", VERSION, f"{MODEL} is not what was written", "checksum")


def test_a_file_that_the_manifest_does_not_list_is_not_part_of_the_version(tmp_path: Path) -> None:
    dataset = _written(tmp_path, _table(3))
    write_parquet(dataset.uri, "part-99999.parquet", _table(3))
    assert Dataset.open(dataset.uri).arrow(["path"]).num_rows == 3
    with pytest.raises(DatasetError) as told:
        dataset.read("part-99999.parquet")
    assert _helps(told.value, "features", VERSION, "it has no file 'part-99999.parquet'")


def test_a_table_of_a_version_without_part_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as told:
        _written(tmp_path).arrow(["path"])
    assert _helps(told.value, "features", VERSION, "no part files")


def test_a_version_without_a_manifest_is_not_finished(tmp_path: Path) -> None:
    uri = _written(tmp_path / "features" / VERSION, _table(3)).uri
    Path(uri, MANIFEST).unlink()
    with pytest.raises(DatasetError) as told:
        Dataset.open(uri)
    assert _helps(told.value, f"features/{VERSION} is not a finished version", MANIFEST)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"files": null}',
        b'{"files": [{"name": "x"}]}',
        json.dumps({**json.loads(_manifest().to_json()), "unheard": 1}).encode(),
        _manifest(File(PART, 10, "00", 4)).to_json()[:300],
    ],
)
def test_a_manifest_that_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    uri = _written(tmp_path / "features" / VERSION, _table(3)).uri
    Path(uri, MANIFEST).write_bytes(content)
    with pytest.raises(DatasetError) as told:
        read_manifest(uri)
    assert _helps(told.value, f"features/{VERSION}/{MANIFEST} cannot be read", "make repair")


def test_vectors_come_back_as_they_were() -> None:
    matrix = np.random.default_rng(0).normal(size=(11, 5)).astype(np.float32)
    array = vectors_array(matrix)
    assert array.type == VECTOR
    array.validate(full=True)
    batch = pa.RecordBatch.from_arrays([array], names=["features"])
    np.testing.assert_array_equal(vectors_matrix(batch, "features"), matrix)
    np.testing.assert_array_equal(vectors_matrix(batch.slice(3, 4), "features"), matrix[3:7])
    assert vectors_matrix(batch.slice(3, 4), "features").base is not None


def test_vectors_of_float64_and_of_columns_in_any_order_are_float32_rows() -> None:
    matrix = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    assert vectors_array(matrix).to_pylist() == matrix.tolist()
    assert vectors_array(matrix[::2, ::2]).to_pylist() == [[0, 2], [8, 10]]


def test_no_vectors_come_back_as_none() -> None:
    batch = pa.RecordBatch.from_arrays([vectors_array(np.zeros((0, 5)))], names=["features"])
    assert vectors_matrix(batch, "features").shape == (0, 0)


def test_every_flipped_byte_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    _written(tmp_path, _table(3))
    file = tmp_path / MANIFEST
    content = file.read_bytes()
    for position in range(len(content)):
        _flip(file, position)
        with pytest.raises(DatasetError, match="make repair"):
            Dataset.open(str(tmp_path))
        file.write_bytes(content)


def test_every_flipped_byte_of_a_part_is_noticed_by_those_who_read_its_rows(tmp_path: Path) -> None:
    """Headers of pages and the footer too, which Parquet has no checksums of."""
    dataset = _written(tmp_path, _table(1))
    file = tmp_path / PART
    content = file.read_bytes()
    for position in range(len(content)):
        _flip(file, position)
        with pytest.raises(DatasetError, match=PART):
            list(dataset.batches(PART, ["path"]))
        file.write_bytes(content)


def test_light_columns_of_a_damaged_part_are_never_an_error_without_a_sentence(
    tmp_path: Path,
) -> None:
    dataset = _written(tmp_path, _table(1))
    file = tmp_path / PART
    content = file.read_bytes()
    positions = range(0, len(content), 5)
    told = 0
    for position in positions:
        _flip(file, position)
        try:
            dataset.arrow(["path", "label"])
        except DatasetError as error:
            told += PART in str(error)
        file.write_bytes(content)
    assert told > len(positions) / 10
