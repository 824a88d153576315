"""What is still needed is kept, what is too old goes, and nothing else is ever removed."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable

from fruits_assets.core.errors import DatasetError
from fruits_assets.lake import retention
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.retention import ABANDONED_SECONDS
from fruits_assets.storage.folder import PARTIAL
from fruits_assets.storage.parquet import PART_NAME
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets_tests.conftest import THE_SAME_EVERYWHERE
from fruits_assets_tests.lake.versions import (
    again,
    draft,
    of,
    publish,
    rows,
    seen,
    write_parts,
)
from fruits_assets_tests.places import Bucket, Place
from fruits_assets_tests.s3 import REGION, Answer, Gate, Request, forwarded, refusal

OURS = "part-0123456789abcdef-000000-000001-0123456789abcdef.parquet"
"""Name of a part that was never written."""


@pytest.fixture
def lake(place: Place) -> Lake:
    return Lake.at(place.base, region=REGION, keep_versions=2)


@pytest.fixture
def folder_lake(tmp_path: Path) -> Lake:
    return Lake.at(str(tmp_path / "lake"), keep_versions=2)


def _parts(place: Place, name: str) -> set[str]:
    """Names of the parts in a table's folder."""
    found = (one.removeprefix(f"{name}/") for one in place.names(name))
    return {one for one in found if PART_NAME.fullmatch(one)}


def _parts_of(*snapshots: Snapshot) -> set[str]:
    return {file.name for snapshot in snapshots for file in snapshot.files}


def _touch(path: Path, age: float = 2 * ABANDONED_SECONDS) -> None:
    """Nobody has changed a file for so many seconds."""
    os.utime(path, (time.time() - age, time.time() - age), follow_symlinks=False)


# ------------------------------------------------------------------------------ kept


def test_the_newest_versions_are_kept(place: Place, lake: Lake) -> None:
    published = [publish(lake, "raw", number) for number in range(4)]
    assert _parts(place, "raw") == _parts_of(*published[-2:])
    assert seen(lake, "raw") == of("raw", 3)
    assert rows(lake.version("raw", 2)) == of("raw", 2)
    with pytest.raises(DatasetError, match="is missing"):
        lake.version("raw", 1)


def test_three_versions_are_kept_unless_another_number_is_asked_for(tmp_path: Path) -> None:
    lake = Lake.at(str(tmp_path))
    published = [publish(lake, "raw", number) for number in range(5)]
    assert {path.name for path in tmp_path.glob("raw/part-*")} == _parts_of(*published[-3:])


@THE_SAME_EVERYWHERE
def test_one_version_can_be_kept(place: Place, lake: Lake) -> None:
    lake = replace(lake, keep_versions=1)
    published = [publish(lake, "raw", number) for number in range(3)]
    assert _parts(place, "raw") == _parts_of(published[-1])
    lake.publish(again(lake, published[-1]))
    assert seen(lake, "raw") == of("raw", 2)


@THE_SAME_EVERYWHERE
def test_an_older_version_that_becomes_current_again_is_kept(place: Place, lake: Lake) -> None:
    oldest, middle, newer = (publish(replace(lake, keep_versions=9), "raw", n) for n in range(3))
    lake.publish(again(lake, oldest))
    assert seen(lake, "raw") == of("raw", 0)
    assert _parts(place, "raw") == _parts_of(oldest, newer)
    newest = publish(lake, "raw", 3)
    assert _parts(place, "raw") == _parts_of(oldest, newest)
    assert not _parts_of(middle) & _parts(place, "raw")


