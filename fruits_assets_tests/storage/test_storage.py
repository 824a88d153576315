"""Files appear whole or not at all, in folders and in buckets, and an error says what to do."""

import contextlib
import json
import os
import pickle
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fruits_assets.core.errors import ConflictError, LakeError, RegionError
from fruits_assets.storage.base import Folder, is_name, join, overlap
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.places import folder_at, folder_from
from fruits_assets.storage.s3 import FEW
from fruits_assets_tests.places import Bucket, Place
from fruits_assets_tests.s3 import ACCESS_KEY, REGION, SECRET_KEY, Gate, Server, used


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
    storage, uri = place.opened.storage, join(place.base, "a", "b", "file")
    storage.write(uri, b"content")
    assert storage.read(uri) == b"content"
    assert place.names() == {"a/b/file"}
    storage.write(uri, memoryview(b"other"))
    assert place.get("a/b/file") == b"other"


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 1024])
def test_a_file_is_opened_at_any_position(place: Place, content: bytes) -> None:
    place.put("file", content)
    with place.opened.storage.open(place.uri("file")) as file:
        assert file.size() == len(content)
        for start in (0, len(content) // 2, max(0, len(content) - 70_000), len(content)):
            file.seek(start)
            assert file.tell() == start
            assert file.read(1000) == content[start : start + 1000]
        file.seek(0)
        assert file.read() == content
        assert file.read() == b""


def test_a_file_that_is_not_there_is_an_os_error(place: Place) -> None:
    storage, uri = place.opened.storage, place.uri("missing")
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
    storage, content = place.opened.storage, name.encode()
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
    assert set(storage.files(folder, prefix=name)) == {name}
    assert storage.remove([uri]) >= 1
    assert place.names() == set()


def test_a_reader_sees_the_old_content_until_the_block_ends(place: Place) -> None:
    storage, uri = place.opened.storage, place.uri("file")
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
    storage = place.opened.storage
    with pytest.raises(KeyboardInterrupt), storage.create(place.uri("file")) as file:  # noqa: PT012
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert [place.get(name) for name in place.names()] == ([before] if before else [])


def test_two_writers_of_one_file_do_not_mix(place: Place) -> None:
    storage, uri = place.opened.storage, place.uri("file")
    with storage.create(uri) as first, storage.create(uri) as second:
        first.write(b"first")
        second.write(b"second")
    assert storage.read(uri) == b"first"
    assert storage.children(place.base) == ["file"]
    assert place.names() == {"file"}


def test_an_error_in_the_block_is_told_in_its_own_words(place: Place) -> None:
    with (
        pytest.raises(LakeError, match="file cannot be written: the network is gone"),
        place.opened.storage.create(place.uri("file")),
    ):
        raise OSError("the network is gone")
    assert place.names() == set()


def test_a_large_file_is_written_and_read_whole(place: Place) -> None:
    """Larger than what a bucket takes at once."""
    block = os.urandom(2**20)
    content = b"".join(block[number:] for number in range(19))
    storage, uri = place.opened.storage, place.uri("large")
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
    place.opened.storage.swap(place.uri("folder/file"), b"new", expected=before)
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
        place.opened.storage.swap(place.uri("file"), b"new", expected=expected)
    assert [place.get(name) for name in place.names()] == ([] if found is None else [found])


@pytest.mark.parametrize("found", [None, b"content", b"damaged"])
def test_a_file_that_is_named_after_its_content_holds_it(place: Place, found: bytes | None) -> None:
    if found is not None:
        place.put("folder/file", found)
    place.opened.storage.write_once(place.uri("folder/file"), memoryview(b"content"))
    assert place.get("folder/file") == b"content"


@pytest.mark.parametrize("expected", [None, b"old", b"new"])
def test_a_file_that_is_what_it_is_to_be_needs_no_swap(
    place: Place, expected: bytes | None
) -> None:
    place.put("file", b"new")
    place.opened.storage.swap(place.uri("file"), b"new", expected=expected)
    assert place.get("file") == b"new"


def test_of_many_who_swap_at_once_one_wins(place: Place) -> None:
    storage, uri = place.opened.storage, place.uri("file")
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


def test_files_are_listed_with_their_sizes_and_times(place: Place) -> None:
    before = time.time()
    place.put("three", b"abc")
    place.put("empty", b"")
    place.put("folder/file", b"abcd")
    storage = place.opened.storage
    found = storage.files(place.base)
    assert {name: one.size for name, one in found.items()} == {"three": 3, "empty": 0}
    for one in found.values():
        assert before - 2 < one.modified_at < time.time() + 2  # S3 counts whole seconds
    assert storage.sizes(place.base) == {"three": 3, "empty": 0}
    for name in ("missing", "fold", "three"):
        assert storage.files(place.uri(name)) == {}
        assert storage.sizes(place.uri(name)) == {}


def test_only_names_with_a_prefix_are_listed(place: Place) -> None:
    for name in ("part-a-1", "part-a-2", "part-b-1", "part-a", "Part-a-1", "xpart-a-1"):
        place.put(f"table/{name}", name.encode())
    place.put("table/part-a-folder/part-a-1", b"deeper")
    place.put("table_2/part-a-1", b"a neighbour's")
    folder = place.opened.child("table")
    assert set(folder.files(prefix="part-a-")) == {"part-a-1", "part-a-2"}
    assert folder.sizes(prefix="part-b") == {"part-b-1": 8}
    assert folder.sizes(prefix="none") == {}
    assert place.opened.child("missing").sizes(prefix="part") == {}


def test_children_are_sorted_and_none_where_there_is_no_folder(place: Place) -> None:
    for name in ("b", "a", "é", "folder/deep/file", "folder.txt"):
        place.put(name, b"")
    storage = place.opened.storage
    assert storage.children(place.base) == ["a", "b", "folder", "folder.txt", "é"]
    assert storage.children(place.uri("missing")) == []
    assert storage.children(place.uri("fold")) == []
    assert storage.children(place.uri("a")) == []


def test_only_the_files_named_are_removed(place: Place) -> None:
    for name in ("raw/a", "raw/ab", "raw/a.b", "raw/b", "raw_images/a", "a/a"):
        place.put(name, b"content")
    storage = place.opened.storage
    assert storage.remove([place.uri("raw/a"), place.uri("a/a"), place.uri("missing/a")]) == 2
    assert place.names() == {"raw/ab", "raw/a.b", "raw/b", "raw_images/a"}
    assert storage.remove([place.uri("raw/a")]) == 0
    assert storage.remove([]) == 0
    assert place.opened.child("raw").remove(iter(["b", "a", "a.b"])) == 2
    assert place.names() == {"raw/ab", "raw_images/a"}


def test_a_folder_is_never_removed(place: Place) -> None:
    names = {"raw/a", "raw/deep/a"}
    for name in names:
        place.put(name, b"content")
    for folder in ("raw", "raw/deep", "raw/"):
        with contextlib.suppress(OSError):  # a file system refuses, a bucket has no such object
            assert place.opened.storage.remove([place.uri(folder)]) == 0
    assert place.names() == names


def test_many_files_are_removed_as_few_are(place: Place) -> None:
    for name in ("raw/1", "raw/10", "other/1", *(f"raw/doomed/{number}" for number in range(FEW))):
        place.put(name, b"content")
    doomed = place.opened.child("raw").child("doomed")
    names = [f"{number}" for number in range(FEW)]
    assert doomed.remove([*names, "missing"]) == FEW
    assert place.names() == {"raw/1", "raw/10", "other/1"}
    assert doomed.remove(names) == 0


def test_removing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"not ours")
    folder = Folder(LocalStorage(), str(tmp_path / "table"))
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "file").symlink_to(tmp_path / "elsewhere" / "file")
    (tmp_path / "table" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "table" / "broken").symlink_to(tmp_path / "missing")
    assert folder.remove(["file", "folder", "broken"]) == 3
    assert list((tmp_path / "table").iterdir()) == []
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"not ours"


