"""Vectors that were computed twice."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fruits_assets.deliverables.comparison import compare
from fruits_assets.storage.parquet import VECTOR, Origin, address_of, vectors_array, write_part
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.snapshot import Snapshot

SCHEMA = pa.schema([("sha256", pa.string()), ("features", VECTOR)])


def written(place: Path, *parts: dict[str, list[float]]) -> Snapshot:
    """A table of features, by content, in some parts."""
    folder, files = folder_at(str(place)), []
    for i, part in enumerate(parts):
        vectors = vectors_array(np.array(list(part.values()), np.float32))
        table = pa.Table.from_arrays([pa.array(list(part)), vectors], schema=SCHEMA)
        files.append(write_part(folder, Origin(address_of(i), 0, len(part)), table))
    return Snapshot.unpublished(folder, "features", SCHEMA, tuple(files))


@pytest.fixture
def kept(tmp_path: Path) -> Snapshot:
    return written(tmp_path / "kept", {"a": [3, 4], "b": [1, 0]}, {"c": [0, 2]}, {"d": [5, 5]})


def test_the_largest_difference_is_relative(kept: Snapshot, tmp_path: Path) -> None:
    computed = written(tmp_path / "own", {"b": [1, 0], "c": [0, 2.5]}, {"x": [9, 9], "a": [3, 4.5]})
    found = compare(computed, kept, "features")
    assert found.contents == 3
    assert found.largest == pytest.approx(0.25)


def test_the_same_vectors_do_not_differ(kept: Snapshot) -> None:
    assert compare(kept, kept, "features").largest == 0
    assert compare(kept, kept, "features").contents == 4


def test_nothing_in_common(kept: Snapshot, tmp_path: Path) -> None:
    found = compare(written(tmp_path / "own", {"x": [1, 1]}), kept, "features")
    assert (found.contents, found.largest) == (0, 0)


def test_no_more_of_the_lake_is_read_than_allowed(kept: Snapshot) -> None:
    assert compare(kept, kept, "features", max_bytes=1).contents == 2
