"""The whole job on an emulated EMR, as a person runs it: a process for each step, one cluster."""

import base64
import json
import os
import signal
import zlib
from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from fruits_assets.lake.lake import Lake
from fruits_assets_tests import s3
from fruits_assets_tests.emr import Call, Cluster, eventually
from fruits_assets_tests.spark.conftest import CONFIG, User

pytestmark = [pytest.mark.slow, pytest.mark.yarn]

TRANSFORMS = (
    *("ingest", "inspect_images", "featurize", "inspect_features"),
    *("fit_pca", "apply_pca", "recognize"),
)
MADE_ON_THE_CLUSTER = ("raw_images", "rejected_images", "features", "pca_model", "pca_features")


@dataclass(frozen=True)
class Finished:
    """What was left by a job that has run.

    Attributes:
        user: whose it was.
        printed: on the terminal.
        clusters: all there were.
        calls: of EMR's API.
    """

    user: User
    printed: str
    clusters: list[Cluster]
    calls: list[Call]

    @property
    def lake(self) -> Lake:
        return Lake.at(self.user.lake, region=s3.REGION)


@pytest.fixture(scope="module")
def job(resident: User) -> Finished:
    with resident.job() as process:
        printed, _ = process.communicate(timeout=900)
    if "packages of s3a are not to be had" in printed:
        pytest.skip("Spark's packages for S3 cannot be downloaded from here")
    assert process.returncode == 0, printed[-5000:]
    return Finished(resident, printed, list(resident.all_ended()), resident.emr.history())


def test_all_assets_share_one_cluster_which_ends_with_the_run(job: Finished):
    (cluster,) = job.clusters
    assert [(step.name, step.state) for step in cluster.steps] == [
        (name, "COMPLETED") for name in TRANSFORMS
    ]
    assert (cluster.state, cluster.code) == ("TERMINATED", "USER_REQUEST")
    assert "user request" in (cluster.message or "")
    assert cluster.region == s3.REGION


def test_the_results_are_those_of_this_machine(job: Finished, finished: Any):
    folder = finished[0].lake
    for asset, column in (("features", "features"), ("pca_features", "components")):
        here, there = (_sorted(one, asset, column) for one in (job.lake, folder))
        assert here.drop_columns(column).equals(there.drop_columns(column))
        found, expected = (np.stack(table[column].to_numpy()) for table in (here, there))
        assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)
    here, there = (_sorted(one, "raw_images", "content") for one in (job.lake, folder))
    assert here.equals(there)
    for asset in ("pca_model", "recognition"):
        here, there = (_figures(one, asset) for one in (job.lake, folder))
        assert here == pytest.approx(there, rel=1e-6)


def _sorted(lake: Lake, asset: str, column: str) -> pa.Table:
    columns = ["path", "split", "label", "sha256", column]
    return lake.current(asset).arrow(columns).combine_chunks().sort_by("path")


def _figures(lake: Lake, asset: str) -> dict[str, float]:
    figures = lake.current(asset).figures
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}


def test_the_cluster_is_what_it_should_be(job: Finished):
    (launch,) = [call for call in job.calls if call.action == "RunJobFlow"]
    asked = launch.parameters
    assert asked["ReleaseLabel"] == "emr-spark-8.0.0"
    assert asked["SecurityConfiguration"] == "encrypted"
    assert asked["LogUri"] == f"s3://{job.user.logs}/emr/"
    assert asked["AutoTerminationPolicy"]["IdleTimeout"] == 300
    instances = asked["Instances"]
    assert instances["Ec2SubnetIds"] == ["subnet-1", "subnet-2"]
    assert "Ec2KeyName" not in instances
    assert not instances["TerminationProtected"]
    assert {fleet["InstanceFleetType"] for fleet in instances["InstanceFleets"]} >= {
        "MASTER",
        "CORE",
    }
    (cluster,) = job.clusters
    assert cluster.tags == {
        "fruits-stack": "fruits",
        "for-use-with-amazon-emr-managed-policies": "true",
    }