def test_a_link_in_place_of_a_folder_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "broken").symlink_to("missing")
    storage = LocalStorage()
    found = {path.name: storage.is_link(str(path)) for path in tmp_path.iterdir()}
    assert found == {"folder": False, "link": True, "broken": True}
    assert not storage.is_link(str(tmp_path / "missing"))


def test_a_bucket_has_no_links(bucket: Bucket) -> None:
    bucket.put("folder/file", b"")
    assert not bucket.opened.storage.is_link(bucket.uri("folder"))
    assert not bucket.opened.storage.is_link(bucket.uri("missing"))


def test_files_and_folders_are_synced_to_the_disk(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("folder/file", b"content")
    synced: list[str] = []

    def record(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))

    monkeypatch.setattr(os, "fsync", record)
    for name in ("folder/file", "folder"):
        place.opened.storage.sync(place.uri(name))
    on_disk = [place.uri("folder/file"), place.uri("folder")]
    assert synced == ([] if isinstance(place, Bucket) else on_disk)


def test_what_cannot_be_synced_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LocalStorage().sync(str(tmp_path / "missing"))


def test_files_that_come_and_go_do_not_disturb_who_lists_them(tmp_path: Path) -> None:
    """Other assets are published while this one looks at what there is."""
    storage, folder = LocalStorage(), tmp_path / "folder"

    def write_and_remove() -> None:
        for _ in range(300):
            storage.write(str(folder / "file"), b"content")
            storage.remove([str(folder / "file")])
            folder.rmdir()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_and_remove)
        while not writing.done():
            assert set(storage.sizes(str(folder)).values()) <= {0, 7}
            assert set(storage.children(str(tmp_path))) <= {"folder"}
            storage.children(str(folder))
        writing.result()


