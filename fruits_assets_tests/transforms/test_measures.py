"""What is compared of photos: all of them up to a bound, then samples that are kept."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from benchmarks import tables
from fruits_assets.storage.base import Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.parquet import Origin, vectors_array, write_part
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms import measures
from fruits_assets.transforms.featurize import FEATURES_SCHEMA
from fruits_assets.transforms.measures import SAMPLES, Draw, recognize
from fruits_assets.transforms.pca import PCA_FEATURES_SCHEMA

TABLES = {"features": FEATURES_SCHEMA, "pca_features": PCA_FEATURES_SCHEMA}
WIDTHS = {"features": 40, "components": 8}
PART = 30


@pytest.mark.parametrize(
    ("photos", "most", "halvings"),
    [(0, 100, 0), (100, 100, 0), (101, 100, 1), (200, 100, 1), (201, 100, 2), (10**9, 20_000, 16)],
)
def test_the_share_is_the_largest_power_of_two_within_the_bound(
    photos: int, most: int, halvings: int
) -> None:
    assert measures._halvings(photos, most) == halvings


def test_photos_are_drawn_by_their_content_and_stay_when_photos_are_added() -> None:
    hashes = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(4000)]
    drawn = [
        [one for one in hashes if Draw(halvings, 0).has("Training", "Apple", one)]
        for halvings in range(4)
    ]
    assert drawn[0] == hashes
    for halvings, few in enumerate(drawn):
        assert set(few) <= set(drawn[0])
        assert len(few) == pytest.approx(4000 / 2**halvings, rel=0.1)
    assert set(drawn[3]) < set(drawn[2]) < set(drawn[1])
    assert all(Draw(3, 0).has("Test", "Apple", one) for one in hashes)
    for split, label in (("Training", None), ("Validation", "Apple"), (None, "Apple")):
        assert not Draw(0, 0).has(split, label, hashes[0])


@pytest.fixture
def photos(tmp_path: Path) -> tuple[list[dict[str, Any]], dict[str, Snapshot]]:
    """Photos of four classes, and tables of them in parts of `PART`."""
    chance = np.random.default_rng(7)
    rows = []
    for i in range(150):
        label = int(chance.integers(4))
        near = chance.normal(size=WIDTHS["features"]) + 0.6 * label
        rows.append(
            {
                "path": f"{i}.jpg",
                "split": "Test" if i % 3 == 0 else "Training",
                "label": None if i % 17 == 0 else f"class {label}",
                "sha256": hashlib.sha256(str(i).encode()).hexdigest(),
                "features": near.astype(np.float32),
                "components": near[: WIDTHS["components"]].astype(np.float32),
            }
        )
    found = {
        name: _table(Folder(LocalStorage(), str(tmp_path / name)), schema, rows)
        for name, schema in TABLES.items()
    }
    return rows, found


def _table(folder: Folder, schema: pa.Schema, rows: Sequence[dict[str, Any]]) -> Snapshot:
    files = []
    for start in range(0, len(rows), PART):
        some = rows[start : start + PART]
        columns = [
            vectors_array(np.stack([row[name] for row in some]))
            if name in WIDTHS
            else pa.array([row[name] for row in some], schema.field(name).type)
            for name in schema.names
        ]
        origin = Origin("0" * 16, start, start + len(some))
        files.append(write_part(folder, origin, pa.Table.from_arrays(columns, schema=schema)))
    return _of(Snapshot.unpublished(folder, folder.uri.rpartition("/")[2], schema, ()), files, rows)


def _of(table: Snapshot, files: Sequence[Any], rows: Sequence[dict[str, Any]]) -> Snapshot:
    """A version of a table: some parts, and how many photos each split has."""
    splits = [[split, sum(row["split"] == split for row in rows)] for split in ("Test", "Training")]
    commit = replace(table.commit, figures={"splits": splits})
    return replace(table, files=tuple(files), commit=commit)


def _expected(rows: Sequence[dict[str, Any]], draw: Draw) -> dict[str, float]:
    """The figures by comparing everything with everything, in double precision."""
    drawn = [row for row in rows if draw.has(row["split"], row["label"], row["sha256"])]
    test, training = (
        [row for row in drawn if row["split"] == name] for name in ("Test", "Training")
    )
    found: dict[str, float] = {"test": len(test), "training": len(training)}
    for column in WIDTHS:
        known = np.stack([row[column] for row in training]).astype(float)
        right = 0
        for row in test:
            nearest = ((known - row[column]) ** 2).sum(axis=1).argmin()
            right += training[nearest]["label"] == row["label"]
        found[f"accuracy_{column}"] = right / len(test)
    return found


def test_a_photo_is_recognised_by_the_nearest_of_all_and_samples_are_taken_over(
    photos: tuple[list[dict[str, Any]], dict[str, Snapshot]],
    session: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, both = photos
    folder = Folder(LocalStorage(), str(tmp_path / "lake"))
    old = rows[:90]
    fewer = {name: _of(one, one.files[:3], old) for name, one in both.items()}
    first = tables.run(session, recognize, folder, params={}, **fewer)
    assert first.figures == pytest.approx(_expected(old, Draw(0, 0)))
    assert 0 < first.figures["accuracy_components"] < first.figures["accuracy_features"] < 1

    for name, one in fewer.items():  # a part that was sampled is not read again
        for file in one.files:
            Path(tmp_path, name, file.name).unlink()
    monkeypatch.setattr(measures, "MAX_TRAINING", 60)
    monkeypatch.setattr(measures, "COMPARED_ROWS", 40)
    second = tables.run(session, recognize, folder, params={"earlier": first}, **both)
    assert second.figures == pytest.approx(_expected(rows, Draw(1, 0)))
    samples = second.siblings[SAMPLES]
    assert set(first.siblings[SAMPLES].files) < set(samples.files)
    assert samples.figures["draws"] == [[1, 0], [0, 0]]
    kept = {i: Draw(int(i >= len(old)), 0) for i in range(len(rows))}
    held = [kept[i].has(row["split"], row["label"], row["sha256"]) for i, row in enumerate(rows)]
    assert samples.rows == len(WIDTHS) * sum(held)
