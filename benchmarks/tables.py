"""Transforms without Dagster, Delta and a lake: their tables lie in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pyspark.sql import SparkSession

from fruits_assets.sources.listing import Listing
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import address_of
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.transform import Transform


def run(
    spark: SparkSession,
    transform: Transform,
    folder: Folder,
    *,
    params: Mapping[str, Any],
    **inputs: Snapshot | Listing,
) -> Snapshot:
    """Runs a transform, and returns its leading table with the others as siblings.

    Args:
        spark: where to run.
        transform: what to run.
        folder: each of the tables becomes a folder in it.
        params: of the transform; an earlier version and a folder that it reads are among them.
        **inputs: of the transform.
    """
    folders = {table: folder.child(table) for table in transform.outputs}
    outputs = transform.function(
        spark,
        question=address_of(transform.name),
        log=_quiet,
        **{name: one.stage(folders) for name, one in inputs.items()},
        **params,
        **folders,
    )
    found = {
        table: _snapshot(folders[table], transform, outputs[table]) for table in transform.outputs
    }
    lead = found.pop(transform.lead)
    return replace(lead, siblings=found)


def _snapshot(folder: Folder, transform: Transform, output: Output) -> Snapshot:
    table = folder.uri.rpartition("/")[2]
    files = tuple(sorted(output.files, key=lambda file: file.name))
    draft = Snapshot.unpublished(folder, table, transform.outputs[table], files)
    return replace(draft, commit=replace(draft.commit, figures=output.figures))


def _quiet(_: str) -> None:
    """Nobody reads the progress, and it would be measured too."""
