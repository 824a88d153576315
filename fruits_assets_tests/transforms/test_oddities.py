"""What workers find of paths and contents; that checks warn of it is proved in test_checks.py."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from fruits_assets.storage.base import Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms import oddities
from fruits_assets.transforms.oddities import (
    CONTENTS,
    COPIES,
    INVENTED,
    LOST,
    ODDITIES,
    ODDITIES_SCHEMA,
    PAIRS,
    REPEATED,
    SHOWN,
    UNLABELLED,
    Kind,
    Tally,
    differing,
    merged,
    read_examples,
    same_contents,
    sum_of,
    write_examples,
)

PHOTO = ("sha256", "path", "split", "label")


def _found(batches: list[pa.RecordBatch]) -> list[tuple[str, list[str], int]]:
    return [(*row.values(),) for batch in batches for row in batch.to_pylist()]


def _photos(*rows: tuple[str, str, str | None, str | None]) -> list[pa.RecordBatch]:
    """A batch for each photo, so that contents lie in several."""
    return [pa.RecordBatch.from_pylist([dict(zip(PHOTO, row, strict=True))]) for row in rows]


def test_tallies_tell_paths_apart_and_not_their_order_or_parts() -> None:
    paths = [f"Apple/{i}.jpg" for i in range(1000)]

    def tally(*parts: Sequence[str]) -> Tally:
        return Tally.of({"rows": len(part), "paths": sum_of(part)} for part in parts)

    assert (
        tally(paths) == tally(paths[:10][::-1], paths[10:]) == tally(paths[:7]) + tally(paths[7:])
    )
    assert tally(paths) != tally([*paths[1:], "Apple/0.jpeg"])
    assert tally(paths) != tally([*paths[1:], paths[1]])
    assert all(-(2**63) <= sum_of(paths[:i]) < 2**63 for i in range(20))


def test_a_sum_of_paths_is_the_same_in_every_version_of_the_project() -> None:
    assert sum_of(["Training/Pêche/1.jpg", "a"]) == -6412922821556262838


def test_what_differs_is_named() -> None:
    rows = [("gone", 1, 0), ("new", 0, 1), ("new twice", 0, 2), ("twice", 1, 3), ("less", 2, 1)]
    names = ("path", "listed", "held")
    batch = pa.RecordBatch.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    found = merged(_found([*differing([batch])]))
    assert [paths for paths, _ in found[LOST].examples] == [["gone"], ["less"]]
    assert [paths for paths, _ in found[INVENTED].examples] == [["new"], ["new twice"]]
    assert {kind: one.total for kind, one in found.items()} == {LOST: 2, INVENTED: 2, REPEATED: 3}


def test_a_content_of_two_splits_is_named_by_its_first_path_in_each() -> None:
    rows = _photos(
        ("a", "Test/2.jpg", "Test", "x"),
        ("a", "Training/1.jpg", "Training", "x"),
        ("a", "Training/3.jpg", "Training", "x"),
        ("b", "Training/4.jpg", "Training", "x"),
        ("b", "Training/5.jpg", "Training", "x"),
        ("c", "elsewhere.jpg", None, None),
    )
    found = merged(_found([*same_contents(rows)]))
    assert found[PAIRS] == Kind(1, [(["Test/2.jpg", "Training/1.jpg"], 1)])
    assert found[UNLABELLED] == Kind(1, [(["elsewhere.jpg"], 1)])
    assert found[CONTENTS].total == 2


def test_folders_with_the_same_photos_are_counted() -> None:
    rows = _photos(
        *((f"{i}", f"{folder}/Apple/{i}.jpg", None, "x") for i in range(3) for folder in "ab")
    )
    found = _found([*same_contents(rows)])
    assert [row for row in found if row[0] == COPIES] == [(COPIES, ["a", "b"], 3)]


def test_a_content_that_is_everywhere_is_compared_with_few() -> None:
    rows = _photos(*(("a", f"{i:03}/1.jpg", None, "x") for i in range(200)))
    few = oddities.oddities.COMPARED
    assert len([row for row in _found([*same_contents(rows)]) if row[0] == COPIES]) == (
        few * (few - 1) // 2
    )


def test_partitions_add_up_and_show_the_first_examples() -> None:
    parts = [
        _photos(*((f"{i}", f"{i:03}.jpg", None, None) for i in range(start, 60, 2)))
        for start in (0, 1)
    ]
    found = merged(row for part in parts for row in _found([*same_contents(part)]))
    assert found[UNLABELLED].total == 60
    assert found[UNLABELLED].examples == [([f"{i:03}.jpg"], 1) for i in range(SHOWN)]


@pytest.mark.parametrize("found", [{}, {COPIES: Kind(2, [(["", "a"], 20), (["b", "c"], 3)])}])
def test_examples_are_read_as_they_were_written(found: dict[str, Kind], tmp_path: Path) -> None:
    folder = Folder(LocalStorage(), str(tmp_path))
    files = write_examples(folder, found)
    table = Snapshot.unpublished(folder, ODDITIES, ODDITIES_SCHEMA, files)
    assert read_examples(table, COPIES) == (found[COPIES].examples if found else [])
    assert read_examples(table, PAIRS) == []
