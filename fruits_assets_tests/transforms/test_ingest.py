"""Ingest: every file of the source in exactly one table, photos as they were found."""

import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from fruits_assets.lake.lake import Lake
from fruits_assets.sources.folder import FolderPhotos
from fruits_assets.sources.listing import Listing
from fruits_assets.sources.walk import LEADS_OUT
from fruits_assets.storage.base import Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.transforms import ingest
from fruits_assets_tests.conftest import REPOSITORY, Pipeline, failure

INGEST = ("raw_images", "rejected_images")


def test_the_messy_corpus_gives_exactly_what_is_expected(pipeline: Pipeline, shared_data: Path):
    own = Pipeline(pipeline.lake, shared_data / "messy" / "photos")
    assert own.run(*INGEST, config={"ingest": {"max_rejected": 0.5}}).success
    raw = own.lake.current("raw_images").arrow(["path", "format", "width", "height"]).to_pylist()
    rejected = own.lake.current("rejected_images").arrow(["path", "reason"]).to_pylist()
    found = {
        **{row["path"]: ("accept", row["format"], row["width"], row["height"]) for row in raw},
        **{row["path"]: ("reject", row["reason"], None, None) for row in rejected},
    }
    with (shared_data / "messy" / "expected.csv").open() as file:
        expected = {row["file"]: row for row in csv.DictReader(file)}
    assert found.keys() == expected.keys()
    assert len(raw) + len(rejected) == len(expected)
    for path, (outcome, kind, width, height) in found.items():
        row = expected[path]
        assert outcome == row["outcome"], path
        assert kind in row["format_or_reason"].split("|"), path
        if outcome == "accept":
            assert (width, height) == (int(row["width"]), int(row["height"])), path


def test_rows_say_what_was_found(pipeline: Pipeline, tmp_path: Path):
    photo = tmp_path / "photos" / "deep" / "Training" / "Apple Red" / "1.jpg"
    photo.parent.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 24.0)
    picture = Image.effect_noise((60, 40), 80).convert("RGB")
    picture.save(photo, exif=exif, comment=b"taken at home")
    os.utime(photo, (1_700_000_000, 1_700_000_000))
    own = Pipeline(pipeline.lake, tmp_path / "photos")
    assert own.run(*INGEST).success
    raw = own.lake.current("raw_images")
    (row,) = raw.arrow(raw.schema.names).to_pylist()
    assert list(row) == ingest.RAW_SCHEMA.names
    content = row.pop("content")
    data = photo.read_bytes()
    assert row.pop("modified_at").timestamp() == 1_700_000_000
    assert row == {
        "path": "deep/Training/Apple Red/1.jpg",
        "split": "Training",
        "label": "Apple Red",
        "sha256": hashlib.sha256(data).hexdigest(),
        "content_sha256": hashlib.sha256(content).hexdigest(),
        "format": "JPEG",
        "width": 40,
        "height": 60,
        "orientation": 6,
        "bytes": len(data),
    }
    kept = Image.open(io.BytesIO(content))
    assert not kept.getexif()
    assert b"taken at home" not in content
    np.testing.assert_array_equal(np.asarray(kept), np.asarray(Image.open(photo)))


