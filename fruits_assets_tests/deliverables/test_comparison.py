"""Vectors that were computed twice."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fruits_assets.core.dataset import Dataset, Output, vectors_array, write_parquet
from fruits_assets.deliverables.comparison import compare
from fruits_assets.lake.lake import Lake, Recipe


def dataset(folder: Path, *parts: dict[str, list[float]]) -> Dataset:
    """A table of features, by content, in some parts."""
    lake = Lake.at(str(folder))
    recipe = Recipe.of("test", "1", [])
    files = []
    for i, part in enumerate(parts):
        table = pa.table({"sha256": list(part)})
        vectors = vectors_array(np.array(list(part.values()), np.float32))
        table = table.append_column("features", vectors)
        name = f"part-{i:016d}-000000-{len(part):06d}.parquet"
        files.append(write_parquet(lake.folder("features", recipe.version), name, table))
    schema = {"sha256": "string", "features": "list<element: float>"}
    output = Output(tuple(files), schema=schema)
    lake.publish(lake.draft("features", recipe, output, run="test", seconds=0))
    return lake.current("features")


@pytest.fixture
def kept(tmp_path: Path) -> Dataset:
    return dataset(tmp_path / "kept", {"a": [3, 4], "b": [1, 0]}, {"c": [0, 2]}, {"d": [5, 5]})


def test_the_largest_difference_is_relative(kept: Dataset, tmp_path: Path) -> None:
    computed = dataset(tmp_path / "own", {"b": [1, 0], "c": [0, 2.5]}, {"x": [9, 9], "a": [3, 4.5]})
    found = compare(computed, kept, "features")
    assert found.contents == 3
    assert found.largest == pytest.approx(0.25)


def test_the_same_vectors_do_not_differ(kept: Dataset) -> None:
    assert compare(kept, kept, "features").largest == 0
    assert compare(kept, kept, "features").contents == 4


def test_nothing_in_common(kept: Dataset, tmp_path: Path) -> None:
    found = compare(dataset(tmp_path / "own", {"x": [1, 1]}), kept, "features")
    assert (found.contents, found.largest) == (0, 0)


def test_no_more_of_the_lake_is_read_than_allowed(kept: Dataset) -> None:
    assert compare(kept, kept, "features", max_bytes=1).contents == 2
