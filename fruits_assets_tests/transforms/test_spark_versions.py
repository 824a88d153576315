"""The transforms on each Spark that EMR runs, in the very environment that its nodes have."""

import importlib
import io
import json
import pkgutil
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyspark
import pytest
from pyspark.sql import SparkSession

from fruits_assets import transforms
from fruits_assets.core.dataset import Dataset, read_table
from fruits_assets.core.storage import join
from fruits_assets.lake.lake import Lake
from fruits_assets.transforms.pca import MODEL
from fruits_assets.transforms.transform import Transform
from fruits_assets_tests import node
from fruits_assets_tests.conftest import Pipeline
from fruits_assets_tests.transforms import every_transform

pytestmark = pytest.mark.slow

VECTORS = {"features", "components"}


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
def made_here(
    _model_lake: Path,
    few_photos: Path,
    tmp_path_factory: pytest.TempPathFactory,
    session: SparkSession,
) -> dict[str, Dataset]:
    """What every transform writes in this process."""
    lake = shutil.copytree(_model_lake, tmp_path_factory.mktemp("here") / "lake")
    return every_transform.run(session, Lake.at(str(lake)), str(few_photos))


@pytest.mark.parametrize("version", ["3.5.6", pyspark.__version__])
def test_every_spark_writes_the_same(
    version: str,
    made_here: dict[str, Dataset],
    pipeline: Pipeline,
    few_photos: Path,
    base: Path,
):
    lake = pipeline.lake.base
    program = "fruits_assets_tests.transforms.every_transform"
    done = node.run(node.python(base), version, "-m", program, lake, str(few_photos))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["spark"] == version
    assert found["error"] == "DatasetError"
    assert found["made"].keys() == made_here.keys()
    for name, dataset in made_here.items():
        _assert_same(Dataset.open(found["made"][name]), dataset)


def test_the_photos_have_copies_and_rejected_files(made_here: dict[str, Dataset]):
    assert made_here["featurize: features"].manifest.rows == 25
    assert made_here["featurize: features"].manifest.figures["inferences"] == 24
    assert made_here["ingest: rejected_images"].manifest.rows == 1
    assert made_here["erase_features: features"].manifest.rows == 24


def test_every_transform_is_among_them():
    modules = pkgutil.iter_modules(transforms.__path__, f"{transforms.__name__}.")
    found = [vars(importlib.import_module(module.name)).values() for module in modules]
    declared = {one.name for values in found for one in values if isinstance(one, Transform)}
    assert declared == {transform.name for transform in every_transform.EVERY}


def _assert_same(found: Dataset, expected: Dataset) -> None:
    one, two = found.manifest, expected.manifest
    assert (one.asset, one.version, one.schema) == (two.asset, two.version, two.schema)
    assert [(file.name, file.rows) for file in one.files] == [
        (file.name, file.rows) for file in two.files
    ]
    assert _figures(found) == _figures(expected)
    for file in one.files:
        if file.name.endswith(".parquet"):
            _assert_same_rows(join(found.uri, file.name), join(expected.uri, file.name))
    if one.asset == "pca_model":
        left, right = (np.load(io.BytesIO(one.read(MODEL))) for one in (found, expected))
        assert left.files == right.files
        for name in left.files:
            np.testing.assert_allclose(left[name], right[name], rtol=1e-6, atol=1e-6)


def _assert_same_rows(found: str, expected: str) -> None:
    left, right = read_table(found), read_table(expected)
    assert left.schema == right.schema
    for name, column in zip(left.column_names, left.columns, strict=True):
        values, others = column.to_pylist(), right[name].to_pylist()
        if name in VECTORS:
            np.testing.assert_allclose(values, others, rtol=0, atol=1e-6)
        elif name.startswith("pc_"):
            assert values == pytest.approx(others, abs=1e-6)
        else:
            assert values == others, name


def _figures(dataset: Dataset) -> dict[str, Any]:
    """Without what is never the same: how fast it went, and the last digits of sums."""
    figures = dict(dataset.manifest.figures)
    figures.pop("images_per_second", None)
    return {
        name: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
        for name, value in figures.items()
    }
