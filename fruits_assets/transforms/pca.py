"""`features` -> `pca_model`, and both -> `pca_features`."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from pyspark.sql import SparkSession

from fruits_assets.core import pca
from fruits_assets.core.dataset import (
    VECTOR,
    Dataset,
    File,
    Output,
    file_of,
    finished_parquet,
    read_table,
    schema_of,
    vectors_array,
    vectors_matrix,
    write_file,
    write_parquet,
)
from fruits_assets.core.errors import PcaError
from fruits_assets.core.pca import Moments, PcaModel
from fruits_assets.core.storage import join, on_workers, storage_of
from fruits_assets.transforms.featurize import IDENTITY
from fruits_assets.transforms.transform import (
    Done,
    Log,
    for_each,
    run_logged,
    transform,
)

MODEL = "pca.npz"
DESCRIPTION = "pca.json"
CSV = "pca_features.csv"
MAP = "map.parquet"
MAP_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("pc_1", pa.float32()),
        ("pc_2", pa.float32()),
    ]
)
MAX_MAP_POINTS = 5000
PCA_FEATURES_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("label", pa.string()),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("components", VECTOR, nullable=False),
    ]
)
AUTO, ALL, TRAINING = "auto", "all", "Training"


@transform(code_version="1", outputs=["pca_model"])
def fit_pca(
    spark: SparkSession,
    *,
    features: str,
    pca_model: str,
    n_components: float,
    standardize: bool,
    fit_split: str,
    log: Log,
) -> dict[str, Output]:
    """Fits the PCA in one pass: a Gram matrix per group of parts, added up as a tree.

    Args:
        spark: where to run.
        features: URI of a version of `features`.
        pca_model: URI of the version to write.
        n_components: share of variance in (0, 1), or a number of components.
        standardize: divide each feature by its standard deviation.
        fit_split: the split to fit on, `all`, or `auto`: Training where there is one, else all.
        log: told the progress.

    Raises:
        PcaError: there is no such PCA of these features.
    """
    pca.check_n_components(n_components)
    source = Dataset.open(features)
    split = _fit_split(source, fit_split)
    pivot = _first_row(source)
    context = spark.sparkContext
    names = [file.name for file in source.parts]
    groups = [names[i :: context.defaultParallelism] for i in range(context.defaultParallelism)]

    def gather(group: list[str]) -> Moments:
        moments = Moments.zero(len(pivot))
        for matrix in _matrices(source, group, split):
            moments += Moments.of(matrix, pivot)
        return moments

    tasks = context.parallelize([group for group in groups if group], len(groups))
    moments = run_logged(
        spark,
        lambda: tasks.map(on_workers(gather)).treeReduce(operator.add),
        log=log,
        progress=lambda: f"PCA: gathering the moments of {source.manifest.rows} images",
    )
    model = pca.fit(moments, pivot, n_components=n_components, standardize=standardize)
    description = {
        "fitted_on": split or ALL,
        "images": moments.rows,
        "features": len(pivot),
        "components": len(model.components),
        "n_components": n_components,
        "standardize": standardize,
        "explained_variance": float(model.explained_variance_ratio.sum()),
    }
    files = (
        write_file(pca_model, MODEL, model.to_npz()),
        write_file(pca_model, DESCRIPTION, json.dumps(description, indent=2).encode()),
    )
    return {"pca_model": Output(files, description)}


def _fit_split(features: Dataset, fit_split: str) -> str | None:
    """The split to fit on, None for all images."""
    splits = dict(features.manifest.figures["splits"])
    if fit_split == ALL or (fit_split == AUTO and TRAINING not in splits):
        return None
    chosen = TRAINING if fit_split == AUTO else fit_split
    if chosen not in splits:
        found = ", ".join(sorted(str(split) for split in splits if split)) or "none"
        raise PcaError(
            f"fit_split is {chosen!r}, but no image is in that split (splits found: {found}). "
            "Choose one of those, `all` or `auto`."
        )
    return chosen


def _first_row(features: Dataset) -> np.ndarray:
    """(d,) float64: any row will do as the pivot of the moments."""
    batch = next(features.batches(features.parts[0].name, ["features"], rows=1))
    return vectors_matrix(batch, "features")[0].astype(np.float64)


def _matrices(features: Dataset, names: list[str], split: str | None) -> Iterator[np.ndarray]:
    for name in names:
        for batch in features.batches(name, ["split", "features"]):
            matrix = vectors_matrix(batch, "features")
            if split is not None:
                matrix = matrix[np.array(batch.column("split").to_pylist(), object) == split]
            yield matrix


@transform(code_version="1", outputs=["pca_features"])
def apply_pca(
    spark: SparkSession,
    *,
    features: str,
    model: str,
    pca_features: str,
    csv: bool,
    log: Log,
) -> dict[str, Output]:
    """Projects every image onto the components.

    Args:
        spark: where to run.
        features: URI of a version of `features`.
        model: URI of a version of `pca_model`.
        pca_features: URI of the version to write.
        csv: write `pca_features.csv` too (path, label, pc_1 ... pc_k).
        log: told the progress.
    """
    source = Dataset.open(features)
    fitted = spark.sparkContext.broadcast(PcaModel.from_npz(Dataset.open(model).read(MODEL)))
    total = source.manifest.rows
    step = max(1, total // MAX_MAP_POINTS)

    def work(name: str) -> Done:
        finished = finished_parquet(pca_features, name)
        if finished is None:
            batches = source.batches(name, [*IDENTITY, "features"])
            table = pa.Table.from_batches(
                (_projected(batch, fitted.value) for batch in batches), PCA_FEATURES_SCHEMA
            )
            finished = (
                write_parquet(pca_features, name, table, incompressible=["components"]),
                table,
            )
        file, table = finished
        return Done(table.num_rows, [vars(file), _map_points(table, step)])

    names = [file.name for file in source.parts]
    done = for_each(spark, names, work, doing="PCA: projected", total=total, log=log)
    parts = tuple(File(**file) for file, _ in done)
    points = [dict(zip(MAP_SCHEMA.names, point, strict=True)) for _, some in done for point in some]
    table = pa.Table.from_pylist(points, schema=MAP_SCHEMA)
    files = (*parts, write_parquet(pca_features, MAP, table))
    if csv:
        files = (*files, _write_csv(pca_features, parts, len(fitted.value.components)))
    figures = {"images": total, "components": len(fitted.value.components)}
    return {"pca_features": Output(files, figures, schema_of(PCA_FEATURES_SCHEMA))}


def _projected(batch: pa.RecordBatch, model: PcaModel) -> pa.RecordBatch:
    components = vectors_array(model.transform(vectors_matrix(batch, "features")))
    identity = [batch.column(name) for name in IDENTITY]
    return pa.RecordBatch.from_arrays([*identity, components], schema=PCA_FEATURES_SCHEMA)


def _map_points(table: pa.Table, step: int) -> list[list[Any]]:
    """[path, label, pc_1, pc_2] of every `step`-th image, for a picture of the whole."""
    return [
        [row["path"], row["label"], row["components"][0], (row["components"] + [0.0])[1]]
        for row in table.take(list(range(0, table.num_rows, step))).to_pylist()
    ]


def _write_csv(folder: str, parts: tuple[File, ...], components: int) -> File:
    """Streams the parts into one CSV file."""
    schema = pa.schema(
        [("path", pa.string()), ("label", pa.string())]
        + [(f"pc_{i + 1}", pa.float32()) for i in range(components)]
    )
    uri = join(folder, CSV)
    with storage_of(uri).create(uri) as sink, pacsv.CSVWriter(sink, schema) as writer:
        for part in parts:
            for batch in read_table(join(folder, part.name)).to_batches():
                matrix = vectors_matrix(batch, "components")
                columns = [batch.column("path"), batch.column("label"), *map(pa.array, matrix.T)]
                writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))
    return file_of(folder, CSV)