@pytest.mark.parametrize("count", [1, FEW - 1, FEW, FEW + 1])
def test_every_version_of_the_files_named_is_removed(bucket: Bucket, count: int) -> None:
    """A file of three versions, one that was deleted, and others; among many neighbours."""
    names = [f"{number:02}" for number in range(count)]
    for name in names:
        bucket.put(f"raw/{name}", name.encode())
    for content in (b"second", b"third"):
        bucket.put("raw/00", content)
    last = names[-1]
    bucket.server.client.delete_object(Bucket=bucket.name, Key=f"a/prefix/raw/{last}")
    kept = ["raw/0", "raw/00.bak", "raw/deep/00", "raw/000", "raw/kept", "raw_images/00", "raw.d"]
    for name in (*kept, *kept):
        bucket.put(name, b"kept")
    bucket.server.client.delete_object(Bucket=bucket.name, Key="a/prefix/raw/000")
    neighbours = sorted([*kept, *kept, "raw/000"])
    assert len(bucket.versions()) == len(neighbours) + count + 3
    assert bucket.opened.child("raw").remove(names) == count + 3
    assert bucket.versions() == neighbours
    assert bucket.opened.child("raw").remove(names) == 0


@pytest.mark.parametrize("count", [2, FEW])
def test_files_are_removed_from_a_bucket_without_versions(server: Server, count: int) -> None:
    bucket = Bucket(f"s3://{server.bucket(versioned=False)}/a/prefix", server)
    names = [f"{number:02}" for number in range(count)]
    with used(server.endpoint):
        for name in (*(f"raw/{name}" for name in names), "raw/kept", "raw_images/00"):
            bucket.put(name, b"content")
        assert bucket.opened.child("raw").remove([*names, "missing"]) == count
    assert bucket.names() == {"raw/kept", "raw_images/00"}


@pytest.mark.parametrize("count", [2, FEW])
def test_files_at_the_top_of_a_bucket_are_removed(server: Server, count: int) -> None:
    bucket = Bucket(f"s3://{server.bucket()}", server)
    names = [f"{number:02}" for number in range(count)]
    with used(server.endpoint):
        for name in (*names, "kept", "raw/00"):
            bucket.put(name, b"content")
        assert bucket.opened.remove(names) == count
        assert bucket.opened.storage.children(bucket.base) == ["kept", "raw"]
    assert bucket.versions() == ["kept", "raw/00"]


@pytest.mark.parametrize(("count", "listings"), [(FEW - 1, FEW - 1), (FEW, 1)])
def test_the_versions_of_many_files_are_asked_for_together(
    gated: Bucket, gate: Gate, count: int, listings: int
) -> None:
    names = [f"{number:02}" for number in range(count)]
    for name in names:
        gated.put(name, b"")
    assert gated.opened.remove(names) == count
    assert sum("versions" in request.query for request in gate.requests) == listings


# Everything that is stored


def test_every_file_below_a_folder_is_found_with_its_content(place: Place) -> None:
    contents = {name: name.encode() for name in ("table/a", "table/deep/er/b", "table/deep/c")}
    for name, content in contents.items():
        place.put(name, content)
    place.put("table/empty", b"")
    place.put("table_2/a", b"a neighbour's")
    storage = place.opened.storage
    found = {one.uri: one for one in storage.everything(place.uri("table"))}
    assert found.keys() == {place.uri(name) for name in (*contents, "table/empty")}
    for name, content in contents.items():
        stored = found[place.uri(name)]
        assert (stored.size, stored.is_link) == (len(content), False)
        assert storage.read_stored(stored) == content
    assert storage.read_stored(found[place.uri("table/empty")]) == b""
    assert list(storage.everything(place.uri("missing"))) == []


def test_older_versions_are_found_with_their_content(bucket: Bucket) -> None:
    """Even those of a file that was deleted: they hold what it held."""
    for content in (b"first", b"second"):
        bucket.put("table/a", content)
        bucket.put("table/gone", content)
    bucket.server.client.delete_object(Bucket=bucket.name, Key="a/prefix/table/gone")
    storage = bucket.opened.storage
    found = list(storage.everything(bucket.uri("table")))
    expected = {(name, it) for name in ("table/a", "table/gone") for it in (b"first", b"second")}
    assert {(it.uri.removeprefix(bucket.uri("")), storage.read_stored(it)) for it in found} == (
        expected
    )
    assert len(found) == 4


def test_links_are_found_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"not ours")
    (tmp_path / "table").mkdir()
    for name, target in (("file", "elsewhere/file"), ("folder", "elsewhere"), ("broken", "none")):
        (tmp_path / "table" / name).symlink_to(tmp_path / target)
    found = list(LocalStorage().everything(str(tmp_path / "table")))
    assert {Path(one.uri).name: one.is_link for one in found} == {
        "file": True,
        "folder": True,
        "broken": True,
    }


