"""Sorts the rows of `pca_features` into cells, by which many photos are searched.

`core.inverted_file` says what cells are for. Few photos need none: their table stays empty.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from pyspark.sql import SparkSession

from fruits_assets.core import inverted_file
from fruits_assets.core.errors import DatasetError
from fruits_assets.core.inverted_file import CELLS, CENTROIDS
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import (
    FILES_SCHEMA,
    File,
    address_of,
    vectors_matrix,
    write_files,
)
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.spread import Done, Log, for_each, run_logged

Sample = tuple[list[str], np.ndarray]
"""SHA-256 of some photos, and their (m, k) components."""
GROWTH = 2
"""Centroids stay until there are so many times as many photos, or as few."""


def sort_into_cells(
    spark: SparkSession,
    projected: Snapshot,
    folder: Folder,
    *,
    earlier: Snapshot | None,
    question: str,
    log: Log,
) -> Output:
    """Writes the table `_cells`; what an earlier version sorted by the same centroids stays.

    Args:
        spark: where to run.
        projected: parts of `pca_features`.
        folder: of the table.
        earlier: an earlier version of `pca_features` with its siblings, if there is one.
        question: see `Transform`.
        log: told the progress.
    """
    if projected.rows <= inverted_file.EXACT_PHOTOS:
        return Output(())
    known = earlier.siblings.get(CELLS) if earlier else None
    kept = _kept(known, projected.rows) if known else None
    centroids, photos = kept or (_fitted(spark, projected, folder, question, log), projected.rows)
    parts = [part for part in projected.files if part.rows]
    made_from = {part: address_of(centroids.name, part.name) for part in parts}
    there = {file.origin.made_from: file for file in known.files if file.origin} if known else {}
    new = [part for part, address in made_from.items() if address not in there]
    table = Snapshot.unpublished(folder, CELLS, FILES_SCHEMA, (centroids,))
    values = np.load(io.BytesIO(table.read(CENTROIDS)), allow_pickle=False)

    handle = projected.only(())

    def work(task: tuple[File, str]) -> Done:
        part, address = task
        cells = [
            inverted_file.nearest_centroids(vectors_matrix(batch, "components"), values)
            for batch in handle.batches(part, ["components"])
        ]
        content = {part.name: np.concatenate(cells).tobytes()}
        return Done(part.rows, vars(write_files(folder, address, content)))

    total = sum(part.rows for part in new)
    tasks = [(part, made_from[part]) for part in new]
    done = for_each(spark, tasks, work, doing="PCA: sorted into cells", total=total, log=log)
    files = [there[address] for address in made_from.values() if address in there]
    figures = {"photos": photos, "cells": len(values), "centroids": centroids.name}
    return Output((centroids, *files, *(File(**file) for file in done)), figures)


def _kept(known: Snapshot, rows: int) -> tuple[File, int] | None:
    """The centroids of an earlier version and how many photos it had, if they still serve."""
    photos = known.figures.get("photos", 0)
    found = known.by_name.get(known.figures.get("centroids", ""))
    if found is None or not photos / GROWTH < rows < photos * GROWTH:
        return None
    try:
        known.table(found)
    except DatasetError:  # damaged: a repair names it, and a run makes others
        return None
    return found, photos


def _fitted(
    spark: SparkSession, projected: Snapshot, folder: Folder, question: str, log: Log
) -> File:
    """Fits centroids on a sample, which workers draw and one of them gets."""
    count = inverted_file.cells_for(projected.rows)
    size = min(inverted_file.ROWS_PER_CELL * count, inverted_file.MAX_SAMPLE)
    share = size / projected.rows
    context = spark.sparkContext
    width = min(context.defaultParallelism, len(projected.files))
    groups = [projected.files[i::width] for i in range(width)]
    handle = projected.only(())

    def fit(samples: Iterable[Sample]) -> Iterator[np.ndarray]:
        drawn = list(samples)
        digests = [digest for found, _ in drawn for digest in found]
        # One row per content, in the order of the digests: wherever it was drawn.
        _, first = np.unique(digests, return_index=True)
        rows = np.concatenate([rows for _, rows in drawn])
        yield inverted_file.fit_centroids(rows[first], count)

    samples = context.parallelize(groups, width).map(lambda it: _sample(handle, it, share))
    (centroids,) = run_logged(
        spark,
        samples.coalesce(1, shuffle=True).mapPartitions(fit).collect,
        log=log,
        progress=lambda: f"PCA: fitting {count} cells to about {size} of {projected.rows} images",
    )
    content = io.BytesIO()
    np.save(content, centroids, allow_pickle=False)
    made_from = address_of(question, [part.name for part in projected.files])
    return write_files(folder, made_from, {CENTROIDS: content.getvalue()})


def _sample(projected: Snapshot, parts: Sequence[File], share: float) -> Sample:
    """About a share of the rows of some parts; at least one, also where contents are few."""
    digests: list[str] = []
    rows: list[np.ndarray] = []
    for part in parts:
        for batch in projected.batches(part, ["sha256", "components"]):
            found = batch.column("sha256").to_pylist()
            chosen = inverted_file.sampled(found, share)
            chosen[0] = True
            digests += [found[i] for i in np.flatnonzero(chosen)]
            rows.append(vectors_matrix(batch, "components")[chosen])
    return digests, np.concatenate(rows)