def test_files_that_cannot_be_read_are_rejected(open_folder: Path):
    """As another user than root, who may read everything."""
    source = open_folder / "photos" / "Apple"
    source.mkdir(parents=True)
    for name in ("readable.jpg", "forbidden.jpg"):
        Image.new("RGB", (30, 30), "red").save(source / name)
    (source / "forbidden.jpg").chmod(0)
    os.mkfifo(source / "pipe.jpg")
    (source / "gone.jpg").symlink_to("nowhere.jpg")
    script = textwrap.dedent(f"""
        import os
        from fruits_assets.core.errors import SourceError
        from fruits_assets.sources.places import photos_at
        from fruits_assets.storage.places import folder_at
        from fruits_assets.transforms.ingest import _ingested, _Limits
        photos = photos_at(folder_at({str(source)!r}))
        limits = _Limits(max_pixels=10**6, max_bytes=10**6)
        before = photos.list(recursive=True).files.to_pylist()
        list(_ingested(before[-1:], photos, limits))  # imports what the other user may not
        if os.getuid() == 0:
            os.setuid(65534)
        rows = photos.list(recursive=True).files.to_pylist()
        ((accepted, rejected),) = _ingested(rows, photos, limits)
        print(accepted["path"].to_pylist())
        for row in rejected.to_pylist():
            print(row["path"], row["reason"], row["detail"])
        (lost,) = [{{**row, "problem": None}} for row in rows if row["path"] == "forbidden.jpg"]
        try:
            list(_ingested([lost], photos, limits))
        except SourceError as error:
            print(error)
    """)
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY
    ).stdout
    *lines, last = printed.splitlines()
    assert lines == [
        "['readable.jpg']",
        "forbidden.jpg unreadable this user may not read it (chmod u+r)",
        "gone.jpg unreadable No such file or directory",
        "pipe.jpg unreadable it is not a regular file (a pipe, a socket or a device)",
    ]
    assert "could be read when it was listed" in last


def test_files_over_the_limits_are_rejected_unread(pipeline: Pipeline, tmp_path: Path):
    source = tmp_path / "photos" / "Apple"
    source.mkdir(parents=True)
    Image.new("RGB", (30, 30), "red").save(source / "small.jpg")
    Image.new("RGB", (2000, 1000), "red").save(source / "many pixels.jpg")
    with (source / "many bytes.jpg").open("wb") as file:
        file.truncate(3_000_000)
    own = Pipeline(pipeline.lake, source)
    limits = {"max_rejected": 1.0, "max_megapixels": 1.0, "max_megabytes": 2.0}
    assert own.run(*INGEST, config={"ingest": limits}).success
    rejected = own.lake.current("rejected_images").arrow(["path", "reason", "sha256"]).to_pylist()
    assert [(row["path"], row["reason"]) for row in rejected] == [
        ("many bytes.jpg", "too_large"),
        ("many pixels.jpg", "too_large"),
    ]
    assert rejected[0]["sha256"] is None
    assert rejected[1]["sha256"] == _sha256(source / "many pixels.jpg")


