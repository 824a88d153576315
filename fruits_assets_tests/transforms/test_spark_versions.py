"""The transforms on each Spark that EMR runs, in the very environment that its nodes have."""

import importlib
import io
import json
import pkgutil
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark
import pytest
from pyspark.sql import SparkSession

from fruits_assets import transforms
from fruits_assets.lake.lake import Lake
from fruits_assets.storage.parquet import FILES_SCHEMA
from fruits_assets.storage.places import folder_at, folder_from
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.transform import Transform
from fruits_assets_tests import node
from fruits_assets_tests.transforms import every_transform

pytestmark = pytest.mark.slow

VECTORS = {"features", "components", "vector"}
INGESTED = {"raw_images", "rejected_images", "_listing", "_thumbnails", "_classes"}
"""The same to the last bit; the last digits of what is computed with floats may differ."""


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is built once lies below this folder of the test session."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def few_photos(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of four classes, one of them twice, and a file that is no photo."""
    folder = tmp_path_factory.mktemp("few") / "photos"
    for split in ("Training", "Test"):
        for label in sorted(path.name for path in (photos / split).iterdir())[:4]:
            shutil.copytree(photos / split / label, folder / split / label)
    first = min(folder.rglob("*.jpg"))
    shutil.copyfile(first, first.with_name("copy.jpg"))
    first.with_name("no photo.jpg").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def model(_model_lake: Path) -> Snapshot:
    """The embedded model."""
    return Lake.at(str(_model_lake)).current("model_weights")


@pytest.fixture(scope="module")
def made_here(
    model: Snapshot,
    few_photos: Path,
    tmp_path_factory: pytest.TempPathFactory,
    session: SparkSession,
) -> dict[str, Snapshot]:
    """What every transform writes in this process."""
    folder = folder_at(str(tmp_path_factory.mktemp("here")))
    return every_transform.run(session, folder, str(few_photos), model)


@pytest.mark.parametrize("version", ["3.5.6", pyspark.__version__])
def test_every_spark_writes_the_same(  # noqa: PLR0917 - fixtures
    version: str,
    made_here: dict[str, Snapshot],
    model: Snapshot,
    few_photos: Path,
    base: Path,
    tmp_path: Path,
):
    described = tmp_path / "model.json"
    described.write_text(json.dumps(model.to_dict()))
    program = "fruits_assets_tests.transforms.every_transform"
    places = (str(described), str(tmp_path / "tables"), str(few_photos))
    done = node.run(node.unpacked(base), version, "-m", program, *places)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["spark"] == version
    assert found["error"] == "DatasetError"
    assert found["absent"] == ["dagster", "deltalake"]
    assert found["made"].keys() == made_here.keys()
    for name, snapshot in made_here.items():
        fields = found["made"][name]
        _assert_same(Snapshot.from_dict(fields, folder_from(fields["folder"])), snapshot)


def test_the_photos_have_copies_and_rejected_files(made_here: dict[str, Snapshot]):
    assert made_here["first featurize: features"].rows == 25
    assert made_here["first featurize: features"].figures["inferences"] == 24
    assert made_here["first ingest: rejected_images"].rows == 1


def test_what_is_gone_from_the_source_is_left_out(made_here: dict[str, Snapshot]):
    before, after = (
        made_here[f"{turn} featurize: features"].arrow(["path"])["path"].to_pylist()
        for turn in ("first", "again")
    )
    assert sorted(after) == sorted(before)[1:]
    assert made_here["again featurize: features"].figures["inferences"] == 0


def test_every_transform_is_among_them():
    modules = pkgutil.iter_modules(transforms.__path__, f"{transforms.__name__}.")
    found = [vars(importlib.import_module(module.name)).values() for module in modules]
    declared = {one.name for values in found for one in values if isinstance(one, Transform)}
    assert declared == {transform.name for transform in every_transform.EVERY}
    assert len(every_transform.EVERY) == len(declared)


def _assert_same(found: Snapshot, expected: Snapshot) -> None:
    assert (found.name, found.schema) == (expected.name, expected.schema)
    assert _figures(found) == _figures(expected)
    if found.name in INGESTED:
        assert found.files == expected.files
    one, two = _parts(found), _parts(expected)
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        _assert_same_rows(left, right, found.schema)


def _parts(snapshot: Snapshot) -> list[pa.Table]:
    """All parts, in an order that does not depend on the digests in their names."""
    tables = [snapshot.table(file) for file in snapshot.files]
    return sorted(tables, key=lambda it: (it.num_rows, *map(str, _first_texts(it))))


def _first_texts(table: pa.Table) -> list[str | None]:
    """The texts in the first row of a part, but for the names of other parts."""
    texts = [one.name for one in table.schema if pa.types.is_string(one.type)]
    columns = [name for name in texts if name != "part"]
    return [it for row in table.slice(0, 1).select(columns).to_pylist() for it in row.values()]


def _assert_same_rows(left: pa.Table, right: pa.Table, schema: pa.Schema) -> None:
    assert left.schema == right.schema
    if schema == FILES_SCHEMA:
        assert left["name"] == right["name"]
        contents = zip(left["name"].to_pylist(), left["content"], right["content"], strict=True)
        for name, one, two in contents:
            if name.endswith(".npz"):
                _assert_same_arrays(one.as_py(), two.as_py())
        return
    for name, column in zip(left.column_names, left.columns, strict=True):
        values, others = column.to_pylist(), right[name].to_pylist()
        if name in VECTORS:
            np.testing.assert_allclose(values, others, rtol=0, atol=1e-6)
        elif pa.types.is_floating(column.type):
            assert values == pytest.approx(others, rel=1e-6, abs=1e-6)
        elif name != "part":
            assert values == others, name


def _assert_same_arrays(found: bytes, expected: bytes) -> None:
    left, right = (np.load(io.BytesIO(content)) for content in (found, expected))
    assert left.files == right.files
    for name in left.files:
        np.testing.assert_allclose(left[name], right[name], rtol=1e-6, atol=1e-6)


def _figures(snapshot: Snapshot) -> dict[str, Any]:
    """Without what is never the same: how fast it went, and the last digits of sums."""
    figures = dict(snapshot.figures)
    figures.pop("images_per_second", None)
    return {
        name: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
        for name, value in figures.items()
    }
