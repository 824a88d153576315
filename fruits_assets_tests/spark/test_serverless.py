"""Spark on EMR Serverless: what is asked of it, refused, waited for and paid."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import boto3
import dagster as dg
import pytest

from fruits_assets.core.errors import SparkError
from fruits_assets.definitions import compose
from fruits_assets.settings import Settings
from fruits_assets.spark import costs, doors, submitted
from fruits_assets.spark.account import Architecture, EmrLimits
from fruits_assets.spark.capacity import Capacity, Where, capacity
from fruits_assets.spark.code import Code
from fruits_assets.spark.job_runs import JobRuns
from fruits_assets.spark.prices import Prices
from fruits_assets.spark.serverless import EmrServerlessSpark
from fruits_assets.spark.sizing import Limits
from fruits_assets.spark.submitted import Job, JobFailedError
from fruits_assets.spark.target import Call
from fruits_assets.spark.work import Work
from fruits_assets.storage.region import EU_REGIONS
from fruits_assets_tests import s3
from fruits_assets_tests.emr import STACK, Emr, eventually
from fruits_assets_tests.emulator import serverless as emulated

PRICES = Prices.load()
QUOTA = {"cpu": "16 vCPU", "memory": "160 GB"}
"""The `maximumCapacity` of the stack's application."""
SETTINGS: Any = {"source": "s3://source/photos", "lake": "s3://bucket/lake", "region": s3.REGION}


# ---------------------------------------------------------------------------------------- prices


def test_the_price_is_that_of_vcpus_memory_and_disks():
    used = {"vcpu_hours": 10.0, "memory_gb_hours": 40.0, "storage_gb_hours": 100.0}
    usd = 10 * 0.052624 + 40 * 0.0057785 + 100 * 0.000122
    assert PRICES.serverless_eur("eu-west-1", "x86_64", **used) == pytest.approx(usd * 0.86)


def test_arm64_is_cheaper_but_its_disks_are_not():
    work = {"vcpu_hours": 10.0, "memory_gb_hours": 40.0}
    disks = {"vcpu_hours": 0.0, "memory_gb_hours": 0.0, "storage_gb_hours": 100.0}
    x86, arm = (
        [PRICES.serverless_eur("eu-west-3", machine, **used) for used in (work, disks)]
        for machine in ("x86_64", "arm64")
    )
    assert arm == pytest.approx([0.8 * x86[0], x86[1]])


@pytest.mark.parametrize("region", EU_REGIONS)
def test_every_region_of_the_eu_offers_it_at_a_known_price(region: str):
    assert region in boto3.Session().get_available_regions("emr-serverless")
    assert PRICES.serverless_eur(region, "arm64", vcpu_hours=1, memory_gb_hours=1) > 0


# --------------------------------------------------------------------------------------- workers


def _capacity(images: int, most: Mapping[str, str] = QUOTA, **limits: Any) -> Capacity:
    where = Where("eu-west-3", "arm64", PRICES)
    return capacity(Work(images, images * 0.0034), Limits(**limits), most, where)


@pytest.mark.parametrize("images", [1, 10_000, 10**8])
@pytest.mark.parametrize("cores", [1, 2, 4])
def test_workers_have_sizes_that_there_are_and_fit_the_application(images: int, cores: int):
    asked = emulated.Workers(_capacity(images, executor_cores=cores).settings())
    asked.check(QUOTA)
    assert asked.executors >= 1


def test_cores_grow_with_the_work_up_to_what_is_allowed():
    unlimited: dict[str, str] = {}
    found = [_capacity(images, unlimited).cores for images in (1, 300_000, 10**8)]
    assert found == [4, 8, 64]
    assert _capacity(10**8, unlimited, max_cores=400).cores == 400
    assert _capacity(10**8).cores == 12
    assert _capacity(10**8, {"cpu": "400 vCPU", "memory": "32 GB"}).cores == 12


def test_spark_is_told_of_all_its_cores_before_any_executor_is_there():
    settings = _capacity(10**8).settings()
    assert settings["spark.default.parallelism"] == "12"
    assert settings["spark.executor.instances"] == "3"


@pytest.mark.parametrize(
    ("most", "scarce"),
    [
        ({"cpu": "4 vCPU", "memory": "40 GB"}, "the vCPUs of the application"),
        ({"cpu": "16 vCPU", "memory": "11 GB"}, "the memory of the application"),
    ],
)
def test_an_application_without_room_for_an_executor_is_refused(most: Any, scarce: str):
    with pytest.raises(SparkError, match=scarce):
        _capacity(1, most)


