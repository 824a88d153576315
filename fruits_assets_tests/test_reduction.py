"""New photos without a run: what the library says is what the pipeline would have written."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import h5py
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from fruits_assets import reduction
from fruits_assets.core import inverted_file
from fruits_assets.core.decoder import Decoder
from fruits_assets.core.errors import DatasetError, RegionError
from fruits_assets.core.images import RejectedImage
from fruits_assets.core.inverted_file import CELLS
from fruits_assets.core.mobilenet import FeatureExtractor
from fruits_assets.core.weights import Weights
from fruits_assets.lake.lake import Lake
from fruits_assets.reduction import Index, Reducer
from fruits_assets.sample.drawing import draw_fruit
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets_tests.conftest import REPOSITORY, Pipeline
from fruits_assets_tests.places import Bucket
from fruits_assets_tests.s3 import REGION, Gate

THREADS = 8
SAMPLE_SHAPE = {"alpha": 0.35, "image_size": 96}
"""Of the network that the embedded weights are for."""
TURNED = 6
"""EXIF: to be turned by a quarter, clockwise."""


@pytest.fixture
def ran(finished, tmp_path: Path) -> Pipeline:
    """A finished run on a lake of the test's own."""
    pipeline, result = finished
    assert result.success
    shutil.copytree(pipeline.lake.base, tmp_path / "lake")
    return Pipeline(Lake.at(str(tmp_path / "lake")), pipeline.source)


@pytest.fixture(scope="module")
def reducer(finished) -> Reducer:
    return Reducer.load(finished[0].lake.base)


@pytest.fixture(scope="module")
def odd(
    tmp_path_factory: pytest.TempPathFactory, session: SparkSession, _model_lake: Path
) -> Pipeline:
    """A run with other limits than usual, on photos without splits of which each is odd."""
    folder = tmp_path_factory.mktemp("odd")
    shutil.copytree(_model_lake, folder / "lake")
    _write_odd_photos(folder / "photos")
    pipeline = Pipeline(Lake.at(str(folder / "lake")), folder / "photos")
    limits = {"max_megapixels": 0.5, "max_megabytes": 0.3, "max_rejected": 0.9}
    result = pipeline.run(config={"ingest": limits, "features": {"reduced_decoding": True}})
    assert "pca_features" in pipeline.lake.tables(), result.all_events
    return pipeline


def _write_odd_photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = TURNED
    for label in ("Banana", "Kiwi"):
        (folder / label).mkdir(parents=True)
        picture = Image.fromarray(draw_fruit(label, rng, size=600)).crop((0, 60, 600, 560))
        picture.save(folder / label / "large.jpg", quality=90)
        picture.rotate(90).save(folder / label / "turned.jpg", exif=exif)
        picture.resize((120, 100)).convert("CMYK").save(folder / label / "print.jpg")
        faded = picture.resize((120, 100))
        faded.putalpha(90)
        faded.save(folder / label / "faded.png")
        picture.resize((1000, 800)).save(folder / label / "many_pixels.jpg")
        noise = rng.integers(0, 255, (350, 350, 3), np.uint8)
        Image.fromarray(noise).save(folder / label / "many_bytes.png")


def rows_of(dataset: Snapshot) -> Mapping[str, np.ndarray]:
    """Path -> (k,) components, as the pipeline wrote them."""
    table = dataset.arrow(["path", "components"])
    paths, rows = (table[name].to_pylist() for name in ("path", "components"))
    return dict(zip(paths, np.array(rows, np.float32), strict=True))


def assert_as_written(reducer: Reducer, pipeline: Pipeline) -> None:
    """The components of every photo are those that are current in the lake."""
    written = rows_of(pipeline.lake.current("pca_features"))
    assert written
    for path, row in written.items():
        found = reducer.components((pipeline.source / path).read_bytes())
        assert found.shape == row.shape
        assert found.dtype == np.float32
        assert np.linalg.norm(found - row) <= 1e-5 * np.linalg.norm(row), path


