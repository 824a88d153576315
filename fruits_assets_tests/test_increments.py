"""Photos that come, change and go: the tables of a full run, at the cost of what changed."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from PIL import Image
from pyspark.sql import SparkSession

from fruits_assets.assets.pca import MAX_CHANGED, MAX_MEAN_SHIFT
from fruits_assets.checks import CHECKS
from fruits_assets.cli import main
from fruits_assets.lake import retention
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.table import LOG
from fruits_assets.sample.drawing import CLASSES, draw_fruit
from fruits_assets.sources.folder import FolderPhotos
from fruits_assets.sources.listing import Listing
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms import featurize, increment
from fruits_assets_tests.conftest import Pipeline

TABLES = {
    "raw_images": ["path", "split", "label", "sha256", "content", "bytes", "modified_at"],
    "rejected_images": ["path", "bytes", "sha256", "reason", "detail"],
    "features": ["path", "split", "label", "sha256", "features"],
    "pca_features": ["path", "split", "label", "sha256", "components"],
}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten photos that are not among those of `photos`."""
    folder = tmp_path_factory.mktemp("others")
    chance = np.random.default_rng(2026)
    for i in range(10):
        picture = Image.fromarray(draw_fruit(CLASSES[i], chance, size=100))
        picture.save(folder / f"{i}.jpg", quality=90)
    return sorted(folder.iterdir())


def assert_as_a_full_run(own: Pipeline, tmp_path: Path, *tables: str) -> None:
    """Every table equals, row for row, what a lake without a past would hold.

    Args:
        own: what is compared.
        tmp_path: for that lake.
        *tables: some of `TABLES`; all without any.
    """
    fresh = Pipeline(Lake.at(str(tmp_path / "fresh")), own.source)
    shutil.copytree(Path(own.lake.base, "model_weights"), Path(fresh.lake.base, "model_weights"))
    assert fresh.run(*tables, config={"ingest": {"max_rejected": 1.0}}).success
    for asset in tables or TABLES:
        columns = TABLES[asset]
        there, here = (
            pipeline.lake.current(asset).arrow(columns).combine_chunks().sort_by("path")
            for pipeline in (fresh, own)
        )
        assert here.drop_columns(columns[-1]).equals(there.drop_columns(columns[-1])), asset
        if asset == "pca_features":
            left, right = (np.stack(one["components"].to_numpy()) for one in (here, there))
            np.testing.assert_allclose(left, right, atol=1e-4 * np.abs(right).max())
        else:
            assert here.equals(there), asset
        if asset in ("raw_images", "rejected_images", "features"):
            here, there = (_comparable(one.lake.current(asset)) for one in (own, fresh))
            assert here == there


def _comparable(dataset: Snapshot) -> dict[str, Any]:
    """Figures that do not say how much work it was."""
    figures = dict(dataset.figures)
    for name in ("files_read", "inferences", "images_per_second"):
        figures.pop(name, None)
    return json.loads(json.dumps(figures, sort_keys=True))


def _figure(own: Pipeline, asset: str, name: str) -> Any:
    return own.lake.current(asset).figures[name]


REFIT = {"pca_model": {"refit": "always"}}
INGEST = ("raw_images", "rejected_images")


def test_photos_cost_only_what_is_new_of_them(own: Pipeline, others: list[Path], tmp_path: Path):
    before = {asset: own.lake.current(asset) for asset in TABLES}
    fitted = own.lake.current("pca_model").version
    training = own.source / "Training"
    for file in others[:3]:
        shutil.copyfile(file, training / "Banana" / f"new {file.name}")
    (own.source / "notes.txt").write_text("no photo")
    assert own.run(*INGEST, "features", "pca_model", config=REFIT).success
    assert own.lake.current("pca_model").version != fitted, "whatever their number"
    assert _figure(own, "raw_images", "files_read") == 3 + 1
    assert _figure(own, "rejected_images", "rejected") == 1
    assert _figure(own, "features", "inferences") == 3
    for asset in ("raw_images", "features"):
        assert set(before[asset].files) < set(own.lake.current(asset).files)
    shutil.rmtree(training / "Lime")
    (training / "Apple Red").rename(training / "Pomme")
    shutil.copyfile(others[3], own.source / "notes.txt")
    shutil.copyfile(others[4], min((training / "Pear").iterdir()))
    assert own.run(config=REFIT).success
    assert _figure(own, "raw_images", "files_read") == 4 + 1 + 1
    assert _figure(own, "features", "inferences") == 2
    assert _figure(own, "rejected_images", "rejected") == 0
    assert_as_a_full_run(own, tmp_path)


