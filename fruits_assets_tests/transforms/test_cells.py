"""Cells of many photos: sorted once, and again only what is new."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from fruits_assets.core import inverted_file
from fruits_assets.core.inverted_file import CELL, CELLS, CENTROIDS
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import (
    FILES_SCHEMA,
    Origin,
    vectors_array,
    write_files,
    write_part,
)
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.cells import sort_into_cells
from fruits_assets.transforms.pca import PCA_FEATURES_SCHEMA

PARTS, PHOTOS = 5, 12


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return folder_at(str(tmp_path))


@pytest.fixture
def projected(folder: Folder) -> Snapshot:
    """A version of `pca_features`: 5 parts of 12 photos each, of 3 components."""
    random = np.random.default_rng(0)
    files = []
    for part in range(PARTS):
        names = [f"{part} {row}" for row in range(PHOTOS)]
        digests = [hashlib.sha256(name.encode()).hexdigest() for name in names]
        nothing = pa.array([None] * PHOTOS, pa.string())
        components = vectors_array(random.normal(part, 1, (PHOTOS, 3)))
        columns = [pa.array(names), nothing, nothing, pa.array(digests), components]
        table = pa.Table.from_arrays(columns, schema=PCA_FEATURES_SCHEMA)
        origin = Origin("0" * 16, PHOTOS * part, PHOTOS * part + PHOTOS)
        files.append(write_part(folder.child("pca_features"), origin, table))
    there = folder.child("pca_features")
    return Snapshot.unpublished(there, "pca_features", PCA_FEATURES_SCHEMA, tuple(files))


def sorted_into_cells(
    session: SparkSession, projected: Snapshot, parts: Sequence[int], earlier: Snapshot | None
) -> Snapshot:
    """A version of some parts of `pca_features`, with its cells."""
    version = replace(projected, files=tuple(projected.files[part] for part in parts))
    there = folder_at(f"{projected.uri}{CELLS}")
    output = sort_into_cells(session, version, there, earlier=earlier, question="0" * 16, log=print)
    cells = Snapshot.unpublished(there, CELLS, FILES_SCHEMA, output.files)
    cells = replace(cells, commit=replace(cells.commit, figures=output.figures))
    return replace(version, siblings={CELLS: cells})


def assert_sorted(version: Snapshot) -> None:
    """Each photo is in the cell whose centroid is nearest."""
    cells = version.siblings[CELLS]
    centroids = np.load(io.BytesIO(cells.read(CENTROIDS)), allow_pickle=False)
    assert len(centroids) == cells.figures["cells"]
    assert sorted(cells.names()) == sorted([CENTROIDS, *version.by_name])
    for file in version.files:
        rows = np.array(version.table(file)["components"].to_pylist())
        distances = np.linalg.norm(rows[:, np.newaxis] - centroids, axis=2)
        found = np.frombuffer(cells.read(file.name), CELL)
        np.testing.assert_array_equal(found, distances.argmin(axis=1))


def test_new_photos_go_to_the_cells_that_there_are(
    session: SparkSession, projected: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverted_file, "EXACT_PHOTOS", PHOTOS)
    few = sorted_into_cells(session, projected, [0], None)
    assert few.siblings[CELLS].files == (), "few photos are all compared"
    first = sorted_into_cells(session, projected, [0, 1], few)
    assert_sorted(first)
    assert first.siblings[CELLS].figures["cells"] == 4
    known = projected.files[1]
    content = projected.folder.read(known.name)
    projected.folder.write(known.name, bytes(known.bytes))  # whoever reads it fails
    grown = sorted_into_cells(session, projected, [1, 2, 3], first)
    projected.folder.write(known.name, content)
    assert_sorted(grown)
    assert grown.siblings[CELLS].figures["photos"] == 2 * PHOTOS, "that they were fitted on"
    kept, found = (one.siblings[CELLS].by_name.keys() for one in (first, grown))
    assert len(kept & found) == 2, "the centroids, and a part"
    doubled = sorted_into_cells(session, projected, range(PARTS), grown)
    assert_sorted(doubled)
    assert doubled.siblings[CELLS].figures["photos"] == PARTS * PHOTOS
    assert not doubled.siblings[CELLS].by_name.keys() & found


def test_centroids_that_are_damaged_are_fitted_again(
    session: SparkSession, projected: Snapshot, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverted_file, "EXACT_PHOTOS", PHOTOS)
    centroids = write_files(folder.child(CELLS), "0" * 16, {CENTROIDS: b"damaged"})
    folder.child(CELLS).write(centroids.name, b"damaged")
    cells = Snapshot.unpublished(folder.child(CELLS), CELLS, FILES_SCHEMA, (centroids,))
    figures = {"photos": 2 * PHOTOS, "centroids": centroids.name}
    cells = replace(cells, commit=replace(cells.commit, figures=figures))
    earlier = replace(projected, siblings={CELLS: cells})
    assert_sorted(sorted_into_cells(session, projected, [0, 1], earlier))