def test_hidden_files_are_passed_over_and_counted(
    pipeline: Pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    source = tmp_path / "photos"
    shutil.copytree(pipeline.source / "Training" / "Banana", source / "Banana")
    (source / ".DS_Store").write_text("x")
    (source / "Banana" / "Thumbs.db").write_text("x")
    (source / ".ipynb_checkpoints").mkdir()
    (source / "link").symlink_to("Banana")
    (source / "Banana" / "hard link.jpg").hardlink_to(min(source.rglob("*.jpg")))
    (source / "out").symlink_to(pipeline.source)
    own = Pipeline(pipeline.lake, source)
    assert own.run(*INGEST, config={"ingest": {"max_rejected": 0.5}}).success
    figures = own.lake.current("raw_images").figures
    assert (figures["hidden_passed_over"], figures["repeated_passed_over"]) == (3, 2)
    assert (figures["files_found"], figures["images"]) == (5, 4)
    rejected = own.lake.current("rejected_images").arrow(["path", "detail"]).to_pylist()
    assert rejected == [{"path": "out", "detail": LEADS_OUT}]
    assert "photos were decoded without access to network, files" in capfd.readouterr().err


FIELD: dict[str, tuple[set[tuple[str | None, str | None]], dict[str, int]]] = {
    "roboflow": (
        {(it, label) for it in ("Training", "Test", "Validation") for label in ("Apple", "Pear")},
        {},
    ),
    "synology": ({("Training", "Apple")}, {"@eaDir": 1, "#recycle": 1, "$RECYCLE.BIN": 1}),
    "sidecars": ({(None, "Apple")}, {".xml": 3, ".json": 3}),
    "windows-zip": ({("Training", "Apple"), ("Test", "Apple")}, {}),
}
"""Tree of photos as they are found -> splits and labels, and what is passed over."""


@pytest.mark.parametrize("tree", FIELD)
def test_photos_are_read_as_people_lay_them_out(pipeline: Pipeline, shared_data: Path, tree: str):
    own = Pipeline(pipeline.lake, shared_data / "field" / "trees" / tree)
    assert own.run(*INGEST).success
    raw = own.lake.current("raw_images")
    places = {(row["split"], row["label"]) for row in raw.arrow(["split", "label"]).to_pylist()}
    expected, passed_over = FIELD[tree]
    assert places == expected
    assert raw.figures["passed_over"] == passed_over
    assert own.lake.current("rejected_images").rows == 0


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "csv"])
def test_archives_and_tables_give_the_rows_of_their_folder(
    pipeline: Pipeline, tmp_path: Path, kind: str
):
    folder = tmp_path / "photos"
    for split in ("Training", "Test"):
        shutil.copytree(pipeline.source / split / "Banana", folder / split / "Banana")
    (folder / "Test" / "Banana" / "bad.jpg").write_text("no photo")
    config = {"ingest": {"max_rejected": 0.5}}
    assert Pipeline(pipeline.lake, folder).run(*INGEST, config=config).success
    expected = _described(pipeline.lake)
    if kind == "csv":
        source = folder / "photos.csv"
        lines = [f"{path},Banana,{path.split('/')[0]}" for path in expected]
        source.write_text("\n".join(["path,label,split", *lines]))
    else:
        source = Path(shutil.make_archive(str(tmp_path / "packed"), kind, folder))
    own = Pipeline(pipeline.lake, source)
    assert own.run(*INGEST, config=config).success
    assert own.lake.current("raw_images").figures["files_read"] == 7
    assert _described(own.lake) == expected


def test_a_rule_for_labels_that_there_is_not_is_refused_where_it_is_typed_in(pipeline: Pipeline):
    with pytest.raises(dg.DagsterInvalidConfigError, match="labels"):
        pipeline.run(*INGEST, config={"ingest": {"labels": "last"}})


def _described(lake: Lake) -> dict[str, tuple[object, ...]]:
    """Path -> what the tables say of it, whatever its time."""
    raw = lake.current("raw_images").arrow(["path", "split", "label", "sha256", "content_sha256"])
    rejected = lake.current("rejected_images").arrow(["path", "reason", "sha256"])
    rows = [*raw.to_pylist(), *rejected.to_pylist()]
    return {row["path"]: tuple(sorted(map(str, row.values()))) for row in rows}


def test_another_rule_for_labels_reads_only_photos_whose_label_it_changes(
    pipeline: Pipeline, tmp_path: Path
):
    source = tmp_path / "photos" / "Training"
    shutil.copytree(pipeline.source / "Training" / "Banana", source / "Banana")
    shutil.copytree(pipeline.source / "Training" / "Lemon", source / "Citrus" / "Lemon")
    own = Pipeline(pipeline.lake, source.parent)
    assert own.run(*INGEST).success
    first = own.lake.current("raw_images")
    assert own.run(*INGEST, config={"ingest": {"labels": "first"}}).success
    second = own.lake.current("raw_images")
    assert second.version != first.version
    assert second.figures["files_read"] == 4
    labels = Counter(second.arrow(["label"])["label"].to_pylist())
    assert labels == {"Banana": 4, "Citrus": 4}


def test_what_workers_lack_to_confine_decoders_is_said_once():
    done = [{"lacking": []}, {"lacking": ["seccomp (no)"]}, {}, {"lacking": ["seccomp (no)"]}]
    assert ingest._confinement(done[:1]).endswith(
        "without access to network, files and other processes"
    )
    assert ingest._confinement(done).endswith("for workers lack seccomp (no)")