@pytest.mark.slow
def test_any_history_ends_as_a_full_run(
    own: Pipeline, others: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whatever came and went, with few versions kept and parts merged early."""
    monkeypatch.setattr(increment, "MAX_SMALL_PARTS", 2)
    chance = random.Random(0)  # noqa: S311 - a test
    own = Pipeline(Lake.at(own.lake.base, keep_versions=1), own.source)
    for _ in range(4):
        photos = sorted(own.source.rglob("*.jpg"))
        for photo in chance.sample(photos, 6):
            action: Callable[[Path], Any] = chance.choice(
                [
                    Path.unlink,
                    lambda it: it.rename(it.with_name(f"{chance.random()}.jpg")),
                    lambda it: shutil.copyfile(chance.choice(others), it),
                    lambda it: shutil.copyfile(it, it.with_name(f"{chance.random()}.jpg")),
                    lambda it: it.write_bytes(it.read_bytes()[:300]),
                ]
            )
            action(photo)
        for _ in range(chance.randrange(5)):
            new = own.source / "Training" / "Lime" / f"{chance.random()}.jpg"
            shutil.copyfile(chance.choice(others), new)
        assert own.run(config={**REFIT, "ingest": {"max_rejected": 1.0}}).success
        assert len(own.lake.current("features").files) <= 8
    assert_as_a_full_run(own, tmp_path)
    assert not list(retention.damaged(own.lake))


def test_parts_of_pruned_versions_stay(own: Pipeline, others: list[Path], tmp_path: Path):
    lake = Lake.at(
        str(tmp_path / "empty"), keep_versions=1
    )  # nothing else is made from its versions
    own = Pipeline(lake, own.source)
    assert own.run(*INGEST).success
    first = own.lake.current("raw_images")
    _add(own, others[:1])
    assert own.run(*INGEST).success
    assert set(first.files) < set(own.lake.current("raw_images").files)
    assert own.lake.current("raw_images").arrow(["path"]).num_rows == 91
    shutil.rmtree(own.source / "Training")
    assert own.run(*INGEST).success
    assert own.run(*INGEST, config={"ingest": {"force": True}}).success
    left = {file.name for file in Path(first.uri).glob("*.parquet")}
    assert left == set(own.lake.current("raw_images").by_name), "nothing needs the others any more"
    assert not list(retention.damaged(own.lake))


def test_nothing_new_costs_no_spark_job_and_opens_no_part(
    own: Pipeline,
    finished: tuple[Pipeline, dg.ExecuteInProcessResult],
    session: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
):
    versions = {asset: own.lake.current(asset).version for asset in TABLES}
    own = replace(own, checks=CHECKS)
    scheduler: Any = session.sparkContext._jsc.sc().dagScheduler()  # type: ignore[union-attr]
    opened, open_file = [], LocalStorage.open
    with dg.DagsterInstance.ephemeral() as instance:
        for event in finished[1].all_events:  # Dagster has seen the run that made the lake
            instance.report_dagster_event(event, finished[1].run_id)
        jobs = scheduler.numTotalJobs()
        monkeypatch.setattr(
            LocalStorage, "open", lambda self, uri: opened.append(uri) or open_file(self, uri)
        )
        again = own.run(instance=instance)
    assert again.success
    assert len(again.get_asset_check_evaluations()) == sum(len([*it.check_keys]) for it in CHECKS)
    assert opened, "nothing was looked at"
    assert not [uri for uri in opened if uri.endswith(".parquet")]
    assert scheduler.numTotalJobs() == jobs
    assert versions == {asset: own.lake.current(asset).version for asset in TABLES}


def _add(own: Pipeline, files: list[Path]) -> None:
    for file in files:
        shutil.copyfile(file, own.source / "Training" / "Banana" / f"new {file.name}")


def test_a_few_photos_keep_the_pca(own: Pipeline, others: list[Path]):
    before = own.lake.current("pca_model").version
    projected_before = own.lake.current("pca_features")
    _add(own, others[:3])
    assert own.run().success
    assert own.lake.current("pca_model").version == before
    drift = own.lake.current("_drift").figures
    assert (drift["images_fitted"], drift["images_now"]) == (60, 63)
    assert drift["changed"] == pytest.approx(3 / 60)
    projected = own.lake.current("pca_features")
    assert projected.rows == 93
    assert sum(file.rows for file in set(projected.files) - set(projected_before.files)) == 3


def test_the_mean_shift_is_that_of_the_fitted_split(own: Pipeline, others: list[Path]):
    _add(own, others[:3])
    min((own.source / "Training" / "Lime").iterdir()).unlink()  # a part is rewritten
    assert own.run(*INGEST, "features", "pca_model").success
    model = own.lake.current("pca_model")
    fitted = own.lake.made_from(model, "features")
    then, now = (_training(dataset) for dataset in (fitted, own.lake.current("features")))
    expected = np.linalg.norm(now.mean(0) - then.mean(0)) / np.sqrt(then.var(0, ddof=1).sum())
    drift = own.lake.current("_drift").figures
    assert drift["mean_shift"] == pytest.approx(expected, rel=1e-4)
    assert (drift["images_fitted"], drift["images_now"]) == (60, 62)
    assert drift["changed"] == pytest.approx(4 / 60), "what was only moved has not changed"


def _training(features: Snapshot) -> np.ndarray:
    table = features.arrow(["split", "features"])
    rows = table.filter(pa.array([split == "Training" for split in table["split"].to_pylist()]))
    return np.stack(rows["features"].to_numpy()).astype(np.float64)


def test_a_few_photos_unlike_all_others_ask_for_another_pca(own: Pipeline):
    before = own.lake.current("pca_model").version
    chance = np.random.default_rng(0)
    for i in range(3):
        noise = Image.fromarray(chance.integers(0, 256, (100, 100, 3), np.uint8))
        noise.save(own.source / "Training" / "Banana" / f"noise {i}.jpg")
    assert own.run(*INGEST, "features", "pca_model").success
    drift = own.lake.current("_drift").figures
    assert drift["changed"] <= MAX_CHANGED, "their number alone asks for nothing"
    assert drift["mean_shift"] > MAX_MEAN_SHIFT
    assert own.lake.current("pca_model").version != before


@pytest.mark.parametrize("refit", ["auto", "never"])
def test_many_photos_ask_for_another_pca(own: Pipeline, others: list[Path], refit: str):
    before = own.lake.current("pca_model").version
    _add(own, others[:8])
    assert own.run(config={"pca_model": {"refit": refit}}).success
    assert (own.lake.current("pca_model").version == before) == (refit == "never")
    assert own.lake.current("pca_features").rows == 98


def test_other_settings_are_always_fitted(own: Pipeline):
    before = own.lake.current("pca_model").version
    never = {"refit": "never", "n_components": 5}
    assert own.run("pca_model", config={"pca_model": never}).success
    assert own.lake.current("pca_model").version != before


def test_features_of_another_decoding_are_always_fitted(own: Pipeline):
    before = own.lake.current("pca_model").version
    config = {"features": {"reduced_decoding": True}, "pca_model": {"refit": "never"}}
    assert own.run("features", "pca_model", config=config).success
    assert own.lake.current("pca_model").version != before


def test_shards_are_cut_by_time_and_found_again(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    """A shard per photo, of which an interrupted run has left some."""
    monkeypatch.setattr(featurize, "SHARD_SECONDS", 0.0)
    own = Pipeline(pipeline.lake, pipeline.source / "Test")
    assert own.run("raw_images", "rejected_images", "features").success
    features = own.lake.current("features")
    expected = features.arrow(TABLES["features"]).sort_by("path")
    assert len(features.files) == 30
    for part in features.files[::3]:
        Path(features.uri, part.name).unlink()
    shutil.rmtree(Path(features.uri, LOG))  # nothing was published
    assert own.run("features").success
    assert _figure(own, "features", "inferences") == 10
    again = own.lake.current("features").arrow(TABLES["features"]).sort_by("path")
    assert again.equals(expected)


def test_shards_of_another_length_are_found_too(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    assert pipeline.run("raw_images", "rejected_images", "features").success
    features = pipeline.lake.current("features")
    gone = features.files[0]
    Path(features.uri, gone.name).unlink()
    shutil.rmtree(Path(features.uri, LOG))  # nothing was published
    monkeypatch.setattr(featurize, "SHARD_SECONDS", 0.0)
    assert pipeline.run("features").success
    assert _figure(pipeline, "features", "inferences") == gone.rows
    again = pipeline.lake.current("features")
    assert again.rows == 90
    assert len(again.files) == len(features.files) - 1 + gone.rows


@pytest.mark.parametrize(
    ("asset", "damage"),
    [("raw_images", "flipped"), ("features", "missing"), ("pca_features", "cut")],
)
def test_a_damaged_part_is_found_and_only_it_is_made_again(
    own: Pipeline, monkeypatch: pytest.MonkeyPatch, asset: str, damage: str
):
    dataset = own.lake.current(asset)
    before = dataset.arrow(TABLES[asset]).sort_by("path")
    part = dataset.files[1]
    path = Path(dataset.uri, part.name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flipped" else content[:100])
    written = {it.name: it.stat().st_mtime_ns for it in path.parent.glob("*.parquet")}
    written.pop(part.name, None)
    monkeypatch.setenv("FRUITS_LAKE", own.lake.base)
    repaired = CliRunner().invoke(main, ["repair"])
    assert repaired.exit_code == 1
    assert str(path) in repaired.output
    assert f"Materialise again, in this order: {asset} " in repaired.output
    assert own.run().success
    again = own.lake.current(asset)
    assert again.version == dataset.version
    assert again.arrow(TABLES[asset]).sort_by("path").equals(before)
    new = [
        file
        for file in again.files
        if Path(again.uri, file.name).stat().st_mtime_ns != written.get(file.name)
    ]
    assert sum(file.rows for file in new) == part.rows, "nothing else was computed"
    repaired = CliRunner().invoke(main, ["repair"])
    assert repaired.exit_code == 0
    assert "is whole" in repaired.output


def test_what_could_not_be_read_is_tried_again(
    own: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Files that are away when their turn comes, and then back as they were listed."""
    (own.source / "notes.txt").write_text("no photo")
    files = sorted(own.source.rglob("*.jpg"))[:2]
    for file in files:
        file.write_bytes(file.read_bytes() + b"changed")
    back, listed = list(files), FolderPhotos.list

    def away(file: Path) -> Path:
        return file.with_name(f".{file.name}")

    def run() -> Snapshot:
        """The source is whole when it is listed; `back` are those that are there later on."""
        for file in files:
            if away(file).exists():
                away(file).rename(file)
        assert own.run(*INGEST).success
        return own.lake.current("rejected_images")

    def list_and_lose(self: FolderPhotos, **how: Any) -> Listing:
        listing = listed(self, **how)
        for file in set(files) - set(back):
            file.rename(away(file))
        return listing

    monkeypatch.setattr(FolderPhotos, "list", list_and_lose)
    back.clear()
    none = run()
    assert none.commit.provisional == 2
    assert run() == none
    back[:] = files[:1]
    one = run()
    assert (one.commit.provisional, one.version == none.version) == (1, False)
    assert _figure(own, "raw_images", "files_read") == 2
    back[:] = files
    both = run()
    assert (both.commit.provisional, both.rows) == (0, 1)
    assert _figure(own, "raw_images", "files_read") == 1
    assert run() == both
    assert_as_a_full_run(own, tmp_path, *INGEST)


def test_pictures_of_what_was_shown_before_are_not_drawn_again(
    own: Pipeline, others: list[Path], monkeypatch: pytest.MonkeyPatch
):
    from fruits_assets.assets import raw_images

    drawn: list[str] = []

    def draw(raw: Snapshot) -> dict[str, Any]:
        drawn.append(raw.version)
        return {"contact_sheet": raw.version}

    monkeypatch.setattr(raw_images, "raw_metadata", draw)
    first = own.lake.current("raw_images").version
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            assert own.run(*INGEST, instance=instance).success
            assert drawn == [first]
        event = instance.get_latest_materialization_event(dg.AssetKey("raw_images"))
        assert event is not None
        assert event.asset_materialization is not None
        shown = event.asset_materialization.metadata
        assert shown["contact_sheet"].value == first
        assert "uri" in shown
        _add(own, others[:1])
        assert own.run(*INGEST, instance=instance).success
        assert drawn == [first, own.lake.current("raw_images").version]
