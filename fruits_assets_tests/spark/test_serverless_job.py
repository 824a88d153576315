"""Jobs on an emulated EMR Serverless, as a person runs them: what was shipped runs on a YARN."""

import dataclasses
import os
import signal
from typing import Any

import dagster as dg
import numpy as np
import pytest

from fruits_assets.lake.lake import Lake
from fruits_assets_tests import s3
from fruits_assets_tests.emr import JobRun, eventually
from fruits_assets_tests.spark.conftest import CONFIG, User

pytestmark = pytest.mark.slow

ASSETS = ("raw_images", "rejected_images", "model_weights", "features")


@pytest.fixture
def serverless(user: User) -> User:
    """The same person, with an application of EMR Serverless instead of clusters."""
    user.emr.plan()
    changed = {
        "FRUITS_SPARK": "emr-serverless",
        "FRUITS_EMR_SERVERLESS_APPLICATION": user.emr.application(),
    }
    return dataclasses.replace(user, changed=changed)


def _metadata(user: User, asset: str) -> dict[str, Any]:
    with dg.DagsterInstance.local_temp(str(user.home)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(asset))
        assert event
        assert event.asset_materialization
        found = event.asset_materialization.metadata
        return {name: value.value for name, value in found.items()}


def test_features_are_those_of_this_machine(serverless: User, finished: Any) -> None:
    config: dict[str, Any] = CONFIG
    result, told = serverless.run(*ASSETS, **config)
    if "packages of s3a are not to be had" in told:
        pytest.skip("Spark's packages for S3 cannot be downloaded from here")
    assert result.success, told

    runs = serverless.emr.job_runs()
    assert [run.name for run in runs][:3] == ["ingest", "inspect_images", "featurize"]
    assert {run.state for run in runs} == {"SUCCESS"}, [run.details for run in runs]
    assert serverless.emr.step_processes() == []

    there, here = (
        lake.current("features").arrow(["path", "sha256", "features"]).combine_chunks()
        for lake in (Lake.at(serverless.lake, region=s3.REGION), finished[0].lake)
    )
    there, here = there.sort_by("path"), here.sort_by("path")
    assert there.drop_columns("features").equals(here.drop_columns("features"))
    found, expected = (np.stack(one["features"].to_numpy()) for one in (there, here))
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)

    paid = _metadata(serverless, "features")
    assert paid["emr_job"] == runs[2].id
    assert paid["emr_cores"] == 4
    # A driver of 1 vCPU and an executor of 4, for a minute at least.
    assert paid["emr_vcpu_hours"] >= 5 / 60
    assert paid["emr_memory_gb_hours"] == pytest.approx(12 / 5 * paid["emr_vcpu_hours"])
    assert 0 < paid["emr_cost_eur"] < 1


def test_an_interrupted_run_cancels_its_job_and_leaves_nothing(serverless: User) -> None:
    def at_work() -> JobRun | None:
        found = [run for run in serverless.emr.job_runs() if run.state == "RUNNING"]
        return found[0] if found and len(serverless.emr.step_processes()) > 1 else None

    with serverless.job(**CONFIG) as process:
        run = eventually(at_work, seconds=120)
        os.kill(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    eventually(lambda: not serverless.emr.step_processes())
    (ended,) = serverless.emr.job_runs()
    assert (ended.id, ended.state) == (run.id, "CANCELLED"), printed[-3000:]
    called = [call.action for call in serverless.emr.history("emr-serverless")]
    assert called.count("StartJobRun") == called.count("CancelJobRun") == 1
    assert serverless.published() == []
