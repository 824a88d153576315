"""Parts are written whole, found again only if they are what was written, and read by position."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fruits_assets.storage.base import Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.parquet import (
    FILES_SCHEMA,
    READ_ERRORS,
    VECTOR,
    File,
    Origin,
    address_of,
    finished_part,
    part_once,
    read_intact,
    rows_in,
    vectors_array,
    vectors_matrix,
    write_files,
    write_part,
)
from fruits_assets_tests.places import Place

ORIGIN = Origin("0123456789abcdef", 0, 30)
"""What the parts of these tests are made from, whatever they hold."""


def _table(rows: int) -> pa.Table:
    random = np.random.default_rng(0)
    return pa.table(
        {
            "path": pa.array([f"Training/Pêche n° {i}.jpg" for i in range(rows)], pa.string()),
            "label": pa.array([None if i % 3 else "Pêche" for i in range(rows)], pa.string()),
            "content": pa.array([random.bytes(500) for _ in range(rows)], pa.binary()),
            "features": vectors_array(random.normal(size=(rows, 7))),
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder of this machine."""
    return Folder(LocalStorage(), str(tmp_path / "table"))


def _path(folder: Folder, file: File) -> Path:
    return Path(folder.at(file.name))


def _flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def _middle_of_page(path: Path, column: int) -> int:
    """Position in the middle of a column, where its pages of data lie."""
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    return start + chunk.total_compressed_size // 2


# Names


def test_the_name_of_a_part_says_what_it_was_made_from_and_what_it_holds(place: Place) -> None:
    folder = place.opened.child("table")
    file = write_part(folder, Origin("0123456789abcdef", 7, 1_234_567), _table(30))
    assert place.names() == {f"table/{file.name}"}
    content = place.get(f"table/{file.name}")
    digest = hashlib.sha256(content).hexdigest()[:16]
    assert file.name == f"part-0123456789abcdef-000007-1234567-{digest}.parquet"
    assert (file.bytes, file.rows, file.digest) == (len(content), 30, digest)
    assert file.origin == Origin("0123456789abcdef", 7, 1_234_567)
    assert rows_in(file.name) == 1_234_560


@pytest.mark.parametrize(
    "name",
    [
        "part-0.parquet",
        "part-0123456789abcde-000000-000001-0123456789abcdef.parquet",
        "part-0123456789abcdef-00000-000001-0123456789abcdef.parquet",
        "part-0123456789abcdef-000000-000001-0123456789abcde.parquet",
        "part-0123456789ABCDEF-000000-000001-0123456789abcdef.parquet",
        "part-0123456789abcdef-000000-000001-0123456789abcdef.parquet.crc",
        "part-0123456789abcdef-000000-000001-0123456789abcdef.parquet\n",
        ".part-0123456789abcdef-000000-000001-0123456789abcdef.parquet",
        "part-0123456789abcdef-000000-000001-0123456789abcdef",
        "",
    ],
)
def test_other_names_are_not_those_of_parts(name: str) -> None:
    file = File(name, 1, 1)
    assert file.origin is None
    assert not file.is_intact(b"x")
    assert rows_in(name) == 0


@pytest.mark.parametrize("origin", [Origin("f" * 16, 0, 0), Origin("0" * 16, 999_999, 10**9)])
def test_an_origin_comes_back_from_the_name_of_a_part(origin: Origin) -> None:
    name = f"{origin.prefix}{'0' * 16}.parquet"
    assert Origin.of(name) == origin
    assert not name.startswith(Origin(origin.made_from, origin.start, origin.stop + 1).prefix)


def test_addresses_are_sixteen_digits_and_differ_with_what_they_name() -> None:
    assert len(address_of([1, "a"])) == 16
    assert int(address_of([1, "a"]), 16)
    assert address_of([1, "a"]) == address_of([1, "a"])
    different = [address_of(*it) for it in ([[1, "a"]], [[1, "b"]], [1, "a"], ["1", "a"], ["1a"])]
    assert len(set(different)) == len(different)


def test_the_address_of_something_is_the_same_on_every_machine() -> None:
    """It is part of names in the lake, by which later releases look for finished parts."""
    assert address_of("question", [("a.jpg", 1, None)]) == "700b8898f2928664"


# Parts that are found again


@pytest.mark.parametrize("rows", [0, 30])
def test_a_finished_part_is_found_again_as_it_was_written(place: Place, rows: int) -> None:
    folder, table = place.opened.child("table"), _table(rows)
    file = write_part(folder, ORIGIN, table)
    found = finished_part(folder, ORIGIN)
    assert found is not None
    assert found[0] == file
    assert found[1].equals(table)
    assert read_intact(folder, file).equals(table)


