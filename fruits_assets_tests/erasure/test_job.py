"""Nothing of an erased image is left, and everything else is."""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pyspark.sql import SparkSession

from fruits_assets.checks import CHECKS
from fruits_assets.core.errors import LakeError
from fruits_assets.erasure.job import _Erasure
from fruits_assets.erasure.proof import Search
from fruits_assets.lake import lease
from fruits_assets.lake.lake import Lake
from fruits_assets.sources.folder import FolderPhotos
from fruits_assets.storage.folder import LocalStorage
from fruits_assets_tests.conftest import Pipeline, draw_no_pictures, failure, made_once
from fruits_assets_tests.erasure.traces import erase, evidence, files_of, rows_of, traces
from fruits_assets_tests.stand_ins import hand_over

REBUILT = ("raw_images", "rejected_images", "features", "pca_model", "pca_features")
WITH_RAW = {"_listing", "_thumbnails", "_classes"}
TABLES = {*REBUILT, *WITH_RAW, "unreadable_photos", "_moments", "_map", "_cells", "model_weights"}
"""What is left of a lake after an erasure."""
ERASED = "Training/Banana/1.jpg"


INGEST = ("raw_images", "rejected_images")


@pytest.fixture
def ingested(own: Pipeline) -> Pipeline:
    """The same lake before there are features: an erasure has less to make again."""
    for name in set(own.lake.tables()) - {*INGEST, *WITH_RAW, "model_weights"}:
        shutil.rmtree(Path(own.lake.base, name))
    return own


@pytest.fixture(scope="session")
def _erased_home(
    tmp_path_factory: pytest.TempPathFactory, _finished_home: Path, photos: Path, worker_id: str
) -> Path:
    """A folder with a source and its lake, from which an erasure has taken `ERASED`."""

    def make(folder: Path) -> None:
        shutil.copytree(photos, folder / "photos")
        shutil.copytree(_finished_home / "lake", folder / "lake")
        own = Pipeline(Lake.at(str(folder / "lake")), folder / "photos")
        assert erase(own, paths=[ERASED]).success

    return made_once(tmp_path_factory, worker_id, "erased", make)


@pytest.fixture
def erased(_erased_home: Path, tmp_path: Path) -> Pipeline:
    """`own` after an erasure of `ERASED`."""
    shutil.copytree(_erased_home, tmp_path / "erased")
    return Pipeline(Lake.at(str(tmp_path / "erased" / "lake")), tmp_path / "erased" / "photos")


def test_no_byte_of_an_erased_image_is_left(own: Pipeline):
    # An older version of everything, which holds the image too.
    assert own.run("features*", config={"features": {"force": True}}).success
    path = "Training/Banana/1.jpg"
    texts, blobs = evidence(own.lake, path)
    assert len(traces(files_of(own.lake), texts=texts, blobs=blobs)) > 8, "the search finds nothing"
    others = {
        row["path"]: row["features"] for row in rows_of(own.lake, "features", "path", "features")
    }

    result = erase(own, paths=[path])

    assert result.success
    assert traces(files_of(own.lake), texts=texts, blobs=blobs) == []
    assert not (own.source / path).exists()
    del others[path]
    assert {
        row["path"]: row["features"] for row in rows_of(own.lake, "features", "path", "features")
    } == others
    for asset in ("raw_images", "features", "pca_features"):
        assert own.lake.current(asset).rows == 89
    assert set(own.lake.tables()) == TABLES
    (record,) = Path(own.lake.base, "erasures").iterdir()
    found = json.loads(record.read_bytes())
    assert (found["images_erased"], found["source_files_erased"]) == (1, 1)
    assert found["asked_for"] == {"paths": 1, "sha256": 0, "labels": 0}
    assert not list(Path(own.lake.base, "locks").iterdir())


@pytest.mark.slow
def test_no_thumbnail_of_an_erased_image_is_left(own: Pipeline):
    assert hand_over(own).success
    path = "Training/Banana/1.jpg"
    assert Path(own.lake.base, "deliverables", "sheet-000.jpg").exists()
    assert traces(files_of(own.lake), texts=[f'"{path}"'], blobs=[])

    assert erase(own, paths=[path]).success

    assert set(own.lake.tables()) == TABLES
    assert not list(Path(own.lake.base, "deliverables").iterdir())
    assert traces(files_of(own.lake), texts=[path], blobs=[]) == []
    assert own.run().success
    assert hand_over(own).success
    assert own.lake.current("gallery").figures["photos"] == 89
    assert traces(files_of(own.lake), texts=[path], blobs=[]) == []


