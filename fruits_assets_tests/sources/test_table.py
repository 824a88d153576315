"""Photos that a table lists: nothing else is read, and nothing outside of its folder."""

import os
from pathlib import Path

import pytest

from fruits_assets.core.errors import SourceError
from fruits_assets.sources.places import photos_at
from fruits_assets.sources.store import PhotoStore
from fruits_assets.sources.table import LEAVES
from fruits_assets.sources.walk import LEADS_OUT
from fruits_assets.storage.places import folder_at

CSV = "path,label,split\na/1.jpg,Apple,train\nb/2.jpg,Pêche,Test Set\n./c.jpg,,\n"
JSONL = """{"path": "a/1.jpg", "label": "Apple", "split": "train"}
{"path": "b/2.jpg", "label": "Pe\u0302che", "split": "TEST", "more": 1}

{"path": "c.jpg", "label": null}
"""


def _photos(folder: Path, name: str, text: str | bytes) -> PhotoStore:
    for path in ("a/1.jpg", "b/2.jpg", "c.jpg", "not listed.jpg"):
        (folder / path).parent.mkdir(exist_ok=True, parents=True)
        (folder / path).write_bytes(path.encode())
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return photos_at(folder_at(str(folder / name)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("photos.csv", CSV),
        ("photos.CSV", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("photos.csv", CSV.replace(",", ";")),
        ("photos.tsv", CSV.replace(",", "\t")),
        ("photos.csv", CSV.replace("path,label,split", "Path , LABEL,split")),
        ("photos.csv", CSV.replace("a/1.jpg", "a\\1.jpg")),
        ("photos.csv", CSV.replace("a/1.jpg,Apple", '"a/1.jpg"," Apple "')),
        ("photos.jsonl", JSONL),
        ("photos.ndjson", "\ufeff" + JSONL),
    ],
)
def test_a_table_says_which_photos_there_are_and_what_they_show(
    tmp_path: Path, name: str, text: str
) -> None:
    photos = _photos(tmp_path, name, text)
    rows = photos.list(recursive=True).files.to_pylist()
    assert [(row["path"], row["split"], row["label"]) for row in rows] == [
        ("a/1.jpg", "Training", "Apple"),
        ("b/2.jpg", "Test", "Pêche"),
        ("c.jpg", None, None),
    ]
    assert [read() for read in photos.fetch(rows)] == [row["path"].encode() for row in rows]


def test_the_version_changes_with_a_label(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(b"photo")
    versions = set()
    for label in ("Apple", "Pear"):
        (tmp_path / "t.csv").write_text(f"path,label\n1.jpg,{label}\n2.jpg,Lime\n")
        versions.add(photos_at(folder_at(str(tmp_path / "t.csv"))).list(recursive=True).version)
    assert len(versions) == 2


@pytest.mark.parametrize("path", ["../out.jpg", "/etc/passwd", "a/../../out.jpg", "..\\out.jpg"])
def test_a_path_that_leaves_the_folder_of_the_table_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "out.jpg").write_bytes(b"secret")
    photos = _photos(tmp_path / "in", "t.csv", f"path,label\n{path},Apple\nc.jpg,Lime\n")
    rows = photos.list(recursive=True).files.to_pylist()
    found = sorted((row["path"], row["problem"]) for row in rows)
    assert found == [(path, LEAVES), ("c.jpg", None)]
    assert photos.erase([path]) == 0
    assert (tmp_path / "out.jpg").is_file()


def test_a_link_that_leaves_the_folder_is_refused_and_one_inside_is_read(tmp_path: Path) -> None:
    (tmp_path / "out.jpg").write_bytes(b"secret")
    text = "path,label\nout.jpg,A\nin.jpg,A\nfolder/1.jpg,A\nmissing.jpg,A\na,A\npipe,A\n"
    photos = _photos(tmp_path / "in", "t.csv", text)
    (tmp_path / "in" / "out.jpg").symlink_to("../out.jpg")
    (tmp_path / "in" / "in.jpg").symlink_to("c.jpg")
    (tmp_path / "in" / "folder").symlink_to("a")
    os.mkfifo(tmp_path / "in" / "pipe")
    rows = {row["path"]: row for row in photos.list(recursive=True).files.to_pylist()}
    assert {path: row["problem"] for path, row in rows.items()} == {
        "out.jpg": LEADS_OUT,
        "in.jpg": None,
        "folder/1.jpg": None,
        "missing.jpg": "No such file or directory",
        **dict.fromkeys(("a", "pipe"), "it is not a regular file (a pipe, a socket or a device)"),
    }
    assert [photos.read(rows[path]) for path in ("in.jpg", "folder/1.jpg")] == [
        b"c.jpg",
        b"a/1.jpg",
    ]
    with pytest.raises(OSError, match="leads out of the source"):
        photos.read({**rows["out.jpg"], "problem": None})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "file,label\n1.jpg,A\n", "line 1 .* does not name the columns"),
        ("t.csv", "", "line 1 .* does not name the columns"),
        ("t.csv", "path,label\n,A\n", "line 2 .* names no path"),
        ("t.csv", 'path,label\n"1.jpg,A\n', "is not CSV"),
        ("t.csv", "path,label,split\n1.jpg,A,fold 1\n", "names the split 'fold 1', not Training"),
        ("t.csv", "path,label\n1.jpg,A\n1.jpg,B\n", "line 3 .* names a photo again, with another"),
        ("t.csv", "path,label\n".encode("utf-16"), "is not written in UTF-8"),
        ("t.jsonl", '{"path": "1.jpg"\n', "line 1 .* is not JSON"),
        ("t.jsonl", "\n[1]\n", "line 2 .* is not a JSON object"),
        ("t.jsonl", '{"path": 1, "label": "A"}', "holds a value that is not a text"),
        ("t.jsonl", '{"path": "\\ud800", "label": "A"}', "holds letters that UTF-8 has not"),
        ("t.jsonl", '{"label": "A"}', "names no path"),
        ("t.jsonl", "[" * 100_000, "is not JSON"),
        ("t.csv", "path,label\n", "holds no file"),
    ],
)
def test_a_table_that_is_not_one_is_told(
    tmp_path: Path, name: str, text: str | bytes, words: str
) -> None:
    with pytest.raises(SourceError, match=words):
        _photos(tmp_path, name, text).list(recursive=True)


@pytest.mark.parametrize(
    ("name", "text", "left"),
    [
        ("t.csv", CSV, "path,label,split\nb/2.jpg,Pêche,Test Set\n./c.jpg,,\n"),
        ("t.csv", 'path,label\r\na/1.jpg,"two\r\nlines"\r\nc.jpg,A', "path,label\r\nc.jpg,A"),
        ("t.jsonl", JSONL, JSONL.partition("\n")[2]),
    ],
)
def test_an_erasure_removes_the_photo_and_its_line(
    tmp_path: Path, name: str, text: str, left: str
) -> None:
    photos = _photos(tmp_path, name, text)
    assert photos.not_erasable is None
    assert photos.erase(["a/1.jpg"]) == 1
    assert not (tmp_path / "a/1.jpg").exists()
    assert (tmp_path / name).read_bytes() == left.encode()
    assert "a/1.jpg" not in photos.list(recursive=True).files["path"].to_pylist()
    assert photos.erase(["a/1.jpg"]) == 0
    assert (tmp_path / "not listed.jpg").is_file()
