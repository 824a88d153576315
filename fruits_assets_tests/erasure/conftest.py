"""A finished run on a source of its own, which may be erased from."""

import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from fruits_assets.lake.lake import Lake
from fruits_assets_tests.conftest import Pipeline, made_once


@pytest.fixture(scope="session")
def _home(
    tmp_path_factory: pytest.TempPathFactory,
    photos: Path,
    session: SparkSession,
    _model_lake: Path,
    worker_id: str,
) -> Path:
    """A folder with a source and its finished lake."""

    def run(folder: Path) -> None:
        shutil.copytree(photos, folder / "photos")
        shutil.copytree(_model_lake, folder / "lake")
        assert Pipeline(Lake.at(str(folder / "lake")), folder / "photos").run().success

    return made_once(tmp_path_factory, worker_id, "erasure", run)


@pytest.fixture
def own(_home: Path, tmp_path: Path) -> Pipeline:
    """A finished run on a source of the test's own."""
    for name in ("photos", "lake"):
        shutil.copytree(_home / name, tmp_path / name)
    return Pipeline(Lake.at(str(tmp_path / "lake")), tmp_path / "photos")