def other_weights(folder: Path) -> str:
    """A file of weights like the embedded ones, and not quite the same."""
    path = folder / "other.weights.h5"
    with Weights.of("sample").file() as sample:
        shutil.copy(sample, path)

    def change(_: str, values: object) -> None:
        if isinstance(values, h5py.Dataset) and values.ndim == 4:
            values[...] *= 1.01

    with h5py.File(path, "r+") as file:
        file.visititems(change)
    return str(path)


def paths_in(pipeline: Pipeline, split: str) -> list[Path]:
    return sorted((pipeline.source / split).rglob("*.jpg"))


def test_components_equal_what_the_pipeline_wrote(finished, reducer: Reducer) -> None:
    assert_as_written(reducer, finished[0])


def test_odd_photos_are_seen_as_the_pipeline_saw_them(odd: Pipeline) -> None:
    paths = odd.lake.current("pca_features").arrow(["path"])["path"].to_pylist()
    names = {"large.jpg", "turned.jpg", "print.jpg", "faded.png"}
    assert Counter(Path(path).name for path in paths) == Counter([*names, *names])
    assert_as_written(Reducer.load(odd.lake.base), odd)


def test_a_photo_of_the_lake_is_its_own_nearest_neighbour(finished, reducer: Reducer) -> None:
    pipeline, _ = finished
    for photo in paths_in(pipeline, "Training"):
        (nearest,) = reducer.nearest(photo.read_bytes())
        assert pipeline.source / nearest.path == photo
        assert nearest.label == photo.parent.name
        assert nearest.distance == pytest.approx(0, abs=1e-4)


def test_neighbours_are_the_nearest_in_order(
    finished, reducer: Reducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverted_file, "BLOCK_ROWS", 7)
    pipeline, _ = finished
    written = rows_of(pipeline.lake.current("pca_features"))
    training = {path: row for path, row in written.items() if path.startswith("Training/")}
    photo = paths_in(pipeline, "Test")[3]
    row = written[str(photo.relative_to(pipeline.source))].astype(np.float64)
    distances = {path: float(np.linalg.norm(it - row)) for path, it in training.items()}
    expected = sorted(distances, key=distances.__getitem__)
    found = reducer.nearest(photo.read_bytes(), 10)
    assert [neighbour.path for neighbour in found] == expected[:10]
    assert [neighbour.label for neighbour in found] == [
        Path(it).parent.name for it in expected[:10]
    ]
    assert [it.distance for it in found] == pytest.approx([distances[it] for it in expected[:10]])
    everything = reducer.nearest(reducer.components(photo.read_bytes()), 1000)
    assert [neighbour.path for neighbour in everything] == expected
    with pytest.raises(ValueError, match="count is 0; expected at least 1"):
        reducer.nearest(photo.read_bytes(), 0)


def test_the_split_to_compare_with_can_be_chosen(finished, reducer: Reducer) -> None:
    pipeline, _ = finished
    photo = paths_in(pipeline, "Test")[0]
    content, path = photo.read_bytes(), str(photo.relative_to(pipeline.source))
    for split, found in {"all": 90, "Test": 30}.items():
        neighbours = Reducer.load(pipeline.lake.base, split=split).nearest(content, 1000)
        assert neighbours[0].path == path
        assert len(neighbours) == found
    assert len(reducer.nearest(content, 1000)) == 60
    unknown = Reducer.load(pipeline.lake.base, split="Validation")
    with pytest.raises(DatasetError, match=r"'Validation'.*splits found: Test, Training"):
        unknown.nearest(content)


def test_without_training_photos_all_are_compared_with(odd: Pipeline) -> None:
    photo = (odd.source / "Kiwi" / "faded.png").read_bytes()
    neighbours = Reducer.load(odd.lake.base).nearest(photo, 1000)
    assert len(neighbours) == 8
    assert neighbours[0].path == "Kiwi/faded.png"


def test_the_index_is_one_matrix_and_labels_are_not_strings(finished) -> None:
    index = Index.read(finished[0].lake.current("pca_features"), split="Training")
    rows = index.components.rows
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert len(rows) == 60
    assert pa.types.is_dictionary(index.photos.schema.field("label").type)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"This is no photo.", "not_an_image"),
        (b"%PDF-1.7 ...", "unsupported_format"),
    ],
)
def test_what_is_not_a_photo_is_told(reducer: Reducer, content: bytes, reason: str) -> None:
    for use in (reducer.components, reducer.nearest):
        with pytest.raises(RejectedImage) as told:
            use(content)
        assert told.value.reason == reason
        assert told.value.detail.endswith(".")


