"""`features` -> `pca_model`, and both -> `pca_features`."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from fruits_assets.core import pca
from fruits_assets.core.errors import DatasetError, PcaError
from fruits_assets.core.inverted_file import CELLS
from fruits_assets.core.pca import Moments, PcaModel
from fruits_assets.sources.layout import ALL, AUTO, TRAINING
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import (
    FILES_SCHEMA,
    VECTOR,
    File,
    Origin,
    address_of,
    part_once,
    vectors_array,
    vectors_matrix,
    write_files,
    write_part,
)
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.cells import sort_into_cells
from fruits_assets.transforms.featurize import IDENTITY
from fruits_assets.transforms.increment import evenly
from fruits_assets.transforms.spread import (
    Done,
    Log,
    broadcast,
    for_each,
    light_rows,
    run_logged,
)
from fruits_assets.transforms.transform import FIGURES_SCHEMA, transform, write_figures

MODEL = pca.FILE
DESCRIPTION = "pca.json"
MOMENTS, MOMENTS_FILE = "_moments", "moments.npz"
"""Table of files: the sums that the PCA was fitted on, from which an erasure subtracts."""
MAP = "_map"
"""Table of the first two components of some photos, for a picture of the whole."""
MAP_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("pc_1", pa.float32()),
        ("pc_2", pa.float32()),
        ("part", pa.string()),
    ]
)
DRIFT = "_drift"
"""Table of figures: how far the features have moved from those that the PCA was fitted on."""
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


@transform(code_version="2", outputs={"pca_model": FILES_SCHEMA, MOMENTS: FILES_SCHEMA})
def fit_pca(
    spark: SparkSession,
    *,
    features: Snapshot,
    pca_model: Folder,
    _moments: Folder,
    n_components: float,
    standardize: bool,
    fit_split: str,
    question: str,
    log: Log,
) -> dict[str, Output]:
    """Fits the PCA in one pass: a Gram matrix per group of parts, added up as a tree.

    Args:
        spark: where to run.
        features: a version of `features`.
        pca_model: folder to write the PCA to.
        _moments: folder to write the moments to.
        n_components: share of variance in (0, 1), or a number of components.
        standardize: divide each feature by its standard deviation.
        fit_split: the split to fit on, `all`, or `auto`: Training where there is one, else all.
        question: see `Transform`.
        log: told the progress.

    Raises:
        PcaError: there is no such PCA of these features.
    """
    pca.check_n_components(n_components)
    source = features.alone()
    split = fit_split_of(source, fit_split)
    pivot = _first_row(source)
    moments = gather(spark, source, split, pivot, log=log)
    return write_model(
        moments,
        pivot,
        {"pca_model": pca_model, MOMENTS: _moments},
        question=address_of(question, [file.name for file in source.files]),
        n_components=n_components,
        standardize=standardize,
        fitted_on=split or ALL,
    )


@transform(code_version="1", outputs={"pca_model": FILES_SCHEMA, MOMENTS: FILES_SCHEMA})
def refit_pca(
    spark: SparkSession,
    *,
    features: Snapshot,
    fitted: Snapshot,
    model: Snapshot,
    pca_model: Folder,
    _moments: Folder,
    n_components: float,
    standardize: bool,
    fit_split: str,
    question: str,
    log: Log,
) -> dict[str, Output]:
    """Fits the PCA of `fit_pca` again, from the moments of an earlier fit.

    Only parts that one of the two versions of the features does not share with the other are read:
    what is gone is subtracted, what is new is added.

    Args:
        spark: where to run.
        features: a version of `features`.
        fitted: the version of `features` that the earlier model was fitted on.
        model: that model, with its moments.
        pca_model: folder to write the PCA to.
        _moments: folder to write the moments to.
        n_components: share of variance in (0, 1), or a number of components.
        standardize: divide each feature by its standard deviation.
        fit_split: the split to fit on, `all`, or `auto`: Training where there is one, else all.
        question: see `Transform`.
        log: told the progress.

    Raises:
        PcaError: there is no such PCA of these features.
    """
    now, then = features.alone(), fitted.alone()
    split = fit_split_of(now, fit_split)
    # The pivot of the earlier fit was a row of the data: it must not outlive that row.
    first = _first_row(now)
    shared = now.by_name.keys() & then.by_name.keys()
    new, gone = (
        replace(one, files=tuple(file for file in one.files if file.name not in shared))
        for one in (now, then)
    )
    if model.figures["fitted_on"] != (split or ALL) or 2 * gone.rows > then.rows:
        # Of other photos, or of so few that are left that little but rounding would be.
        moments = gather(spark, now, split, first, log=log)
    else:
        earlier, pivot = Moments.from_npz(model.siblings[MOMENTS].read(MOMENTS_FILE))
        came = gather(spark, new, split, pivot, log=log)
        went = gather(spark, gone, split, pivot, log=log)
        moments = (earlier + came - went).moved(pivot, first)
    return write_model(
        moments,
        first,
        {"pca_model": pca_model, MOMENTS: _moments},
        question=address_of(question, [file.name for file in now.files]),
        n_components=n_components,
        standardize=standardize,
        fitted_on=split or ALL,
    )


def gather(
    spark: SparkSession, source: Snapshot, split: str | None, pivot: np.ndarray, *, log: Log
) -> Moments:
    """The moments of the features of a split, or of all of them."""
    context = spark.sparkContext
    count = min(context.defaultParallelism, len(source.files))
    if not count:
        return Moments.zero(len(pivot))
    groups = [source.files[i::count] for i in range(count)]
    handle = source.only(())

    def of_group(group: Sequence[File]) -> Moments:
        moments = Moments.zero(len(pivot))
        for matrix in _matrices(handle, group, split):
            moments += Moments.of(matrix, pivot)
        return moments

    tasks = context.parallelize(groups, len(groups))
    return run_logged(
        spark,
        lambda: tasks.map(of_group).treeReduce(operator.add),
        log=log,
        progress=lambda: f"PCA: gathering the moments of {source.rows} images",
    )


def write_model(
    moments: Moments,
    pivot: np.ndarray,
    folders: Mapping[str, Folder],
    *,
    question: str,
    n_components: float,
    standardize: bool,
    fitted_on: str,
) -> dict[str, Output]:
    """Solves the PCA of some moments, and writes it with them.

    Args:
        moments: of the features, about
        pivot: (d,) float64.
        folders: of `pca_model` and `_moments`.
        question: hash of all that it was made from.
        n_components: share of variance in (0, 1), or a number of components.
        standardize: divide each feature by its standard deviation.
        fitted_on: name of the split, or `all`.

    Raises:
        PcaError: there is no such PCA of these features.
    """
    model = pca.fit(moments, pivot, n_components=n_components, standardize=standardize)
    description = {
        "fitted_on": fitted_on,
        "images": moments.rows,
        "features": len(pivot),
        "components": len(model.components),
        "n_components": n_components,
        "standardize": standardize,
        "explained_variance": float(model.explained_variance_ratio.sum()),
    }
    contents = {
        MODEL: model.to_npz(),
        DESCRIPTION: json.dumps(description, indent=2).encode(),
    }
    sums = {MOMENTS_FILE: moments.to_npz(pivot)}
    return {
        "pca_model": Output((write_files(folders["pca_model"], question, contents),), description),
        MOMENTS: Output((write_files(folders[MOMENTS], question, sums),)),
    }


def fit_split_of(features: Snapshot, fit_split: str) -> str | None:
    """The split to fit on, None for all images."""
    splits = dict(features.figures["splits"])
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


def _first_row(features: Snapshot) -> np.ndarray:
    """(d,) float64: any row will do as the pivot of the moments."""
    batch = next(features.batches(features.files[0], ["features"], rows=1))
    return vectors_matrix(batch, "features")[0].astype(np.float64)


def _matrices(features: Snapshot, files: Iterable[File], split: str | None) -> Iterator[np.ndarray]:
    for file in files:
        for batch in features.batches(file, ["split", "features"]):
            matrix = vectors_matrix(batch, "features")
            if split is not None:
                matrix = matrix[np.array(batch.column("split").to_pylist(), object) == split]
            yield matrix


@transform(code_version="2", outputs={DRIFT: FIGURES_SCHEMA})
def measure_drift(
    spark: SparkSession,
    *,
    features: Snapshot,
    model: Snapshot,
    fitted: Snapshot,
    _drift: Folder,
    question: str,
    log: Log,
) -> dict[str, Output]:
    """How far the features have moved from those that a PCA was fitted on.

    Only parts that one of the two versions does not share with the other are read.

    Args:
        spark: where to run.
        features: a version of `features`.
        model: a version of `pca_model`.
        fitted: the version of `features` that the model was fitted on.
        _drift: folder to write the figures to.
        question: see `Transform`.
        log: told the progress.
    """
    now, then = features.alone(), fitted.alone()
    description = json.loads(model.read(DESCRIPTION))
    fitted_model = PcaModel.from_npz(model.read(MODEL))
    split = None if description["fitted_on"] == ALL else description["fitted_on"]
    shared = now.by_name.keys() & then.by_name.keys()
    handles = {True: now.only(()), False: then.only(())}

    def work(task: tuple[bool, File]) -> Done:
        is_new, file = task
        rows, total = 0, np.zeros(len(fitted_model.mean))
        for matrix in _matrices(handles[is_new], [file], split):
            rows += len(matrix)
            total += (matrix - fitted_model.mean).sum(axis=0)
        return Done(rows, [is_new, rows, total.tolist()])

    tasks = [
        (snapshot is now, file)
        for snapshot in (now, then)
        for file in snapshot.files
        if file.name not in shared
    ]
    total = sum(file.rows for _, file in tasks)
    done = for_each(spark, tasks, work, doing="PCA: drift", total=total, log=log)
    rows, moved = description["images"], np.zeros(len(fitted_model.mean))
    for is_new, count, difference in done:
        rows += count if is_new else -count
        moved += np.array(difference) if is_new else -np.array(difference)
    changed = _changed(spark, now, then, split, log=log)
    scatter = fitted_model.explained_variance.sum() / fitted_model.explained_variance_ratio.sum()
    figures = {
        "images_fitted": description["images"],
        "images_now": rows,
        "changed": changed / description["images"],
        "mean_shift": _length(moved / fitted_model.scale) / max(1, rows) / math.sqrt(scatter),
    }
    return {DRIFT: Output((write_figures(_drift, question, figures),), figures)}


def _changed(
    spark: SparkSession, now: Snapshot, then: Snapshot, split: str | None, *, log: Log
) -> int:
    """How many images of a split, or of all, only one of two versions of the features has.

    An image is a path and a content. Parts that both versions share hold the same images, and are
    not read.
    """

    def rows(one: Snapshot, other: Snapshot, sign: int) -> DataFrame:
        own = [file for file in one.files if file.name not in other.by_name]
        found = light_rows(spark, one, ["path", "sha256", "split"], files=own)
        return found.selectExpr("path", "sha256", "split", f"{sign} AS sign")

    both = rows(now, then, 1).unionByName(rows(then, now, -1))
    if split is not None:
        both = both.where(both["split"] == split)
    sums = both.groupBy("path", "sha256").sum("sign")
    return run_logged(
        spark,
        sums.where("`sum(sign)` != 0").count,
        log=log,
        progress=lambda: "PCA: comparing the images that it was fitted on with those of now",
    )


def _length(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector))


TABLES = {"pca_features": PCA_FEATURES_SCHEMA, MAP: MAP_SCHEMA, CELLS: FILES_SCHEMA}
"""What a projection writes: name -> schema."""


@transform(code_version="4", outputs=TABLES, grows_with="features")
def apply_pca(
    spark: SparkSession,
    *,
    features: Snapshot,
    model: Snapshot,
    pca_features: Folder,
    _map: Folder,
    _cells: Folder,
    earlier: Snapshot | None = None,
    question: str,
    log: Log,
) -> dict[str, Output]:
    """Projects every image onto the components; what an earlier version projected stays.

    A part is named after the content of the features that it is made from.

    Args:
        spark: where to run.
        features: a version of `features`.
        model: a version of `pca_model`.
        pca_features: folder to write the components to.
        _map: folder to write the points of a picture to.
        _cells: folder to write the cells to that many photos are searched by.
        earlier: an earlier version, made with the same model, if there is one.
        question: see `Transform`.
        log: told the progress.
    """
    source = features.alone()
    fitted = PcaModel.from_npz(model.read(MODEL))
    origins = {file: Origin(address_of(question, file.name), 0, file.rows) for file in source.files}
    before = _Projections.of(earlier)
    step = max(1, source.rows // MAX_MAP_POINTS)
    new = [file for file in source.files if origins[file] not in before.parts]

    handle = source.only(())

    def work(task: tuple[File, Origin]) -> Done:
        file, origin = task

        def projected() -> pa.Table:
            batches = handle.batches(file, [*IDENTITY, "features"])
            return pa.Table.from_batches(
                (_projected(batch, everywhere.value) for batch in batches), PCA_FEATURES_SCHEMA
            )

        plain = ["components"]
        written, table = part_once(pca_features, origin, projected, incompressible=plain)
        return Done(table.num_rows, [vars(written), _map_points(table, step)])

    rows = sum(file.rows for file in new)
    with broadcast(spark, fitted) as everywhere:
        tasks = [(file, origins[file]) for file in new]
        done = for_each(spark, tasks, work, doing="PCA: projected", total=rows, log=log)
    kept = [before.parts[origin] for origin in origins.values() if origin in before.parts]
    parts = (*kept, *(File(**file) for file, _ in done))
    fresh = [
        dict(zip(MAP_SCHEMA.names, [*point, file["name"]], strict=True))
        for file, points in done
        for point in points
    ]
    points = pa.concat_tables([before.points, pa.Table.from_pylist(fresh, schema=MAP_SCHEMA)])
    table = _shown(points, {part.name for part in parts})
    figures = {"images": source.rows, "components": len(fitted.components)}
    origin = Origin(address_of([part.name for part in parts]), 0, table.num_rows)
    whole = Snapshot.unpublished(pca_features, "pca_features", PCA_FEATURES_SCHEMA, parts)
    cells = sort_into_cells(spark, whole, _cells, earlier=earlier, question=question, log=log)
    return {
        "pca_features": Output(parts, figures),
        MAP: Output((write_part(_map, origin, table),)),
        CELLS: cells,
    }


@dataclass(frozen=True)
class _Projections:
    """What an earlier version has projected.

    Attributes:
        parts: by what they were made from.
        points: its `MAP_SCHEMA`.
    """

    parts: Mapping[Origin, File]
    points: pa.Table

    @classmethod
    def of(cls, earlier: Snapshot | None) -> Self:
        """Of an earlier version, or of what is whole of it."""
        if earlier is None:
            return cls({}, MAP_SCHEMA.empty_table())
        try:
            points = earlier.siblings[MAP].arrow(MAP_SCHEMA.names)
        except DatasetError:  # a picture with fewer points
            points = MAP_SCHEMA.empty_table()
        return cls({origin: file for file in earlier.files if (origin := file.origin)}, points)


def _shown(points: pa.Table, parts: Collection[str]) -> pa.Table:
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
