"""Parts of an earlier version: which ones a later version keeps, and which it rewrites."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from fruits_assets.core import increment
from fruits_assets.core.dataset import (
    Dataset,
    File,
    Manifest,
    schema_of,
    write_parquet,
)
from fruits_assets.core.errors import DatasetError
from fruits_assets.core.increment import (
    PartSize,
    address_of,
    evenly,
    takeover,
    without,
)

VERSION = "0123456789abcdef"
FULL = PartSize(rows=8, bytes=1000)


def dataset(*parts: Sequence[str], folder: str = "lake", sizes: Sequence[int] = ()) -> Dataset:
    """A version whose parts hold some paths; nothing of it is written."""
    files = tuple(
        File(f"part-{i}.parquet", size, "", len(paths))
        for i, (paths, size) in enumerate(zip(parts, sizes or [300] * len(parts), strict=True))
    )
    return Dataset(folder, manifest(files))


def manifest(files: tuple[File, ...]) -> Manifest:
    return Manifest(
        asset="features",
        version=VERSION,
        transform="featurize",
        code_version="1",
        params={},
        inputs={},
        run_id="run",
        created_at="2026-01-01T00:00:00.000000+00:00",
        seconds=1.0,
        files=files,
    )


def rows_of(*parts: Sequence[str]) -> pa.Table:
    """The columns `path` and `part` of the rows, in order."""
    rows = [(path, f"part-{i}.parquet") for i, paths in enumerate(parts) for path in paths]
    return pa.table({"path": [one[0] for one in rows], "part": [one[1] for one in rows]})


def taken(*parts: Sequence[str], gone: Sequence[str] = (), full: PartSize = FULL):
    return takeover(dataset(*parts), rows_of(*parts), set(gone), full)


# --------------------------------------------------------------------------------- which parts


def test_parts_without_a_removed_row_are_listed_where_they_lie():
    result = taken("ab", "cd")
    assert [(file.name, file.rows, file.version) for file in result.kept] == [
        ("part-0.parquet", 2, VERSION),
        ("part-1.parquet", 2, VERSION),
    ]
    assert result.merges == ()


def test_a_part_that_an_even_earlier_version_wrote_keeps_that_version():
    earlier = Dataset("lake", manifest((File("part-0.parquet", 9, "", 1, "fedcba9876543210"),)))
    result = takeover(earlier, rows_of("a"), set(), FULL)
    assert [file.version for file in result.kept] == ["fedcba9876543210"]


def test_only_the_part_with_a_removed_row_is_rewritten():
    result = taken("abc", "de", "f", gone="b")
    assert [file.name for file in result.kept] == ["part-1.parquet", "part-2.parquet"]
    (merge,) = result.merges
    assert merge.sources == ("part-0.parquet",)
    assert merge.rows == 2
    assert merge.name.endswith("-000000-000002.parquet")


def test_a_part_whose_rows_are_all_removed_disappears():
    result = taken("ab", "c", gone="ab")
    assert [file.name for file in result.kept] == ["part-1.parquet"]
    assert result.merges == ()


def test_an_empty_part_is_neither_kept_nor_rewritten():
    result = taken("", "a")
    assert [file.name for file in result.kept] == ["part-1.parquet"]
    assert result.merges == ()


def test_removed_paths_that_no_part_holds_change_nothing():
    assert taken("ab", gone="z") == taken("ab")


def test_the_name_of_a_rewritten_part_depends_on_what_it_keeps():
    names = {taken("abc", gone=gone).merges[0].name for gone in ("a", "b", "ab")}
    assert len(names) == 3
    assert taken("abc", gone="a").merges == taken("abc", gone="a").merges


# ------------------------------------------------------------------------------- small parts


@pytest.mark.parametrize(
    ("rows", "size", "small"), [(1, 249, True), (2, 249, False), (1, 250, False), (0, 0, True)]
)
def test_a_part_is_small_below_a_quarter_in_rows_and_in_bytes(rows: int, size: int, *, small: bool):
    assert FULL.is_small(File("part", size, "", rows)) == small


def test_small_parts_stay_until_they_are_too_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(increment, "MAX_SMALL_PARTS", 3)
    large = PartSize(rows=100, bytes=10_000)
    parts = ["abcdefghijklmnopqrstuvwxyz", "1", "2", "3"]
    assert taken(*parts, full=large).merges == ()
    result = taken(*parts, "4", full=large)
    assert [file.name for file in result.kept] == ["part-0.parquet"]
    (merge,) = result.merges
    assert merge.sources == tuple(f"part-{i}.parquet" for i in range(1, 5))
    assert merge.rows == 4


def test_rewritten_and_merged_parts_do_not_mix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(increment, "MAX_SMALL_PARTS", 1)
    result = taken("a", "bc", "d", gone="b", full=PartSize(rows=100, bytes=10_000))
    assert [merge.sources for merge in result.merges] == [
        ("part-1.parquet",),
        ("part-0.parquet", "part-2.parquet"),
    ]


def test_groups_are_consecutive_and_fit_into_a_part():
    def grouped(*sizes: tuple[int, int]) -> list[int]:
        files = [File(f"{i}", size, "", rows) for i, (rows, size) in enumerate(sizes)]
        groups = FULL.groups(files)
        assert [file for group in groups for file in group] == files
        return [len(group) for group in groups]

    assert grouped((4, 1), (4, 1)) == [2]
    assert grouped((4, 1), (4, 1), (1, 1)) == [2, 1]
    assert grouped((1, 500), (1, 500), (1, 1)) == [2, 1]
    assert grouped((9, 1), (1, 1)) == [1, 1], "a part that is too large stands alone"
    assert grouped((1, 1001), (1, 1)) == [1, 1]
    assert grouped((5, 1), (5, 1), (3, 1)) == [1, 2], "what is counted starts again with a group"
    assert grouped((1, 600), (1, 600), (1, 400)) == [1, 2]
    assert grouped() == []


# ---------------------------------------------------------------------------------- contents


def test_a_merge_holds_the_rows_of_its_sources_in_order_but_those_that_are_gone(tmp_path: Path):
    tables = [pa.table({"path": list(paths)}) for paths in ("abc", "de")]
    files = tuple(
        write_parquet(str(tmp_path), f"part-{i}.parquet", table) for i, table in enumerate(tables)
    )
    earlier = Dataset(str(tmp_path), manifest(files))
    merge = increment.Merge(("part-0.parquet", "part-1.parquet"), "part-x.parquet", 3)
    assert merge.table(earlier, {"b", "d"})["path"].to_pylist() == ["a", "c", "e"]
    (tmp_path / "part-1.parquet").write_bytes(b"damaged")
    with pytest.raises(DatasetError):
        merge.table(earlier, {"b"})


def test_without_removes_rows_and_metadata_which_may_name_them():
    table = pa.table({"path": ["a", "b", "c"], "n": [1, 2, 3]}).replace_schema_metadata(
        {"pandas": "b"}
    )
    left = without(table, {"b"})
    assert left.to_pylist() == [{"path": "a", "n": 1}, {"path": "c", "n": 3}]
    assert left.schema.metadata is None
    assert schema_of(left.schema) == schema_of(table.schema)


def test_addresses_are_twelve_digits_and_differ_with_what_they_name():
    assert len(address_of([1, "a"])) == 12
    assert address_of([1, "a"]) == address_of([1, "a"])
    assert address_of([1, "a"]) != address_of([1, "b"])


@pytest.mark.parametrize(
    ("rows", "count", "expected"),
    [(10, 2, [2, 7]), (3, 5, [0, 1, 2]), (5, 1, [2]), (7, 0, []), (0, 3, [])],
)
def test_evenly_spreads_positions(rows: int, count: int, expected: list[int]):
    assert evenly(rows, count) == expected
