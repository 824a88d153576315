"""The assets as Dagster materialises them, on drawn photos."""

import base64
import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from fruits_assets.lake.lake import Lake
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets_tests.conftest import Pipeline, failure

ASSETS = (
    "raw_images",
    "rejected_images",
    "model_weights",
    "features",
    "pca_model",
    "pca_features",
)


def test_a_whole_run_publishes_every_asset(finished):
    pipeline, result = finished
    assert result.success
    rows = {name: pipeline.lake.current(name).rows for name in ASSETS}
    assert rows == {
        "raw_images": 90,
        "rejected_images": 0,
        "model_weights": 3,
        "features": 90,
        "pca_model": 2,
        "pca_features": 90,
    }


def test_every_check_of_a_whole_run_passes(finished):
    _, result = finished
    evaluations = result.get_asset_check_evaluations()
    assert len(evaluations) == 12
    assert {evaluation.check_name for evaluation in evaluations if not evaluation.passed} == set()


def test_the_data_version_is_the_version_in_the_lake(finished):
    pipeline, result = finished
    versions = {
        materialization.asset_key.to_user_string(): materialization.tags["dagster/data_version"]
        for node in ("ingest", "model_weights", "features", "pca_model", "pca_features")
        for materialization in result.asset_materializations_for_node(node)
    }
    assert versions == {name: pipeline.lake.current(name).version for name in ASSETS}


def test_lineage_is_in_the_manifests(finished):
    lake = finished[0].lake
    current = {name: lake.current(name) for name in ASSETS}
    assert current["pca_features"].commit.inputs == {
        "features": current["features"].version,
        "pca_model": current["pca_model"].version,
    }
    assert current["features"].commit.inputs == {
        "raw_images": current["raw_images"].version,
        "model_weights": current["model_weights"].version,
    }


@pytest.mark.parametrize(
    ("node", "asset", "pictures"),
    [
        ("ingest", "raw_images", {"images_per_class", "contact_sheet"}),
        ("ingest", "rejected_images", {"rejected_files"}),
        ("pca_model", "pca_model", {"scree_plot"}),
        ("pca_features", "pca_features", {"map_of_the_photos"}),
    ],
)
def test_metadata_shows_pictures(finished, node, asset, pictures):
    _, result = finished
    (metadata,) = [
        one.metadata
        for one in result.asset_materializations_for_node(node)
        if one.asset_key == dg.AssetKey(asset)
    ]
    for name in pictures:
        head, data = metadata[name].value.removesuffix(")").split(";base64,")
        assert head.startswith("![](data:image/")
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.width == 1000
            transparency = np.asarray(picture.convert("RGBA"))[..., 3]
        assert transparency[0, 0] == 0, "its corners are round"
        assert transparency[20:-20].min() == 255
        assert len(metadata[name].value) < 400_000


def test_metadata_has_numbers_as_numbers(finished):
    _, result = finished
    (one,) = result.asset_materializations_for_node("features")
    assert one.metadata["images"].value == 90
    assert one.metadata["dagster/row_count"].value == 90
    assert one.metadata["images_per_second"].value > 0


def test_nothing_is_computed_twice(own: Pipeline):
    before = {name: own.lake.current(name) for name in ASSETS}
    assert own.run().success
    assert {name: own.lake.current(name) for name in ASSETS} == before


def test_force_computes_again_and_gives_the_same(pipeline: Pipeline):
    assert pipeline.run("raw_images", "rejected_images", "features").success
    before = pipeline.lake.current("features")
    assert pipeline.run("features", config={"features": {"force": True}}).success
    after = pipeline.lake.current("features")
    assert after.version != before.version
    then, now = (it.arrow(["path", "features"]).sort_by("path") for it in (before, after))
    assert now.equals(then)