def test_what_was_found_is_read_unless_it_is_a_pipe(tmp_path: Path) -> None:
    """An erasure searches what others have put into the lake and into temporary folders, too."""
    (tmp_path / "file").write_bytes(b"content")
    os.mkfifo(tmp_path / "pipe")
    storage = LocalStorage()
    found = {Path(one.uri).name: one for one in storage.everything(str(tmp_path))}
    assert storage.read_stored(found["file"]) == b"content"
    with pytest.raises(OSError, match="not a regular file"):
        storage.read_stored(found["pipe"])


@pytest.mark.parametrize("forbidden", ["table", "table/deep"])
def test_what_cannot_be_looked_into_is_an_error(
    open_folder: Path,
    unprivileged: Callable[[], contextlib.AbstractContextManager[None]],
    forbidden: str,
) -> None:
    """Nobody could say what lies in it."""
    (open_folder / "table" / "deep").mkdir(parents=True)
    (open_folder / forbidden).chmod(0)
    with unprivileged(), pytest.raises(PermissionError):
        list(LocalStorage().everything(str(open_folder / "table")))
    (open_folder / forbidden).chmod(0o755)


# Folders


LEADS_ELSEWHERE = (
    "",
    ".",
    "..",
    "a/b",
    "/",
    "/etc/passwd",
    "a/",
    "../a",
    "a\\b",
    "\\",
    "a\0b",
    "\0",
)


@pytest.mark.parametrize("name", LEADS_ELSEWHERE)
def test_a_name_that_leads_elsewhere_is_refused(place: Place, name: str) -> None:
    place.put("folder/a/b", b"deeper")
    place.put("a", b"above")
    folder = place.opened.child("folder")
    assert not is_name(name)
    for use in (
        folder.at,
        folder.child,
        folder.open,
        folder.read,
        lambda name: folder.write(name, b"content"),
        lambda name: folder.remove(["missing", name]),
    ):
        with pytest.raises(LakeError, match="is not the name of a file in") as told:
            use(name)
        assert folder.uri in str(told.value)
        assert repr(name) in str(told.value)
    assert place.names() == {"folder/a/b", "a"}


def test_a_folder_names_what_is_directly_in_it(place: Place) -> None:
    folder = place.opened
    for name in ("a", "...", "..a", "a b", "\u00ea", "part-0.parquet", "~", "%2e%2e"):
        assert is_name(name)
        assert folder.at(name) == f"{place.base}/{name}"
    assert folder.child("a").child("b") == Folder(folder.storage, f"{place.base}/a/b")


def test_a_folder_writes_and_reads_by_name(place: Place) -> None:
    folder = place.opened.child("table")
    folder.write("part", b"content")
    assert place.get("table/part") == b"content"
    assert folder.read("part") == b"content"
    with folder.open("part") as file:
        assert file.read() == b"content"
    assert folder.sizes() == {"part": 7}
    assert folder.remove(["part"]) == 1
    assert place.names() == set()


def test_a_folder_travels_to_other_processes(place: Place) -> None:
    """As it is pickled for workers, and as it is written for a cluster: without a secret."""
    place.put("table/part", b"content")
    folder = place.opened.child("table")
    pickled, text = pickle.dumps(folder), json.dumps(folder.to_dict())
    for copy in (pickle.loads(pickled), folder_from(json.loads(text))):  # noqa: S301 - our own
        assert copy == folder
        assert copy.read("part") == b"content"
    for secret in (SECRET_KEY, ACCESS_KEY):
        assert secret.encode() not in pickled
        assert secret not in text


@pytest.mark.parametrize("uri", ["ftp://host/lake", "s3a://bucket/lake", "file:///lake"])
def test_another_kind_of_place_is_refused(uri: str) -> None:
    with pytest.raises(LakeError, match=rf"{uri} is of an unknown kind. Expected a folder"):
        folder_at(uri, region=REGION)


def test_a_description_of_a_folder_elsewhere_is_refused() -> None:
    """What another process wrote down is checked as what a person typed is."""
    fields = {"uri": "s3://bucket/lake", "storage": {"region": "us-east-1", "kms_key": None}}
    with pytest.raises(RegionError, match="'us-east-1' is not in the European Union"):
        folder_from(fields)


@pytest.mark.parametrize(
    ("path", "expected"), [("~/lake", "{home}/lake"), ("lake", "{here}/lake"), ("/a/", "/a")]
)
def test_a_folder_of_this_machine_has_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, expected: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    folder = folder_at(path)
    assert folder.uri == expected.format(home=tmp_path / "home", here=tmp_path / "here")
    assert folder.storage == LocalStorage()


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