def test_the_next_run_finds_what_an_erasure_left(erased: Pipeline):
    before = {asset: erased.lake.current(asset).version for asset in REBUILT}
    assert erased.run().success
    assert {asset: erased.lake.current(asset).version for asset in REBUILT} == before
    assert erased.lake.current("features").figures["inferences"] == 0


def test_an_erasure_leaves_what_a_run_without_the_image_would_give(own: Pipeline, tmp_path: Path):
    fresh = Pipeline(Lake.at(str(tmp_path / "fresh")), own.source)
    shutil.copytree(Path(own.lake.base, "model_weights"), Path(fresh.lake.base, "model_weights"))
    assert erase(own, labels=["Banana"]).success
    assert fresh.run().success
    for asset, columns in {
        "raw_images": ["path", "split", "label", "sha256", "content", "modified_at"],
        "rejected_images": ["path"],
        "features": ["path", "split", "label", "sha256", "features"],
        "pca_features": ["path", "components"],
    }.items():
        one, other = (lake.current(asset) for lake in (own.lake, fresh.lake))
        assert one.version == other.version
        assert one.arrow(columns).sort_by("path").equals(other.arrow(columns).sort_by("path"))
        for name in ("images", "files_found", "classes", "formats", "splits"):
            assert one.figures.get(name) == other.figures.get(name)


def test_what_has_the_same_content_is_erased_too(ingested: Pipeline):
    copy = ingested.source / "Training" / "Apple" / "copy.jpg"
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(ingested.source / "Training" / "Banana" / "1.jpg", copy)
    assert ingested.run(*INGEST).success
    assert erase(ingested, paths=["Training/Banana/1.jpg"]).success
    left = {row["path"] for row in rows_of(ingested.lake, "raw_images", "path")}
    assert len(left) == 89
    assert not {"Training/Banana/1.jpg", "Training/Apple/copy.jpg"} & left
    assert not copy.exists()


def test_erasure_by_hash_and_of_a_rejected_file(own: Pipeline):
    broken = own.source / "Training" / "Banana" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no photo, but a name")
    assert own.run().success
    (row,) = rows_of(own.lake, "rejected_images", "path", "sha256")
    assert erase(own, sha256=[row["sha256"].upper()]).success
    assert rows_of(own.lake, "rejected_images", "path") == []
    assert own.lake.current("features").rows == 90
    assert not broken.exists()
    assert traces(files_of(own.lake), texts=["broken.jpg", row["sha256"]], blobs=[]) == []


def test_the_source_can_be_kept(ingested: Pipeline):
    assert erase(ingested, paths=["Test/Banana/1.jpg"], keep_source=True).success
    assert (ingested.source / "Test" / "Banana" / "1.jpg").exists()
    assert ingested.lake.current("raw_images").rows == 89
    assert ingested.run(*INGEST).success
    assert ingested.lake.current("raw_images").rows == 90


def test_what_only_an_older_version_holds_is_erased(own: Pipeline):
    path = "Test/Banana/1.jpg"
    texts, blobs = evidence(own.lake, path)
    (own.source / path).unlink()
    assert own.run().success
    assert traces(files_of(own.lake), texts=texts, blobs=blobs)
    assert erase(own, paths=[path]).success
    assert traces(files_of(own.lake), texts=texts, blobs=blobs) == []
    assert own.lake.current("pca_features").rows == 89


@pytest.mark.parametrize("path", ["Training/Banana/1.jpg", "gone.jpg"])
def test_features_of_other_images_are_unpublished_not_passed_off_as_whole(own: Pipeline, path: str):
    shutil.copy(own.source / "Test" / "Banana" / "1.jpg", own.source / "new.jpg")
    assert own.run(*INGEST).success
    (own.source / "gone.jpg").write_bytes(b"not a photo, and no run has seen it")
    assert erase(own, paths=[path]).success
    assert set(own.lake.tables()) == {*INGEST, "model_weights", *WITH_RAW}
    assert own.run(*INGEST, "features").success
    assert own.lake.current("features").rows == 90 + (path == "gone.jpg")


def test_the_last_images_can_be_erased(own: Pipeline):
    labels = {row["label"] for row in rows_of(own.lake, "raw_images", "label")}
    assert erase(own, labels=sorted(labels)).success
    assert own.lake.tables() == ["model_weights"]
    assert not [file for file in own.source.rglob("*") if file.is_file()]


def test_a_pca_that_is_not_possible_any_more_is_unpublished(own: Pipeline):
    kept = rows_of(own.lake, "raw_images", "path", "sha256")[0]
    paths = [
        row["path"]
        for row in rows_of(own.lake, "raw_images", "path")
        if row["path"] != kept["path"]
    ]
    assert erase(own, paths=paths).success
    assert set(own.lake.tables()) == TABLES - {
        "pca_model",
        "_moments",
        "pca_features",
        "_map",
        "_cells",
    }


