"""Photos in an archive are listed and read as those in a folder, and no archive harms anybody."""

import io
import os
import tarfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fruits_assets.core.errors import SourceError
from fruits_assets.sources import archive
from fruits_assets.sources.archive import BOMB, ENCRYPTED, LEADS_OUT, LINK
from fruits_assets.sources.listing import Listing
from fruits_assets.sources.places import photos_at
from fruits_assets.sources.store import PhotoStore
from fruits_assets.storage.opening import NOT_REGULAR
from fruits_assets.storage.places import folder_at

FILES = {
    "Training/Apple/1.jpg": b"apple",
    "Training/Apple/1.xml": b"a sidecar",
    "Training/Pêche/2.jpg": b"peach",
    "Test/Apple/3.jpg": b"",
    "__MACOSX/Training/._1.jpg": b"left",
    "__MACOSX/._x": b"left",
    "Test/.DS_Store": b"left",
    "4.jpg": b"at the top" * 1000,
}
NAMES = ("photos.zip", "Photos.ZIP", "photos.tar", "photos.tar.gz", "photos.tgz")
TIME = (2026, 1, 2, 3, 4, 6)


def _zip(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.mkdir("Training")
        for name, content in files.items():
            packed.writestr(zipfile.ZipInfo(name, TIME), content)


def _tar(path: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix.lower() != ".tar" else "w") as packed:
        folder = tarfile.TarInfo("Training")
        folder.type = tarfile.DIRTYPE
        packed.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size, entry.mtime = len(content), 1_767_323_046
            packed.addfile(entry, io.BytesIO(content))


def _pack(path: Path, files: Mapping[str, bytes]) -> Path:
    (_zip if path.suffix.lower() == ".zip" else _tar)(path, files)
    return path


def _photos(path: Path) -> PhotoStore:
    return photos_at(folder_at(str(path)))


def _rows(listing: Listing) -> list[dict[str, Any]]:
    columns = ["path", "bytes", "problem", "split", "label"]
    return listing.files.select(columns).to_pylist()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("recursive", [True, False])
def test_an_archive_is_listed_and_read_as_a_folder_is(
    tmp_path: Path, name: str, *, recursive: bool
) -> None:
    for path, content in FILES.items():
        (tmp_path / "folder" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / path).write_bytes(content)
    photos = _photos(_pack(tmp_path / name, FILES))
    found = photos.list(recursive=recursive)
    expected = _photos(tmp_path / "folder").list(recursive=recursive)
    assert _rows(found) == _rows(expected)
    if recursive:
        assert (found.hidden, found.kinds) == (expected.hidden, expected.kinds)
    rows = found.files.to_pylist()
    assert [read() for read in photos.fetch(rows)] == [FILES[row["path"]] for row in rows]
    assert {row["modified_at"].isoformat() for row in rows} == {"2026-01-02T03:04:06+00:00"}
    assert photos.list(recursive=recursive).version == found.version


@pytest.mark.parametrize("name", NAMES[2:4])
def test_photos_of_a_compressed_archive_come_in_any_order(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "PASS_BYTES", 30)
    files = {f"{number:03}.jpg": b"%020d" % number for number in range(10)}
    photos = _photos(_pack(tmp_path / name, dict(reversed(files.items()))))
    rows = photos.list(recursive=True).files.to_pylist()
    assert [read() for read in photos.fetch(rows)] == list(files.values())


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz"])
def test_an_entry_that_is_another_by_now_is_not_read(tmp_path: Path, name: str) -> None:
    photos = _photos(_pack(tmp_path / name, {"1.jpg": b"one", "2.jpg": b"two", "3.jpg": b"three"}))
    rows = photos.list(recursive=True).files.to_pylist()
    (tmp_path / name).unlink()
    _pack(tmp_path / name, {"2.jpg": b"owt", "3.jpg": b"three"})
    first, second, _ = photos.fetch(rows)
    for read in (first, second):
        with pytest.raises(OSError, match=r"not in the archive any more|it changed after it had"):
            read()


def _entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry


OUT = ("../1.jpg", "/etc/passwd", "a/../../1.jpg", "C:\\1.jpg", "..\\1.jpg")


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_names_that_lead_out_of_an_archive_are_rejected(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photos.{suffix}"
    if suffix == "zip":
        _zip(path, {**dict.fromkeys(OUT, b"photo"), "a/1.jpg": b"photo"})
    else:
        with tarfile.open(path, "w:gz" if suffix == "tar.gz" else "w") as packed:
            for name in (*OUT, "a/1.jpg"):
                entry = _entry(name)
                entry.size = 5
                packed.addfile(entry, io.BytesIO(b"photo"))
    found = {row["path"]: row["problem"] for row in _rows(_photos(path).list(recursive=True))}
    assert found == {**dict.fromkeys(OUT, LEADS_OUT), "a/1.jpg": None}


def test_links_and_devices_in_a_tar_file_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as packed:
        packed.addfile(_entry("link.jpg", tarfile.SYMTYPE, "/etc/passwd"))
        packed.addfile(_entry("hard.jpg", tarfile.LNKTYPE, "link.jpg"))
        packed.addfile(_entry("pipe.jpg", tarfile.FIFOTYPE))
    found = {row["path"]: row["problem"] for row in _rows(_photos(path).list(recursive=True))}
    assert found == {"link.jpg": LINK, "hard.jpg": LINK, "pipe.jpg": NOT_REGULAR}


def _changed(packed: bytes, at: int, value: bytes) -> bytes:
    """A zip file with one entry, with some bytes of its entry in the directory replaced."""
    start = packed.index(b"PK\x01\x02") + at
    return packed[:start] + value + packed[start + len(value) :]


ODD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "link": (lambda it: _changed(it, 38, (0o120777 << 16).to_bytes(4, "little")), LINK),
    "pipe": (lambda it: _changed(it, 38, (0o010644 << 16).to_bytes(4, "little")), NOT_REGULAR),
    "encrypted": (lambda it: _changed(it, 8, b"\1\0"), ENCRYPTED),
    "method": (lambda it: _changed(it, 10, b"\x60\0"), "it is compressed by method 96"),
    "bomb": (lambda it: _changed(it, 24, (2**31).to_bytes(4, "little")), BOMB),
}


@pytest.mark.parametrize("kind", ODD)
def test_entries_of_a_zip_file_that_are_not_read_are_rejected(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(zipfile.ZipInfo("1.jpg", TIME), b"photo")
    path.write_bytes(ODD[kind][0](path.read_bytes()))
    (row,) = _rows(_photos(path).list(recursive=True))
    assert str(row["problem"]).startswith(ODD[kind][1])


def test_a_real_bomb_in_a_zip_file_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("1.jpg", bytes(2**23))
        packed.writestr("2.jpg", os.urandom(1000) * 100)
    found = {row["path"]: row["problem"] for row in _rows(_photos(path).list(recursive=True))}
    assert found == {"1.jpg": BOMB, "2.jpg": None}


def test_an_entry_that_lies_about_its_size_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(zipfile.ZipInfo("1.jpg", TIME), bytes(1000), zipfile.ZIP_DEFLATED)
        packed.writestr("2.jpg", b"photo")
    path.write_bytes(_changed(path.read_bytes(), 24, (10).to_bytes(4, "little")))
    photos = _photos(path)
    first, second = photos.fetch(photos.list(recursive=True).files.to_pylist())
    with pytest.raises(OSError, match="its entry in the archive is damaged"):
        first()
    assert second() == b"photo"


def test_a_compressed_archive_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    path = _pack(tmp_path / "photos.tar.gz", {"1.jpg": bytes(2**24)})
    began = time.process_time()
    with pytest.raises(SourceError, match="more than 300 times its size"):
        _photos(path).list(recursive=True)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_headers_without_end_are_not_kept_in_memory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photos.{suffix}"
    with tarfile.open(path, "w:gz" if suffix == "tar.gz" else "w") as packed:
        entry = _entry("x", tarfile.GNUTYPE_LONGNAME)
        entry.size = 2**21
        packed.addfile(entry, io.BytesIO(os.urandom(2**21)))
    with pytest.raises(SourceError, match="a header of more than"):
        _photos(path).list(recursive=True)


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _bent(data: bytes) -> bytes:
    """With the header of the second file damaged."""
    at = data.index(b"./2.jpg")
    return data[: at + 100] + b"????" + data[at + 104 :]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("photos.zip", _cut),
        ("photos.tar", _cut),
        ("photos.tar", _bent),
        ("photos.tar.gz", _cut),
        ("photos.tar.gz", lambda _: b"no archive"),
        ("photos.zip", lambda _: b"no archive"),
        ("photos.tar", lambda _: b"no archive"),
        ("photos.tar", lambda _: b""),
    ],
)
def test_a_damaged_archive_is_told_and_loses_no_photo_silently(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    files = {f"{number}.jpg": os.urandom(9000) for number in range(4)}
    path = _pack(tmp_path / name, files)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError, match=r"cannot be read \(.*Copy it again, or pack it again"):
        _photos(path).list(recursive=True)


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz"])
def test_a_missing_archive_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=rf"{name} does not exist\. Point FRUITS_SOURCE at"):
        _photos(tmp_path / name).list(recursive=True)