@THE_SAME_EVERYWHERE
def test_what_a_current_version_was_made_from_is_kept(place: Place, lake: Lake) -> None:
    """And what that was made from, until something else is current."""
    lake = replace(lake, keep_versions=1)
    weights = publish(lake, "weights", 0)
    raw = publish(lake, "raw", 0)
    features = publish(lake, "features", 0, raw, weights)
    pca = publish(lake, "pca", 0, features)
    newer_raw = publish(lake, "raw", 1)
    newer_features = publish(lake, "features", 1, newer_raw, weights)
    newer_weights = publish(lake, "weights", 1)
    assert _parts(place, "raw") == _parts_of(raw, newer_raw)
    assert _parts(place, "features") == _parts_of(features, newer_features)
    assert _parts(place, "weights") == _parts_of(weights, newer_weights)
    assert lake.current("pca") == pca
    assert rows(lake.made_from(lake.made_from(pca, "features"), "raw")) == of("raw", 0)
    assert retention.in_use(lake) == {
        *{("pca", 0), ("features", 0), ("features", 1), ("raw", 0), ("raw", 1)},
        *{("weights", 0), ("weights", 1)},
    }
    publish(lake, "pca", 1, newer_features)
    newest_raw = publish(lake, "raw", 2)
    assert _parts(place, "raw") == _parts_of(newer_raw, newest_raw)


def test_what_a_current_version_was_made_with_is_kept(folder_lake: Lake) -> None:
    """Though its siblings have been published alone since then, as a failed run does."""
    lake = replace(folder_lake, keep_versions=1)
    raw = publish(lake, "raw", 0, siblings=["rejected"])
    rejected = [publish(lake, "rejected", number) for number in (1, 2)]
    found = {path.name for path in Path(lake.base, "rejected").glob("part-*")}
    assert found == _parts_of(raw.siblings["rejected"], rejected[-1])
    assert rows(lake.current("raw").siblings["rejected"]) == of("rejected", 0)
    assert ("rejected", 0) in retention.in_use(lake)
    newest = publish(lake, "raw", 3, siblings=["rejected"])
    found = {path.name for path in Path(lake.base, "rejected").glob("part-*")}
    assert found == _parts_of(newest.siblings["rejected"])


def test_a_part_that_two_versions_share_stays(folder_lake: Lake) -> None:
    lake = replace(folder_lake, keep_versions=1)
    first = publish(lake, "raw", 1)
    second = replace(draft(lake, "raw", 2), files=first.files[:1])
    lake.publish(second)
    assert seen(lake, "raw") == ["raw 1"]
    assert not Path(lake.base, "raw", first.files[1].name).exists()


def test_what_is_in_the_folder_of_a_table_and_not_published_is_counted(place: Place) -> None:
    lake = Lake.at(place.base, region=REGION, keep_versions=1)
    publish(lake, "raw", 1)
    publish(lake, "raw", 2)
    unfinished = draft(lake, "raw", 3)
    assert lake.unpublished("raw") == {file.name: file.bytes for file in unfinished.files}
    assert lake.unpublished("features") == {}


# ------------------------------------------------------------------------------ removed


def test_every_version_of_an_object_goes(bucket: Bucket) -> None:
    lake = Lake.at(bucket.base, region=REGION, keep_versions=1)
    first = publish(lake, "raw", 1)
    bucket.put(f"raw/{first.files[0].name}", bucket.get(f"raw/{first.files[0].name}"))
    second = publish(lake, "raw", 2)
    left = [one for one in bucket.versions("raw") if one.endswith(".parquet")]
    assert left == sorted(f"raw/{name}" for name in _parts_of(second))


@pytest.mark.parametrize(("age", "kept"), [(0, True), (-60, True), (60, False)])
@pytest.mark.parametrize("partial", [False, True])
def test_only_parts_that_are_abandoned_are_removed(
    folder_lake: Lake, age: int, *, partial: bool, kept: bool
) -> None:
    """Parts that no version lists, whole or half written."""
    folder = Path(folder_lake.base, "raw")
    paths = [folder / file.name for file in write_parts(folder_lake, "raw", 1, parts=2)]
    if partial:
        paths = [path.rename(folder / f".{path.name}.1a2b3c4d{PARTIAL}") for path in paths]
    for path in paths:
        _touch(path, ABANDONED_SECONDS + age if age else 0)
    publish(folder_lake, "raw", 2)
    assert [path.exists() for path in paths] == [kept, kept]


