"""Real components, small: drawn photos, the embedded weights, a Spark session with two cores."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pyspark.sql import SparkSession

from fruits_assets.assets.places import Source, WeightsOrigin
from fruits_assets.checks import CHECKS
from fruits_assets.definitions import ASSETS
from fruits_assets.lake.io_manager import LakeIOManager
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.resource import LakeResource
from fruits_assets.sample.drawing import write_sample
from fruits_assets.spark.local import LocalSpark

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos, real weights and golden values, which the project itself does not hold."""
    folder = Path(os.environ.get("FRUITS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there (set FRUITS_SHARED_DATA to the folder that holds it)")
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source of drawn photos: 15 classes, 4 Training and 2 Test photos each. Do not change it."""
    folder = tmp_path_factory.mktemp("source") / "photos"
    write_sample(folder, photos_per_class=(4, 2))
    return folder


@pytest.fixture(scope="session")
def session() -> Iterator[SparkSession]:
    """The Spark session that all tests of this process share."""
    target = LocalSpark(lake=LakeResource(base="unused"), master="local[2]")
    session = target.session()
    yield session
    session.stop()


@dataclass(frozen=True)
class Pipeline:
    """The assets as Dagster runs them, on a lake of the test's own."""

    lake: Lake
    source: Path
    weights: str = "sample"

    @property
    def resources(self) -> dict[str, Any]:
        """As the definitions compose them."""
        lake = LakeResource(base=self.lake.base)
        return {
            "io_manager": LakeIOManager(lake=lake),
            "lake": lake,
            "spark": LocalSpark(lake=lake, master="local[2]"),
            "source": Source(place=str(self.source)),
            "weights": WeightsOrigin(place=self.weights),
        }

    def run(
        self, *selection: str, config: Mapping[str, Any] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Materialises some assets, or all, with their checks.

        Args:
            *selection: asset selection strings; everything without any.
            config: op name -> its config.
        """
        chosen = dg.AssetSelection.all()
        if selection:
            chosen = dg.AssetSelection.from_coercible(list(selection))
        return dg.materialize(
            [*ASSETS, *CHECKS],
            selection=chosen,
            resources=self.resources,
            run_config={"ops": {name: {"config": dict(it)} for name, it in (config or {}).items()}},
            raise_on_error=False,
        )


def failure(result: dg.ExecuteInProcessResult) -> str:
    """The sentence that the person who started a failed run reads first."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return str(event.step_failure_data.user_failure_data or event.step_failure_data.error)


@pytest.fixture(scope="session")
def _model_lake(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A lake with only the embedded model in it: TensorFlow converts it once per test session."""
    base = tmp_path_factory.mktemp("model") / "lake"
    assert Pipeline(Lake.at(str(base)), photos).run("model_weights").success
    return base


@pytest.fixture
def pipeline(tmp_path: Path, photos: Path, session: SparkSession, _model_lake: Path) -> Pipeline:
    """The pipeline on the drawn photos, with nothing but the model computed yet."""
    base = tmp_path / "lake"
    shutil.copytree(_model_lake, base)
    return Pipeline(Lake.at(str(base)), photos)


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    photos: Path,
    session: SparkSession,
    _model_lake: Path,
) -> tuple[Pipeline, dg.ExecuteInProcessResult]:
    """A whole run on the drawn photos, for tests that only look at it."""
    base = tmp_path_factory.mktemp("finished") / "lake"
    shutil.copytree(_model_lake, base)
    pipeline = Pipeline(Lake.at(str(base)), photos)
    return pipeline, pipeline.run(config={"pca_features": {"csv": True}})
