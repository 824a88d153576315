"""What matches is found piece by piece, and it is what a comparison of everything would find."""

import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fruits_assets.erasure import matching
from fruits_assets.erasure.matching import Row, Wanted, new_in, texts
from fruits_assets.sources.listing import LISTING_SCHEMA, Listing
from fruits_assets.storage.base import Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.parquet import Origin, write_part
from fruits_assets.storage.snapshot import Snapshot

FILES = [f"{label}/{number:03d}.jpg" for label in ("a", "b", "é") for number in range(60)]


def listed(paths: list[str], *, size: int = 1) -> list[dict[str, object]]:
    """Rows of a listing; the modification time is in the path's number."""
    return [
        {
            "path": path,
            "bytes": size,
            "modified_at": datetime(2026, 1, 1, tzinfo=UTC),
            "etag": None,
            "problem": None,
            "split": None,
            "label": path[0],
        }
        for path in paths
    ]


def listing_of(rows: list[dict[str, object]]) -> Listing:
    ordered = sorted(rows, key=lambda row: (str(row["path"]), str(row["problem"])))
    return Listing("/photos", pa.Table.from_pylist(ordered, LISTING_SCHEMA), 0)


def held(folder: Path, *parts: list[dict[str, object]]) -> Snapshot:
    """The lake's listing, in several parts."""
    place = Folder(LocalStorage(), str(folder))
    files = [
        write_part(place, Origin("0" * 16, i, i + 1), pa.Table.from_pylist(rows, LISTING_SCHEMA))
        for i, rows in enumerate(parts)
    ]
    return Snapshot.unpublished(place, "_listing", LISTING_SCHEMA, tuple(files))


def new_paths(lake: Snapshot | None, source: Listing) -> list[str]:
    return new_in(lake, source)["path"].to_pylist()


@pytest.mark.parametrize("order", ["in order", "scattered"])
def test_new_files_are_those_that_no_part_of_the_listing_says_the_same_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
):
    monkeypatch.setattr(matching, "PIECE", 7)
    gone, changed, new = FILES[3], FILES[50:53], ["a/new.jpg", "z.jpg", "A.jpg"]
    before = listed(FILES)
    if order == "scattered":
        before = [before[i] for i in np.random.default_rng(0).permutation(len(before))]
    still = [path for path in FILES if path != gone and path not in changed]
    now = listing_of([*listed(still), *listed(changed, size=2), *listed(new)])
    lake = held(tmp_path, before[:50], before[50:51], before[51:])
    assert new_paths(lake, now) == sorted([*changed, *new])
    assert new_paths(lake, listing_of(listed(FILES))) == []
    assert new_paths(None, now) == now.files["path"].to_pylist()


def test_names_that_look_alike_are_told_apart_by_their_problem(tmp_path: Path):
    one, other = ({**listed(["\ufffd.jpg"])[0], "problem": problem} for problem in ("1", "2"))
    assert new_paths(held(tmp_path, [one]), listing_of([one, other])) == ["\ufffd.jpg"]
    assert new_paths(held(tmp_path, [one], [other]), listing_of([one, other])) == []


def test_a_row_goes_by_any_of_its_names():
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    wanted = Wanted(
        frozenset({composed, "\udcff.jpg"}), frozenset({"b"}), frozenset({"1"}), frozenset({"2"})
    )
    rows = [
        Row(decomposed, None),
        Row(composed, "3"),
        Row("b", "3"),
        Row("c", "1"),
        Row("d", None, "2"),
        Row("e", "2", "1"),
        Row("f", None),
    ]
    columns = [[getattr(row, name) for row in rows] for name in matching.ROWS_SCHEMA.names]
    assert wanted.rows_in(pa.table(columns, schema=matching.ROWS_SCHEMA)) == rows[:5]
    assert Wanted().rows_in(pa.table(columns, schema=matching.ROWS_SCHEMA)) == []


def test_what_is_the_same_goes_too():
    wanted = Wanted(sha256=frozenset({"1"}))
    assert wanted.and_same([Row("a", None), Row("b", "1")]) == wanted
    more = wanted.and_same([Row("a", "2", "3")])
    assert (more.sha256, more.content_sha256) == ({"1", "2"}, {"3"})


def test_names_that_are_not_unicode_match_nothing():
    assert texts(["a", "\udcff"]).to_pylist() == ["a"]