@pytest.mark.parametrize(("seconds", "kept"), [(3600, True), (-3600, False)])
def test_when_a_part_is_abandoned_is_known_in_every_place(
    place: Place, lake: Lake, monkeypatch: pytest.MonkeyPatch, seconds: int, *, kept: bool
) -> None:
    unfinished, neighbour = draft(lake, "raw", 1), draft(lake, "raw_images", 1)
    monkeypatch.setattr(retention, "ABANDONED_SECONDS", seconds)
    published = publish(lake, "raw", 2)
    expected = _parts_of(unfinished, published) if kept else _parts_of(published)
    assert _parts(place, "raw") == expected
    assert _parts(place, "raw_images") == _parts_of(neighbour)


@THE_SAME_EVERYWHERE
def test_unfinished_versions_do_not_take_the_place_of_finished_ones(
    place: Place, lake: Lake
) -> None:
    published = [publish(lake, "raw", number) for number in range(2)]
    for number in range(10, 15):
        draft(lake, "raw", number)
    lake.publish(again(lake, published[0]))
    assert _parts_of(*published) <= _parts(place, "raw")


# ------------------------------------------------------------------------------ not ours


FOREIGN = (
    ".DS_Store",
    "README.txt",
    OURS,
    "raw/.DS_Store",
    "raw/notes.txt",
    "raw/notes/a.txt",
    f"raw/notes/{OURS}",
    f"raw/_delta_log/{OURS}",
    f"raw/{OURS}.bak",
    f"raw/x{OURS}",
    f"raw/{OURS.upper()}",
    f"raw/.notes{PARTIAL}",
    f"raw/notes{PARTIAL}",
    "raw/part-00000-0123abcd-c000.snappy.parquet",
    "raw/part-1.parquet",
    "raw/_SUCCESS",
    f"deliverables/{OURS}",
    f"photos/{OURS}",
)
"""Files that are not of the lake, some with names that are nearly those of parts."""


