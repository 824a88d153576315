"""Whatever goes wrong with a cluster is told, publishes nothing, and leaves nothing running."""

from dataclasses import replace
from pathlib import Path

import pytest

from fruits_assets.spark import environment
from fruits_assets_tests.emr import Cluster
from fruits_assets_tests.spark.conftest import User

pytestmark = pytest.mark.slow

INGEST = ("raw_images", "rejected_images")


def test_a_run_that_may_not_start_clusters_says_so(user: User):
    user.emr.plan(refuse=("AccessDeniedException", "not authorized to perform iam:PassRole"))
    result, told = user.run(*INGEST)
    assert not result.success
    assert "iam:PassRole" in told
    assert "the policies that `make deploy` names" in told
    assert user.published() == []
    assert user.emr.clusters() == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("VALIDATION_ERROR", "The vCPU limit of your account does not allow this"),
        ("INTERNAL_ERROR", "The Spot capacity for the requested types is not available"),
    ],
)
def test_a_cluster_that_cannot_start_is_told(user: User, code: str, message: str):
    user.emr.plan(fail=(code, message))
    result, told = user.run(*INGEST)
    assert not result.success
    assert f"({code}: {message})" in told
    assert user.published() == []
    (cluster,) = user.all_ended()
    assert cluster.code == code


def test_an_environment_that_cannot_be_unpacked_is_told(user: User):
    code = f"s3://{user.bucket}/other-code"
    broken = replace(user, changed={"FRUITS_EMR_CODE": code})
    key = f"other-code/{environment.name('x86_64')}"
    user.emr.s3.client.put_object(Bucket=user.bucket, Key=key, Body=b"no archive")
    result, told = broken.run(*INGEST)
    assert not result.success
    assert "environment" in told
    assert user.published() == []
    (cluster,) = user.all_ended()
    assert cluster.steps[0].state == "FAILED"


def test_a_step_that_never_reaches_python_is_told_with_the_end_of_its_stderr(user: User):
    user.emr.plan(extra_env={"JAVA_TOOL_OPTIONS": "-XX:NoSuchOption"})
    result, told = user.run(*INGEST)
    assert not result.success
    assert "ended as FAILED" in told
    assert "NoSuchOption" in told
    assert f"s3://{user.logs}/emr/" in told
    assert user.published() == []
    (cluster,) = user.all_ended()
    assert cluster.code == "USER_REQUEST"


def test_a_cluster_that_dies_under_a_step_is_told(user: User):
    def kill(cluster: Cluster) -> None:
        user.emr.kill_cluster(cluster.id, "INSTANCE_FAILURE", "the primary node was lost")

    result, told = user.run(*INGEST, meanwhile=kill)
    assert not result.success
    assert "(INSTANCE_FAILURE: the primary node was lost)" in told
    assert user.published() == []
    assert len(user.all_ended()) == 1


def test_a_step_that_hangs_is_cancelled_at_its_deadline(user: User):
    user.emr.plan(hang_steps=True)
    patient = replace(user, changed={"FRUITS_EMR_STEP_MINUTES": "0.6"})
    result, told = patient.run(*INGEST)
    assert not result.success
    assert "did not end within 0.6 minutes" in told
    assert user.published() == []
    (cluster,) = user.all_ended()
    assert cluster.steps[0].state == "CANCELLED"
    assert "CancelSteps" in [call.action for call in user.emr.history()]


def test_a_driver_whose_label_no_machine_has_is_cancelled(user: User):
    user.emr.plan(core_label="OTHER")
    patient = replace(user, changed={"FRUITS_EMR_BEGIN_MINUTES": "0.5"})
    result, told = patient.run(*INGEST)
    assert not result.success
    assert "has not begun within 0.5 minutes" in told
    assert "no machine with the label that drivers ask for (CORE)" in told
    assert user.published() == []
    (cluster,) = user.all_ended()
    assert cluster.steps[0].state == "CANCELLED"


@pytest.mark.parametrize(
    ("machine_mb", "expected"),
    [
        (4096, "no machine of the cluster has room for an executor"),
        # There is room for an executor of 10 GB, but not beside a driver of 3.
        (11_000, "the cluster has given no executor within 60 s"),
    ],
)
def test_a_cluster_without_room_for_an_executor_is_one_sentence(
    user: User, machine_mb: int, expected: str
):
    user.emr.plan(machine_mb=machine_mb)
    patient = replace(user, changed={"FRUITS_EMR_BEGIN_MINUTES": "1"})
    result, told = patient.run(*INGEST)
    assert not result.success
    assert expected in told
    assert "Ask for smaller executors" in told
    assert "or for a larger cluster." in told
    assert user.published() == []
    assert len(user.all_ended()) == 1


def test_messages_that_are_lost_are_a_failure(user: User):
    user.emr.plan(lose_messages=f"{user.pipes}/messages")
    result, told = user.run(*INGEST)
    assert not result.success
    assert "its report never arrived" in told
    assert user.published() == []
    assert len(user.all_ended()) == 1


def test_credentials_that_expire_are_told_and_the_cluster_ends_by_itself(user: User):
    result, told = user.run(*INGEST, meanwhile=lambda _: user.emr.expire_credentials())
    user.emr.restore_credentials()
    assert not result.success
    assert "credentials have expired" in told
    assert user.published() == []
    (cluster,) = user.all_ended()
    assert "auto-termination" in (cluster.message or "")


def test_a_run_that_costs_too_much_is_refused_before_anything_starts(user: User):
    poor = replace(user, changed={"FRUITS_EMR_MAX_COST_EUR": "0.01"})
    result, told = poor.run(*INGEST)
    assert not result.success
    assert "refused by FRUITS_EMR_MAX_COST_EUR of 0.01" in told
    assert user.emr.clusters() == []
    assert user.published() == []


def test_a_lake_that_no_cluster_can_see_is_refused_before_anything_starts(
    user: User, tmp_path: Path
):
    here = replace(user, lake=str(tmp_path / "lake"))
    result, told = here.run(*INGEST)
    assert not result.success
    assert f"the lake lies in {tmp_path}/lake, which no cluster can see" in told
    assert user.emr.clusters() == []


def test_a_source_that_no_cluster_can_see_is_refused(user: User, photos: Path):
    here = replace(user, changed={"FRUITS_SOURCE": str(photos)})
    result, told = here.run(*INGEST)
    assert not result.success
    assert f"source lies in {photos}" in told
    assert user.emr.clusters() == []
