"""Files appear whole or not at all, in folders and in buckets, and an error says what to do."""

import contextlib
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fruits_assets.core.errors import ConflictError, LakeError
from fruits_assets.core.storage import LocalStorage, connect, join, overlap, storage_of
from fruits_assets_tests.places import Bucket, Place
from fruits_assets_tests.s3 import REGION, Server, used


@contextlib.contextmanager
def _files_at_most(size: int) -> Iterator[None]:
    """As on a full disk: a write past `size` bytes fails (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("base", ["/a/b", "/a/b/", "s3://bucket/b", "s3://bucket/b/"])
def test_join_puts_one_slash_between_names(base: str) -> None:
    assert join(base, "c", "d.txt") == f"{base.rstrip('/')}/c/d.txt"


def test_what_is_written_is_read_and_its_folders_are_made(place: Place) -> None:
    storage, uri = storage_of(place.base), join(place.base, "a", "b", "file")
    storage.write(uri, b"content")
    assert storage.read(uri) == b"content"
    assert place.names() == {"a/b/file"}
    storage.write(uri, memoryview(b"other"))
    assert place.get("a/b/file") == b"other"


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 1024])
def test_a_file_is_opened_at_any_position(place: Place, content: bytes) -> None:
    place.put("file", content)
    with storage_of(place.base).open(place.uri("file")) as file:
        assert file.size() == len(content)
        for start in (0, len(content) // 2, max(0, len(content) - 70_000), len(content)):
            file.seek(start)
            assert file.tell() == start
            assert file.read(1000) == content[start : start + 1000]
        file.seek(0)
        assert file.read() == content
        assert file.read() == b""


def test_a_file_that_is_not_there_is_an_os_error(place: Place) -> None:
    storage, uri = storage_of(place.base), place.uri("missing")
    place.put("missing.not", b"")
    place.put("missing/not", b"")
    with pytest.raises(OSError, match="missing"):
        storage.read(uri)
    with pytest.raises(OSError, match="missing"), storage.open(uri) as file:
        file.read()
    with pytest.raises(FileNotFoundError):
        storage.read(f"{uri}.jpg")


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "a%20b",
        "a%2Fb",
        "p\u00eache",
        "pe\u0302che",
        "🍓",
        "a+b",
        "who?",
        "n#1",
        "a&b=c;d",
        "a\\b",
        "a'b\"c",
        "[0-9]*{a,b}",
        "~",
        "..a",
        "...",
        "a:b",
        "a\tb",
        " ",
        "x" * 200,
    ],
)
def test_a_name_with_any_character_is_one_name(place: Place, name: str) -> None:
    storage, content = storage_of(place.base), name.encode()
    folder, uri = place.uri(name), join(place.uri(name), name)
    storage.write(uri, content)
    assert place.names() == {f"{name}/{name}"}
    assert place.get(f"{name}/{name}") == content
    assert storage.read(uri) == content
    with storage.open(uri) as file:
        assert file.read() == content
    assert storage.children(place.base) == storage.children(folder) == [name]
    assert storage.sizes(folder) == {name: len(content)}
    storage.swap(uri, b"new", expected=content)
    assert place.get(f"{name}/{name}") == b"new"
    assert storage.purge(uri) >= 1
    assert place.names() == set()


def test_a_reader_sees_the_old_content_until_the_block_ends(place: Place) -> None:
    storage, uri = storage_of(place.base), place.uri("file")
    storage.write(uri, b"old")
    with storage.create(uri) as file:
        file.write(b"new")
        file.flush()
        assert storage.read(uri) == b"old"
    assert storage.read(uri) == b"new"
    assert storage.children(place.base) == ["file"]
    assert place.names() == {"file"}


@pytest.mark.parametrize("before", [None, b"old"])
def test_an_exception_in_the_block_leaves_what_was_there(
    place: Place, before: bytes | None
) -> None:
    if before is not None:
        place.put("file", before)
    storage = storage_of(place.base)
    with pytest.raises(KeyboardInterrupt), storage.create(place.uri("file")) as file:  # noqa: PT012
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert [place.get(name) for name in place.names()] == ([before] if before else [])


def test_two_writers_of_one_file_do_not_mix(place: Place) -> None:
    storage, uri = storage_of(place.base), place.uri("file")
    with storage.create(uri) as first, storage.create(uri) as second:
        first.write(b"first")
        second.write(b"second")
    assert storage.read(uri) == b"first"
    assert storage.children(place.base) == ["file"]
    assert place.names() == {"file"}


def test_an_error_in_the_block_is_told_in_its_own_words(place: Place) -> None:
    with (
        pytest.raises(LakeError, match="file cannot be written: the network is gone"),
        storage_of(place.base).create(place.uri("file")),
    ):
        raise OSError("the network is gone")
    assert place.names() == set()


def test_a_large_file_is_written_and_read_whole(place: Place) -> None:
    """Larger than what a bucket takes at once."""
    block = os.urandom(2**20)
    content = b"".join(block[number:] for number in range(19))
    storage, uri = storage_of(place.base), place.uri("large")
    with storage.create(uri) as file:
        for number in range(19):
            file.write(block[number:])
    assert place.get("large") == content
    assert storage.read(uri) == content
    assert storage.sizes(place.base) == {"large": len(content)}
    with storage.open(uri) as opened:
        opened.seek(9 * 2**20)
        assert opened.read(10) == content[9 * 2**20 : 9 * 2**20 + 10]
        opened.seek(1)
        assert opened.read() == content[1:]


@pytest.mark.parametrize("before", [None, b"old", b""])
def test_a_file_is_swapped_if_it_is_what_it_is_believed_to_be(
    place: Place, before: bytes | None
) -> None:
    if before is not None:
        place.put("folder/file", before)
    storage_of(place.base).swap(place.uri("folder/file"), b"new", expected=before)
    assert place.get("folder/file") == b"new"
    assert place.names() == {"folder/file"}


@pytest.mark.parametrize(
    ("found", "expected"), [(None, b"old"), (b"other", b"old"), (b"other", None), (b"", None)]
)
def test_a_file_that_is_something_else_is_not_swapped(
    place: Place, found: bytes | None, expected: bytes | None
) -> None:
    if found is not None:
        place.put("file", found)
    with pytest.raises(ConflictError, match="file has been replaced meanwhile"):
        storage_of(place.base).swap(place.uri("file"), b"new", expected=expected)
    assert [place.get(name) for name in place.names()] == ([] if found is None else [found])


@pytest.mark.parametrize("expected", [None, b"old", b"new"])
def test_a_file_that_is_what_it_is_to_be_needs_no_swap(
    place: Place, expected: bytes | None
) -> None:
    place.put("file", b"new")
    storage_of(place.base).swap(place.uri("file"), b"new", expected=expected)
    assert place.get("file") == b"new"


def test_of_many_who_swap_at_once_one_wins(place: Place) -> None:
    storage, uri = storage_of(place.base), place.uri("file")
    writers, before = 4, None
    with ThreadPoolExecutor(writers) as pool:
        for number in range(20):
            start = threading.Barrier(writers)

            def swap(
                content: bytes, start: threading.Barrier = start, before: bytes | None = before
            ) -> bytes | None:
                start.wait()
                try:
                    storage.swap(uri, content, expected=before)
                except ConflictError:
                    return None
                return content

            contents = [f"{number} {writer}".encode() for writer in range(writers)]
            (won,) = [content for content in pool.map(swap, contents) if content]
            assert place.get("file") == won
            before = won


def test_a_full_disk_is_told_and_keeps_the_old_file(tmp_path: Path) -> None:
    storage, uri = LocalStorage(), str(tmp_path / "file")
    storage.write(uri, b"old")
    with _files_at_most(2**16), pytest.raises(LakeError) as told:
        storage.write(uri, bytes(2**20))
    text = str(told.value)
    assert uri in text
    assert "File too large" in text
    assert "Free space" in text
    assert "FRUITS_LAKE" in text
    assert storage.read(uri) == b"old"
    assert storage.children(str(tmp_path)) == ["file"]


def test_a_folder_that_may_not_be_written_is_told(
    open_folder: Path, unprivileged: Callable[[], contextlib.AbstractContextManager[None]]
) -> None:
    open_folder.chmod(0o555)
    uri = str(open_folder / "asset" / "file")
    with unprivileged(), pytest.raises(LakeError) as told:
        LocalStorage().write(uri, b"content")
    text = str(told.value)
    assert f"{uri} cannot be written: Permission denied" in text
    assert "grant the permission" in text
    assert list(open_folder.iterdir()) == []


def test_a_file_where_a_folder_is_needed_is_told(tmp_path: Path) -> None:
    (tmp_path / "asset").write_bytes(b"")
    with pytest.raises(LakeError, match="asset/file cannot be written: File exists"):
        LocalStorage().write(str(tmp_path / "asset" / "file"), b"content")


def test_sizes_are_of_files_only(place: Place) -> None:
    place.put("three", b"abc")
    place.put("empty", b"")
    place.put("folder/file", b"abcd")
    storage = storage_of(place.base)
    assert storage.sizes(place.base) == {"three": 3, "empty": 0}
    assert storage.sizes(place.uri("missing")) == {}
    assert storage.sizes(place.uri("fold")) == {}
    assert storage.sizes(place.uri("three")) == {}


def test_children_are_sorted_and_none_where_there_is_no_folder(place: Place) -> None:
    for name in ("b", "a", "é", "folder/deep/file", "folder.txt"):
        place.put(name, b"")
    storage = storage_of(place.base)
    assert storage.children(place.base) == ["a", "b", "folder", "folder.txt", "é"]
    assert storage.children(place.uri("missing")) == []
    assert storage.children(place.uri("fold")) == []
    assert storage.children(place.uri("a")) == []


def test_a_folder_is_as_new_as_what_changed_last_in_it(place: Place) -> None:
    before = time.time()
    place.put("folder/file", b"")
    place.put("folder/other", b"")
    modified_at = storage_of(place.base).modified_at(place.uri("folder"))
    assert before - 2 < modified_at < time.time() + 2  # S3 counts whole seconds


def test_a_folder_that_is_gone_is_not_old(place: Place) -> None:
    """Another run may have removed it just now."""
    assert storage_of(place.base).modified_at(place.uri("gone")) > time.time() - 2


def test_delete_removes_a_folder_and_does_not_mind_that_it_is_gone(place: Place) -> None:
    place.put("version_2/file", b"a neighbour's")
    storage, folder = storage_of(place.base), place.uri("version")
    storage.write(join(folder, "deep", "file"), b"content")
    storage.write(join(folder, "file"), b"content")
    storage.delete(folder)
    assert storage.sizes(folder) == {}
    assert place.names() == {"version_2/file"}
    storage.delete(folder)
    assert place.names() == {"version_2/file"}


def test_purge_removes_a_file_and_nothing_else(place: Place) -> None:
    for name in ("raw/a", "raw/ab", "raw/a.b", "raw_images/a"):
        place.put(name, b"content")
    storage = storage_of(place.base)
    assert storage.purge(place.uri("raw/a")) == 1
    assert place.names() == {"raw/ab", "raw/a.b", "raw_images/a"}
    assert storage.purge(place.uri("raw/a")) == 0


def test_purge_removes_a_folder_but_what_is_to_be_kept(place: Place) -> None:
    for name in ("raw/a", "raw/b", "raw/deep/a", "raw/deep/b", "raw_images/a"):
        place.put(name, name.encode())
    storage = storage_of(place.base)
    keep = [place.uri("raw/a"), place.uri("raw/deep/b"), place.uri("raw/missing")]
    assert storage.purge(place.uri("raw"), keep=keep) == 2
    assert place.names() == {"raw/a", "raw/deep/b", "raw_images/a"}
    assert place.get("raw/deep/b") == b"raw/deep/b"
    assert storage.purge(place.uri("raw")) == 2
    assert place.names() == {"raw_images/a"}
    assert storage.purge(place.uri("raw")) == 0
    assert storage.children(place.uri("raw")) == []


def test_a_deleted_folder_is_gone_with_its_folders(tmp_path: Path) -> None:
    storage, folder = LocalStorage(), tmp_path / "version"
    storage.write(str(folder / "deep" / "file"), b"content")
    storage.delete(str(folder))
    assert not folder.exists()


def test_files_that_come_and_go_do_not_disturb_who_lists_them(tmp_path: Path) -> None:
    """Other assets are published while this one looks at what there is."""
    storage, folder = LocalStorage(), tmp_path / "folder"

    def write_and_delete() -> None:
        for _ in range(300):
            storage.write(str(folder / "file"), b"content")
            storage.delete(str(folder))

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_and_delete)
        while not writing.done():
            assert set(storage.sizes(str(folder)).values()) <= {0, 7}
            assert set(storage.children(str(tmp_path))) <= {"folder"}
            storage.children(str(folder))
        writing.result()


def test_purge_leaves_no_version_and_no_marker(bucket: Bucket) -> None:
    for name in ("raw/a", "raw/a", "raw/b", "raw/deep/c", "raw_images/a", "raw_images/a", "raw.d"):
        bucket.put(name, name.encode())
    bucket.server.client.delete_object(Bucket=bucket.name, Key="a/prefix/raw/b")
    bucket.server.client.delete_object(Bucket=bucket.name, Key="a/prefix/raw_images/a")
    others = ["raw.d", "raw_images/a", "raw_images/a", "raw_images/a"]
    assert bucket.versions() == [
        *("raw.d", "raw/a", "raw/a", "raw/b", "raw/b", "raw/deep/c"),
        *others[1:],
    ]
    assert storage_of(bucket.base).purge(bucket.uri("raw")) == 5
    assert bucket.versions() == others


def test_purge_keeps_files_as_they_are_now_without_their_past(bucket: Bucket) -> None:
    for number in range(3):
        bucket.put("raw/kept", f"version {number}".encode())
        bucket.put("raw/gone", b"content")
    bucket.put("raw/deleted", b"content")
    bucket.server.client.delete_object(Bucket=bucket.name, Key="a/prefix/raw/deleted")
    removed = storage_of(bucket.base).purge(bucket.uri("raw"), keep=[bucket.uri("raw/kept")])
    assert removed == 2 + 3 + 2
    assert bucket.versions() == ["raw/kept"]
    assert bucket.get("raw/kept") == b"version 2"


def test_purge_of_a_bucket_without_versions(server: Server) -> None:
    base = f"s3://{server.bucket(versioned=False)}/a/prefix"
    bucket = Bucket(base, server)
    with used(server.endpoint):
        connect(base, region=REGION)
        for name in ("raw/a", "raw/b", "raw_images/a"):
            bucket.put(name, b"content")
        assert storage_of(base).purge(f"{base}/raw", keep=[f"{base}/raw/b"]) == 1
    assert bucket.names() == {"raw/b", "raw_images/a"}


def test_purge_of_a_whole_bucket(bucket: Bucket) -> None:
    bucket.put("raw/a", b"content")
    root = f"s3://{bucket.name}"
    bucket.server.client.put_object(Bucket=bucket.name, Key="top", Body=b"content")
    kept = f"{root}/top"
    assert storage_of(root).purge(root, keep=[kept]) == 1
    assert storage_of(root).children(root) == ["top"]
    assert storage_of(root).purge(root) == 1


def test_another_kind_of_place_is_refused() -> None:
    with pytest.raises(LakeError, match="ftp://host/lake is of an unknown kind"):
        storage_of("ftp://host/lake")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("s3://a", "s3://a", True),
        ("s3://a", "s3://a/lake", True),
        ("s3://a/n/photos", "s3://a/n", True),
        ("s3://a/n/", "s3://a/n", True),
        ("s3://a//n", "s3://a/n/photos", True),
        ("s3://a/photos", "s3://a/lake", False),
        ("s3://a/photos", "s3://a/photos-old", False),
        ("s3://a/photos", "s3://b/photos", False),
        ("s3://a", "/a", False),
        ("n/photos", "n", True),
        ("n", "n/../n/lake", True),
        ("n/link", "n/photos/lake", True),
        ("n/photos/lake/not/there/yet", "n/link", True),
        ("n/photos", "n/photos-old", False),
        ("n/photos", "n/lake", False),
    ],
)
def test_places_overlap_where_one_lies_in_the_other(
    one: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, expected: bool
) -> None:
    (tmp_path / "n" / "photos").mkdir(parents=True)
    (tmp_path / "n" / "link").symlink_to("photos")
    monkeypatch.chdir(tmp_path)
    assert overlap(one, other) == overlap(other, one) == expected
