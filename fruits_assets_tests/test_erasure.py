"""Nothing of an erased image is left, and everything else is."""

import io
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from fruits_assets.checks import CHECKS
from fruits_assets.core.source import FolderPhotos, photos_at
from fruits_assets.erasure.job import gdpr_erasure
from fruits_assets.lake.lake import Lake
from fruits_assets_tests.conftest import Pipeline, draw_no_pictures, failure
from fruits_assets_tests.stand_ins import hand_over

REBUILT = ("raw_images", "rejected_images", "features", "pca_model", "pca_features")
WITH_RAW = {"_listing", "_thumbnails", "_classes"}
TABLES = {*REBUILT, *WITH_RAW, "unreadable_photos", "_moments", "_map", "model_weights"}
"""What is left of a lake after an erasure."""


@pytest.fixture(scope="module")
def _home(
    tmp_path_factory: pytest.TempPathFactory, photos: Path, session: SparkSession, _model_lake: Path
) -> Path:
    """`start` holds a source and its finished lake, as they were made at `now`."""
    home = tmp_path_factory.mktemp("erasure")
    shutil.copytree(photos, home / "now" / "photos")
    shutil.copytree(_model_lake, home / "now" / "lake")
    own = Pipeline(Lake.at(str(home / "now" / "lake")), home / "now" / "photos")
    assert own.run().success
    (home / "now").rename(home / "start")
    return home


@pytest.fixture
def own(_home: Path) -> Iterator[Pipeline]:
    """A finished run on a source of its own, which may be erased from."""
    now = _home / "now"
    shutil.copytree(_home / "start", now)
    yield Pipeline(Lake.at(str(now / "lake")), now / "photos")
    shutil.rmtree(now)


def erase(
    pipeline: Pipeline, instance: dg.DagsterInstance | None = None, **config: Any
) -> dg.ExecuteInProcessResult:
    return gdpr_erasure.execute_in_process(
        resources={
            name: it for name, it in pipeline.resources.items() if name in ("spark", "source")
        },
        run_config={"ops": {"erase": {"config": config}}},
        instance=instance,
        raise_on_error=False,
    )


def traces(files: Mapping[str, bytes], *, texts: list[str], blobs: list[bytes]) -> list[str]:
    """Files in which something is found, in plain or in a column of a Parquet file."""
    found = []
    for name, content in files.items():
        plain = [content]
        if content.startswith(b"PAR1"):
            table = pq.read_table(io.BytesIO(content))
            for column in table.columns:
                plain += [repr(column.to_pylist()).encode()]
        needles = [text.encode() for text in texts] + blobs
        found += [
            f"{name}: {needle[:40]!r}" for needle in needles if any(needle in one for one in plain)
        ]
    return found


def files_of(lake: Lake) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in Path(lake.base).rglob("*") if file.is_file()}


def evidence(lake: Lake, path: str) -> tuple[list[str], list[bytes]]:
    """What could be left of an image: texts, and bytes of its picture and its features."""
    (raw,) = [
        row for row in _rows(lake, "raw_images", "path", "sha256", "content") if row["path"] == path
    ]
    (vector,) = [
        row["features"]
        for row in _rows(lake, "features", "path", "features")
        if row["path"] == path
    ]
    picture = raw["content"]
    features = np.array(vector, np.float32).tobytes()
    middle = len(picture) // 2
    return [path, raw["sha256"]], [picture[middle : middle + 64], features[:256]]


def _rows(lake: Lake, asset: str, *columns: str) -> list[dict[str, Any]]:
    return lake.current(asset).arrow(columns).to_pylist()


def test_no_byte_of_an_erased_image_is_left(own: Pipeline):
    # An older version of everything, which holds the image too.
    assert own.run("features*", config={"features": {"force": True}}).success
    path = "Training/Banana/1.jpg"
    texts, blobs = evidence(own.lake, path)
    assert len(traces(files_of(own.lake), texts=texts, blobs=blobs)) > 8, "the search finds nothing"
    others = {
        row["path"]: row["features"] for row in _rows(own.lake, "features", "path", "features")
    }

    result = erase(own, paths=[path])

    assert result.success
    assert traces(files_of(own.lake), texts=texts, blobs=blobs) == []
    assert not (own.source / path).exists()
    del others[path]
    assert {
        row["path"]: row["features"] for row in _rows(own.lake, "features", "path", "features")
    } == others
    for asset in ("raw_images", "features", "pca_features"):
        assert own.lake.current(asset).rows == 89
    assert set(own.lake.tables()) == TABLES
    (record,) = Path(own.lake.base, "erasures").iterdir()
    found = json.loads(record.read_bytes())
    assert (found["images_erased"], found["source_files_erased"]) == (1, 1)
    assert found["asked_for"] == {"paths": 1, "sha256": 0, "labels": 0}
    assert not list(Path(own.lake.base, "locks").iterdir())