def test_a_pipe_that_is_named_like_an_archive_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photos.zip")
    with pytest.raises(SourceError, match="not a regular file"):
        _photos(tmp_path / "photos.zip").list(recursive=True)


def test_a_folder_may_be_named_like_an_archive(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").mkdir()
    (tmp_path / "photos.zip" / "1.jpg").write_bytes(b"photo")
    assert _photos(tmp_path / "photos.zip").list(recursive=True).rows == 1


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz"])
def test_of_two_entries_of_one_name_the_last_counts(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    _pack(path, {"1.jpg": b"old", "2.jpg": b"new"})
    if path.suffix == ".zip":
        path.write_bytes(path.read_bytes().replace(b"2.jpg", b"1.jpg"))
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as packed:
            for content in (b"old", b"new"):
                entry = _entry("1.jpg")
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))
    photos = _photos(path)
    listing = photos.list(recursive=True)
    (row,) = listing.files.to_pylist()
    assert listing.repeated == 1
    assert photos.read(row) == b"new"


def _nothing() -> Any:
    return open(os.devnull)  # noqa: PTH123 - a context


def test_nothing_is_unpacked_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for name in ("photos.zip", "photos.tar", "photos.tar.gz"):
        _pack(place / name, FILES)
    before = sorted(place.iterdir())
    monkeypatch.chdir(place)
    for path in before:
        photos = _photos(path)
        assert [read() for read in photos.fetch(photos.list(recursive=True).files.to_pylist())]
    assert sorted(place.iterdir()) == before


def test_nothing_is_erased_from_an_archive(tmp_path: Path) -> None:
    photos = _photos(_pack(tmp_path / "photos.zip", FILES))
    assert "Put an archive without these photos in its place" in str(photos.not_erasable)
    with pytest.raises(SourceError, match=r"1 photos cannot be erased: .* is an archive"):
        photos.erase(["4.jpg"])
