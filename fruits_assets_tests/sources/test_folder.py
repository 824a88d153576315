"""Every file of a source is listed, whatever it is and wherever it lies."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from fruits_assets.core.errors import SourceError
from fruits_assets.sources import listing as listing_module
from fruits_assets.sources.listing import (
    LISTING,
    LISTING_SCHEMA,
    Listing,
    found_files,
    listing_of,
)
from fruits_assets.sources.places import photos_at
from fruits_assets.sources.store import PhotoStore
from fruits_assets.storage.parquet import Origin
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.snapshot import DRAFT


def _put(folder: Path, *paths: str, content: bytes = b"photo") -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def _photos(folder: Path) -> PhotoStore:
    return photos_at(folder_at(str(folder)))


def _paths(folder: Path, *, recursive: bool = True) -> list[str]:
    return _photos(folder).list(recursive=recursive).files["path"].to_pylist()


def _row(folder: Path, path: str) -> dict[str, object]:
    rows = _photos(folder).list(recursive=True).files.to_pylist()
    (row,) = [row for row in rows if row["path"] == path]
    return row


def test_every_file_is_listed_in_path_order(tmp_path: Path) -> None:
    paths = ["b/2.jpg", "a.txt", "b/1.jpg", "a/x/y/z/deep.png", "B.JPG", "a b/é.jpg", "b/10.jpg"]
    _put(tmp_path, *paths)
    listing = _photos(tmp_path).list(recursive=True)
    assert listing.files["path"].to_pylist() == sorted(paths)
    assert listing.files.schema == LISTING_SCHEMA
    assert listing.files["problem"].null_count == len(paths)
    assert listing.hidden == 0
    assert listing.root == str(tmp_path)
    assert listing.name == "source"


def test_size_and_time_of_a_file_are_listed(tmp_path: Path) -> None:
    _put(tmp_path, "a.jpg", content=b"12345")
    os.utime(tmp_path / "a.jpg", ns=(0, 1_700_000_000_123_456_000))
    assert _row(tmp_path, "a.jpg") == {
        "path": "a.jpg",
        "bytes": 5,
        "modified_at": datetime(2023, 11, 14, 22, 13, 20, 123456, UTC),
        "etag": None,
        "problem": None,
        "split": None,
        "label": None,
    }


@pytest.mark.parametrize("seconds", [-(2**31), 0, 2**33])
def test_a_file_of_any_time_is_listed(tmp_path: Path, seconds: int) -> None:
    _put(tmp_path, "a.jpg")
    os.utime(tmp_path / "a.jpg", (seconds, seconds))
    assert _paths(tmp_path) == ["a.jpg"]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no file system for such times")  # noqa: S108
def test_a_file_of_a_time_that_no_calendar_holds_is_listed() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        _put(Path(folder), "a.jpg")
        os.utime(Path(folder, "a.jpg"), (10**12, 10**12))
        assert _paths(Path(folder)) == ["a.jpg"]


def test_hidden_files_and_folders_are_passed_over_and_counted(tmp_path: Path) -> None:
    hidden = [".DS_Store", "a/Thumbs.db", "a/DESKTOP.INI", "__MACOSX/a.jpg", "a/.git/one"]
    _put(tmp_path, "a/1.jpg", "a/thumbs.db.jpg", ".ipynb_checkpoints/1.jpg", *hidden)
    listing = _photos(tmp_path).list(recursive=True)
    assert listing.files["path"].to_pylist() == ["a/1.jpg", "a/thumbs.db.jpg"]
    assert listing.hidden == 6


def test_a_source_in_a_hidden_folder_is_listed(tmp_path: Path) -> None:
    _put(tmp_path / ".photos", "1.jpg")
    assert _paths(tmp_path / ".photos") == ["1.jpg"]


def test_only_the_top_level_is_listed_without_recursion(tmp_path: Path) -> None:
    _put(tmp_path, "1.jpg", "a/2.jpg")
    assert _paths(tmp_path, recursive=False) == ["1.jpg"]


def test_a_source_may_be_a_link(tmp_path: Path) -> None:
    _put(tmp_path, "photos/a/1.jpg", content=b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert _paths(tmp_path / "link") == ["a/1.jpg"]
    assert _photos(tmp_path / "link").read(_row(tmp_path / "link", "a/1.jpg")) == b"12345"


def test_a_link_to_nothing_is_listed_with_its_problem(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "missing.jpg")
    (tmp_path / "itself.jpg").symlink_to(tmp_path / "itself.jpg")
    assert _row(tmp_path, "broken.jpg")["problem"] == "No such file or directory"
    assert _row(tmp_path, "itself.jpg")["problem"] == "Too many levels of symbolic links"


def test_a_pipe_is_listed_with_its_problem_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "not a regular file" in str(_row(tmp_path, "pipe.jpg")["problem"])


def test_an_empty_file_is_listed(tmp_path: Path) -> None:
    _put(tmp_path, "empty.jpg", content=b"")
    assert _row(tmp_path, "empty.jpg")["bytes"] == 0
    assert _row(tmp_path, "empty.jpg")["problem"] is None


def test_a_name_that_is_not_utf8_is_listed_with_its_problem(tmp_path: Path) -> None:
    name = b"p\xe9che.jpg"
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"photo")
    Path(tmp_path, "p\\udce9che.jpg").write_bytes(b"photo")  # what the other is printed as
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    listing = _photos(tmp_path).list(recursive=True)
    assert listing.files["path"].to_pylist() == ["p\\udce9che.jpg"] * 2
    assert sorted(map(str, listing.files["problem"].to_pylist())) == [
        "None",
        "the file's name is not valid UTF-8: rename it",
    ]


def test_names_with_any_character_are_listed(tmp_path: Path) -> None:
    names = ["a\nb.jpg", "a\\b.jpg", "a'b\".jpg", "a,b;c.jpg", "🍓.jpg", "a%20b#c?.jpg", "x" * 255]
    _put(tmp_path, *names)
    assert _paths(tmp_path) == sorted(names)
    read = _photos(tmp_path).read
    assert {read(_row(tmp_path, name)) for name in names} == {b"photo"}


@pytest.mark.parametrize("content", [b"other", b"longer than it was"])
def test_a_file_that_changed_after_it_was_listed_is_not_read(
    tmp_path: Path, content: bytes
) -> None:
    _put(tmp_path, "1.jpg")
    listed = _row(tmp_path, "1.jpg")
    (tmp_path / "1.jpg").write_bytes(content)
    os.utime(tmp_path / "1.jpg", (1, 1))
    with pytest.raises(OSError, match="it changed after it had been listed"):
        _photos(tmp_path).read(listed)


@pytest.mark.parametrize("place", ["missing", "missing/deeper", "a.jpg/deeper"])
def test_a_missing_source_is_told(tmp_path: Path, place: str) -> None:
    _put(tmp_path, "a.jpg")
    with pytest.raises(SourceError, match=f"{place} does not exist. Point FRUITS_SOURCE at a fold"):
        _photos(tmp_path / place).list(recursive=True)


def test_a_source_that_is_a_file_is_told(tmp_path: Path) -> None:
    _put(tmp_path, "a.jpg")
    with pytest.raises(
        SourceError, match=r"a\.jpg is a file, not a folder. Point FRUITS_SOURCE at"
    ):
        _photos(tmp_path / "a.jpg").list(recursive=True)


def test_a_source_that_is_a_link_to_itself_is_told(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(SourceError, match=r"loop cannot be read \(Too many levels of symbolic"):
        _photos(tmp_path / "loop").list(recursive=True)


def test_an_empty_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as told:
        _photos(tmp_path).list(recursive=True)
    assert f"{tmp_path} holds no file. Put photos there, or point FRUITS" in str(told.value)


def test_a_source_that_seems_empty_is_told_why(tmp_path: Path) -> None:
    _put(tmp_path, ".DS_Store", "a/1.jpg")
    with pytest.raises(SourceError) as told:
        _photos(tmp_path).list(recursive=False)
    assert "at its top level (`recursive` is false) (1 .DS_Store were passed" in str(told.value)


@pytest.mark.parametrize("forbidden", ["source", "source/a"])
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_a_folder_that_may_not_be_read_is_told(
    open_folder: Path,
    unprivileged: Callable[[], contextlib.AbstractContextManager[None]],
    forbidden: str,
    mode: int,
) -> None:
    _put(open_folder / "source", "1.jpg", "a/2.jpg", "a/b/3.jpg")
    (open_folder / forbidden).chmod(mode)
    with unprivileged(), pytest.raises(SourceError) as told:
        _photos(open_folder / "source").list(recursive=True)
    (open_folder / forbidden).chmod(0o755)
    text = str(told.value)
    assert f"the folder {open_folder / forbidden}" in text
    assert "Permission denied" in text
    assert "chmod u+rx" in text


def test_a_link_to_where_this_user_may_not_look_is_listed_with_its_problem(
    open_folder: Path, unprivileged: Callable[[], contextlib.AbstractContextManager[None]]
) -> None:
    _put(open_folder, "source/1.jpg", "private/a/2.jpg")
    (open_folder / "source/link").symlink_to(open_folder / "private/a")
    (open_folder / "private").chmod(0)
    with unprivileged():
        assert _row(open_folder / "source", "link")["problem"] == "Permission denied"
        assert _row(open_folder / "source", "1.jpg")["problem"] is None


def test_the_version_is_that_of_the_files_not_of_their_place(tmp_path: Path) -> None:
    versions = []
    for place in ("here", "there"):
        _put(tmp_path / place, "a/1.jpg", "2.jpg", ".hidden")
        for path in tmp_path.glob(f"{place}/**/*.jpg"):
            os.utime(path, (1000, 1000))
        versions.append(_photos(tmp_path / place).list(recursive=True).version)
    assert versions[0] == versions[1]
    assert len(versions[0]) == 16
    assert int(versions[0], 16)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.utime(path, ns=(0, 1_000_001_000)),
        lambda path: (path.write_bytes(b"photos"), os.utime(path, (1, 1))),
        lambda path: path.rename(path.with_name("2.jpg")),
        lambda path: path.unlink(),
        lambda path: path.with_name("new.jpg").write_bytes(b"photo"),
    ],
    ids=["a microsecond", "size", "name", "one less", "one more"],
)
def test_the_version_changes_when_a_file_does(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    _put(tmp_path, "a/1.jpg", "b/1.jpg")
    for path in tmp_path.glob("*/*"):
        os.utime(path, (1, 1))
    before = _photos(tmp_path).list(recursive=True).version
    assert _photos(tmp_path).list(recursive=True).version == before
    change(tmp_path / "a/1.jpg")
    assert _photos(tmp_path).list(recursive=True).version != before


def test_the_version_is_the_same_on_every_platform() -> None:
    time = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    rows = [["a.jpg"], [5], [time], ["etag"], [None], [None], ["é"]]
    files = pa.Table.from_arrays(
        [pa.array(row, field.type) for row, field in zip(rows, LISTING_SCHEMA, strict=True)],
        schema=LISTING_SCHEMA,
    )
    assert Listing("/photos", files, 0).version == "ee75627d4d108a10"


def test_a_listing_is_read_as_it_was_written(tmp_path: Path) -> None:
    source = tmp_path / "source, été"
    _put(source, *(f"label {i % 7}/{i}.jpg" for i in range(50)), ".hidden")
    os.mkfifo(source / "pipe")
    listing = _photos(source).list(recursive=True)
    folder = folder_at(str(tmp_path / "lake" / LISTING))
    snapshot = listing.stage({LISTING: folder})
    assert (snapshot.name, snapshot.number, snapshot.rows) == (LISTING, DRAFT, 51)
    assert Listing.of(snapshot, listing.root) == listing
    assert Listing.of(snapshot, listing.root).version == listing.version
    assert listing.write(folder).files == snapshot.files, "it was written again"


def test_what_is_said_of_a_listing_as_a_whole_is_kept_beside_its_files(tmp_path: Path) -> None:
    _put(tmp_path / "source", "1.jpg", "2.jpg")
    listing = _photos(tmp_path / "source").list(recursive=True)
    folder = folder_at(str(tmp_path / "lake"))
    other = replace(listing, hidden=1, kinds={".git": 1}, labels="first")
    assert other.write(folder).files == listing.write(folder).files
    assert Listing.of(other.write(folder), listing.root) == other


def test_another_file_changes_one_part_of_a_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "PART_FILES", 8)
    time = datetime(2026, 1, 1, tzinfo=UTC)

    def listed(names: Iterable[str]) -> Listing:
        files = found_files((name, 1, time, None, None) for name in names)
        return listing_of("/photos", files, recursive=True, hidden={})

    names = [f"Apple/{i}.jpg" for i in range(100)]
    before, after = listed(names), listed(["Apple/50b.jpg", *names])
    assert len(before.parts) > 5
    assert sum(map(len, before.parts)) == 100
    kept = set(before._digests) & set(after._digests)
    assert len(kept) >= len(before.parts) - 1
    assert before.version != after.version


def test_many_files_are_listed_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    names = [f"{split}/{i % 3}/{i}.jpg" for i in range(40) for split in ("Training", "Test")]
    rows = [(name, i, time, None, None) for i, name in enumerate([*names, "Test/0/0.xml"])]
    found = []
    for block in (3, 1000):
        monkeypatch.setattr(listing_module, "BLOCK_FILES", block)
        found.append(listing_of("/photos", found_files(rows), recursive=True, hidden={}))
    assert found[0] == found[1]
    assert (found[0].rows, found[0].beside) == (80, ("Test/0/0.xml",))
    assert found[0].version == found[1].version


def test_an_interrupted_run_has_done_a_share_of_the_bytes(tmp_path: Path) -> None:
    _put(tmp_path, "1.jpg", "2.jpg", content=bytes(50))
    listing = _photos(tmp_path).list(recursive=True)
    part = f"{Origin('0' * 16, 0, 1).prefix}{'1' * 16}.parquet"
    assert listing.done({part: 25, "of somebody else": 50}) == 0.25
    assert listing.done({part: 200}) == 1.0
    assert listing.done({}) == 0.0


def test_a_source_without_a_file_may_be_listed(tmp_path: Path) -> None:
    """An erasure may have removed the last of them."""
    _put(tmp_path, ".hidden")
    listing = _photos(tmp_path).list(recursive=True, allow_empty=True)
    assert (listing.rows, listing.bytes, listing.hidden) == (0, 0, 1)
    assert listing.files.schema == LISTING_SCHEMA
    assert listing.done({}) == 0.0
    written = listing.write(folder_at(str(tmp_path / "lake")))
    assert Listing.of(written, listing.root) == listing
    with pytest.raises(SourceError, match="does not exist"):
        _photos(tmp_path / "missing").list(recursive=True, allow_empty=True)


# Erasure


def test_just_the_photos_named_are_erased(tmp_path: Path) -> None:
    _put(tmp_path, "a/1.jpg", "a/2.jpg", "a/1.jpg.bak", "b/a/1.jpg", "2.jpg")
    assert _photos(tmp_path).erase(["a/1.jpg", "2.jpg", "a/missing.jpg", "a"]) == 2
    assert _paths(tmp_path) == ["a/1.jpg.bak", "a/2.jpg", "b/a/1.jpg"]
    assert _photos(tmp_path).erase(["a/1.jpg"]) == 0


def test_erasing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    _put(tmp_path, "elsewhere/1.jpg")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "source" / "broken.jpg").symlink_to(tmp_path / "missing.jpg")
    assert _photos(tmp_path / "source").erase(["link.jpg", "broken.jpg"]) == 2
    assert list((tmp_path / "source").iterdir()) == []
    assert (tmp_path / "elsewhere" / "1.jpg").is_file()


def test_a_photo_whose_name_is_not_utf8_is_erased_by_its_listed_name(tmp_path: Path) -> None:
    for folder in (b"pl\xe9n", b"plen"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + folder))
        path.mkdir()
        Path(os.fsdecode(os.fsencode(path) + b"/p\xe9che.jpg")).write_bytes(b"photo")
    assert _paths(tmp_path) == ["pl\\udce9n/p\\udce9che.jpg", "plen/p\\udce9che.jpg"]
    assert _photos(tmp_path).erase(["pl\\udce9n/p\\udce9che.jpg"]) == 1
    assert _paths(tmp_path) == ["plen/p\\udce9che.jpg"]


@pytest.mark.parametrize("path", ["../other/1.jpg", "a/../../other/1.jpg", "{absolute}"])
def test_nothing_outside_the_source_is_erased(tmp_path: Path, path: str) -> None:
    _put(tmp_path, "source/a/1.jpg", "other/1.jpg")
    absolute = tmp_path / "other" / "1.jpg"
    assert _photos(tmp_path / "source").erase([path.format(absolute=absolute)]) == 0
    assert absolute.is_file()


def test_photos_that_cannot_be_erased_are_reported_and_the_others_are_erased(
    open_folder: Path, unprivileged: Callable[[], contextlib.AbstractContextManager[None]]
) -> None:
    _put(open_folder, "a/1.jpg", "b/2.jpg")
    for folder, mode in (("a", 0o555), ("b", 0o777)):
        (open_folder / folder).chmod(mode)
    with unprivileged(), pytest.raises(SourceError) as told:
        _photos(open_folder).erase(["a/1.jpg", "b/2.jpg"])
    assert "1 of 2 files could not be deleted from the source (Permission denied)" in str(
        told.value
    )
    assert "repeat the erasure" in str(told.value)
    assert _paths(open_folder) == ["a/1.jpg"]
