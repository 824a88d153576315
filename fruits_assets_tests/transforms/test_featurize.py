"""Features: equal to Keras's, once per content, from the broadcast model alone."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import cluster
from fruits_assets.core.mobilenet import relative_error
from fruits_assets.storage.base import Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.parquet import File
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms import featurize
from fruits_assets.transforms.featurize import FEATURES_SCHEMA
from fruits_assets_tests.conftest import REPOSITORY, Pipeline

FOLDER = Folder(LocalStorage(), "/lake/features")


def vectors(snapshot: Snapshot, column: str = "features") -> dict[str, np.ndarray]:
    """Path -> vector."""
    table = snapshot.arrow(["path", column])
    return dict(
        zip(table["path"].to_pylist(), map(np.array, table[column].to_pylist()), strict=True)
    )


def test_features_equal_keras(finished):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from fruits_assets.core.weights import Weights

    pipeline, _ = finished
    found = vectors(pipeline.lake.current("features"))
    nothing: Any = None  # Keras leaves out that None is a choice
    model = keras.applications.MobileNetV2(
        input_shape=(96, 96, 3), alpha=0.35, include_top=False, pooling="avg", weights=nothing
    )
    with Weights.of("sample").file() as path:
        model.load_weights(path)
    paths = sorted(found)[::5]
    photos = np.stack(
        [
            np.asarray(Image.open(pipeline.source / path).convert("RGB").resize((96, 96)))
            for path in paths
        ]
    )
    scaled = keras.applications.mobilenet_v2.preprocess_input(photos.astype(np.float32))
    expected = np.asarray(model(scaled, training=False))
    assert relative_error(np.stack([found[path] for path in paths]), expected) <= 1e-5


@pytest.mark.slow
def test_features_equal_the_golden_values(pipeline: Pipeline, shared_data: Path, tmp_path: Path):
    with np.load(shared_data / "golden" / "keras_features.npz") as golden:
        paths, expected = golden["path"].astype(str).tolist(), golden["features"]
    for path in paths:
        target = tmp_path / "photos" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shared_data / "fruits-360-sample" / path, target)
    weights = shared_data / "weights" / "mobilenet_v2_imagenet_no_top.weights.h5"
    own = Pipeline(pipeline.lake, tmp_path / "photos", weights=str(weights))
    assert own.run("raw_images", "rejected_images", "model_weights", "features").success
    found = vectors(own.lake.current("features"))
    assert relative_error(np.stack([found[path] for path in paths]), expected) <= 1e-5


def test_large_parts_are_shared_out_among_tasks():
    files = tuple(File(f"part-{i}", 1, 1000) for i in range(2))
    images = Snapshot.unpublished(FOLDER, "raw_images", FEATURES_SCHEMA, files)
    counts = {featurize.NEW: {(file.name, block): 250 for file in files for block in range(4)}}
    plan = featurize._Plan(images, featurize._Earlier(None, []), defaultdict(dict, counts), [])
    tasks = plan.tasks(FOLDER, 3)
    assert [len(task.gets) for task in tasks] == [3, 3, 2]
    inferences = [it.what for it in tasks if isinstance(it.what, featurize._Inference)]
    assert [len(one.parts) for one in inferences] == [1, 2, 1]
    gets = [one for task in tasks for one in task.gets]
    assert sorted(gets) == [
        (featurize.NEW, f"part-{i}", block) for i in range(2) for block in range(4)
    ]


def test_every_content_is_inferred_once(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(featurize, "BLOCK_ROWS", 4)  # several tasks read a part
    source = tmp_path / "photos"
    shutil.copytree(pipeline.source / "Training", source / "Training")
    for copy in ("Banana/copy 1.jpg", "Banana/copy 2.jpg", "Elsewhere/copy 3.jpg"):
        (source / "Training" / copy).parent.mkdir(exist_ok=True)
        original = min((source / "Training" / "Banana").glob("*.jpg"))
        shutil.copyfile(original, source / "Training" / copy)
    own = Pipeline(pipeline.lake, source)
    assert own.run("raw_images", "rejected_images", "features").success
    features = own.lake.current("features")
    assert features.rows == 63
    assert features.figures["inferences"] == 60
    labels = dict(features.arrow(["path", "label"]).to_pandas().itertuples(index=False))
    assert labels["Training/Elsewhere/copy 3.jpg"] == "Elsewhere"
    found = vectors(features)
    np.testing.assert_array_equal(
        found["Training/Elsewhere/copy 3.jpg"], found["Training/Banana/copy 1.jpg"]
    )


SITE = textwrap.dedent("""
    # Imported by every Python process that starts with this folder on its path.
    import os, socket, sys

    if "pyspark.daemon" in sys.orig_argv or "pyspark.worker" in sys.orig_argv:
        def refuse(*args, **kwargs):
            raise OSError("no network here")

        connect = socket.socket.connect

        def local_only(self, address):
            if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
                refuse()
            return connect(self, address)

        socket.socket.connect = local_only

        class NoTensorFlow:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("tensorflow", "keras", "dagster"):
                    raise ImportError(f"{name} is not on the workers")

        sys.meta_path.insert(0, NoTensorFlow())
        open(os.environ["FRUITS_TEST_TRACE"], "a").write(f"{os.getpid()}\\n")
