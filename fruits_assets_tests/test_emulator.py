"""The emulator of EMR does as EMR's documentation says, and really runs what it is given."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError

from fruits_assets_tests.emr import (
    REPOSITORY,
    Cluster,
    Emr,
    eventually,
)
from fruits_assets_tests.s3 import ACCESS_KEY, REGION, SECRET_KEY, free_port

pytestmark = pytest.mark.slow

TAGS = {"for-use-with-amazon-emr-managed-policies": "true", "fruits-stack": "fruits"}
MASTER = {
    "InstanceFleetType": "MASTER",
    "TargetOnDemandCapacity": 1,
    "InstanceTypeConfigs": [{"InstanceType": "m7g.xlarge"}],
}
CORE = {**MASTER, "InstanceFleetType": "CORE"}
TASK = {
    "InstanceFleetType": "TASK",
    "TargetSpotCapacity": 7,
    "InstanceTypeConfigs": [
        {"InstanceType": "c7g.2xlarge", "WeightedCapacity": 2},
        {"InstanceType": "c7g.4xlarge", "WeightedCapacity": 4},
    ],
    "LaunchSpecifications": {
        "SpotSpecification": {
            "TimeoutDurationMinutes": 5,
            "TimeoutAction": "SWITCH_TO_ON_DEMAND",
            "AllocationStrategy": "price-capacity-optimized",
        }
    },
}
ENDED = ("TERMINATED", "TERMINATED_WITH_ERRORS")


def request(*, keep: bool = True, **changed: Any) -> dict[str, Any]:
    """The parameters of RunJobFlow, with some changed; None leaves one out."""
    wanted = {
        "Name": "fruits",
        "ReleaseLabel": "emr-spark-8.0.0",
        "ServiceRole": "service",
        "JobFlowRole": "nodes",
        "Tags": [{"Key": key, "Value": value} for key, value in TAGS.items()],
        "Instances": {
            "InstanceFleets": [MASTER, CORE, TASK],
            "Ec2SubnetIds": ["subnet-1"],
            "KeepJobFlowAliveWhenNoSteps": keep,
        },
        **changed,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def run(emr: Emr, **changed: Any) -> str:
    """Creates a cluster; returns its identifier."""
    return emr.client().run_job_flow(**request(**changed))["JobFlowId"]


def step(*args: str, on_failure: str = "CONTINUE", name: str = "step") -> dict[str, Any]:
    jar = {"Jar": "command-runner.jar", "Args": list(args)}
    return {"Name": name, "ActionOnFailure": on_failure, "HadoopJarStep": jar}


def bash(script: str, **options: Any) -> dict[str, Any]:
    return step("bash", "-c", script, **options)


def add(emr: Emr, cluster: str, *steps: dict[str, Any]) -> list[str]:
    return emr.client().add_job_flow_steps(JobFlowId=cluster, Steps=list(steps))["StepIds"]


def status(emr: Emr, cluster: str, identifier: str) -> dict[str, Any]:
    found = emr.client().describe_step(ClusterId=cluster, StepId=identifier)
    return found["Step"]["Status"]


def wait_step(emr: Emr, cluster: str, identifier: str, *states: str) -> dict[str, Any]:
    """The status of a step, once it is in one of some states."""
    wanted = states or ("COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED")
    return eventually(
        lambda: (it := status(emr, cluster, identifier)) and it["State"] in wanted and it
    )


def states(cluster: Cluster) -> list[str]:
    return [it.state for it in cluster.steps]


def text(emr: Emr, bucket: str, key: str) -> str:
    """A log."""
    body = emr.s3.client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return gzip.decompress(body).decode()


def put(emr: Emr, bucket: str, key: str, content: str) -> str:
    emr.s3.client.put_object(Bucket=bucket, Key=key, Body=content.encode())
    return f"s3://{bucket}/{key}"


def refusal(error: pytest.ExceptionInfo[ClientError]) -> str:
    return error.value.response["Error"]["Code"]


def user(emr: Emr, service: str) -> Any:
    """A client of a user, whose credentials may expire."""
    session = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
    return session.client(service, endpoint_url=emr.endpoint)


# ------------------------------------------------------------------------------------ life cycle


def test_a_cluster_lives_in_its_region(fresh_emr: Emr) -> None:
    cluster = run(fresh_emr)
    here, there = fresh_emr.client("emr"), fresh_emr.client("emr", "us-east-1")
    assert [it["Id"] for it in here.list_clusters()["Clusters"]] == [cluster]
    assert there.list_clusters()["Clusters"] == []
    with pytest.raises(ClientError, match="is not valid"):
        there.describe_cluster(ClusterId=cluster)


def test_steps_run_in_order_and_leave_logs(fresh_emr: Emr) -> None:
    bucket = fresh_emr.s3.bucket()
    cluster = run(
        fresh_emr,
        keep=False,
        LogUri=f"s3://{bucket}/emr/",
        Steps=[bash("echo out; echo err >&2"), bash("exit 0")],
    )
    ended = fresh_emr.wait(cluster, *ENDED)
    assert ended.states == ("STARTING", "BOOTSTRAPPING", "RUNNING", "TERMINATING", "TERMINATED")
    assert (ended.code, states(ended)) == ("ALL_STEPS_COMPLETED", ["COMPLETED"] * 2)
    place = f"emr/{cluster}/steps/{ended.steps[0].id}"
    assert text(fresh_emr, bucket, f"{place}/stdout.gz") == "out\n"
    assert text(fresh_emr, bucket, f"{place}/stderr.gz") == "err\n"
    assert "exitCode 0" in text(fresh_emr, bucket, f"{place}/controller.gz")
    first, second = (status(fresh_emr, cluster, it.id)["Timeline"] for it in ended.steps)
    assert first["EndDateTime"] <= second["StartDateTime"] <= second["EndDateTime"]
    found = fresh_emr.client().describe_cluster(ClusterId=cluster)["Cluster"]
    assert found["Status"]["StateChangeReason"]["Message"] == "Steps completed"
    assert found["AutoTerminate"]
    times = found["Status"]["Timeline"]
    assert times["CreationDateTime"] < times["ReadyDateTime"] < times["EndDateTime"]
    assert ended.instances == 0


@pytest.mark.parametrize(
    ("action", "state", "code", "others"),
    [
        ("CONTINUE", "WAITING", None, "COMPLETED"),
        ("CANCEL_AND_WAIT", "WAITING", None, "CANCELLED"),
        ("TERMINATE_CLUSTER", "TERMINATED_WITH_ERRORS", "STEP_FAILURE", "CANCELLED"),
    ],
)
def test_action_on_failure(
    action: str, state: str, code: str | None, others: str, fresh_emr: Emr
) -> None:
    failing = bash("echo why >&2; exit 3", on_failure=action)
    cluster = run(fresh_emr, LogUri=f"s3://{fresh_emr.s3.bucket()}/l", Steps=[failing, bash("")])
    found = fresh_emr.wait(cluster, state)
    assert (found.state, found.code) == (state, code)
    assert states(found) == ["FAILED", others]
    details = status(fresh_emr, cluster, found.steps[0].id)["FailureDetails"]
    assert details["Message"] == "why"
    assert details["LogFile"].endswith(f"/l/{cluster}/steps/{found.steps[0].id}/stderr.gz")


def test_steps_with_errors_end_a_transient_cluster(fresh_emr: Emr) -> None:
    ended = fresh_emr.wait(run(fresh_emr, keep=False, Steps=[bash("exit 1")]), *ENDED)
    assert (ended.state, ended.code) == ("TERMINATED", "STEP_FAILURE")


def test_as_many_steps_run_at_once_as_allowed(fresh_emr: Emr) -> None:
    cluster = run(fresh_emr, StepConcurrencyLevel=2, Steps=[bash("sleep 60")] * 3)
    eventually(lambda: states(fresh_emr.cluster(cluster)) == ["RUNNING", "RUNNING", "PENDING"])
    with pytest.raises(ClientError, match="CONTINUE only"):
        add(fresh_emr, cluster, bash("", on_failure="CANCEL_AND_WAIT"))


def test_terminating_kills_at_once_and_for_good(fresh_emr: Emr) -> None:
    cluster = run(fresh_emr, Steps=[bash("trap '' TERM; sleep 60 & sleep 60"), bash("")])
    eventually(lambda: len(fresh_emr.step_processes()) >= 3)
    pids = fresh_emr.step_processes()
    fresh_emr.client().terminate_job_flows(JobFlowIds=[cluster])
    ended = fresh_emr.wait(cluster, *ENDED, seconds=5)
    assert (ended.state, ended.code) == ("TERMINATED", "USER_REQUEST")
    assert states(ended) == ["CANCELLED", "CANCELLED"]
    assert not any(map(alive, pids))
    with pytest.raises(ClientError, match="may not be modified") as error:
        add(fresh_emr, cluster, bash(""))
    assert refusal(error) == "ValidationException"


def test_a_protected_cluster_is_not_terminated(fresh_emr: Emr) -> None:
    cluster, client = run(fresh_emr), fresh_emr.client()
    client.set_termination_protection(JobFlowIds=[cluster], TerminationProtected=True)
    with pytest.raises(ClientError, match="termination protected"):
        client.terminate_job_flows(JobFlowIds=[cluster])
    assert fresh_emr.wait(cluster, "WAITING").state == "WAITING"


def test_idleness_ends_a_cluster_and_work_does_not_count(fresh_emr: Emr) -> None:
    fresh_emr.plan(time_scale=60 / 0.5)
    cluster = run(
        fresh_emr, AutoTerminationPolicy={"IdleTimeout": 60}, Steps=[bash("exec sleep 1")]
    )
    ended = fresh_emr.wait(cluster, *ENDED)
    assert (ended.state, states(ended)) == ("TERMINATED", ["COMPLETED"])
    times = fresh_emr.client().describe_cluster(ClusterId=cluster)["Cluster"]["Status"]["Timeline"]
    worked = status(fresh_emr, cluster, ended.steps[0].id)["Timeline"]["EndDateTime"]
    assert (times["EndDateTime"] - worked).total_seconds() >= 0.4


def test_an_auto_termination_policy_can_be_put_later(fresh_emr: Emr) -> None:
    fresh_emr.plan(time_scale=600)
    cluster, client = run(fresh_emr), fresh_emr.client()
    fresh_emr.wait(cluster, "WAITING")
    assert "AutoTerminationPolicy" not in client.get_auto_termination_policy(ClusterId=cluster)
    policy = {"IdleTimeout": 3600}
    client.put_auto_termination_policy(ClusterId=cluster, AutoTerminationPolicy=policy)
    found = client.get_auto_termination_policy(ClusterId=cluster)["AutoTerminationPolicy"]
    assert found == policy
    assert fresh_emr.cluster(cluster).state == "WAITING"
    policy = {"IdleTimeout": 60}
    client.put_auto_termination_policy(ClusterId=cluster, AutoTerminationPolicy=policy)
    fresh_emr.wait(cluster, "TERMINATED", seconds=20)


@pytest.mark.parametrize(
    ("option", "trapped"), [("SEND_INTERRUPT", True), ("TERMINATE_PROCESS", False)]
)
def test_cancelling_steps(option: str, trapped: bool, fresh_emr: Emr) -> None:
    script = "trap 'echo trapped; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    cluster = run(fresh_emr, LogUri="s3://nowhere/", Steps=[bash("exit 0"), bash(script), bash("")])
    done, running, waiting = (it.id for it in fresh_emr.cluster(cluster).steps)
    out = fresh_emr.cluster(cluster).folder / "steps" / running / "stdout"
    eventually(lambda: out.exists() and out.read_text() == "ready\n")
    answers = fresh_emr.client().cancel_steps(
        ClusterId=cluster, StepIds=[waiting, running, done], StepCancellationOption=option
    )["CancelStepsInfoList"]
    assert [it["Status"] for it in answers] == ["SUBMITTED", "SUBMITTED", "FAILED"]
    assert wait_step(fresh_emr, cluster, running)["State"] == "CANCELLED"
    assert status(fresh_emr, cluster, waiting)["State"] == "CANCELLED"
    assert ("trapped" in out.read_text()) == trapped
    assert fresh_emr.wait(cluster, "WAITING").state == "WAITING"


# --------------------------------------------------------------------------------------- the API


@pytest.mark.parametrize(
    ("changed", "code", "text"),
    [
        ({"Tags": None}, "AccessDeniedException", "no identity-based policy allows"),
        ({"Tags": [{"Key": "fruits-stack", "Value": "fruits"}]}, "AccessDeniedException", "RunJob"),
        ({"Name": "x" * 257}, "ValidationException", "less than or equal to 256"),
        ({"ReleaseLabel": "emr-0.0.0"}, "ValidationException", "release label"),
        ({"AutoTerminationPolicy": {"IdleTimeout": 59}}, "ValidationException", "60 and 604800"),
        ({"Steps": [bash("", name="x" * 257)]}, "ValidationException", "'steps.1.member.name'"),
        ({"Steps": [step("x" * 10_281)]}, "ValidationException", "10280"),
        ({"StepConcurrencyLevel": 257}, "ValidationException", "between 1 and 256"),
    ],
)
def test_requests_that_are_refused(
    changed: dict[str, Any], code: str, text: str, fresh_emr: Emr
) -> None:
    with pytest.raises(ClientError, match=text) as error:
        run(fresh_emr, **changed)
    assert refusal(error) == code
    assert fresh_emr.clusters() == []


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"InstanceGroups": [{"InstanceRole": "MASTER", "InstanceType": "m7g.xlarge",
                              "InstanceCount": 1}]}, "mutually exclusive"),
        ({"Ec2SubnetIds": ["vpc-1"]}, "subnet vpc-1"),
        ({"InstanceFleets": [CORE]}, "exactly one master"),
        ({"InstanceFleets": [MASTER, TASK]}, "core"),
        ({"InstanceFleets": [MASTER, CORE, {**TASK, "LaunchSpecifications": {
            "SpotSpecification": {"TimeoutDurationMinutes": 4,
                                  "TimeoutAction": "TERMINATE_CLUSTER"}}}]}, "5 and 1440"),
        ({"InstanceFleets": [MASTER, CORE, {**TASK, "InstanceTypeConfigs": [
            {"InstanceType": f"m{number}g.xlarge"} for number in range(31)]}]}, "1 and 30"),
        ({"InstanceFleets": [MASTER, CORE, {**TASK, "LaunchSpecifications": {},
            "InstanceTypeConfigs": [{"InstanceType": f"m{number}g.xlarge"} for number in range(6)],
            }]}, "1 and 5"),
    ],
)  # fmt: skip
def test_machines_that_are_refused(changed: dict[str, Any], text: str, fresh_emr: Emr) -> None:
    with pytest.raises(ClientError, match=text) as error:
        run(fresh_emr, Instances={**request()["Instances"], **changed})
    assert refusal(error) == "ValidationException"


def test_machines_fill_the_targets_of_fleets(fresh_emr: Emr) -> None:
    cluster, client = run(fresh_emr), fresh_emr.client()
    fresh_emr.wait(cluster, "WAITING")
    every = client.list_instances(ClusterId=cluster)["Instances"]
    assert len(every) == fresh_emr.cluster(cluster).instances == 6
    task = client.list_instances(ClusterId=cluster, InstanceFleetType="TASK")["Instances"]
    assert {(it["InstanceType"], it["Market"]) for it in task} == {("c7g.2xlarge", "SPOT")}
    assert {it["Status"]["State"] for it in every} == {"RUNNING"}
    assert all("ReadyDateTime" in it["Status"]["Timeline"] for it in every)
    fleets = client.list_instance_fleets(ClusterId=cluster)["InstanceFleets"]
    assert [it["InstanceFleetType"] for it in fleets] == ["MASTER", "CORE", "TASK"]
    assert fleets[2]["ProvisionedSpotCapacity"] == 8
    of_fleet = client.list_instances(ClusterId=cluster, InstanceFleetId=fleets[2]["Id"])
    assert of_fleet["Instances"] == task
    with pytest.raises(ClientError, match="mutually exclusive"):
        client.list_instance_groups(ClusterId=cluster)


def test_machines_of_groups(fresh_emr: Emr) -> None:
    groups = [
        {"InstanceRole": "MASTER", "InstanceType": "m7g.xlarge", "InstanceCount": 1},
        {"InstanceRole": "CORE", "InstanceType": "m7g.xlarge", "InstanceCount": 2},
    ]
    cluster, client = run(fresh_emr, Instances={"InstanceGroups": groups}), fresh_emr.client()
    core = client.list_instances(ClusterId=cluster, InstanceGroupTypes=["CORE"])["Instances"]
    assert len(core) == 2
    found = client.list_instance_groups(ClusterId=cluster)["InstanceGroups"]
    assert [it["RequestedInstanceCount"] for it in found] == [1, 2]


def test_clusters_are_listed_by_state_and_time_and_page(fresh_emr: Emr) -> None:
    fresh_emr.plan(boot_seconds=60)
    client = fresh_emr.client()
    names = [f"cluster {number}" for number in range(52)]
    ids = [run(fresh_emr, Name=name) for name in names]
    first = client.list_clusters()
    assert len(first["Clusters"]) == 50
    pages = client.get_paginator("list_clusters").paginate(ClusterStates=["STARTING"])
    found = [it for page in pages for it in page["Clusters"]]
    assert [it["Name"] for it in found] == names[::-1]
    client.terminate_job_flows(JobFlowIds=ids[:51])
    for cluster in ids[:51]:
        fresh_emr.wait(cluster, "TERMINATED")
    (left,) = client.list_clusters(ClusterStates=["STARTING"])["Clusters"]
    assert left["Id"] == ids[51]
    created = left["Status"]["Timeline"]["CreationDateTime"]
    assert [it["Id"] for it in client.list_clusters(CreatedAfter=created)["Clusters"]] == ids[51:]


def test_what_a_look_at_the_account_asks(fresh_emr: Emr) -> None:
    client = fresh_emr.client()
    applications = client.describe_release_label(ReleaseLabel="emr-spark-8.0.0")["Applications"]
    assert {"Name": "Spark", "Version": "4.0.2"} in applications
    with pytest.raises(ClientError, match="invalid"):
        client.describe_release_label(ReleaseLabel="emr-0.0.0")
    assert "emr-spark-8.0.0" in client.list_release_labels()["ReleaseLabels"]
    public = client.get_block_public_access_configuration()["BlockPublicAccessConfiguration"]
    assert public["BlockPublicSecurityGroupRules"]
    name = f"encryption-{time.monotonic_ns()}"
    client.create_security_configuration(Name=name, SecurityConfiguration='{"a": 1}')
    found = client.describe_security_configuration(Name=name)["SecurityConfiguration"]
    assert json.loads(found) == {"a": 1}
    with pytest.raises(ClientError):
        fresh_emr.client("emr", "us-east-1").describe_security_configuration(Name=name)
    cluster = run(fresh_emr, Configurations=[{"Classification": "spark", "Properties": {"a": "b"}}])
    described = client.describe_cluster(ClusterId=cluster)["Cluster"]
    assert {it["Key"]: it["Value"] for it in described["Tags"]} == TAGS
    assert described["Configurations"][0]["Properties"] == {"a": "b"}


# ---------------------------------------------------------------------------------- the machines


def test_nothing_of_the_project_is_on_a_machine(
    fresh_emr: Emr, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = run(fresh_emr, LogUri="s3://nowhere/")
    script = "env; ls -A; python3.11 -c 'import fruits_assets'"
    (identifier,) = add(fresh_emr, cluster, bash(script))
    found = wait_step(fresh_emr, cluster, identifier)
    assert "No module named 'fruits_assets'" in found["FailureDetails"]["Message"]
    out = (fresh_emr.cluster(cluster).folder / "steps" / identifier / "stdout").read_text()
    names = {line.partition("=")[0] for line in out.splitlines()}
    assert "PYTHONPATH" not in names
    assert not [name for name in names if name.startswith(("FRUITS_", "DAGSTER_", "PYTEST_"))]
    assert f"AWS_ACCESS_KEY_ID={ACCESS_KEY}" not in out
    assert {line for line in out.splitlines() if "=" not in line} == set()


# -------------------------------------------------------------------------------------- mishaps


def test_a_cluster_that_does_not_come_up(fresh_emr: Emr) -> None:
    fresh_emr.plan(once=True, fail=("VALIDATION_ERROR", "The requested number of vCPUs ..."))
    failed, good = run(fresh_emr, Steps=[bash("")]), run(fresh_emr)
    ended = fresh_emr.wait(failed, *ENDED)
    assert ended.states == ("STARTING", "TERMINATING", "TERMINATED_WITH_ERRORS")
    assert (ended.code, ended.message) == ("VALIDATION_ERROR", "The requested number of vCPUs ...")
    assert states(ended) == ["CANCELLED"]
    fresh_emr.wait(good, "WAITING")


def test_a_cluster_that_is_refused(fresh_emr: Emr) -> None:
    fresh_emr.plan(refuse=("ThrottlingException", "Rate exceeded"))
    with pytest.raises(ClientError, match="Rate exceeded") as error:
        run(fresh_emr)
    assert refusal(error) == "ThrottlingException"


def test_a_cluster_killed_by_aws(fresh_emr: Emr) -> None:
    cluster = run(fresh_emr, Steps=[bash("sleep 60"), bash("")])
    eventually(fresh_emr.step_processes)
    fresh_emr.kill_cluster(cluster, "INSTANCE_FAILURE", "The master failed.")
    ended = fresh_emr.wait(cluster, *ENDED, seconds=5)
    assert (ended.state, ended.code) == ("TERMINATED_WITH_ERRORS", "INSTANCE_FAILURE")
    assert states(ended) == ["INTERRUPTED", "CANCELLED"]
    assert fresh_emr.step_processes() == []


def test_a_step_that_hangs(fresh_emr: Emr) -> None:
    fresh_emr.plan(hang_steps=True)
    cluster = run(fresh_emr, Steps=[bash("sleep 60")])  # not over before it is stopped
    (pid,) = eventually(fresh_emr.step_processes)
    eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    (identifier,) = (it.id for it in fresh_emr.cluster(cluster).steps)
    assert status(fresh_emr, cluster, identifier)["State"] == "RUNNING"
    fresh_emr.client().cancel_steps(ClusterId=cluster, StepIds=[identifier])
    assert wait_step(fresh_emr, cluster, identifier)["State"] == "CANCELLED"


def test_logs_come_late(fresh_emr: Emr) -> None:
    fresh_emr.plan(log_delay=1.5)
    bucket = fresh_emr.s3.bucket()
    cluster = run(fresh_emr, keep=False, LogUri=f"s3://{bucket}/", Steps=[bash("echo late")])
    ended = fresh_emr.wait(cluster, *ENDED)

    def logs() -> list[Any]:
        return fresh_emr.s3.client.list_objects_v2(Bucket=bucket).get("Contents", [])

    assert logs() == []
    eventually(lambda: len(logs()) == 3)
    assert text(fresh_emr, bucket, f"{cluster}/steps/{ended.steps[0].id}/stdout.gz") == "late\n"


def test_messages_are_lost(fresh_emr: Emr) -> None:
    bucket = fresh_emr.s3.bucket()
    fresh_emr.plan(lose_messages=f"s3://{bucket}/pipes/")
    put(fresh_emr, bucket, "pipes/1.json", "lost")
    put(fresh_emr, bucket, "other/1.json", "kept")
    large = io.BytesIO(b"x" * 100_000)
    fresh_emr.s3.client.upload_fileobj(large, bucket, "pipes/é 2.json")
    found = fresh_emr.s3.client.list_objects_v2(Bucket=bucket)["Contents"]
    assert [it["Key"] for it in found] == ["other/1.json"]


def test_credentials_expire_for_the_user_only(fresh_emr: Emr) -> None:
    bucket = fresh_emr.s3.bucket()
    fresh_emr.expire_credentials()
    for call, code in (
        (user(fresh_emr, "emr").list_clusters, "ExpiredTokenException"),
        (lambda: user(fresh_emr, "s3").list_objects_v2(Bucket=bucket), "ExpiredToken"),
        (
            lambda: user(fresh_emr, "s3").put_object(Bucket=bucket, Key="k", Body=b"x"),
            "ExpiredToken",
        ),
        (user(fresh_emr, "sts").get_caller_identity, "ExpiredToken"),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert refusal(error) == code
    put(fresh_emr, bucket, "of-a-test", "")
    cluster = run(fresh_emr, keep=False, LogUri=f"s3://{bucket}/logs", Steps=[bash("echo logged")])
    (ended,) = fresh_emr.wait(cluster, *ENDED).steps
    assert text(fresh_emr, bucket, f"logs/{cluster}/steps/{ended.id}/stdout.gz") == "logged\n"
    fresh_emr.restore_credentials()
    assert user(fresh_emr, "emr").list_clusters()["Clusters"]


def test_calls_are_remembered(fresh_emr: Emr) -> None:
    user(fresh_emr, "emr").run_job_flow(**request(Name="remembered"))
    user(fresh_emr, "sts").get_caller_identity()
    (call,) = fresh_emr.history()
    assert (call.action, call.access_key, call.region) == ("RunJobFlow", ACCESS_KEY, REGION)
    assert call.parameters["Name"] == "remembered"
    assert [it.action for it in fresh_emr.history("sts")] == ["GetCallerIdentity"]


def test_a_variable_for_every_step(fresh_emr: Emr) -> None:
    fresh_emr.plan(extra_env={"WHERE": "/here/x"})
    cluster = run(fresh_emr, keep=False, Steps=[bash("[[ $WHERE == /here/x ]]")])
    assert fresh_emr.wait(cluster, *ENDED).code == "ALL_STEPS_COMPLETED"


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT", "parent"])
def test_nothing_outlives_the_emulator(end: str, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "fruits_assets_tests.emulator", "--port", str(port)]
    # A shell between, to be killed as its parent: nothing can be done by a process that is killed.
    script = '"$@" & echo $!; wait'
    with subprocess.Popen(
        ["bash", "-c", script, "bash", *command, "--folder", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as shell:
        assert shell.stdout
        emulator = psutil.Process(int(shell.stdout.readline()))
        emr = Emr(f"http://127.0.0.1:{port}")
        eventually(lambda: any(it.laddr.port == port for it in emulator.net_connections()))
        run(emr, Steps=[bash("trap '' TERM HUP; setsid sleep 60 & sleep 60 & wait; sleep 60")])
        eventually(lambda: len(emr.step_processes()) >= 2)
        pids = emr.step_processes()
        if end == "parent":
            shell.kill()
        else:
            emulator.send_signal(signal.Signals[end])
        eventually(lambda: not alive(emulator.pid), seconds=20)
        assert not any(map(alive, pids))
