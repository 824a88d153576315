"""`features` -> `pca_model`, and both -> `pca_features`."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

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
    parquet_once,
    part_name,
    read_table,
    schema_of,
    uri_of,
    vectors_array,
    vectors_matrix,
    write_file,
    write_parquet,
)
from fruits_assets.core.errors import DatasetError, PcaError
from fruits_assets.core.increment import evenly
from fruits_assets.core.pca import Moments, PcaModel
from fruits_assets.core.source import ALL, AUTO, TRAINING
from fruits_assets.core.storage import join, on_workers, storage_of
from fruits_assets.transforms.featurize import IDENTITY
from fruits_assets.transforms.transform import (
    Done,
    Log,
    for_each,
    run_logged,
    transform,
)

MODEL = pca.FILE
DESCRIPTION = "pca.json"
CSV = "pca_features.csv"
MAP = "map.parquet"
MAP_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("pc_1", pa.float32()),
        ("pc_2", pa.float32()),
        ("part", pa.string()),
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


@transform(code_version="1", outputs=["pca_drift"])
def measure_drift(
    spark: SparkSession,
    *,
    features: str,
    model: str,
    fitted: str,
    pca_drift: str,  # noqa: ARG001 - figures only
    log: Log,
) -> dict[str, Output]:
    """How far the features have moved from those that a PCA was fitted on.

    Only parts that one of the two versions does not share with the other are read.

    Args:
        spark: where to run.
        features: URI of a version of `features`.
        model: URI of a version of `pca_model`.
        fitted: URI of the version of `features` that the model was fitted on.
        pca_drift: URI of the version; only figures, no files.
        log: told the progress.
    """
    now, then = Dataset.open(features), Dataset.open(fitted)
    description = json.loads(Dataset.open(model).read(DESCRIPTION))
    fitted_model = PcaModel.from_npz(Dataset.open(model).read(MODEL))
    split = None if description["fitted_on"] == ALL else description["fitted_on"]
    shared = {file.sha256 for file in now.parts} & {file.sha256 for file in then.parts}

    def work(task: tuple[bool, str]) -> Done:
        is_new, name = task
        rows, total = 0, np.zeros(len(fitted_model.mean))
        for matrix in _matrices(now if is_new else then, [name], split):
            rows += len(matrix)
            total += (matrix - fitted_model.mean).sum(axis=0)
        return Done(rows, [is_new, rows, total.tolist()])

    tasks = [
        (dataset is now, file.name)
        for dataset in (now, then)
        for file in dataset.parts
        if file.sha256 not in shared
    ]
    total = sum(file.rows for one in (now, then) for file in one.parts if file.sha256 not in shared)
    done = for_each(spark, tasks, work, doing="PCA: drift", total=total, log=log)
    rows, moved = description["images"], np.zeros(len(fitted_model.mean))
    for is_new, count, difference in done:
        rows += count if is_new else -count
        moved += np.array(difference) if is_new else -np.array(difference)
    before, after = _keys(then, split), _keys(now, split)
    scatter = fitted_model.explained_variance.sum() / fitted_model.explained_variance_ratio.sum()
    figures = {
        "images_fitted": len(before),
        "images_now": len(after),
        "changed": len(before ^ after) / len(before),
        "mean_shift": _length(moved / fitted_model.scale) / max(1, rows) / math.sqrt(scatter),
    }
    return {"pca_drift": Output((), figures)}


def _keys(features: Dataset, split: str | None) -> set[tuple[str, str]]:
    """Path and content of the images of a split, or of all."""
    table = features.arrow(["path", "sha256", "split"])
    rows = zip(*(table[name].to_pylist() for name in ("path", "sha256", "split")), strict=True)
    return {(path, sha256) for path, sha256, found in rows if split is None or found == split}


def _length(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector))


@transform(code_version="2", outputs=["pca_features"], grows_with="features")
def apply_pca(
    spark: SparkSession,
    *,
    features: str,
    model: str,
    pca_features: str,
    csv: bool,
    earlier: Mapping[str, str] | None = None,
    log: Log,
) -> dict[str, Output]:
    """Projects every image onto the components; what an earlier version projected stays.

    A part is named after the content of the features that it is made from.

    Args:
        spark: where to run.
        features: URI of a version of `features`.
        model: URI of a version of `pca_model`.
        pca_features: URI of the version to write.
        csv: write `pca_features.csv` too (path, label, pc_1 ... pc_k).
        earlier: URI of an earlier version, made with the same model, if there is one.
        log: told the progress.
    """
    source = Dataset.open(features)
    fitted = spark.sparkContext.broadcast(PcaModel.from_npz(Dataset.open(model).read(MODEL)))
    before = _Projections.of(earlier)
    total = source.manifest.rows
    step = max(1, total // MAX_MAP_POINTS)
    new = [file for file in source.parts if _projection_of(file) not in before.parts]

    def work(file: File) -> Done:
        name = _projection_of(file)

        def projected() -> pa.Table:
            batches = source.batches(file.name, [*IDENTITY, "features"])
            return pa.Table.from_batches(
                (_projected(batch, fitted.value) for batch in batches), PCA_FEATURES_SCHEMA
            )

        plain = ["components"]
        written, table = parquet_once(pca_features, name, projected, incompressible=plain)
        return Done(table.num_rows, [vars(written), _map_points(table, step)])

    rows = sum(file.rows for file in new)
    done = for_each(spark, new, work, doing="PCA: projected", total=rows, log=log)
    names = map(_projection_of, source.parts)
    kept = [before.parts[name] for name in names if name in before.parts]
    parts = (*kept, *(File(**file) for file, _ in done))
    fresh = [
        dict(zip(MAP_SCHEMA.names, [*point, file["name"]], strict=True))
        for file, points in done
        for point in points
    ]
    points = pa.concat_tables([before.points, pa.Table.from_pylist(fresh, schema=MAP_SCHEMA)])
    table = _map(points, {part.name for part in parts})
    files = (*parts, write_parquet(pca_features, MAP, table))
    if csv:
        uris = [uri_of(pca_features, part) for part in parts]
        rows = (batch for uri in uris for batch in read_table(uri).to_batches())
        count = len(fitted.value.components)
        files = (*files, write_csv(pca_features, CSV, rows, components=count))
    figures = {"images": total, "components": len(fitted.value.components)}
    return {"pca_features": Output(files, figures, schema_of(PCA_FEATURES_SCHEMA))}


def _projection_of(part: File) -> str:
    """Name of the part that a part of the features becomes."""
    return part_name(part.sha256[:16], 0, part.rows)


@dataclass(frozen=True)
class _Projections:
    """What an earlier version has projected.

    Attributes:
        parts: by name.
        points: its `MAP_SCHEMA`.
    """

    parts: Mapping[str, File]
    points: pa.Table

    @classmethod
    def of(cls, uris: Mapping[str, str] | None) -> Self:
        """Of an earlier version, or of what is whole of it."""
        if uris is None:
            return cls({}, MAP_SCHEMA.empty_table())
        dataset = Dataset.remains(uris["pca_features"])
        try:
            points = dataset.table(MAP)
        except DatasetError:  # a picture with fewer points
            points = MAP_SCHEMA.empty_table()
        return cls({file.name: dataset.carried(file) for file in dataset.parts}, points)


def _map(points: pa.Table, parts: Collection[str]) -> pa.Table:
    """The points of some parts, or as many of them as a picture can show."""
    shown = [part in parts for part in points["part"].to_pylist()]
    table = points.filter(pa.array(shown, pa.bool_()))
    return table.take(evenly(table.num_rows, 2 * MAX_MAP_POINTS))


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


def write_csv(
    folder: str,
    name: str,
    batches: Iterable[pa.RecordBatch],
    *,
    components: int,
    text: Callable[[pa.Array], pa.Array] = lambda column: column,
) -> File:
    """Streams rows of `PCA_FEATURES_SCHEMA` into one CSV file.

    Args:
        folder: URI of the version.
        name: of the file.
        batches: of at least `path`, `label` and `components`.
        components: how many a row has, k.
        text: is applied to `path` and `label`; both are written as they are without.

    Returns:
        The file: path, label, pc_1 ... pc_k, with a header.
    """
    schema = pa.schema(
        [("path", pa.string()), ("label", pa.string())]
        + [(f"pc_{i + 1}", pa.float32()) for i in range(components)]
    )
    uri = join(folder, name)
    with storage_of(uri).create(uri) as sink, pacsv.CSVWriter(sink, schema) as writer:
        for batch in batches:
            matrix = vectors_matrix(batch, "components")
            named = [text(batch.column("path")), text(batch.column("label"))]
            columns = [*named, *map(pa.array, matrix.T)]
            writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))
    return file_of(folder, name)
