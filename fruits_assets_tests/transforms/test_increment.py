"""Parts of an earlier version: which ones a later version keeps, and which it rewrites."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from fruits_assets.core.errors import DatasetError
from fruits_assets.storage.base import Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.parquet import File, Origin, write_part
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms import increment
from fruits_assets.transforms.increment import (
    Merging,
    PartSize,
    Takeover,
    evenly,
    takeover,
    without,
)

FULL = PartSize(rows=8, bytes=1000)
SCHEMA = pa.schema([("path", pa.string())])


def snapshot(*files: File, folder: str = "/lake/features") -> Snapshot:
    """A version with some parts; nothing of it is written."""
    return Snapshot.unpublished(Folder(LocalStorage(), folder), "features", SCHEMA, files)


def earlier(*parts: Sequence[str]) -> Snapshot:
    """A version whose parts hold some paths."""
    return snapshot(*(File(f"part-{i}", 300, len(paths)) for i, paths in enumerate(parts)))


def taken(*parts: Sequence[str], gone: Sequence[str] = (), full: PartSize = FULL) -> Takeover:
    lost = {f"part-{i}": sum(path in gone for path in paths) for i, paths in enumerate(parts)}
    return takeover(earlier(*parts), lost, full)


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
    assert result.merges == (earlier("abc").files,)


def test_a_part_whose_rows_are_all_removed_disappears():
    result = taken("ab", "c", gone="ab")
    assert names(result.kept) == ["part-1"]
    assert result.merges == ()


def test_an_empty_part_is_neither_kept_nor_rewritten():
    result = taken("", "a")
    assert names(result.kept) == ["part-1"]
    assert result.merges == ()


def test_lost_rows_of_unknown_parts_change_nothing():
    assert takeover(earlier("ab"), {"part-9": 1}, FULL) == taken("ab")


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
    assert names(merge) == [f"part-{i}" for i in range(1, 5)]


def test_rewritten_and_merged_parts_do_not_mix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(increment, "MAX_SMALL_PARTS", 1)
    result = taken("a", "bc", "d", gone="b", full=PartSize(rows=100, bytes=10_000))
    assert [names(merge) for merge in result.merges] == [["part-1"], ["part-0", "part-2"]]


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


@pytest.fixture
def merging(tmp_path: Path) -> Merging:
    """Two parts, of the paths a to e, that become one."""
    folder = Folder(LocalStorage(), str(tmp_path))
    files = tuple(
        write_part(
            folder, Origin("0" * 16, start, start + len(paths)), pa.table({"path": [*paths]})
        )
        for start, paths in ((0, "abc"), (3, "de"))
    )
    return Merging("files", snapshot(folder=str(tmp_path)), files, folder, ())


def merged(merging: Merging, gone: str) -> File:
    """The part that is made without some rows."""
    done = merging.run(pa.table({"path": pa.array([*gone], pa.string())}))
    return File(**done.value["files"][0])


def test_a_merge_holds_the_rows_of_its_sources_in_order_but_those_that_are_gone(merging: Merging):
    file = merged(merging, "db")
    assert merging.earlier.table(file)["path"].to_pylist() == ["a", "c", "e"]
    assert file.origin
    assert (file.origin.start, file.origin.stop) == (0, 3)


def test_a_merge_of_a_damaged_part_is_refused(merging: Merging, tmp_path: Path):
    (tmp_path / merging.sources[1].name).write_bytes(b"damaged")
    with pytest.raises(DatasetError):
        merged(merging, "b")


def test_the_name_of_a_merged_part_says_what_it_was_made_from(merging: Merging):
    origins = [merged(merging, gone).origin for gone in ("a", "b", "bd", "db")]
    assert len(set(origins)) == 3
    assert origins[2] == origins[3], "the order in which rows arrive says nothing"
    other = replace(merging, sources=merging.sources[:1])
    assert merged(other, "a").origin not in origins


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