def test_a_new_photo_makes_a_new_version(own: Pipeline):
    before = own.lake.current("features").version
    Image.new("RGB", (50, 50), "red").save(own.source / "Training" / "Banana" / "new.jpg")
    assert own.run("raw_images", "rejected_images", "features").success
    after = own.lake.current("features")
    assert after.version != before
    assert after.rows == 91


def test_features_can_be_called_as_a_function(finished):
    from fruits_assets.assets.features import FeaturesConfig, features

    class Recorded:
        """Stands in for the Spark target: the asset's own logic is what it hands over."""

        def run(self, _, transform, *, params, force, **inputs):
            self.asked = (transform.name, params, force, sorted(inputs))
            return lake.current("features")

    lake = finished[0].lake
    spark = Recorded()
    result: Any = features(
        dg.build_asset_context(),
        spark=spark,
        raw_images=lake.current("raw_images"),
        model_weights=lake.current("model_weights"),
        config=FeaturesConfig(force=True, reduced_decoding=True),
    )
    params = {"reduced_decoding": True, "max_seconds": 60.0}
    assert spark.asked == ("featurize", params, True, ["images", "model"])
    assert isinstance(result.value, Snapshot)
    assert result.metadata["images"] == 90


def _photo(path: Path, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour).save(path, "JPEG")


def _pipeline(pipeline: Pipeline, source: Path) -> Pipeline:
    return Pipeline(pipeline.lake, source)


def test_too_many_rejected_files_fail_the_run_and_are_told(pipeline: Pipeline, tmp_path: Path):
    source = tmp_path / "photos"
    for i in range(8):
        _photo(source / "Apple" / f"{i}.jpg", colour=f"#{i:02x}8040")
    (source / "Apple" / "empty.jpg").touch()
    (source / "Apple" / "page.jpg").write_text("<html>404</html>")
    own = _pipeline(pipeline, source)
    result = own.run("raw_images", "rejected_images")
    assert not result.success
    assert "2 of 10 files were rejected, 20.0%" in failure(result)
    assert "empty (1), not_an_image (1)" in failure(result)
    rejected = own.lake.current("rejected_images").pandas(["path", "reason"])
    assert sorted(rejected["path"]) == ["Apple/empty.jpg", "Apple/page.jpg"]
    assert "raw_images" not in own.lake.tables()
    again = own.run("raw_images", "rejected_images", config={"ingest": {"max_rejected": 0.2}})
    assert again.success
    assert own.lake.current("raw_images").rows == 8


@pytest.mark.parametrize("case", ["missing", "empty", "file", "hidden only", "no image"])
def test_a_source_without_photos_is_told(pipeline: Pipeline, tmp_path: Path, case: str):
    source = tmp_path / "photos"
    if case == "file":
        source.write_text("a file")
    elif case != "missing":
        source.mkdir()
    if case == "hidden only":
        (source / ".DS_Store").write_text("x")
    if case == "no image":
        (source / "notes.txt").write_text("no photo")
    result = _pipeline(pipeline, source).run("raw_images", "rejected_images")
    assert not result.success
    expected = {
        "missing": "does not exist",
        "empty": "holds no file",
        "file": "is a file, not a folder",
        "hidden only": "(1 .DS_Store were passed over)",
        "no image": "none of the 1 files of the source is a usable photo: not_an_image (1)",
    }
    assert expected[case] in failure(result)
    assert "raw_images" not in pipeline.lake.tables()


@pytest.mark.parametrize(
    ("photos_", "expected"),
    [(["red"], "needs at least 2"), (["red", "red", "red"], "have the same features")],
)
def test_too_few_different_photos_are_told(
    pipeline: Pipeline, tmp_path: Path, photos_: list[str], expected: str
):
    for i, colour in enumerate(photos_):
        _photo(tmp_path / "photos" / "Apple" / f"{i}.jpg", colour)
    own = _pipeline(pipeline, tmp_path / "photos")
    result = own.run()
    assert expected in failure(result)
    features = own.lake.current("features")
    assert features.rows == len(photos_)
    assert features.figures["inferences"] == 1
    assert "pca_model" not in own.lake.tables()


