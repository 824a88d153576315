"""Parts of an earlier version: which ones a later version keeps, and which it rewrites."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from fruits_assets.core.errors import DatasetError
from fruits_assets.storage.base import Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.parquet import File, Origin, write_part
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms import increment
from fruits_assets.transforms.increment import PartSize, Takeover, evenly, takeover, without

FULL = PartSize(rows=8, bytes=1000)
SCHEMA = pa.schema([("path", pa.string())])


def snapshot(*files: File, folder: str = "/lake/features") -> Snapshot:
    """A version with some parts; nothing of it is written."""
    return Snapshot.unpublished(Folder(LocalStorage(), folder), "features", SCHEMA, files)


def earlier(*parts: Sequence[str]) -> Snapshot:
    """A version whose parts hold some paths."""
    return snapshot(*(File(f"part-{i}", 300, len(paths)) for i, paths in enumerate(parts)))


def rows_of(*parts: Sequence[str]) -> pa.Table:
    """The columns `path` and `part` of the rows, in order."""
    rows = [(path, f"part-{i}") for i, paths in enumerate(parts) for path in paths]
    return pa.table({"path": [one[0] for one in rows], "part": [one[1] for one in rows]})


def taken(*parts: Sequence[str], gone: Sequence[str] = (), full: PartSize = FULL) -> Takeover:
    return takeover(earlier(*parts), rows_of(*parts), set(gone), full)


def names(files: Sequence[File]) -> list[str]:
    return [file.name for file in files]


# --------------------------------------------------------------------------------- which parts


def test_parts_without_a_removed_row_are_listed_as_they_are():
    result = taken("ab", "cd")
    assert result.kept == earlier("ab", "cd").files
    assert result.merges == ()


def test_only_the_part_with_a_removed_row_is_rewritten():
    result = taken("abc", "de", "f", gone="b")
    assert names(result.kept) == ["part-1", "part-2"]
    (merge,) = result.merges
    assert merge.sources == earlier("abc").files
    assert (merge.origin.start, merge.origin.stop) == (0, 2)


def test_a_part_whose_rows_are_all_removed_disappears():
    result = taken("ab", "c", gone="ab")
    assert names(result.kept) == ["part-1"]
    assert result.merges == ()


def test_an_empty_part_is_neither_kept_nor_rewritten():
    result = taken("", "a")
    assert names(result.kept) == ["part-1"]
    assert result.merges == ()


def test_removed_paths_that_no_part_holds_change_nothing():
    assert taken("ab", gone="z") == taken("ab")


def test_the_origin_of_a_rewritten_part_depends_on_what_it_keeps():
    origins = {taken("abc", gone=gone).merges[0].origin for gone in ("a", "b", "c")}
    assert len(origins) == 3
    assert taken("abc", gone="a").merges == taken("abc", gone="a").merges
    other = takeover(
        snapshot(File("part-x", 300, 3)),
        pa.table({"path": [*"abc"], "part": ["part-x"] * 3}),
        {"a"},
        FULL,
    )
    assert other.merges[0].origin not in origins, "the same rows of another part are another part"


# ------------------------------------------------------------------------------- small parts


@pytest.mark.parametrize(
    ("rows", "size", "small"), [(1, 249, True), (2, 249, False), (1, 250, False), (0, 0, True)]
)
def test_a_part_is_small_below_a_quarter_in_rows_and_in_bytes(rows: int, size: int, *, small: bool):
    assert FULL.is_small(File("part", size, rows)) == small


def test_small_parts_stay_until_they_are_too_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(increment, "MAX_SMALL_PARTS", 3)
    large = PartSize(rows=100, bytes=10_000)
    parts = ["abcdefghijklmnopqrstuvwxyz", "1", "2", "3"]
    assert taken(*parts, full=large).merges == ()
    result = taken(*parts, "4", full=large)
    assert names(result.kept) == ["part-0"]
    (merge,) = result.merges
    assert names(merge.sources) == [f"part-{i}" for i in range(1, 5)]
    assert (merge.origin.start, merge.origin.stop) == (0, 4)


def test_rewritten_and_merged_parts_do_not_mix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(increment, "MAX_SMALL_PARTS", 1)
    result = taken("a", "bc", "d", gone="b", full=PartSize(rows=100, bytes=10_000))
    assert [names(merge.sources) for merge in result.merges] == [["part-1"], ["part-0", "part-2"]]


def test_groups_are_consecutive_and_fit_into_a_part():
    def grouped(*sizes: tuple[int, int]) -> list[int]:
        files = [File(f"{i}", size, rows) for i, (rows, size) in enumerate(sizes)]
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
    folder = Folder(LocalStorage(), str(tmp_path))
    files = tuple(
        write_part(
            folder, Origin("0" * 16, start, start + len(paths)), pa.table({"path": [*paths]})
        )
        for start, paths in ((0, "abc"), (3, "de"))
    )
    version = snapshot(*files, folder=str(tmp_path))
    merge = increment.Merge(files, Origin("1" * 16, 0, 3))
    assert merge.table(version, {"b", "d"})["path"].to_pylist() == ["a", "c", "e"]
    (tmp_path / files[1].name).write_bytes(b"damaged")
    with pytest.raises(DatasetError):
        merge.table(version, {"b"})


def test_without_removes_rows_and_metadata_which_may_name_them():
    table = pa.table({"path": ["a", "b", "c"], "n": [1, 2, 3]}).replace_schema_metadata(
        {"pandas": "b"}
    )
    left = without(table, {"b"})
    assert left.to_pylist() == [{"path": "a", "n": 1}, {"path": "c", "n": 3}]
    assert left.schema.metadata is None
    assert left.schema.types == table.schema.types


@pytest.mark.parametrize(
    ("rows", "count", "expected"),
    [(10, 2, [2, 7]), (3, 5, [0, 1, 2]), (5, 1, [2]), (7, 0, []), (0, 3, [])],
)
def test_evenly_spreads_positions(rows: int, count: int, expected: list[int]):
    assert evenly(rows, count) == expected