def test_an_erasure_that_names_nothing_is_refused(own: Pipeline):
    assert "nothing is named to be erased" in failure(erase(own))


STEPS = [
    "_refitted",
    # Less is done, or as much as in `test_another_erasure_finishes_an_interrupted_one_too`.
    pytest.param("_made", marks=pytest.mark.slow),
    pytest.param("_purge", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("step", STEPS)
def test_an_erasure_that_was_interrupted_is_finished_by_repeating_it(
    own: Pipeline, monkeypatch: pytest.MonkeyPatch, step: str
):
    path = "Training/Banana/1.jpg"
    texts, blobs = evidence(own.lake, path)
    with monkeypatch.context() as patch:
        patch.setattr(_Erasure, step, _killed)
        assert not erase(own, paths=[path]).success
    assert (own.source / path).exists(), "the source comes last"
    assert path.encode() in Path(own.lake.base, "erasures", "journal.json").read_bytes()
    assert erase(own, paths=[path]).success
    assert traces(files_of(own.lake), texts=texts, blobs=blobs) == []
    assert not (own.source / path).exists()
    assert set(own.lake.tables()) == TABLES


def _killed(*_: Any, **__: Any) -> None:
    raise RuntimeError("killed")


def test_names_that_the_journal_knows_count_as_matched(
    ingested: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """All is gone already, and only the proof was not done."""
    with monkeypatch.context() as patch:
        patch.setattr(Search, "check", _killed)
        assert not erase(ingested, paths=["Training/Banana/1.jpg"]).success
    assert not (ingested.source / "Training/Banana/1.jpg").exists()
    assert erase(ingested, paths=["Training/Banana/1.jpg"]).success
    assert not Path(ingested.lake.base, "erasures", "journal.json").exists()


@pytest.mark.slow
def test_another_erasure_finishes_an_interrupted_one_too(
    own: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    paths = ["Training/Banana/1.jpg", "Training/Banana/2.jpg"]
    sought = [evidence(own.lake, path) for path in paths]
    with monkeypatch.context() as patch:
        patch.setattr(_Erasure, "_purge", _killed)
        assert not erase(own, paths=paths[:1]).success
    assert (own.source / paths[0]).exists(), "the source comes last"
    assert erase(own, paths=paths[1:]).success
    for path, (texts, blobs) in zip(paths, sought, strict=True):
        assert traces(files_of(own.lake), texts=texts, blobs=blobs) == []
        assert not (own.source / path).exists()
    assert set(own.lake.tables()) == TABLES


def test_a_lake_that_cannot_be_written_leaves_the_source_alone(
    own: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any, **__: Any) -> None:
        raise LakeError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "create", full)
        assert "no space left" in failure(erase(own, paths=["Training/Banana/1.jpg"]))
    assert (own.source / "Training/Banana/1.jpg").exists()
    assert own.lake.current("raw_images").rows == 90


def test_files_of_others_in_the_lake_stay(own: Pipeline, tmp_path: Path):
    foreign = ["thesis.tex", "raw_images/notes.txt", "features/part-mine.parquet", "other/a.jpg"]
    foreign += ["deliverables/mine.txt", "raw_images/deep/part.parquet"]
    for name in foreign:
        Path(own.lake.base, name).parent.mkdir(exist_ok=True)
        Path(own.lake.base, name).write_text("not of this project")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / _a_part(own.lake, "raw_images")).write_text("not of this project")
    Path(own.lake.base, "raw_images", "link").symlink_to(outside)
    assert hand_over(own).success
    assert erase(own, paths=["Training/Banana/1.jpg"]).success
    for name in foreign:
        assert Path(own.lake.base, name).read_text() == "not of this project"
    assert len(list(outside.iterdir())) == 1


def _a_part(lake: Lake, name: str) -> str:
    return lake.current(name).files[0].name


def test_a_table_that_is_a_link_is_refused(own: Pipeline, tmp_path: Path):
    shutil.move(Path(own.lake.base, "features"), tmp_path / "disk")
    Path(own.lake.base, "features").symlink_to(tmp_path / "disk")
    found = failure(erase(own, paths=["Training/Banana/1.jpg"]))
    assert "features is a symbolic link" in found
    assert (own.source / "Training/Banana/1.jpg").exists()
    assert own.lake.current("raw_images").rows == 90


def test_an_erasure_that_leaves_something_says_so(
    ingested: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A note of somebody else in the lake, and what a notebook and Spark keep on this machine."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = "Training/Banana/1.jpg"
    places = ["lake/notes.txt", "fruits-notebook-x/lake/part.bin", "fruits-spark-12345678/blocks/1"]
    left = [tmp_path / place for place in places]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"see " + path.encode() + b", which is bad")
    found = failure(erase(ingested, paths=[path]))
    assert "the erasure is not complete. It was found again in 3 files" in found
    for file in left:
        assert str(file) in found
        assert file.exists(), "it is not ours to remove"
        file.unlink()
    assert erase(ingested, paths=[path]).success


def test_only_parts_that_hold_an_erased_row_are_rewritten(own: Pipeline, erased: Pipeline):
    for name in ("raw_images", "features"):
        before, after = (set(one.lake.current(name).by_name) for one in (own, erased))
        assert len(before - after) == 1, name
        assert len(before) > 1


def test_dagster_forgets_what_older_runs_showed(
    own: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    draw_no_pictures(monkeypatch)
    storage = tmp_path / "dagster"
    storage.mkdir()
    with dg.DagsterInstance.local_temp(str(storage)) as instance:
        (own.source / "unlabelled secret.jpg").write_bytes(b"no photo")
        shutil.copy(own.source / "Test" / "Banana" / "1.jpg", own.source / "secret name.jpg")
        assert replace(own, checks=CHECKS).run(*INGEST, instance=instance).success
        assert b"secret name" in _database(storage)
        assert erase(own, instance, sha256=[_hash(own, "secret name.jpg")]).success
        assert b"secret name" not in _database(storage)
        (event,) = instance.fetch_materializations(dg.AssetKey("raw_images"), limit=9).records
        assert event.asset_materialization
        assert event.asset_materialization.metadata["dagster/row_count"].value == 89


def _hash(pipeline: Pipeline, path: str) -> str:
    return next(
        row["sha256"]
        for row in rows_of(pipeline.lake, "raw_images", "path", "sha256")
        if row["path"] == path
    )


def _database(storage: Path) -> bytes:
    return b"".join(file.read_bytes() for file in storage.rglob("*") if file.is_file())


def test_an_erasure_waits_for_other_runs(own: Pipeline):
    with lease.shared(own.lake.folder, "a run"):
        found = failure(erase(own, paths=["Training/Banana/1.jpg"]))
    assert "another run is at work in this lake (a run)" in found
    assert (own.source / "Training" / "Banana" / "1.jpg").exists()
    assert own.lake.current("raw_images").rows == 90


def test_a_run_that_was_killed_holds_up_no_erasure_for_long(
    ingested: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(lease, "FREE_SECONDS", 0.0)
        killed = lease.shared(ingested.lake.folder, "a run that is killed now")
        killed.__enter__()
    assert list(Path(ingested.lake.base, "locks").iterdir())
    assert erase(ingested, paths=["Training/Banana/1.jpg"]).success


def test_no_run_begins_during_an_erasure(ingested: Pipeline, monkeypatch: pytest.MonkeyPatch):
    """Such a run might read what is erased, and would publish it again."""
    erase_files, said = FolderPhotos.erase, []

    def erase_while_a_run_begins(self: FolderPhotos, paths: list[str]) -> int:
        shutil.copy(ingested.source / "Test" / "Banana" / "1.jpg", ingested.source / "new.jpg")
        said.append(failure(ingested.run(*INGEST)))
        return erase_files(self, paths)

    monkeypatch.setattr(FolderPhotos, "erase", erase_while_a_run_begins)
    assert erase(ingested, paths=["Training/Banana/1.jpg"]).success
    assert "an erasure or a repair is at work in this lake" in said[0]
    assert ingested.lake.current("raw_images").rows == 89


@pytest.mark.parametrize("lake", [".", "photos", "photos/deep/lake", "link/lake", "photos/.."])
def test_a_lake_that_overlaps_its_source_is_refused_before_anything_is_written(
    photos: Path, session: SparkSession, tmp_path: Path, lake: str
):
    """An erasure removes whatever its lake holds and does not need: all other photos, too."""
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "link").symlink_to("photos")
    (tmp_path / "thesis.tex").write_text("not of this project")
    before = sorted(tmp_path.rglob("*"))
    nested = Pipeline(Lake.at(f"{tmp_path}/{lake}"), tmp_path / "photos")
    for result in (
        nested.run(*INGEST),
        erase(nested, paths=["Training/Banana/1.jpg"]),
    ):
        assert not result.success
        told = [str(it.event_specific_data) for it in result.all_events if it.is_failure]
        assert "overlap" in told[0]
        assert "Set FRUITS_LAKE" in told[0]
    assert sorted(tmp_path.rglob("*")) == before