def test_the_price_is_expected_of_all_workers():
    asked = _capacity(1)
    hours = asked.minutes / 60
    eur = PRICES.serverless_eur(
        "eu-west-3", "arm64", vcpu_hours=5 * hours, memory_gb_hours=12 * hours
    )
    assert asked.expected["serverless"] == pytest.approx(eur)
    requests = costs.requests(PRICES, "eu-west-3", asked.work)
    assert asked.expected_eur == pytest.approx(eur + sum(requests.values()))


def test_a_job_whose_longest_stage_would_be_ended_is_refused():
    asked = _capacity(10**8)
    assert asked.step_minutes > 120
    with pytest.raises(SparkError, match=r"refused by FRUITS_EMR_STEP_MINUTES of 120 .* cores\)"):
        asked.check()


def test_a_job_that_is_expected_to_cost_too_much_is_refused_with_what_to_do():
    _capacity(10**6, max_cost_eur=1000.0).check()
    with pytest.raises(SparkError, match=r"FRUITS_EMR_MAX_COST_EUR of 0.1 .*Nothing was started"):
        _capacity(10**6, max_cost_eur=0.1).check()


def test_aws_ends_a_job_before_it_costs_more_than_is_allowed():
    assert _capacity(1).timeout_minutes(120) == 120
    limited = _capacity(1, max_cost_eur=0.1)
    minutes = limited.timeout_minutes(120)
    assert 0.09 < minutes * limited.eur_per_minute <= 0.1


# -------------------------------------------------------------------------------------- requests


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> EmrServerlessSpark:
    for name, value in STACK.items():
        monkeypatch.setenv(name, value)
    resources = compose(Settings(spark="emr-serverless", **SETTINGS)).resources
    assert resources
    return cast("EmrServerlessSpark", resources["spark"])


CODE = Code("s3://bucket/code/fruits.zip", "s3://bucket/code/run.py", "s3://bucket/code/e.tar.gz")


def _request(
    target: EmrServerlessSpark, *arguments: str, run: str = "run-1", attempt: int = 0
) -> dict[str, Any]:
    context: Any = SimpleNamespace(run=SimpleNamespace(run_id=run), retry_number=attempt)
    call = Call(context, cast("Any", None), {}, {})
    job = Job("featurize", CODE, arguments, {**submitted.SETTINGS, **target.hadoop()}, bool)
    return target.request(call, job, _capacity(1))


def _spark_settings(request: Mapping[str, Any]) -> dict[str, str]:
    parameters = request["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"]
    return dict(re.findall(r"--conf (\S+?)=(\S+)", parameters))


def test_aws_would_take_the_request(target: EmrServerlessSpark):
    shape = emulated._operations()["StartJobRun"].input_shape
    assert shape
    request = {**_request(target, "--region", s3.REGION), "applicationId": "00f1r2u3i4t5s6"}
    assert list(emulated.problems(shape, request)) == []
    assert list(emulated.problems(shape, {**request, "clientToken": "no token"}))
    assert list(emulated.problems(shape, {**request, "role": "a"}))
    assert '"' not in request["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"]
    assert request["executionTimeoutMinutes"] == 120
    assert request["executionRoleArn"] == STACK["FRUITS_EMR_SERVERLESS_ROLE"]


def test_a_call_that_is_repeated_has_the_same_token_and_no_other_call_has_it(
    target: EmrServerlessSpark,
):
    token = _request(target, "--x", "1")["clientToken"]
    assert token == _request(target, "--x", "1")["clientToken"]
    others = [
        _request(target, "--x", "2"),
        _request(target, "--x", "1", attempt=1),
        _request(target, "--x", "1", run="run-2"),
    ]
    assert len({token, *(other["clientToken"] for other in others)}) == 4


def test_driver_and_executors_find_what_was_shipped(target: EmrServerlessSpark):
    settings = _spark_settings(_request(target))
    assert settings["spark.archives"] == f"{CODE.environment}#environment"
    assert settings["spark.submit.pyFiles"] == CODE.package
    for name in ("spark.emr-serverless.driverEnv", "spark.executorEnv"):
        assert settings[f"{name}.PYTHONPATH"] == "environment"
        assert settings[f"{name}.PYSPARK_PYTHON"] == "python3.11"
    assert settings["spark.dynamicAllocation.enabled"] == "false"
    assert settings["spark.hadoop.fs.s3a.endpoint.region"] == s3.REGION


def test_workers_know_each_other_by_certificates_as_there_is_no_key(target: EmrServerlessSpark):
    settings = _spark_settings(_request(target))
    assert settings["spark.ssl.internode.enabled"] == "true"
    assert not settings.keys() & doors.PROTECTED.keys()


