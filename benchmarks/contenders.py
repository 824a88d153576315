"""The contenders: each is a process of its own that waits for orders and says how long it took.

    python -m benchmarks.contenders NAME SPEC.json

An order is a line on standard input; the answer is a JSON line on standard output. So every
contender has its session up before the clock starts, and they can take turns.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks import tables
from fruits_assets.lake.lake import Lake
from fruits_assets.sources.places import photos_at
from fruits_assets.storage.places import folder_at, folder_from
from fruits_assets.storage.snapshot import Snapshot

BATCH = 32
"""Images per `predict`, Keras's default."""
MAX_PIXELS = MAX_BYTES = 100_000_000
"""Of ingest, as by default."""
FEW_OBJECTS = 500
"""For those who would take minutes over all of them."""
GETS, GET_THREADS = 1500, 16


@dataclass(frozen=True)
class Spec:
    """What to compute features of, with what.

    Attributes:
        photos: folder of JPEGs, for those who read files.
        lake: with the same photos and the weights, once `ingest` has run.
        weights: Keras weights file.
        features: a version of `features` to fit a PCA to, as `Snapshot.to_dict` describes it.
        scratch: folder to write to.
        master: Spark master.
        cores: to use.
        alpha: width multiplier of the network.
        image_size: of its input, in pixels.
        bucket: `s3://bucket/prefix` with the same photos.
        few: another such URI, with the first `FEW_OBJECTS` of them.
        region: of both buckets.
        endpoint: of the store that holds them, without the delay.
        environment: variables that Spark reads, as for the secret of a cluster.
    """

    photos: str
    lake: str
    weights: str
    features: Mapping[str, Any]
    scratch: str
    master: str
    cores: int
    alpha: float = 1.0
    image_size: int = 224
    bucket: str = ""
    few: str = ""
    region: str = ""
    endpoint: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def images(self) -> Snapshot:
        """A version of `raw_images` with the same photos, for those who read the lake."""
        return Lake.at(self.lake).current("raw_images")

    @property
    def model(self) -> Snapshot:
        """A version of `model_weights`."""
        return Lake.at(self.lake).current("model_weights")

    @property
    def vectors(self) -> Snapshot:
        """What `features` describes."""
        return Snapshot.from_dict(self.features, folder_from(self.features["folder"]))

    def write(self, path: Path) -> Path:
        """Saves it for another process."""
        path.write_text(json.dumps(asdict(self)))
        return path


Run = Callable[[], int]
"""Does the work once; returns how many images (or rows) it treated."""


