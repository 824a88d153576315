"""`raw_images` and a model -> `features`."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import SparkSession, Window
from pyspark.sql.functions import col
from pyspark.sql.functions import min as first_of

from fruits_assets.core.dataset import (
    VECTOR,
    Dataset,
    File,
    Output,
    finished_parquet,
    schema_of,
    vectors_array,
    write_parquet,
)
from fruits_assets.core.images import pixels
from fruits_assets.core.mobilenet import (
    DESCRIPTION,
    MODEL,
    FeatureExtractor,
    ModelDescription,
)
from fruits_assets.transforms.transform import Done, Log, for_each, transform

FEATURES_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("label", pa.string()),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("features", VECTOR, nullable=False),
    ]
)
IDENTITY = ("path", "split", "label", "sha256")
Identity = tuple[str, str | None, str | None, str]

BATCH_ROWS = 64
"""Photos held as Python objects at a time."""

_extractors: dict[str, FeatureExtractor] = {}
"""One model per worker process, by fingerprint: Spark reuses the processes between tasks."""


@transform(code_version="1", outputs=["features"])
def featurize(
    spark: SparkSession,
    *,
    images: str,
    model: str,
    features: str,
    reduced_decoding: bool,
    log: Log,
) -> dict[str, Output]:
    """Runs the model once on every distinct content, one task per part of the images.

    The model is broadcast: graph and weights in one flatbuffer, so that a worker neither builds
    nor downloads anything.

    Args:
        spark: where to run.
        images: URI of a version of `raw_images`.
        model: URI of a version of `model_weights`.
        features: URI of the version to write.
        reduced_decoding: decode large JPEGs at a smaller scale, faster and less exactly.
        log: told the progress.
    """
    started = time.monotonic()
    source, weights = Dataset.open(images), Dataset.open(model)
    description = ModelDescription.from_json(weights.read(DESCRIPTION))
    flatbuffer = spark.sparkContext.broadcast(weights.read(MODEL))
    copies = spark.sparkContext.broadcast(_copies(spark, source))

    def work(name: str) -> Done:
        inferences = 0
        finished = finished_parquet(features, name)
        if finished is None:
            extractor = _extractor(description.fingerprint, flatbuffer)
            see = partial(pixels, size=description.image_size, reduced=reduced_decoding)
            seen = list(_seen(source, name, see, extractor, copies.value))
            inferences, table = len(seen), _table(seen)
            finished = write_parquet(features, name, table, incompressible=["features"]), table
        file, table = finished
        splits = Counter(table["split"].to_pylist())
        return Done(table.num_rows, [vars(file), list(splits.items()), inferences])

    names = [file.name for file in source.parts]
    done = for_each(spark, names, work, doing="features", total=source.manifest.rows, log=log)
    splits: Counter[str | None] = Counter()
    for _, counts, _ in done:
        splits.update(dict(counts))
    figures = {
        "images": splits.total(),
        "inferences": sum(inferences for _, _, inferences in done),
        "features_per_image": description.features,
        "images_per_second": round(splits.total() / (time.monotonic() - started), 1),
        "splits": [[split, count] for split, count in sorted(splits.items(), key=str)],
    }
    files = tuple(File(**file) for file, _, _ in done if file["rows"])
    return {"features": Output(files, figures, schema_of(FEATURES_SCHEMA))}


@dataclass(frozen=True)
class Copies:
    """Images whose content another image, the first by path, has too.

    Attributes:
        of_first: path of the first -> the identities of its copies.
        paths: of all copies.
    """

    of_first: dict[str, list[Identity]]
    paths: frozenset[str]


def _copies(spark: SparkSession, images: Dataset) -> Copies:
    """Only paths and hashes are shuffled, never pixels, and only the repeated ones come back."""
    same = Window.partitionBy("sha256")
    rows = (
        images.spark(spark)
        .select(*IDENTITY, first_of("path").over(same).alias("first"))
        .where(col("path") != col("first"))
        .collect()
    )
    of_first = defaultdict(list)
    for *identity, first in rows:
        of_first[first].append(tuple(identity))
    return Copies(dict(of_first), frozenset(row.path for row in rows))


def _extractor(fingerprint: str, flatbuffer: Broadcast[bytes]) -> FeatureExtractor:
    if fingerprint not in _extractors:
        _extractors.clear()
        _extractors[fingerprint] = FeatureExtractor(flatbuffer.value)
    return _extractors[fingerprint]


def _seen(
    images: Dataset,
    part: str,
    see: Callable[..., np.ndarray],
    extract: FeatureExtractor,
    copies: Copies,
) -> Iterator[tuple[list[Identity], np.ndarray]]:
    """Runs the model on every content that comes first in this part.

    Yields:
        The identities of all images with that content, and its (features,) float32 vector.
    """
    columns = [*IDENTITY, "content", "orientation"]
    for batch in images.batches(part, columns, rows=BATCH_ROWS):
        for row in batch.to_pylist():
            if row["path"] in copies.paths:
                continue
            identity = tuple(row[name] for name in IDENTITY)
            picture = see(row["content"], orientation=row["orientation"])
            yield [identity, *copies.of_first.get(row["path"], ())], extract(picture)


def _table(seen: list[tuple[list[Identity], np.ndarray]]) -> pa.Table:
    if not seen:
        return FEATURES_SCHEMA.empty_table()
    identities = [identity for some, _ in seen for identity in some]
    vectors = np.stack([vector for some, vector in seen for _ in some])
    columns = [pa.array(column, pa.string()) for column in zip(*identities, strict=True)]
    return pa.Table.from_arrays([*columns, vectors_array(vectors)], schema=FEATURES_SCHEMA)