def test_no_thumbnail_of_an_erased_image_is_left(own: Pipeline):
    assert hand_over(own).success
    path = "Training/Banana/1.jpg"
    sheets = [name for name in files_of(own.lake) if name.endswith(".jpg")]
    assert len(sheets) >= 2, "one in the gallery, its copy in the deliverables"
    assert traces(files_of(own.lake), texts=[f'"{path}"'], blobs=[])

    assert erase(own, paths=[path]).success

    assert set(own.lake.tables()) == TABLES
    assert not [name for name in files_of(own.lake) if name.endswith((".jpg", ".js", ".html"))]
    assert traces(files_of(own.lake), texts=[path], blobs=[]) == []
    assert own.run().success
    assert hand_over(own).success
    assert own.lake.current("gallery").figures["photos"] == 89
    assert traces(files_of(own.lake), texts=[path], blobs=[]) == []


def test_the_next_run_finds_what_an_erasure_left(own: Pipeline):
    assert erase(own, paths=["Test/Banana/1.jpg"]).success
    before = {asset: own.lake.current(asset).version for asset in REBUILT}
    assert own.run().success
    assert {asset: own.lake.current(asset).version for asset in REBUILT} == before
    assert own.lake.current("features").figures["inferences"] == 0


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


def test_what_has_the_same_content_is_erased_too(own: Pipeline):
    copy = own.source / "Training" / "Apple" / "copy.jpg"
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(own.source / "Training" / "Banana" / "1.jpg", copy)
    assert own.run().success
    assert erase(own, paths=["Training/Banana/1.jpg"]).success
    left = {row["path"] for row in _rows(own.lake, "features", "path")}
    assert len(left) == 89
    assert not {"Training/Banana/1.jpg", "Training/Apple/copy.jpg"} & left
    assert not copy.exists()


def test_erasure_by_hash_and_of_a_rejected_file(own: Pipeline):
    broken = own.source / "Training" / "Banana" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no photo, but a name")
    assert own.run().success
    (row,) = _rows(own.lake, "rejected_images", "path", "sha256")
    assert erase(own, sha256=[row["sha256"].upper()]).success
    assert _rows(own.lake, "rejected_images", "path") == []
    assert own.lake.current("features").rows == 90
    assert not broken.exists()
    assert traces(files_of(own.lake), texts=["broken.jpg", row["sha256"]], blobs=[]) == []


def test_the_source_can_be_kept(own: Pipeline):
    assert erase(own, paths=["Test/Banana/1.jpg"], keep_source=True).success
    assert (own.source / "Test" / "Banana" / "1.jpg").exists()
    assert own.lake.current("raw_images").rows == 89
    assert own.run().success
    assert own.lake.current("raw_images").rows == 90


def test_what_only_an_older_version_holds_is_erased(own: Pipeline):
    path = "Test/Banana/1.jpg"
    texts, blobs = evidence(own.lake, path)
    (own.source / path).unlink()
    assert own.run().success
    assert traces(files_of(own.lake), texts=texts, blobs=blobs)
    assert erase(own, paths=[path]).success
    assert traces(files_of(own.lake), texts=texts, blobs=blobs) == []
    assert own.lake.current("pca_features").rows == 89


@pytest.mark.parametrize("path", ["Training/Banana/1.jpg", "no such.jpg"])
def test_features_of_other_images_are_unpublished_not_passed_off_as_whole(own: Pipeline, path: str):
    shutil.copy(own.source / "Test" / "Banana" / "1.jpg", own.source / "new.jpg")
    assert own.run("raw_images", "rejected_images").success
    assert erase(own, paths=[path]).success
    assert set(own.lake.tables()) == {"raw_images", "rejected_images", "model_weights"}
    assert own.run().success
    assert own.lake.current("features").rows == 90 + (path == "no such.jpg")