def test_an_interrupted_ingest_keeps_the_parts_it_finished(pipeline: Pipeline):
    assert pipeline.run(*INGEST).success
    raw = pipeline.lake.current("raw_images")
    first, *others = [Path(raw.uri, file.name) for file in raw.files]
    kept = {path: path.stat().st_mtime_ns for path in others}
    for name in ingest.TABLES:  # as before the end, when nothing was published yet
        shutil.rmtree(Path(pipeline.lake.base, name, "_delta_log"))
    first.unlink()
    assert pipeline.run(*INGEST).success
    assert pipeline.lake.current("raw_images").files == raw.files
    assert {path: path.stat().st_mtime_ns for path in others} == kept
    assert first.exists()
    assert others, "there was one part only: nothing was proved"


@pytest.mark.parametrize("lost", INGEST)
def test_no_file_is_lost_with_one_of_the_two_parts_of_an_interrupted_run(
    pipeline: Pipeline, tmp_path: Path, lost: str
):
    source = tmp_path / "photos"
    shutil.copytree(min((pipeline.source / "Test").iterdir()), source)
    (source / "notes.txt").write_text("not a photo")
    own = Pipeline(pipeline.lake, source)
    config = {"ingest": {"max_rejected": 0.5}}
    assert own.run(*INGEST, config=config).success
    lake = Path(own.lake.base)
    for table in INGEST:  # as if it had been interrupted before it published
        shutil.rmtree(lake / table / "_delta_log")
    (part,) = (lake / lost).glob("*.parquet")
    part.unlink()
    assert own.run(*INGEST, config=config).success
    assert own.lake.current("rejected_images").rows == 1
    assert own.lake.current("raw_images").rows == 2