def test_steps_say_nothing_of_what_they_work_on(job: Finished):
    (cluster,) = job.clusters
    for step in cluster.steps:
        encoded = [step.args[i + 1] for i, name in enumerate(step.args) if "dagster-pipes" in name]
        decoded = [json.loads(zlib.decompress(base64.b64decode(text))) for text in encoded]
        assert len(decoded) == 2
        texts = [json.dumps(one) for one in decoded] + list(step.args)
        assert not [text for text in texts if "photos" in text or "lake" in text or ".jpg" in text]
        assert step.name in TRANSFORMS


def test_messages_are_gone_and_code_stays(job: Finished):
    job.user.emr.plan(time_scale=5)
    client = job.user.emr.s3.client
    left = client.list_object_versions(Bucket=job.user.bucket, Prefix="pipes/")
    assert {found["Key"].split("/")[1] for found in left["Versions"]} == {"clusters"}
    code = client.list_objects_v2(Bucket=job.user.bucket, Prefix="code/")["Contents"]
    kinds = {found["Key"].removeprefix("code/").split("-")[0] for found in code}
    assert (kinds, len(code)) == ({"environment", "fruits", "run"}, 3)
    job.user.run("rejected_images", "raw_images", ingest={"force": True})
    assert client.list_objects_v2(Bucket=job.user.bucket, Prefix="code/")["Contents"] == code


def test_log_and_progress_arrive_as_from_this_machine(job: Finished):
    assert "features: 90 of 90, " in job.printed
    assert "features_complete' on 'features' passed" in job.printed
    assert "90 images take" in job.printed
    assert "a cluster of 4 cores" in job.printed


def test_what_it_cost_is_told(job: Finished):
    with dg.DagsterInstance.from_config(str(job.user.home)) as instance:
        run = instance.get_runs()[-1]
        assert float(run.tags["fruits/cost_eur"]) > 0
        assert float(run.tags["fruits/instance_hours"]) > 0
        assert run.tags["fruits/cluster"] == job.clusters[0].id
        for asset in MADE_ON_THE_CLUSTER:
            event = instance.get_latest_materialization_event(dg.AssetKey(asset))
            assert event is not None
            assert event.asset_materialization is not None
            told = event.asset_materialization.metadata
            assert told["emr_cost_eur"].value > 0  # type: ignore[operator]
            assert told["emr_cost_eur_per_1000_images"].value > 0  # type: ignore[operator]
            assert "emr_step" in told
            launched = {"emr_cores", "emr_expected_minutes", "emr_expected_eur"} <= told.keys()
            assert launched == (asset in ("raw_images", "rejected_images"))


def test_an_error_meant_for_people_arrives_as_it_would_from_this_machine(job: Finished):
    before = job.lake.current("pca_model")
    known = {one.id for one in job.user.emr.clusters()}
    result, told = job.user.run("pca_model", pca_model={"n_components": 5000})
    assert not result.success
    assert told.startswith("n_components")
    assert "5000" in told
    assert job.lake.current("pca_model") == before
    assert len({one.id for one in job.user.all_ended()} - known) == 1


def test_a_run_that_is_interrupted_cancels_its_step_and_ends_its_cluster(user: User):
    user.emr.plan(time_scale=5)
    with user.job(**CONFIG) as process:
        cluster = eventually(lambda: _with_running_step(user))
        os.kill(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    (ended,) = user.all_ended()
    assert ended.id == cluster.id
    assert ended.code == "USER_REQUEST"
    assert "user request" in (ended.message or ""), printed[-3000:]
    assert [step.state for step in ended.steps] == ["CANCELLED"]
    assert "CancelSteps" in [call.action for call in user.emr.history()]
    assert user.published() == []


def test_a_cluster_whose_run_was_killed_ends_by_itself(user: User):
    with user.job(**CONFIG) as process:
        eventually(lambda: _with_running_step(user))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
    (ended,) = user.all_ended()
    assert "auto-termination" in (ended.message or "")
    assert [step.state for step in ended.steps] == ["COMPLETED"]
    assert user.published() == []


def _with_running_step(user: User) -> Cluster | None:
    for cluster in user.emr.clusters():
        if any(step.state == "RUNNING" for step in cluster.steps):
            return cluster
    return None