""")


@pytest.mark.slow
def test_workers_need_neither_network_nor_tensorflow(pipeline: Pipeline, tmp_path: Path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    script = textwrap.dedent(f"""
        import dagster as dg
        from pathlib import Path
        from fruits_assets.lake.lake import Lake
        from fruits_assets_tests.conftest import Pipeline
        pipeline = Pipeline(Lake.at({pipeline.lake.base!r}), Path({str(pipeline.source)!r}))
        assert pipeline.run("raw_images", "rejected_images", "features").success
    """)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path / 'site'}:{REPOSITORY}",
        "FRUITS_TEST_TRACE": str(tmp_path / "trace"),
    }
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / "trace").read_text(), "the workers were not blocked: nothing was proved"
    assert pipeline.lake.current("features").rows == 90


def test_reduced_decoding_is_a_choice_that_changes_features(pipeline: Pipeline, tmp_path: Path):
    source = tmp_path / "photos" / "Apple"
    source.mkdir(parents=True)
    Image.effect_mandelbrot((900, 900), (-2, -1.5, 1, 1.5), 50).convert("RGB").save(
        source / "1.jpg"
    )
    own = Pipeline(pipeline.lake, source)
    found = []
    for reduced in (False, True):
        config = {"features": {"reduced_decoding": reduced}}
        assert own.run("raw_images", "rejected_images", "features", config=config).success
        found.append(vectors(own.lake.current("features"))["1.jpg"])
    assert 1e-4 < relative_error(found[1], found[0]) < 0.3


@pytest.mark.slow
def test_separate_executors_give_the_same_rows(finished, pipeline: Pipeline, tmp_path: Path):
    with cluster.standalone(2, tmp_path) as running:
        _run_on(running, pipeline)
    for asset, column in (("features", "features"), ("pca_features", "components")):
        one = vectors(finished[0].lake.current(asset), column)
        two = vectors(pipeline.lake.current(asset), column)
        assert one.keys() == two.keys()
        for path, vector in one.items():
            np.testing.assert_allclose(two[path], vector, rtol=0, atol=1e-5)


def _run_on(running: cluster.Cluster, pipeline: Pipeline) -> None:
    script = textwrap.dedent(f"""
        from dataclasses import dataclass
        from pathlib import Path
        from fruits_assets.lake.lake import Lake
        from fruits_assets.spark.local import LocalSpark
        from fruits_assets_tests.conftest import Pipeline

        class Clustered(Pipeline):
            @property
            def resources(self):
                resources = super().resources
                cluster = LocalSpark(
                    lake=resources["lake"],
                    master={running.master!r},
                    spark_config={{
                        "spark.executor.memory": "512m",
                        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
                        "spark.cores.max": "2",
                    }},
                )
                return {{**resources, "spark": cluster}}

        pipeline = Clustered(Lake.at({pipeline.lake.base!r}), Path({str(pipeline.source)!r}))
        assert pipeline.run().success
        from pyspark.sql import SparkSession
        context = SparkSession.getActiveSession().sparkContext
        pids = context.parallelize(range(8), 8).map(lambda i: __import__("os").getppid()).collect()
        assert len(set(pids)) == 2, pids
    """)
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **running.environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.mark.slow
def test_workers_tell_models_apart_that_differ_in_image_size_only(pipeline: Pipeline):
    """They have the same weights, and workers keep the last model for the next task."""
    own = Pipeline(pipeline.lake, pipeline.source / "Test")
    assert own.run("raw_images", "rejected_images", "features").success
    config = {"model_weights": {"image_size": 128}}
    assert own.run("model_weights", "features", config=config).success
    assert own.lake.current("features").figures["inferences"] == 30