def intern(spec: Spec) -> Run:
    """(a) The intern's notebook, as the brief describes it.

    The whole model is built in every task before the broadcast weights are set, `SCALAR_ITER`
    pandas UDF, float32 batches, `model.predict`, 20 partitions, Parquet out. The network is built
    without its top, whose layers the notebook cuts off.
    """
    from pyspark.sql.functions import pandas_udf

    spark, weights = _session(spec), _keras_weights(spec)
    broadcast = spark.sparkContext.broadcast(weights)

    # Spark 4 tells the kind of a UDF from its annotations, which must be real types here.
    import pandas as pd

    def featurize(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        model = _keras_model(spec)
        model.set_weights(broadcast.value)
        for batch in batches:
            pixels = np.stack([_keras_pixels(content, spec.image_size) for content in batch])
            vectors = model.predict(pixels, verbose=0)
            yield pd.Series(list(vectors))

    featurize.__annotations__ = {"batches": Iterator[pd.Series], "return": Iterator[pd.Series]}
    # PySpark's stubs do not know the annotated form of a UDF.
    featurize_udf = pandas_udf(featurize, "array<float>")  # type: ignore[call-overload]

    return _over_files(spec, spark, featurize_udf)


def predict_batch(spec: Spec) -> Run:
    """(b) The same with Spark's own `predict_batch_udf`, which keeps a model per worker."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import ArrayType, FloatType

    spark = _session(spec)
    broadcast = spark.sparkContext.broadcast(_keras_weights(spec))

    def make_predict() -> Callable[[np.ndarray], np.ndarray]:
        model = _keras_model(spec)
        model.set_weights(broadcast.value)

        def predict(contents: np.ndarray) -> np.ndarray:
            pixels = np.stack([_keras_pixels(content, spec.image_size) for content in contents])
            return model.predict(pixels, verbose=0)

        return predict

    predict_udf = predict_batch_udf(
        make_predict, return_type=ArrayType(FloatType()), batch_size=BATCH
    )

    return _over_files(spec, spark, predict_udf)


def _over_files(spec: Spec, spark: Any, features_of: Callable[[Any], Any]) -> Run:
    """The notebook's plan around a UDF: label from the path, 20 partitions, Parquet out."""
    from pyspark.sql.functions import col, element_at, split

    output = f"{spec.scratch}/notebook"

    def run() -> int:
        images = (
            spark.read.format("binaryFile")
            .option("pathGlobFilter", "*.jpg")
            .option("recursiveFileLookup", "true")
            .load(spec.photos)
        )
        features = images.repartition(20).select(
            "path",
            element_at(split("path", "/"), -2).alias("label"),
            features_of(col("content")).alias("features"),
        )
        features.write.mode("overwrite").parquet(output)
        return spark.read.parquet(output).count()

    return run


def project(spec: Spec) -> Run:
    """(c) This project's features stage."""
    from fruits_assets.transforms.featurize import featurize

    spark = _session(spec)

    def run() -> int:
        output = f"{spec.scratch}/features"
        shutil.rmtree(output, ignore_errors=True)
        made = tables.run(
            spark,
            featurize,
            folder_at(output),
            params={"reduced_decoding": False},
            images=spec.images,
            model=spec.model,
        )
        return made.figures["images"]

    return run


def ingest(spec: Spec) -> Run:
    """Brings photos and model into the lake: what the features stage starts from."""
    _session(spec)

    def run() -> int:
        _materialize(spec, spec.lake, ["raw_images", "rejected_images", "model_weights"])
        return spec.images.rows

    return run


def pipeline(spec: Spec) -> Run:
    """This project's assets from photos to components, as Dagster runs them in one process."""
    _session(spec)
    lake = f"{spec.scratch}/lake"
    stages = ["raw_images", "rejected_images", "features", "pca_model", "pca_features"]

    def run() -> int:
        shutil.rmtree(lake, ignore_errors=True)
        shutil.copytree(f"{spec.lake}/model_weights", f"{lake}/model_weights")
        _materialize(spec, lake, stages)
        return Lake.at(lake).current("pca_features").rows

    return run


def _materialize(spec: Spec, lake: str, selection: list[str]) -> None:
    import dagster as dg

    from fruits_assets.definitions import ASSETS, compose
    from fruits_assets.settings import Settings

    definitions = compose(Settings(source=spec.photos, lake=lake, weights=spec.weights))
    dg.materialize(
        list(ASSETS),
        selection=selection,
        resources=definitions.resources,
        instance=dg.DagsterInstance.ephemeral(),
    )


def cold_job(spec: Spec) -> Run:
    """The whole job from process start to exit, into an empty lake."""
    lake = f"{spec.scratch}/cold"
    command = ["dagster", "job", "execute", "-m", "fruits_assets.definitions", "-j", "fruits_job"]
    environment = {
        **os.environ,
        "FRUITS_SOURCE": spec.photos,
        "FRUITS_LAKE": lake,
        "FRUITS_WEIGHTS": spec.weights,
    }

    def run() -> int:
        shutil.rmtree(lake, ignore_errors=True)
        subprocess.run(
            [sys.executable, "-m", *command], env=environment, check=True, stdin=subprocess.DEVNULL
        )
        return Lake.at(lake).current("pca_features").rows

    return run


def ceiling(spec: Spec) -> Run:
    """(d) As many bare processes as cores; each decodes, resizes and infers, and nothing else."""
    paths = sorted(map(str, Path(spec.photos).rglob("*.jpg")))
    shares = [paths[i :: spec.cores] for i in range(spec.cores)]
    context = get_context("spawn")
    orders, answers = context.Queue(), context.Queue()
    for share in shares:
        context.Process(
            target=_infer_on_order, args=(spec, share, orders, answers), daemon=True
        ).start()
    for _ in shares:
        answers.get()

    def run() -> int:
        for _ in shares:
            orders.put("go")
        return sum(answers.get() for _ in shares)

    return run


def _infer_on_order(spec: Spec, paths: list[str], orders: Any, answers: Any) -> None:
    from fruits_assets.core.images import pixels
    from fruits_assets.core.mobilenet import MODEL, FeatureExtractor

    extract = FeatureExtractor(spec.model.read(MODEL))
    answers.put("ready")
    while orders.get():
        for path in paths:
            extract(pixels(Path(path).read_bytes(), orientation=1, size=spec.image_size))
        answers.put(len(paths))


def project_pca(spec: Spec) -> Run:
    """(e) This project's PCA fit."""
    from fruits_assets.transforms.pca import fit_pca

    spark, features = _session(spec), spec.vectors

    def run() -> int:
        params = {"n_components": 0.95, "standardize": False, "fit_split": "all"}
        folder = folder_at(f"{spec.scratch}/pca")
        return tables.run(spark, fit_pca, folder, params=params, features=features).figures[
            "images"
        ]

    return run


def spark_ml_pca(spec: Spec) -> Run:
    """(e) Spark ML's PCA of as many components, reading the same Parquet files."""
    from pyspark.ml.feature import PCA
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql.functions import col

    spark = _session(spec, memory="6g", options=PLAIN_JVM)
    features = spec.vectors

    def run() -> int:
        rows = features.spark(spark).select(array_to_vector(col("features")).alias("features"))
        PCA(k=50, inputCol="features", outputCol="components").fit(rows)
        return features.rows

    return run


def scikit_learn_pca(spec: Spec) -> Run:
    """(e) scikit-learn's fastest exact PCA for this shape, in memory, reading counted."""
    from sklearn.decomposition import PCA

    features = spec.vectors

    def run() -> int:
        column = features.arrow(["features"])["features"].combine_chunks()
        rows = column.flatten().to_numpy().reshape(len(column), -1)
        PCA(n_components=0.95, svd_solver="covariance_eigh").fit(rows)
        return len(rows)

    return run


def ingest_folder(spec: Spec) -> Run:
    """This project's ingest of a folder: listing, reading, examining and writing all photos."""
    return _ingesting(spec, spec.photos)


def ingest_bucket(spec: Spec) -> Run:
    """The same of a bucket, to the same place."""
    return _ingesting(spec, spec.bucket)


def _ingesting(spec: Spec, photos: str) -> Run:
    from fruits_assets.transforms.ingest import ingest as transform

    spark = _session(spec)
    store = photos_at(folder_at(photos, region=spec.region or None))
    output = f"{spec.scratch}/ingested"
    limits = {"max_pixels": MAX_PIXELS, "max_bytes": MAX_BYTES, "photos": store.folder}

    def run() -> int:
        shutil.rmtree(output, ignore_errors=True)
        listing = store.list(recursive=True)
        made = tables.run(spark, transform, folder_at(output), params=limits, source=listing)
        return made.figures["images"]

    return run


def binary_file(spec: Spec) -> Run:
    """Spark's own reader of many files, over s3a: every photo's bytes reach a Python worker."""
    from pyspark.sql import functions

    from fruits_assets.spark import jars

    storage = folder_at(spec.few, region=spec.region).storage
    spark = _session(spec, options={**PLAIN_JVM, **jars.provided(storage.spark_config())})

    def digests(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            contents = batch.column("content").to_pylist()
            found = [hashlib.sha256(content).hexdigest() for content in contents]
            yield pa.RecordBatch.from_pydict({"sha256": found})

    def run() -> int:
        photos = (
            spark.read.format("binaryFile")
            .option("recursiveFileLookup", "true")
            .option("pathGlobFilter", "*.jpg")
            .load(storage.spark_path(spec.few))
        )
        rows = photos.select(functions.col("content")).mapInArrow(digests, "sha256 string")
        return len({row.sha256 for row in rows.collect()})

    return run


def get_boto3(spec: Spec) -> Run:
    """Reads objects by boto3."""
    import boto3
    from botocore.config import Config

    from fruits_assets.storage.s3 import split

    bucket, _ = split(spec.bucket)
    client = boto3.client(
        "s3",
        endpoint_url=spec.endpoint,
        region_name=spec.region,
        config=Config(max_pool_connections=GET_THREADS),
    )

    def get(key: str) -> bytes:
        return client.get_object(Bucket=bucket, Key=key)["Body"].read()

    return _getting(spec, get)


def get_obstore(spec: Spec) -> Run:
    """Reads objects by obstore."""
    from obstore.store import S3Store

    from fruits_assets.storage.s3 import split

    store = S3Store(
        split(spec.bucket)[0],
        endpoint=spec.endpoint,
        region=spec.region,
        virtual_hosted_style_request=False,
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True},
    )
    return _getting(spec, lambda key: bytes(store.get(key).bytes()))


def get_pyarrow(spec: Spec) -> Run:
    """Reads objects by pyarrow, which asks for the size of each first."""
    from pyarrow.fs import S3FileSystem

    from fruits_assets.storage.s3 import split

    bucket, _ = split(spec.bucket)
    files = S3FileSystem(endpoint_override=spec.endpoint, region=spec.region)

    def get(key: str) -> bytes:
        with files.open_input_stream(f"{bucket}/{key}") as stream:
            return stream.read()

    return _getting(spec, get)


def _getting(spec: Spec, get: Callable[[str], bytes]) -> Run:
    from fruits_assets.storage.s3 import split

    _, prefix = split(spec.bucket)
    names = photos_at(folder_at(spec.photos)).list(recursive=True).files["path"].to_pylist()[:GETS]
    keys = [f"{prefix}/{name}" for name in names]

    def run() -> int:
        with ThreadPoolExecutor(GET_THREADS) as pool:
            return sum(len(content) > 0 for content in pool.map(get, keys))

    return run


CONTENDERS: dict[str, Callable[[Spec], Run]] = {
    contender.__name__: contender
    for contender in (
        ingest,
        intern,
        predict_batch,
        project,
        ceiling,
        pipeline,
        cold_job,
        project_pca,
        spark_ml_pca,
        scikit_learn_pca,
        ingest_folder,
        ingest_bucket,
        binary_file,
        get_boto3,
        get_obstore,
        get_pyarrow,
    )
}


CLUSTER = {
    "spark.executor.memory": "512m",
    "spark.executor.cores": "1",
    "spark.driver.host": "127.0.0.1",
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
}
"""Of executors as processes of their own; a local session has none."""

PLAIN_JVM = {"spark.driver.extraJavaOptions": "-XX:+IgnoreUnrecognizedVMOptions"}
"""Takes back what this project sets for a JVM that only schedules: here it computes."""


def _session(
    spec: Spec, *, memory: str = "2g", options: Mapping[str, str] = MappingProxyType({})
) -> Any:
    """A Spark session as this project starts it, with its Python workers up."""
    from fruits_assets.lake.resource import LakeResource
    from fruits_assets.spark.local import LocalSpark

    os.environ.update(spec.environment)

    class Unrestricted(LocalSpark):
        """With settings that the config of a run may not have."""

        def _config(self) -> dict[str, str]:
            cores = {"spark.cores.max": str(spec.cores)}
            return {**super()._config(), **CLUSTER, **options, **cores}

    target = Unrestricted(
        lake=LakeResource(base=spec.scratch), master=spec.master, driver_memory=memory
    )
    spark = target.session()
    spark.range(0, spec.cores, 1, spec.cores).mapInArrow(lambda rows: rows, "id long").collect()
    return spark


def _keras_model(spec: Spec) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    nothing: Any = None
    return keras.applications.MobileNetV2(
        input_shape=(spec.image_size, spec.image_size, 3),
        alpha=spec.alpha,
        include_top=False,
        pooling="avg",
        weights=nothing,
    )


def _keras_weights(spec: Spec) -> list[np.ndarray]:
    model = _keras_model(spec)
    model.load_weights(spec.weights)
    return model.get_weights()


def _keras_pixels(content: bytes, size: int) -> np.ndarray:
    from keras.applications.mobilenet_v2 import preprocess_input

    picture = Image.open(io.BytesIO(content)).convert("RGB").resize((size, size))
    return np.asarray(preprocess_input(np.asarray(picture, np.float32)))


def main() -> None:
    """Serves orders until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    spec = Spec(**json.loads(Path(sys.argv[2]).read_text()))
    run = CONTENDERS[sys.argv[1]](spec)
    print(json.dumps("ready"), file=answers, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        images = run()
        seconds = time.perf_counter() - started
        print(json.dumps({"images": images, "seconds": seconds}), file=answers, flush=True)


if __name__ == "__main__":
    main()
