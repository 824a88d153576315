"""Files appear whole or not at all, and an error says why and what to do."""

import contextlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fruits_assets.core.errors import LakeError
from fruits_assets.core.storage import LocalStorage, join, storage_of


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


def test_what_is_written_is_read_and_its_folders_are_made(tmp_path: Path) -> None:
    uri = join(str(tmp_path), "a", "b", "file")
    LocalStorage().write(uri, b"content")
    assert LocalStorage().read(uri) == b"content"


def test_a_reader_sees_the_old_content_until_the_block_ends(tmp_path: Path) -> None:
    storage, uri = LocalStorage(), str(tmp_path / "file")
    storage.write(uri, b"old")
    with storage.create(uri) as file:
        file.write(b"new")
        file.flush()
        assert storage.read(uri) == b"old"
    assert storage.read(uri) == b"new"
    assert storage.children(str(tmp_path)) == ["file"]


@pytest.mark.parametrize("before", [None, b"old"])
def test_an_exception_in_the_block_leaves_what_was_there(
    tmp_path: Path, before: bytes | None
) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(KeyboardInterrupt), LocalStorage().create(str(path)) as file:  # noqa: PT012
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert [child.read_bytes() for child in tmp_path.iterdir()] == ([before] if before else [])


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    storage, uri = LocalStorage(), str(tmp_path / "file")
    with storage.create(uri) as first, storage.create(uri) as second:
        first.write(b"first")
        second.write(b"second")
    assert storage.read(uri) == b"first"
    assert storage.children(str(tmp_path)) == ["file"]


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


def test_an_error_without_a_number_is_told_in_its_own_words(tmp_path: Path) -> None:
    with (
        pytest.raises(LakeError, match="cannot be written: the network is gone"),
        LocalStorage().create(str(tmp_path / "file")),
    ):
        raise OSError("the network is gone")


def test_sizes_are_of_files_only(tmp_path: Path) -> None:
    (tmp_path / "three").write_bytes(b"abc")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    assert LocalStorage().sizes(str(tmp_path)) == {"three": 3, "empty": 0}
    assert LocalStorage().sizes(str(tmp_path / "missing")) == {}


def test_children_are_sorted_and_none_where_there_is_no_folder(tmp_path: Path) -> None:
    for name in ("b", "a", "é"):
        (tmp_path / name).write_bytes(b"")
    storage = LocalStorage()
    assert storage.children(str(tmp_path)) == ["a", "b", "é"]
    assert storage.children(str(tmp_path / "missing")) == []
    assert storage.children(str(tmp_path / "a")) == []


def test_delete_removes_a_folder_and_does_not_mind_that_it_is_gone(tmp_path: Path) -> None:
    storage, folder = LocalStorage(), tmp_path / "version"
    storage.write(str(folder / "deep" / "file"), b"content")
    storage.delete(str(folder))
    assert not folder.exists()
    storage.delete(str(folder))


def test_another_kind_of_place_is_refused() -> None:
    with pytest.raises(LakeError, match="ftp://host/lake is of an unknown kind"):
        storage_of("ftp://host/lake")