@pytest.mark.parametrize(
    "other",
    [
        Origin("1123456789abcdef", 0, 30),
        Origin("0123456789abcdef", 1, 30),
        Origin("0123456789abcdef", 0, 31),
        Origin("0123456789abcdef", 0, 3),
        Origin("0123456789abcdef", 0, 300_000_000),
    ],
)
def test_a_part_that_was_made_from_something_else_is_not_found(place: Place, other: Origin) -> None:
    folder = place.opened.child("table")
    write_part(folder, ORIGIN, _table(30))
    assert finished_part(folder, other) is None
    assert finished_part(place.opened.child("other"), ORIGIN) is None


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "without the last byte": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "one byte more": lambda content: content + b"\0",
    "one bit": lambda content: content[:1000] + bytes([content[1000] ^ 1]) + content[1001:],
    "another file": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_part_is_not_finished(place: Place, damage: Callable[[bytes], bytes]) -> None:
    folder = place.opened.child("table")
    file = write_part(folder, ORIGIN, _table(30))
    name = f"table/{file.name}"
    place.put(name, damage(place.get(name)))
    assert finished_part(folder, ORIGIN) is None
    with pytest.raises(READ_ERRORS):
        read_intact(folder, file)


def test_a_part_of_another_content_under_its_name_is_not_finished(folder: Folder) -> None:
    """It is a whole Parquet file, of the same origin, and not what the name promises."""
    one, other = (write_part(folder, ORIGIN, _table(rows)) for rows in (30, 29))
    _path(folder, one).write_bytes(_path(folder, other).read_bytes())
    _path(folder, other).unlink()
    assert finished_part(folder, ORIGIN) is None


def test_of_two_parts_of_one_origin_the_intact_one_is_found(folder: Folder) -> None:
    """A rewritten one may have other bytes, if another release of Parquet wrote it."""
    files = [write_part(folder, ORIGIN, _table(rows)) for rows in (30, 29)]
    for damaged, intact in (files, files[::-1]):
        content = _path(folder, damaged).read_bytes()
        _flip(_path(folder, damaged), 1000)
        found = finished_part(folder, ORIGIN)
        assert found is not None
        assert found[0] == intact
        _path(folder, damaged).write_bytes(content)


def test_every_flipped_byte_of_a_part_is_noticed(folder: Folder) -> None:
    """Headers of pages and the footer too, which Parquet has no checksums of."""
    file = write_part(folder, ORIGIN, _table(1))
    content = bytearray(_path(folder, file).read_bytes())
    for position in range(len(content)):
        content[position] ^= 0x10
        assert not file.is_intact(bytes(content))
        content[position] ^= 0x10
    assert file.is_intact(bytes(content))


def test_a_part_is_made_once(folder: Folder) -> None:
    made = []

    def make() -> pa.Table:
        made.append(1)
        return _table(30)

    first = part_once(folder, ORIGIN, make)
    assert part_once(folder, ORIGIN, make)[0] == first[0]
    assert len(made) == 1
    _flip(_path(folder, first[0]), 1000)
    again = part_once(folder, ORIGIN, make)
    assert again[0] == first[0]
    assert len(made) == 2
    assert read_intact(folder, first[0]).equals(_table(30))


def test_a_part_that_cannot_be_made_leaves_nothing(place: Place) -> None:
    def make() -> pa.Table:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        part_once(place.opened.child("table"), ORIGIN, make)
    assert place.names() == set()


# How they are laid out


def _written(folder: Folder, rows: int, **options: object) -> Path:
    return _path(folder, write_part(folder, ORIGIN, _table(rows), **options))  # type: ignore[arg-type]


def test_row_groups_are_bounded_by_bytes(folder: Folder) -> None:
    path = _written(folder, 400, group_bytes=_table(400).nbytes // 10)
    metadata = pq.ParquetFile(path).metadata
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert sum(sizes) == 400
    assert 10 <= len(sizes) <= 11
    assert max(sizes) <= 40


def test_row_groups_may_be_bounded_by_rows(folder: Folder) -> None:
    assert pq.ParquetFile(_written(folder, 30, group_rows=10)).num_row_groups == 3


def test_a_row_larger_than_a_group_has_a_group_of_its_own(folder: Folder) -> None:
    assert pq.ParquetFile(_written(folder, 3, group_bytes=10)).num_row_groups == 3


def test_only_the_columns_named_incompressible_are_kept_plain(folder: Folder) -> None:
    path = _written(folder, 3, incompressible=["content", "features"])
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    assert {column.path_in_schema: column.compression for column in columns} == {
        "path": "ZSTD",
        "label": "ZSTD",
        "content": "UNCOMPRESSED",
        "features.list.element": "UNCOMPRESSED",
    }


# Tables of files


def test_files_are_kept_as_rows_with_their_digests(place: Place) -> None:
    folder = place.opened.child("model")
    contents = {"model.tflite": bytes(range(256)) * 100, "model.json": b"{}", "empty": b""}
    file = write_files(folder, "0123456789abcdef", contents)
    table = read_intact(folder, file)
    assert table.schema.equals(FILES_SCHEMA)
    assert {row["name"]: row["content"] for row in table.to_pylist()} == contents
    for row in table.to_pylist():
        assert row["sha256"] == hashlib.sha256(row["content"]).hexdigest()
    assert (file.rows, file.origin) == (3, Origin("0123456789abcdef", 0, 3))


def test_a_file_is_read_without_the_others(folder: Folder) -> None:
    """Each is a row group of its own."""
    file = write_files(folder, "0" * 16, {"a": b"a" * 1000, "b": b"b" * 1000})
    assert pq.ParquetFile(_path(folder, file)).num_row_groups == 2


# Vectors


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
