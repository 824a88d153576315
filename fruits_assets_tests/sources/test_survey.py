"""The report says what there is in a source, and what is odd about it, with examples."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from fruits_assets.sources.places import photos_at
from fruits_assets.sources.survey import ACCEPTED, Cell, Surveyed, extension, report, survey
from fruits_assets.storage.places import folder_at


def _tables(files: list[Surveyed]) -> dict[str, list[tuple[Cell, ...]]]:
    return {it.title: list(it.rows) for it in report(files, {"@eaDir": 2, ".xml": 3})}


def _photo(split: str, label: str | None, name: str, digest: str, size: int = 1) -> Surveyed:
    path = f"{split}/{label}/{name}"
    return Surveyed(path, size, split, label, "JPEG", ACCEPTED, digest, size / 10)


def test_a_report_says_what_there_is_and_what_is_odd() -> None:
    files = [
        _photo("Training", "Apple", "1.jpg", "a", 5),
        _photo("Training", "Apple", "2.jpg", "a", 4),
        _photo("Training", "Apple", "3.jpg", "b", 9_000_000),
        _photo("Test", "apple", "4.jpg", "b"),
        _photo("Test", None, "5\\6.jpg", "c"),
        Surveyed("Test/notes.pdf", 10, "Test", None, ".pdf", "not_an_image"),
    ]
    found = _tables(files)
    assert found["Files"] == [
        ("JPEG", "accepted", 5, "Training/Apple/1.jpg"),
        (".pdf", "not_an_image", 1, "Test/notes.pdf"),
        (".xml", "passed over", 3, ""),
        ("@eaDir", "passed over", 2, ""),
    ]
    assert found["Splits"] == [
        ("Test", 2, 2, "no label (1)"),
        ("Training", 3, 1, "Apple (3)"),
    ]
    assert found["Odd"] == [
        ("Test and Training share no class", "apple"),
        ("1 classes are only in Test", "apple"),
        ("1 classes are only in Training", "Apple"),
        ("names of classes are nearly equal", "Apple, apple"),
        ("1 classes have one photo: no other can recognise it", "apple"),
        ("1 photos have no label", "Test/None/5\\6.jpg"),
        ("1 names hold backslashes, as of a zip file made on Windows", "Test/None/5\\6.jpg"),
    ]
    assert found["Copies"] == [
        ("across splits", 2, "Training/Apple/3.jpg = Test/apple/4.jpg"),
        ("within a split", 2, "Training/Apple/1.jpg = Training/Apple/2.jpg"),
    ]
    assert found["Largest"][0] == ("Training/Apple/3.jpg", "JPEG", 9.0)
    assert found["Slowest"][0] == ("Training/Apple/3.jpg", "JPEG", 900_000)


def test_a_folder_that_is_there_twice_is_odd() -> None:
    files = [
        _photo(folder, "Apple", f"{number}.jpg", str(number))
        for folder in ("Training", "copy/Training")
        for number in range(3)
    ]
    odd = ("a folder is there twice", "3 photos of the source lie in copy too")
    assert odd in _tables(files)["Odd"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("a/1.JPG", ".jpg"), ("a.b/1", "no extension"), (".x", "no extension"), ("1.tar.gz", ".gz")],
)
def test_other_files_are_told_apart_by_their_extension(path: str, kind: str) -> None:
    assert extension(path) == kind


def test_files_are_examined_as_a_run_does(tmp_path: Path) -> None:
    (tmp_path / "Apple").mkdir()
    Image.new("RGB", (30, 30), "red").save(tmp_path / "Apple" / "1.jpg")
    Image.new("RGB", (300, 300), "red").save(tmp_path / "Apple" / "2.png")
    (tmp_path / "Apple" / "3.jpg").write_bytes(bytes(2000))
    (tmp_path / "Apple" / "4.jpg").write_text("no photo")
    (tmp_path / "Apple" / "5.jpg").symlink_to("nowhere")
    shutil.copy(tmp_path / "Apple" / "1.jpg", tmp_path / "Apple" / "6.jpg")
    photos = photos_at(folder_at(str(tmp_path)))
    rows = photos.list(recursive=True).files.to_pylist()
    (tmp_path / "Apple" / "6.jpg").unlink()
    limits = {"max_pixels": 10_000, "max_bytes": 1999, "max_seconds": 30.0}
    found = list(survey(photos, rows, **limits))
    assert [(it.path[6:], it.kind, it.outcome) for it in found] == [
        ("1.jpg", "JPEG", ACCEPTED),
        ("2.png", ".png", "too_large"),
        ("3.jpg", ".jpg", "too_large"),
        ("4.jpg", ".jpg", "not_an_image"),
        ("5.jpg", ".jpg", "unreadable"),
        ("6.jpg", ".jpg", "unreadable"),
    ]
    assert {it.label for it in found} == {"Apple"}
    assert [it.sha256 is not None for it in found] == [True] + [False] * 5
    assert [it.seconds is not None for it in found] == [True, True, False, True, False, False]