def test_files_that_a_failed_run_could_not_read_are_tried_again(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """They are away when their turn comes, too many of them, and then back as they were listed."""
    source = tmp_path / "photos"
    shutil.copytree(pipeline.source / "Test", source)
    own, file = Pipeline(pipeline.lake, source), min(source.rglob("*.jpg"))
    away, listed = file.with_name(f".{file.name}"), FolderPhotos.list

    def list_and_lose(self: FolderPhotos, **how: Any) -> Listing:
        listing = listed(self, **how)
        file.rename(away)
        return listing

    with monkeypatch.context() as patch:
        patch.setattr(FolderPhotos, "list", list_and_lose)
        failed = own.run(*INGEST, config={"ingest": {"max_rejected": 0.01}})
    assert "unreadable (1)" in failure(failed)
    away.rename(file)
    assert own.run(*INGEST, config={"ingest": {"max_rejected": 0.01}}).success
    assert own.lake.current("rejected_images").rows == 0
    assert own.lake.current("raw_images").rows == 30


def test_photos_are_counted_by_class_and_split(finished: tuple[Pipeline, object]):
    raw = finished[0].lake.current("raw_images")
    rows = raw.siblings[ingest.CLASSES].arrow(ingest.CLASSES_SCHEMA.names).to_pylist()
    photos = raw.arrow(["label", "split"]).to_pylist()
    counts = Counter((photo["label"], photo["split"]) for photo in photos)
    assert {(row["label"], row["split"]): row["images"] for row in rows} == counts
    assert len(rows) == len(counts) == 30
    assert raw.figures["classes"] == raw.figures["labelled_classes"] == 15


def test_photos_without_a_label_are_a_class_of_their_own(pipeline: Pipeline, tmp_path: Path):
    source = tmp_path / "photos"
    (source / "Apple").mkdir(parents=True)
    for path in ("a.jpg", "b.jpg", "Apple/c.jpg"):
        Image.new("RGB", (30, 30), "red").save(source / path)
    own = Pipeline(pipeline.lake, source)
    assert own.run(*INGEST).success
    raw = own.lake.current("raw_images")
    rows = raw.siblings[ingest.CLASSES].arrow(ingest.CLASSES_SCHEMA.names).to_pylist()
    assert {(row["label"], row["images"]) for row in rows} == {("Apple", 1), (None, 2)}
    assert (raw.figures["classes"], raw.figures["labelled_classes"]) == (2, 1)


def test_tables_that_have_no_rows_are_published_too(pipeline: Pipeline):
    """They say that nothing was rejected, and when."""
    assert pipeline.run(*INGEST).success
    rejected = pipeline.lake.current("rejected_images")
    assert (rejected.files, rejected.rows) == ((), 0)
    assert rejected.arrow(["path", "reason"]).schema.names == ["path", "reason"]
    assert rejected.figures == {"rejected": 0, "files_found": 90, "reasons": {}}
    assert rejected.version == pipeline.lake.current("raw_images").version


def test_not_recursive_takes_the_top_level_only(pipeline: Pipeline, tmp_path: Path):
    source = tmp_path / "photos"
    (source / "below").mkdir(parents=True)
    for path in ("a.jpg", "below/b.jpg"):
        Image.new("RGB", (30, 30), "red").save(source / path)
    own = Pipeline(pipeline.lake, source)
    assert own.run(*INGEST, config={"ingest": {"recursive": False}}).success
    assert own.lake.current("raw_images").arrow(["path"])["path"].to_pylist() == ["a.jpg"]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_more_parts_than_thumbnails(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    """Where a part gives no thumbnail at all, its photos still go in."""
    monkeypatch.setattr(ingest, "PART_ROWS", 1)
    monkeypatch.setattr(ingest, "MIN_PART_ROWS", 1)
    monkeypatch.setattr(ingest, "MAX_THUMBNAILS", 20)
    own = Pipeline(pipeline.lake, pipeline.source / "Test")
    assert own.run(*INGEST).success
    raw = own.lake.current("raw_images")
    assert len(raw.files) == 30 > ingest.MAX_THUMBNAILS
    thumbnails = raw.siblings[ingest.THUMBNAILS].arrow(ingest.THUMBNAIL_SCHEMA.names).to_pylist()
    assert len(thumbnails) == ingest.MAX_THUMBNAILS
    assert {row["path"] for row in thumbnails} < set(raw.arrow(["path"])["path"].to_pylist())
    for row in thumbnails:
        assert max(Image.open(io.BytesIO(row["jpeg"])).size) == ingest.THUMBNAIL_SIZE


MB = 2**20


@pytest.mark.parametrize(
    ("files", "megabytes", "cores", "expected"),
    [
        (1000, 1, 2, 63),  # enough tasks for all cores
        (100, 1, 8, 32),  # a part has 32 photos, if it can
        (10**8, 10**4, 2, 16_384),  # and at most 16,384
        (1000, 10_000, 2, 6),  # of 10 MB each: 64 MB
        (5, 500, 2, 1),  # larger ones stand alone
        (0, 0, 2, 32),
    ],
)
def test_tasks_are_sized_by_files_bytes_and_cores(
    files: int, megabytes: int, cores: int, expected: int
):
    assert ingest.files_per_task(files, megabytes * MB, cores) == expected


class _Photos(FolderPhotos):
    """Photos of a megabyte each."""

    def fetch(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Callable[[], bytes]]:
        buffer = io.BytesIO()
        Image.effect_noise((1024, 1024), 100).save(buffer, "BMP")
        return iter([buffer.getvalue] * len(rows))


def test_a_part_is_full_with_64_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ingest, "PART_BYTES", 3 * MB)
    rows = [
        {
            "path": f"{i}.bmp",
            "problem": None,
            "bytes": MB,
            "split": None,
            "label": None,
            "modified_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
        for i in range(8)
    ]
    photos = _Photos(Folder(LocalStorage(), str(tmp_path)))
    tables = list(ingest._ingested(rows, photos, ingest._Limits(2 * MB, 2 * MB)))
    assert [raw.num_rows for raw, _ in tables] == [3, 3, 2]
    assert [path for raw, _ in tables for path in raw["path"].to_pylist()] == [
        row["path"] for row in rows
    ]