def test_two_photos_give_one_component(pipeline: Pipeline, tmp_path: Path):
    _photo(tmp_path / "photos" / "Apple" / "1.jpg", "red")
    _photo(tmp_path / "photos" / "Lime" / "1.jpg", "green")
    own = _pipeline(pipeline, tmp_path / "photos")
    assert own.run().success
    assert own.lake.current("pca_model").figures["components"] == 1


# That there are not so many is found by a fit (core/test_pca.py), as slowly as if there were.
@pytest.mark.parametrize("n_components", [0, -1, 1.5, pytest.param(89, marks=pytest.mark.slow)])
def test_impossible_numbers_of_components_are_told(finished, n_components: float):
    pipeline, _ = finished
    result = pipeline.run("pca_model", config={"pca_model": {"n_components": n_components}})
    assert f"n_components is {n_components:g}" in failure(result)
    assert pipeline.lake.current("pca_model").commit.params["n_components"] == 0.95


LABELS = ["Pomme d'été", "a, b", 'the "best"', "🍎", "a..b", "$x_1$", "x" * 200]


def test_labels_of_any_kind_come_through(pipeline: Pipeline, tmp_path: Path):
    source = tmp_path / "photos"
    for i, label in enumerate(LABELS):
        for split in ("Training", "Test"):
            _photo(source / split / label / f"{i}.jpg", colour=f"#{i * 30:02x}{i * 20:02x}40")
    own = _pipeline(pipeline, source)
    assert own.run().success
    assert sorted(own.lake.current("pca_features").pandas(["label"])["label"]) == sorted(LABELS * 2)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"alpha": 0.6}, "alpha is 0.6"),
        ({"image_size": 100}, "image_size 100"),
        pytest.param(
            {"alpha": 1.0}, "does not hold the weights of MobileNetV2", marks=pytest.mark.slow
        ),
    ],
)
def test_weights_that_do_not_fit_are_told(pipeline: Pipeline, config, expected: str):
    before = pipeline.lake.current("model_weights")
    result = pipeline.run("model_weights", config={"model_weights": config})
    assert expected in failure(result)
    assert pipeline.lake.current("model_weights") == before


def test_a_damaged_version_is_told_by_who_reads_it(pipeline: Pipeline):
    assert pipeline.run("raw_images", "rejected_images").success
    raw = pipeline.lake.current("raw_images")
    Path(raw.uri, raw.files[0].name).write_bytes(b"half")
    result = pipeline.run("features")
    assert f"raw_images, version {raw.version}" in failure(result)
    assert "has 4 bytes instead of" in failure(result)
    assert pipeline.run("raw_images", "rejected_images").success, "made again, it is whole"
    assert pipeline.run("features").success


def test_features_before_raw_images_are_told(pipeline: Pipeline):
    result = pipeline.run("features")
    assert "has no raw_images yet. Materialise raw_images first" in failure(result)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 1.2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can only be mounted as root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_the_run_goes_on_where_there_is_room(
    pipeline: Pipeline, small_disk: Path
):
    cramped = Pipeline(Lake.at(str(small_disk / "lake")), pipeline.source)
    (small_disk / "ballast").write_bytes(bytes(1_100_000))
    result = cramped.run("raw_images", "rejected_images")
    assert "cannot be written: No space left on device. Free space" in failure(result)
    assert cramped.lake.tables() == []
    (small_disk / "ballast").unlink()
    assert cramped.run("raw_images", "rejected_images").success
    assert cramped.lake.current("raw_images").rows == 90


def test_a_lake_that_is_a_file_is_told(pipeline: Pipeline, tmp_path: Path):
    (tmp_path / "file").write_text("not a lake")
    own = Pipeline(Lake.at(str(tmp_path / "file")), pipeline.source)
    result = own.run("raw_images", "rejected_images")
    assert "cannot be written: Not a directory. Free space or grant" in failure(result)