def test_files_that_are_not_ours_stay_however_old_they_are(
    place: Place, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FOREIGN:
        place.put(name, b"not of the lake")
    monkeypatch.setattr(retention, "ABANDONED_SECONDS", -3600)
    lake = replace(lake, keep_versions=1)
    for number in (1, 2):
        published = publish(lake, "raw", number)
    assert lake.tables() == lake.folders() == ["raw"]
    assert [place.get(name) for name in FOREIGN] == [b"not of the lake"] * len(FOREIGN)
    ours = {f"raw/{name}" for name in _parts_of(published)}
    assert {name for name in place.names("raw") if "_delta_log" not in name} == {
        *ours,
        *(name for name in FOREIGN if name.startswith("raw/") and "_delta_log" not in name),
    }


def test_links_are_not_followed(folder_lake: Lake, tmp_path: Path) -> None:
    """Nothing outside the lake is removed, whatever a link is called."""
    lake, outside = replace(folder_lake, keep_versions=1), tmp_path / "outside"
    outside.mkdir()
    victims = [outside / OURS, outside / "notes.txt"]
    for victim in victims:
        victim.write_bytes(b"not of the lake")
        _touch(victim)
    first = publish(lake, "raw", 1)
    folder = Path(lake.base, "raw")
    links = {"notes.txt": victims[1], "folder": outside, f"{OURS}.bak": victims[0]}
    for name, target in links.items():
        (folder / name).symlink_to(target)
        _touch(folder / name)
    (folder / OURS).symlink_to(victims[0])
    (folder / "sub.parquet").symlink_to(outside / "nowhere")
    moved = outside / first.files[0].name
    (folder / first.files[0].name).rename(moved)
    (folder / first.files[0].name).symlink_to(moved)
    assert seen(lake, "raw") == of("raw", 1)
    publish(lake, "raw", 2)
    publish(lake, "raw", 3)
    assert {path.name for path in outside.iterdir()} == {OURS, "notes.txt", moved.name}
    assert {name: (folder / name).readlink() for name in links} == links
    assert (folder / "sub.parquet").is_symlink()


def test_other_tables_are_left_alone(folder_lake: Lake) -> None:
    """A publish removes parts of what it publishes."""
    lake = replace(folder_lake, keep_versions=1)
    first = publish(replace(lake, keep_versions=9), "features", 1)
    second = publish(replace(lake, keep_versions=9), "features", 2)
    publish(lake, "raw", 1)
    found = {path.name for path in Path(lake.base, "features").glob("part-*")}
    assert found == _parts_of(first, second)
    assert retention.clean(lake, ["features", "raw"]) == 2
    found = {path.name for path in Path(lake.base, "features").glob("part-*")}
    assert found == _parts_of(second)


# ------------------------------------------------------------------------------ damage


def test_what_a_damaged_table_may_need_is_kept(folder_lake: Lake) -> None:
    """Until it is repaired, nobody knows what its current version was made from."""
    lake = replace(folder_lake, keep_versions=1)
    raw = publish(lake, "raw", 1)
    publish(lake, "features", 1, raw)
    publish(lake, "features", 2, raw)
    torn = Path(lake.table("features").entry(1))
    torn.write_bytes(b"")
    newer = [publish(lake, "raw", number) for number in (2, 3)]
    assert set(_parts_of(raw)) < {path.name for path in Path(lake.base, "raw").glob("part-*")}
    torn.unlink()  # as a repair does
    assert rows(lake.made_from(lake.table("features").open(0), "raw")) == of("raw", 1)
    assert retention.clean(lake, ["raw"]) == 2
    found = {path.name for path in Path(lake.base, "raw").glob("part-*")}
    assert found == _parts_of(raw, newer[-1])


def test_what_cannot_be_removed_is_logged_and_removed_after_a_later_publish(
    gated: Bucket, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    def keep(request: Request, forward: Callable[[], Answer]) -> Answer:
        deletes = request.method == "DELETE" or "delete" in request.query
        return refusal(403, "AccessDenied", "No.") if deletes else forward()

    lake = Lake.at(gated.base, region=REGION, keep_versions=1)
    first = publish(lake, "raw", 1)
    gate.rule = keep
    second = publish(lake, "raw", 2)
    assert lake.current("raw") == second
    assert _parts(gated, "raw") == _parts_of(first, second)
    assert f"Old parts in {gated.base}/raw cannot be removed now" in caplog.text
    gate.rule = forwarded
    third = publish(lake, "raw", 3)
    assert _parts(gated, "raw") == _parts_of(third)


def _cut(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:-1])
    return "bytes instead of"


def _flip(path: Path) -> str:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return "its checksum differs"


def _unlink(path: Path) -> str:
    path.unlink()
    return "it is missing"


@pytest.mark.parametrize("harm", [_cut, _flip, _unlink])
def test_damage_is_found_in_all_that_is_in_use(
    folder_lake: Lake, harm: Callable[[Path], str]
) -> None:
    """Not in what only retention keeps: it is not taken again while it is damaged."""
    lake = folder_lake
    publish(lake, "features", 1, raw := publish(lake, "raw", 1))
    unused, current = (publish(lake, "raw", number) for number in (2, 3))
    assert list(retention.damaged(lake)) == []
    expected = []
    for snapshot in (raw, current):
        path = Path(snapshot.uri, snapshot.files[0].name)
        expected.append((snapshot.name, str(path), harm(path)))
    harm(Path(unused.uri, unused.files[0].name))
    found = list(retention.damaged(lake))
    assert [(one.table, one.uri) for one in found] == [(name, uri) for name, uri, _ in expected]
    assert all(what in one.what for one, (*_, what) in zip(found, expected, strict=True))


def test_a_maintained_table_keeps_its_versions(folder_lake: Lake) -> None:
    """Other software has merged its small parts: the log does not list them any more."""
    lake = folder_lake
    published = publish(lake, "raw", 1)
    DeltaTable(published.uri).optimize.compact()
    assert retention.clean(lake, ["raw"]) == 0
    assert rows(lake.current("raw")) == of("raw", 1)
    for number in (2, 3, 4):
        publish(lake, "raw", number)
    found = {path.name for path in Path(published.uri).glob("part-*")}
    assert _parts_of(*(lake.version("raw", number) for number in (3, 4))) < found
    assert not _parts_of(published) & found