def test_logs_go_to_the_stacks_bucket_alone(target: EmrServerlessSpark):
    monitoring = _request(target)["configurationOverrides"]["monitoringConfiguration"]
    assert monitoring == {
        "s3MonitoringConfiguration": {"logUri": STACK["FRUITS_EMR_LOGS"]},
        "managedPersistenceMonitoringConfiguration": {"enabled": False},
    }


def test_a_setting_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    for name, value in STACK.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FRUITS_EMR_SERVERLESS_ROLE")
    with pytest.raises(SparkError, match=r"emr-serverless.*FRUITS_EMR_SERVERLESS_ROLE"):
        compose(Settings(spark="emr-serverless", **SETTINGS))


# ---------------------------------------------------------------------------- waiting for the end


@dataclass(frozen=True)
class Scripted(JobRuns):
    """Job runs whose states are those of a script; what is asked is kept."""

    states: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    billed_after: int = 0

    def _ask(self, action: str, **_: Any) -> Mapping[str, Any]:
        self.asked.append(action)
        assert len(self.asked) < 1000, "it waits without an end"
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if state == "interrupt":
            raise KeyboardInterrupt
        run: dict[str, Any] = {"state": state, "stateDetails": f"details of {state}"}
        if self.asked.count("get_job_run") > self.billed_after:
            used = {"vCPUHour": 1.0, "memoryGBHour": 2.0, "storageGBHour": 0.0}
            run["billedResourceUtilization"] = used
        return {"jobRun": run}


def _scripted(*states: str, billed_after: int = 0, **limits: Any) -> Scripted:
    patience = EmrLimits(poll_seconds=0.001, **limits)
    return Scripted(
        s3.REGION,
        "00a",
        "s3://logs/emr/applications/00a/jobs",
        None,
        patience,
        lambda _: None,
        list(states),
        billed_after=billed_after,
    )


def test_a_job_is_followed_until_it_has_succeeded():
    runs = _scripted("SUBMITTED", "PENDING", "SCHEDULED", "RUNNING", "RUNNING", "SUCCESS")
    runs.wait("00r", lambda: True)
    assert runs.asked == ["get_job_run"] * 6


def test_a_job_that_nobody_waits_for_any_more_is_cancelled():
    runs = _scripted("RUNNING", "interrupt", "CANCELLING")
    with pytest.raises(KeyboardInterrupt):
        runs.wait("00r", lambda: True)
    assert runs.asked[-1] == "cancel_job_run"


@pytest.mark.parametrize(
    ("state", "limit", "told"),
    [
        ("PENDING", "start_minutes", "PENDING for more than .* FRUITS_EMR_START_MINUTES"),
        ("QUEUED", "step_minutes", "QUEUED for more than"),
        ("RUNNING", "step_minutes", "RUNNING for more than .* FRUITS_EMR_STEP_MINUTES"),
        ("RUNNING", "begin_minutes", "has not begun within .*/00r/SPARK_DRIVER/"),
    ],
)
def test_a_job_that_takes_too_long_is_cancelled_with_what_to_do(state: str, limit: str, told: str):
    tight: dict[str, Any] = {limit: 1e-6}
    runs = _scripted(state, **tight)
    with pytest.raises(SparkError, match=told):
        runs.wait("00r", lambda: False)
    assert runs.asked[-1] == "cancel_job_run"


def test_a_job_whose_program_has_begun_may_take_its_time():
    _scripted("RUNNING", "RUNNING", "SUCCESS", begin_minutes=1e-6).wait("00r", lambda: True)


def test_a_job_that_was_cancelled_elsewhere_says_why_and_is_not_cancelled_again():
    runs = _scripted("RUNNING", "CANCELLED")
    with pytest.raises(SparkError, match=r"CANCELLED \(details of CANCELLED\).*SPARK_DRIVER/"):
        runs.wait("00r", lambda: True)
    assert "cancel_job_run" not in runs.asked


