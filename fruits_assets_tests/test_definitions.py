"""The definitions, and the commands that people type."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml

from fruits_assets.checks import CHECKS
from fruits_assets.definitions import ASSETS, DELIVERABLES, compose
from fruits_assets.lake.lake import Lake
from fruits_assets.settings import Settings
from fruits_assets_tests.conftest import REPOSITORY
from fruits_assets_tests.emr import STACK
from fruits_assets_tests.listeners import Watch, beyond_loopback
from fruits_assets_tests.ui import BIN, environment_of, graphql, served


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"source": "/photos"},
        {"source": "/photos", "weights": "sample"},
        {"lake": "/lake"},
        {"batch_photos": 1, "batch_minutes": 0},
        {"run_config": REPOSITORY / "dagster-home.yaml"},
    ],
)
def test_definitions_load_in_every_configuration(settings):
    dg.Definitions.validate_loadable(compose(Settings(**settings)))


def test_definitions_load_for_emr(monkeypatch: pytest.MonkeyPatch):
    for name, value in STACK.items():
        monkeypatch.setenv(name, value)
    places: dict[str, Any] = {
        "source": "s3://bucket/photos",
        "lake": "s3://bucket/lake",
        "region": "eu-west-3",
    }
    definitions = compose(Settings(spark="emr", **places))
    dg.Definitions.validate_loadable(definitions)
    assert definitions.resolve_job_def("sweep_clusters")


@pytest.mark.parametrize("assets", [ASSETS, DELIVERABLES])
def test_every_asset_is_described(assets):
    for asset in assets:
        for spec in asset.specs:
            assert spec.description
            assert len(spec.description) > 40
            assert spec.kinds
            assert spec.owners
            assert spec.group_name == ("fruits" if assets is ASSETS else "deliverables")
            assert spec.code_version
            assert spec.freshness_policy or assets is DELIVERABLES


def test_what_else_is_served_is_described():
    repository = compose(Settings()).get_repository_def()
    served = [
        *(one for it in (*CHECKS, *DELIVERABLES) for one in it.check_specs),
        *repository.sensor_defs,
        *repository.schedule_defs,
        *(job for job in repository.get_all_jobs() if not job.name.startswith("__")),
    ]
    for one in served:
        assert one.description, one.name


def test_every_config_field_is_described():
    from fruits_assets.assets.common import ForceConfig
    from fruits_assets.assets.features import FeaturesConfig
    from fruits_assets.assets.model_weights import WeightsConfig
    from fruits_assets.assets.pca import PcaConfig
    from fruits_assets.assets.raw_images import IngestConfig
    from fruits_assets.checks import RecognitionConfig
    from fruits_assets.erasure.job import ErasureConfig

    configs = (
        ErasureConfig,
        FeaturesConfig,
        ForceConfig,
        WeightsConfig,
        PcaConfig,
        IngestConfig,
        RecognitionConfig,
    )
    for config in configs:
        for name, field in config.model_fields.items():
            assert field.description, f"{config.__name__}.{name}"


@pytest.fixture
def environment(photos: Path, tmp_path: Path) -> dict[str, str]:
    """Of a person who set up a source and a lake."""
    return environment_of(photos, tmp_path)


def dagster(*arguments: str, environment: dict[str, str]) -> str:
    """Runs a command line tool; returns what it printed."""
    run = subprocess.run(
        [str(BIN / "dagster"), *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-5000:]
    return run.stdout


JOB = ("job", "execute", "-m", "fruits_assets.definitions", "-j", "fruits_job")


@pytest.mark.slow
def test_the_job_runs_from_the_command_line(environment: dict[str, str], tmp_path: Path):
    with Watch(os.getpid()) as watch:
        printed = dagster(*JOB, environment=environment)
    assert {"java", "python"} <= {name for name, _, _ in watch.seen}
    assert watch.open == [], "others can reach a run"
    lake = Lake.at(environment["FRUITS_LAKE"])
    assert lake.current("pca_features").rows == 90
    assert "featurize: reused version" not in printed
    before = lake.current("features")
    config = {"ops": {"pca_model": {"config": {"n_components": 3}}}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    printed = dagster(*JOB, "-c", str(tmp_path / "run.yaml"), environment=environment)
    assert "featurize: reused version" in printed
    assert lake.current("pca_model").figures["components"] == 3
    assert lake.current("features") == before
    dagster(
        *("asset", "materialize", "-m", "fruits_assets.definitions", "--select", "features*"),
        environment=environment,
    )
    assert lake.current("pca_model").figures["components"] > 3


@pytest.mark.slow
def test_the_ui_serves_the_workspace(environment: dict[str, str], tmp_path: Path):
    with served(environment=environment, log=tmp_path / "log") as port:
        query = "{ assetNodes { assetKey { path } configField { isRequired } } }"
        nodes = graphql(port, query)["assetNodes"]
        assert {node["assetKey"]["path"][0] for node in nodes} == {
            "raw_images",
            "rejected_images",
            "model_weights",
            "features",
            "pca_model",
            "pca_features",
            *(key.to_user_string() for asset in DELIVERABLES for key in asset.keys),
        }
        assert not any(node["configField"]["isRequired"] for node in nodes if node["configField"])
        listening = {
            it.laddr
            for process in psutil.Process().children(recursive=True)
            for it in process.net_connections("tcp")
            if it.status == psutil.CONN_LISTEN
        }
        assert ("127.0.0.1", port) in listening
        assert not [address for address, _ in listening if beyond_loopback(address)]


@pytest.mark.slow
def test_a_killed_run_leaves_the_lake_whole_and_the_next_one_finishes(
    environment: dict[str, str],
):
    lake = Lake.at(environment["FRUITS_LAKE"])
    folder = Path(lake.base, "features")
    command = [str(BIN / "dagster"), *JOB]
    run = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob("part-*.parquet")):
        assert time.monotonic() < deadline
        assert run.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(timeout=30)
    assert "features" not in lake.tables(), "the run was killed too late: nothing was proved"
    for asset in lake.tables():
        lake.current(asset)
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}
    dagster(*JOB, environment=environment)
    assert lake.current("features").rows == 90
    assert lake.current("pca_features").rows == 90
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