def test_the_last_images_can_be_erased(own: Pipeline):
    labels = {row["label"] for row in _rows(own.lake, "raw_images", "label")}
    assert erase(own, labels=sorted(labels)).success
    assert own.lake.tables() == ["model_weights"]
    assert not [file for file in own.source.rglob("*") if file.is_file()]


def test_a_pca_that_is_not_possible_any_more_is_unpublished(own: Pipeline):
    kept = _rows(own.lake, "raw_images", "path", "sha256")[0]
    paths = [
        row["path"] for row in _rows(own.lake, "raw_images", "path") if row["path"] != kept["path"]
    ]
    assert erase(own, paths=paths).success
    assert set(own.lake.tables()) == {"raw_images", "rejected_images", "features", "model_weights"}


def test_an_erasure_that_names_nothing_is_refused(own: Pipeline):
    assert "nothing is named to be erased" in failure(erase(own))


def test_no_image_that_was_not_named_is_touched(own: Pipeline, tmp_path: Path):
    (tmp_path / "secret.jpg").write_bytes(b"not of the source")
    assert erase(own, paths=["../secret.jpg", "Test/Banana"], labels=["Bana", ""]).success
    assert (tmp_path / "secret.jpg").exists()
    assert own.lake.current("features").rows == 90
    assert photos_at(str(own.source)).list(recursive=True).files.num_rows == 90


def test_dagster_forgets_what_older_runs_showed(
    own: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    draw_no_pictures(monkeypatch)
    storage = tmp_path / "dagster"
    storage.mkdir()
    with dg.DagsterInstance.local_temp(str(storage)) as instance:
        (own.source / "unlabelled secret.jpg").write_bytes(b"no photo")
        shutil.copy(own.source / "Test" / "Banana" / "1.jpg", own.source / "secret name.jpg")
        assert replace(own, checks=CHECKS).run(instance=instance).success
        assert b"secret name" in _database(storage)
        assert erase(own, instance, sha256=[_hash(own, "secret name.jpg")]).success
        assert b"secret name" not in _database(storage)
        (event,) = instance.fetch_materializations(dg.AssetKey("raw_images"), limit=9).records
        assert event.asset_materialization
        assert event.asset_materialization.metadata["dagster/row_count"].value == 89


def _hash(pipeline: Pipeline, path: str) -> str:
    return next(
        row["sha256"]
        for row in _rows(pipeline.lake, "raw_images", "path", "sha256")
        if row["path"] == path
    )


def _database(storage: Path) -> bytes:
    return b"".join(file.read_bytes() for file in storage.rglob("*") if file.is_file())


def test_an_erasure_waits_for_other_runs(own: Pipeline, tmp_path: Path):
    storage = tmp_path / "dagster"
    storage.mkdir()
    with dg.DagsterInstance.local_temp(str(storage)) as instance:
        run = instance.create_run_for_job(gdpr_erasure, status=dg.DagsterRunStatus.STARTED)
        told = failure(erase(own, instance, paths=["Training/Banana/1.jpg"]))
        assert f"another run is at work ({run.run_id})" in told
    assert (own.source / "Training" / "Banana" / "1.jpg").exists()
    assert own.lake.current("raw_images").rows == 90


def test_an_erasure_says_when_a_run_began_meanwhile(
    own: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Such a run may have read what was erased, and would publish it again."""
    (tmp_path / "dagster").mkdir()
    erase_files = FolderPhotos.erase
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:

        def erase_while_a_run_begins(self: FolderPhotos, paths: list[str]) -> int:
            instance.create_run_for_job(gdpr_erasure, status=dg.DagsterRunStatus.STARTED)
            return erase_files(self, paths)

        monkeypatch.setattr(FolderPhotos, "erase", erase_while_a_run_begins)
        told = failure(erase(own, instance, paths=["Training/Banana/1.jpg"]))
    assert "another run is at work" in told
    assert not Path(own.lake.base, "erasures").exists(), "nothing says that all is erased"


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
        nested.run("raw_images", "rejected_images"),
        erase(nested, paths=["Training/Banana/1.jpg"]),
    ):
        assert not result.success
        told = [str(it.event_specific_data) for it in result.all_events if it.is_failure]
        assert "overlap" in told[0]
        assert "Set FRUITS_LAKE" in told[0]
    assert sorted(tmp_path.rglob("*")) == before