def test_looks_become_rarer(monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []
    monkeypatch.setattr("fruits_assets.spark.job_runs.time.sleep", pauses.append)
    runs = replace(_scripted(*["RUNNING"] * 10, "SUCCESS"), limits=EmrLimits(poll_seconds=10.0))
    runs.wait("00r", lambda: True)
    assert pauses[0] == 1.0
    assert all(before < after for before, after in itertools.pairwise(pauses[:6]))
    assert max(pauses) == 10.0


def test_what_is_billed_may_be_known_a_little_later():
    assert _scripted("SUCCESS", billed_after=2).billed("00r") == {
        "vcpu_hours": 1.0,
        "memory_gb_hours": 2.0,
        "storage_gb_hours": 0.0,
    }
    assert _scripted("SUCCESS", billed_after=100).billed("00r") == {}


# ----------------------------------------------------------------------------- an emulated account


@pytest.fixture
def runs(fresh_emr: Emr) -> Any:
    with s3.used(fresh_emr.endpoint):
        logs = f"s3://{fresh_emr.s3.bucket(versioned=False)}/emr/"
        limits = EmrLimits(poll_seconds=0.05)
        place = f"{logs}applications/x/jobs"
        yield JobRuns(s3.REGION, fresh_emr.application(), place, None, limits, lambda _: None)


def _check(runs: JobRuns, architecture: Architecture = "x86_64") -> None:
    runs.check(architecture)


def test_an_application_as_the_stack_makes_it_is_taken(runs: JobRuns):
    _check(runs)


def test_an_application_that_cannot_be_used_is_one_sentence(runs: JobRuns, fresh_emr: Emr):
    with pytest.raises(SparkError, match=r"machines of x86_64.*Set it to x86_64\."):
        _check(runs, "arm64")
    with pytest.raises(SparkError, match=r"there is no application '00nowhere'.*eu-west-3"):
        _check(replace(runs, application="00nowhere"))
    elsewhere = fresh_emr.application("eu-central-1")
    with pytest.raises(SparkError, match="in eu-west-3 in this account"):
        _check(replace(runs, application=elsewhere))
    older = fresh_emr.application(releaseLabel="emr-7.13.0")
    with pytest.raises(SparkError, match=r"emr-7\.13\.0, and must have emr-spark-8\.0\.0"):
        _check(replace(runs, application=older))
    fresh_emr.client("emr-serverless").delete_application(applicationId=runs.application)
    with pytest.raises(SparkError, match="was deleted"):
        _check(runs)


def test_a_run_on_an_unknown_application_fails_before_any_asset(
    fresh_emr: Emr, target: EmrServerlessSpark
):
    bucket, logs = fresh_emr.s3.bucket(), fresh_emr.s3.bucket(versioned=False)
    at = {"pipes": f"s3://{bucket}/pipes", "logs": f"s3://{logs}/emr/"}
    mine = target.model_copy(update={"account": target.account.model_copy(update=at)})
    with s3.used(fresh_emr.endpoint), pytest.raises(dg.Failure, match="there is no application"):
        mine.setup_for_execution(dg.build_init_resource_context())


def test_a_repeated_call_starts_one_job_and_another_request_has_no_such_token(
    runs: JobRuns, fresh_emr: Emr, target: EmrServerlessSpark
):
    fresh_emr.plan(boot_seconds=60)
    request = _request(target)
    assert runs.start(request) == runs.start(request)
    assert len(fresh_emr.job_runs()) == 1
    with pytest.raises(SparkError, match="ConflictException"):
        runs.start({**request, "name": "ingest"})


def test_a_failed_job_says_what_aws_says_and_where_its_logs_lie(
    runs: JobRuns, fresh_emr: Emr, target: EmrServerlessSpark
):
    fresh_emr.plan(boot_seconds=0, fail=("InternalServerException", "no workers"))
    run = runs.start(_request(target))
    with pytest.raises(JobFailedError, match=rf"FAILED \(.*no workers\).*/{run}/SPARK_DRIVER/"):
        runs.wait(run, lambda: False)


def test_a_job_that_costs_more_than_allowed_is_ended_by_aws(
    runs: JobRuns, fresh_emr: Emr, target: EmrServerlessSpark
):
    fresh_emr.plan(boot_seconds=600, time_scale=60_000)
    run = runs.start(_request(target))
    with pytest.raises(SparkError, match=r"CANCELLED \(.*execution timeout"):
        runs.wait(run, lambda: False)


def test_a_key_for_workers_would_fail_every_job(
    runs: JobRuns, fresh_emr: Emr, target: EmrServerlessSpark
):
    """Spark starts with `spark.authenticate` and no key on YARN and Kubernetes only."""
    fresh_emr.plan(boot_seconds=0)
    request = _request(target)
    request["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"] += (
        " --conf spark.authenticate=true"
    )
    run = runs.start(request)
    with pytest.raises(JobFailedError, match=r"spark\.authenticate\.secret"):
        runs.wait(run, lambda: False)


def test_a_cancelled_job_ends(runs: JobRuns, fresh_emr: Emr, target: EmrServerlessSpark):
    fresh_emr.plan(boot_seconds=600)
    run = runs.start(_request(target))
    impatient = replace(runs, limits=EmrLimits(poll_seconds=0.05, start_minutes=1e-6))
    with pytest.raises(SparkError, match="is cancelled"):
        impatient.wait(run, lambda: False)
    eventually(lambda: fresh_emr.job_runs()[0].state == "CANCELLED")