def test_a_photo_that_is_cut_short_is_told(finished, reducer: Reducer) -> None:
    photo = paths_in(finished[0], "Test")[0].read_bytes()
    with pytest.raises(RejectedImage) as told:
        reducer.components(photo[: len(photo) // 2])
    assert told.value.reason == "truncated"


def test_photos_from_strangers_can_be_decoded_elsewhere(finished, reducer: Reducer) -> None:
    pipeline, _ = finished
    photo = paths_in(pipeline, "Test")[0].read_bytes()
    with Decoder() as decoder:
        apart = Reducer.load(pipeline.lake.base, decoder=decoder)
        assert np.array_equal(apart.components(photo), reducer.components(photo))
        assert decoder.pid is not None
        with pytest.raises(RejectedImage):
            apart.components(b"This is no photo.")


def test_the_limits_are_those_of_the_run(odd: Pipeline) -> None:
    rejected = odd.lake.current("rejected_images").arrow(["path", "reason"]).to_pylist()
    assert {Path(row["path"]).name for row in rejected} == {"many_pixels.jpg", "many_bytes.png"}
    reducer = Reducer.load(odd.lake.base)
    for row in rejected:
        with pytest.raises(RejectedImage) as told:
            reducer.components((odd.source / row["path"]).read_bytes())
        assert told.value.reason == row["reason"] == "too_large"


@pytest.mark.slow
def test_new_weights_are_not_used_before_their_pca(ran: Pipeline, tmp_path: Path) -> None:
    before = Reducer.load(ran.lake.base)
    photo = paths_in(ran, "Test")[0].read_bytes()
    ran = replace(ran, weights=other_weights(tmp_path))
    for asset in ("model_weights", "features"):
        config = {asset: SAMPLE_SHAPE} if asset == "model_weights" else None
        assert ran.run(asset, config=config).success
        assert ran.lake.current(asset).version != before.lineage.versions[asset]
        now = Reducer.load(ran.lake.base)
        assert before.is_current()
        assert now.lineage == before.lineage
        assert np.array_equal(now.components(photo), before.components(photo))
    shutil.rmtree(Path(ran.lake.base, "pca_features"))
    alone = Reducer.load(ran.lake.base)
    assert np.array_equal(alone.components(photo), before.components(photo))


@pytest.mark.parametrize("changed", [pytest.param("weights", marks=pytest.mark.slow), "decoding"])
def test_features_that_a_pca_does_not_fit_are_told(
    ran: Pipeline, tmp_path: Path, changed: str
) -> None:
    before = Reducer.load(ran.lake.base)
    config = {
        "model_weights": SAMPLE_SHAPE,
        "features": {"reduced_decoding": changed == "decoding"},
    }
    if changed == "weights":
        ran = replace(ran, weights=other_weights(tmp_path))
    assert ran.run("model_weights", "features", config=config).success
    assert ran.run("pca_features").success
    assert not before.is_current()
    with pytest.raises(DatasetError, match=r"pca_features \w+ mixes.*Materialise pca_model with"):
        Reducer.load(ran.lake.base)
    assert ran.run("pca_model", config={"pca_model": {"force": True}}).success
    assert ran.run("pca_features").success
    assert_as_written(Reducer.load(ran.lake.base), ran)


def test_a_new_pca_is_used_with_its_own_components(ran: Pipeline) -> None:
    before = Reducer.load(ran.lake.base)
    assert ran.run("pca_model", config={"pca_model": {"n_components": 3}}).success
    assert before.is_current()
    assert_as_written(Reducer.load(ran.lake.base), ran)
    assert ran.run("pca_features").success
    assert not before.is_current()
    now = Reducer.load(ran.lake.base)
    assert now.is_current()
    assert now.components(paths_in(ran, "Test")[0].read_bytes()).shape == (3,)
    assert_as_written(now, ran)


def test_components_without_pca_features(finished, ran: Pipeline, reducer: Reducer) -> None:
    shutil.rmtree(Path(ran.lake.base, "pca_features"))
    photo = paths_in(ran, "Test")[0].read_bytes()
    alone = Reducer.load(ran.lake.base)
    assert np.array_equal(alone.components(photo), reducer.components(photo))
    with pytest.raises(DatasetError, match=r"had no pca_features.*Materialise pca_features, then"):
        alone.nearest(photo)
    assert alone.is_current()
    shutil.copytree(
        Path(finished[0].lake.base, "pca_features"), Path(ran.lake.base, "pca_features")
    )
    assert not alone.is_current()
    assert Reducer.load(ran.lake.base).nearest(photo)
    shutil.rmtree(Path(ran.lake.base, "pca_features"))
    assert alone.is_current()
    model = ran.lake.current("pca_model")
    another = replace(model.commit, recipe="0" * 16)
    ran.lake.publish(replace(model, commit=another, follows=model.number))
    assert not alone.is_current()


def test_an_empty_lake_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no pca_model yet\. Materialise pca_model first"):
        Reducer.load(str(tmp_path))


@pytest.mark.parametrize("asset", ["raw_images", "model_weights", "features", "pca_model"])
def test_a_version_that_is_gone_is_told(ran: Pipeline, asset: str) -> None:
    version = Reducer.load(ran.lake.base).lineage.versions[asset]
    for part in Path(ran.lake.base, asset).glob("*.parquet"):
        part.unlink()
    with pytest.raises(DatasetError, match=rf"made from {asset} {version}.*Run the whole pipeline"):
        Reducer.load(ran.lake.base)


def test_photos_to_compare_with_are_read_on_first_use(ran: Pipeline) -> None:
    reducer = Reducer.load(ran.lake.base)
    photo = paths_in(ran, "Test")[0].read_bytes()
    shutil.rmtree(ran.lake.current("pca_features").uri)
    reducer.components(photo)
    with pytest.raises(DatasetError, match="pca_features, version"):
        reducer.nearest(photo)


def test_threads_get_what_one_thread_gets(finished, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Counter[str]()
    read = Index.read

    class Counted(FeatureExtractor):
        def __init__(self, model: bytes) -> None:
            made["interpreters"] += 1
            super().__init__(model)

    def counted(pca_features: Snapshot, *, split: str, known: Index | None) -> Index:
        made["indexes"] += 1
        return read(pca_features, split=split, known=known)

    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(reduction, "FeatureExtractor", Counted)
    monkeypatch.setattr(Index, "read", counted)
    pipeline, _ = finished
    photos = [path.read_bytes() for path in (*paths_in(pipeline, "Test"),) * THREADS]
    together = Reducer.load(pipeline.lake.base)
    begin = Barrier(THREADS)

    def all_at_once(photo: bytes) -> str:
        begin.wait()
        return together.nearest(photo)[0].path

    with ThreadPoolExecutor(THREADS) as pool:
        first = list(pool.map(all_at_once, photos[:THREADS]))
        found = list(pool.map(together.components, photos))
    assert 1 < made["interpreters"] <= 3
    assert made["indexes"] == 1
    alone = Reducer.load(pipeline.lake.base)
    assert first == [alone.nearest(photo)[0].path for photo in photos[:THREADS]]
    for photo, components in zip(photos, found, strict=True):
        assert np.array_equal(components, alone.components(photo))


# Many photos, and those that come later


def _spoil(snapshot: Snapshot) -> None:
    """Replaces every part by as many zeros: whatever reads one fails."""
    for file in snapshot.files:
        Path(snapshot.uri, file.name).write_bytes(bytes(file.bytes))


def test_a_reload_reads_only_what_is_new(own: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inverted_file, "EXACT_PHOTOS", 20)
    monkeypatch.setattr(inverted_file, "PROBED", 3)
    for table in ("pca_features", "_map", CELLS):
        shutil.rmtree(Path(own.lake.base, table))
    assert own.run("pca_features").success
    before = Reducer.load(own.lake.base)
    photo, *more = paths_in(own, "Test")
    content = photo.read_bytes()
    before.nearest(content)
    assert before.reload() is before
    then = own.lake.current("pca_features")
    assert then.siblings[CELLS].figures["cells"] == 9
    for number, path in enumerate(more[:3]):
        shutil.copyfile(path, own.source / "Training" / "Kiwi" / f"new {number}.jpg")
    assert own.run("raw_images", "rejected_images", "features", "pca_model").success
    assert own.run("pca_features").success
    now = own.lake.current("pca_features")
    assert now.by_name.keys() > then.by_name.keys()
    assert now.siblings[CELLS].by_name.keys() > then.siblings[CELLS].by_name.keys()
    fresh = Reducer.load(own.lake.base)
    fresh.nearest(content)
    for snapshot in (then, then.siblings[CELLS], own.lake.current("model_weights")):
        _spoil(snapshot)
    again = before.reload()
    assert again.is_current()
    assert again.lineage == fresh.lineage
    for path in more:
        components = fresh.components(path.read_bytes())
        assert again.nearest(components, 5) == fresh.nearest(components, 5)
    assert len(again.nearest(content, 1000)) == 63
    assert again.nearest(more[0].read_bytes())[0].path == "Training/Kiwi/new 0.jpg"
    with pytest.raises(DatasetError, match="is damaged"):
        Reducer.load(own.lake.base)


@pytest.mark.parametrize("same_split", [True, False])
def test_what_an_index_takes_over_is_what_there_is(finished, *, same_split: bool) -> None:
    """Neither photos of parts that are gone, nor those of another split only."""
    pca_features = finished[0].lake.current("pca_features")
    gone, *rest = pca_features.files
    fewer = replace(pca_features, files=tuple(rest))
    split = "all" if same_split else pca_features.table(rest[0])["split"][0].as_py()
    found = Index.read(fewer, split=split, known=Index.read(pca_features, split="all"))
    expected = Index.read(fewer, split=split)
    assert found.photos.equals(expected.photos)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.components.rows, expected.components.rows)
    paths = set(pca_features.table(gone)["path"].to_pylist())
    assert paths.isdisjoint(found.photos["path"].to_pylist())


USE = """
import sys
from pathlib import Path
from fruits_assets.reduction import Reducer

reducer = Reducer.load(sys.argv[1])
print(reducer.nearest(Path(sys.argv[2]).read_bytes(), 3)[0].label, reducer.is_current())
loaded = {name.partition(".")[0] for name in sys.modules}
print(*sorted(loaded & {"boto3", "dagster", "keras", "obstore", "pandas", "pyspark", "tensorflow"}))
"""


def test_it_imports_neither_spark_nor_dagster_nor_tensorflow(finished) -> None:
    pipeline, _ = finished
    photo = paths_in(pipeline, "Training")[0]
    done = subprocess.run(
        [sys.executable, "-c", USE, pipeline.lake.base, str(photo)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [f"{photo.parent.name} True", ""]


def uploaded(pipeline: Pipeline, bucket: Bucket) -> Iterator[str]:
    """Copies a lake into a bucket; yields the names of its files."""
    base = Path(pipeline.lake.base)
    for path in base.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(base))
            bucket.put(name, path.read_bytes())
            yield name


def test_a_lake_in_a_bucket(finished, gated: Bucket, gate: Gate, reducer: Reducer) -> None:
    pipeline, _ = finished
    last = "pca_features/_delta_log/00000000000000000000.json"
    assert last in list(uploaded(pipeline, gated))
    with pytest.raises(RegionError, match="no region is set"):
        Reducer.load(gated.base)
    there = Reducer.load(gated.base, region=REGION)
    photo = paths_in(pipeline, "Test")[0].read_bytes()
    assert np.array_equal(there.components(photo), reducer.components(photo))
    assert there.nearest(photo, 5) == reducer.nearest(photo, 5)
    gate.requests.clear()
    assert there.is_current()
    (request,) = gate.requests
    assert request.query["prefix"].endswith("/pca_features/_delta_log/")
    gated.put("pca_features/_delta_log/00000000000000000001.json", gated.get(last))
    assert not there.is_current()
