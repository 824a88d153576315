"""Clusters end with their run, by its executor, by sensors or by a sweep, whatever comes of it."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEventType

from fruits_assets.core.errors import SparkError
from fruits_assets.spark import lifecycle
from fruits_assets.spark.clusters import Cluster

CALLS, REFUSES = "CALLS_OF_THE_TARGET", "TARGET_REFUSES"
TAGS = {"fruits/cost_eur": "0.25", "fruits/cluster": "j-1"}
EXECUTORS = {"default": {}, "in_process": {"in_process": {}}, "multiprocess": {"multiprocess": {}}}
PROCESSES = pytest.param("multiprocess", marks=pytest.mark.slow)
OLD = [
    Cluster(
        f"j-{number}", f"fruits fruits {number}", "WAITING", datetime(2026, 1, number, tzinfo=UTC)
    )
    for number in (1, 2)
]


class Target:
    """A target whose calls are seen from other processes too: it writes them to a file."""

    def end(self, run: str) -> dict[str, str]:
        self._called("end", run)
        return TAGS

    def sweep(self, older_than: timedelta, *, dry_run: bool) -> list[Cluster]:
        self._called("sweep", older_than.total_seconds(), dry_run)
        return OLD

    def _called(self, *call: Any) -> None:
        with Path(os.environ[CALLS]).open("a") as file:
            file.write(json.dumps([os.getpid(), *call]) + "\n")
        if REFUSES in os.environ:
            raise SparkError("EMR: the AWS credentials have expired.")


@dataclass(frozen=True)
class Called:
    """What has been asked of targets.

    Attributes:
        file: that they write it to.
    """

    file: Path

    @property
    def all(self) -> list[list[Any]]:
        """Process, method and arguments of every call."""
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    @property
    def calls(self) -> list[list[Any]]:
        """The same without processes."""
        return [call[1:] for call in self.all]


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Called:
    (tmp_path / "calls").touch()
    monkeypatch.setenv(CALLS, str(tmp_path / "calls"))
    return Called(tmp_path / "calls")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        yield instance


def _job(
    compute: Callable[[], Any], resources: Mapping[str, Any] | None = None
) -> dg.JobDefinition:
    asset = dg.asset(name="something", required_resource_keys=set(resources or {}))
    own = dg.Definitions(
        assets=[asset(lambda _: compute())],
        jobs=[dg.define_asset_job("job")],
        resources=resources or {},
    )
    return dg.Definitions.merge(own, lifecycle.definitions(Target())).resolve_job_def("job")


def succeeding() -> dg.JobDefinition:
    return _job(lambda: 1)


def failing() -> dg.JobDefinition:
    def fail() -> None:
        raise ValueError("a bug")

    return _job(fail)


def dying() -> dg.JobDefinition:
    return _job(lambda: os._exit(3))


def interrupted() -> dg.JobDefinition:
    def interrupt() -> None:
        raise KeyboardInterrupt

    return _job(interrupt)


def refused() -> dg.JobDefinition:
    @dg.resource
    def broken(_: dg.InitResourceContext) -> None:
        raise SparkError("no cluster can see the lake")

    return _job(lambda: 1, {"broken": broken})


def _execute(
    job: Callable[[], dg.JobDefinition], instance: dg.DagsterInstance, executor: str
) -> dg.DagsterRun:
    """Runs a job as `dagster job execute` does, and returns the run as it was left."""
    config = {"execution": {"config": EXECUTORS[executor]}} if EXECUTORS[executor] else {}
    with dg.execute_job(
        dg.reconstructable(job), instance=instance, run_config=config, raise_on_error=False
    ) as result:
        run = instance.get_run_by_id(result.run_id)
    assert run
    return run


def _logged(instance: dg.DagsterInstance, run: str, level: int) -> list[str]:
    return [one.user_message for one in instance.all_logs(run) if one.level == level]


# ----------------------------------------------------------------------------------- executor


@pytest.mark.parametrize("executor", ["default", "in_process", PROCESSES])
@pytest.mark.parametrize(
    ("job", "status"),
    [(succeeding, dg.DagsterRunStatus.SUCCESS), (failing, dg.DagsterRunStatus.FAILURE)],
)
def test_the_executor_ends_the_cluster_once_and_tags_the_run(
    instance: dg.DagsterInstance,
    called: Called,
    job: Callable[[], dg.JobDefinition],
    status: dg.DagsterRunStatus,
    executor: str,
):
    run = _execute(job, instance, executor)
    assert run.status is status
    assert called.all == [[os.getpid(), "end", run.run_id]]
    assert TAGS.items() <= run.tags.items()
    assert [text for text in _logged(instance, run.run_id, logging.INFO) if "cost_eur 0.25" in text]


@pytest.mark.slow
def test_all_steps_are_over_before_the_cluster_is_ended(
    instance: dg.DagsterInstance, called: Called
):
    run = _execute(failing, instance, "multiprocess").run_id
    events = list(instance.all_logs(run))
    (failure,) = [
        number
        for number, one in enumerate(events)
        if one.dagster_event and one.dagster_event.event_type is DagsterEventType.STEP_FAILURE
    ]
    (ended,) = [
        number for number, one in enumerate(events) if "ended the run's cluster" in one.user_message
    ]
    assert failure < ended


@pytest.mark.slow
def test_a_step_whose_process_dies_does_not_keep_the_cluster(
    instance: dg.DagsterInstance, called: Called
):
    run = _execute(dying, instance, "multiprocess")
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert called.calls == [["end", run.run_id]]


def test_an_exception_of_dagsters_own_does_not_keep_the_cluster(
    instance: dg.DagsterInstance, called: Called
):
    with pytest.raises(dg.DagsterResourceFunctionError):
        _execute(refused, instance, "in_process")
    (run,) = instance.get_runs()
    assert called.calls == [["end", run.run_id]]


def test_an_interrupt_does_not_keep_the_cluster(instance: dg.DagsterInstance, called: Called):
    run = _execute(interrupted, instance, "in_process")
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert called.calls == [["end", run.run_id]]


@pytest.mark.parametrize("executor", ["in_process", PROCESSES])
@pytest.mark.parametrize("job", [succeeding, failing])
def test_a_cluster_that_cannot_be_ended_does_not_change_what_came_of_the_run(
    instance: dg.DagsterInstance,
    called: Called,
    monkeypatch: pytest.MonkeyPatch,
    job: Callable[[], dg.JobDefinition],
    executor: str,
):
    monkeypatch.setenv(REFUSES, "yes")
    run = _execute(job, instance, executor)
    assert run.is_success == (job is succeeding)
    assert run.is_finished
    assert not TAGS.keys() & run.tags.keys()
    assert called.calls == [["end", run.run_id]]
    told = [text for text in _logged(instance, run.run_id, logging.ERROR) if run.run_id in text]
    assert len(told) == 1
    for part in ("may still be running", "credentials have expired", "sweep_clusters", "console"):
        assert part in told[0]


# ------------------------------------------------------------------------------------ sensors


ENDINGS: dict[str, Callable[[dg.DagsterInstance, dg.DagsterRun], Any]] = {
    "success": lambda instance, run: instance.report_dagster_event(
        dg.DagsterEvent(DagsterEventType.RUN_SUCCESS.value, run.job_name), run.run_id
    ),
    "failure": lambda instance, run: instance.report_run_failed(run),
    "canceled": lambda instance, run: instance.report_run_canceled(run),
}
"""How a run ends -> makes it end so, as the daemon does for a run whose process is gone."""


def _sensor(ending: str, target: lifecycle.Ending) -> dg.SensorDefinition:
    repository = lifecycle.definitions(target).get_repository_def()
    return repository.get_sensor_def(f"end_cluster_on_{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
def test_sensors_end_the_clusters_of_runs_whose_executor_could_not(
    instance: dg.DagsterInstance, called: Called, ending: str
):
    sensor = _sensor(ending, Target())
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    before = sensor.evaluate_tick(dg.build_sensor_context(instance))
    runs = {
        name: instance.create_run_for_job(succeeding(), status=dg.DagsterRunStatus.STARTED)
        for name in ENDINGS
    }
    for name, end in ENDINGS.items():
        end(instance, runs[name])

    tick = sensor.evaluate_tick(dg.build_sensor_context(instance, before.cursor))

    assert called.calls == [["end", runs[ending].run_id]]
    reactions = tick.dagster_run_reactions or ()
    reacted = [one.dagster_run.run_id for one in reactions if one.dagster_run]
    assert reacted == [runs[ending].run_id]
    for name, run in runs.items():
        left = instance.get_run_by_id(run.run_id)
        assert left
        assert (TAGS.items() <= left.tags.items()) == (name == ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_sensor_that_is_refused_goes_on(
    instance: dg.DagsterInstance, called: Called, monkeypatch: pytest.MonkeyPatch, ending: str
):
    monkeypatch.setenv(REFUSES, "yes")
    run = instance.create_run_for_job(succeeding(), status=dg.DagsterRunStatus.STARTED)
    with dg.build_run_status_sensor_context(
        sensor_name=f"end_cluster_on_{ending}",
        dagster_event=dg.DagsterEvent(DagsterEventType.RUN_CANCELED.value, "job"),
        dagster_instance=instance,
        dagster_run=run,
    ) as context:
        _sensor(ending, Target())(context)
    assert called.calls == [["end", run.run_id]]


def test_these_are_all_sensors():
    names = {one.name for one in lifecycle.definitions(Target()).get_repository_def().sensor_defs}
    assert names == {f"end_cluster_on_{it}" for it in ("success", "failure", "canceled")}


def test_a_run_without_a_cluster_gets_no_tags(instance: dg.DagsterInstance, called: Called):
    class Idle(Target):
        def end(self, run: str) -> dict[str, str]:
            super().end(run)
            return {}

    run = instance.create_run_for_job(succeeding())
    log = logging.getLogger("nobody listens")
    lifecycle.end(Idle(), run.run_id, instance, log)
    assert called.calls == [["end", run.run_id]]
    left = instance.get_run_by_id(run.run_id)
    assert left
    assert not TAGS.keys() & left.tags.keys()


# -------------------------------------------------------------------------------------- sweep


@pytest.mark.parametrize(
    ("config", "asked", "done"),
    [
        ({}, [12 * 3600.0, False], "ended"),
        ({"older_than_hours": 0.5}, [1800.0, False], "ended"),
        ({"older_than_hours": 48, "dry_run": True}, [48 * 3600.0, True], "found"),
    ],
)
def test_the_sweep_says_what_it_finds(
    instance: dg.DagsterInstance,
    called: Called,
    config: dict[str, Any],
    asked: list[Any],
    done: str,
):
    result = _sweep(instance, config)
    assert result.success
    assert called.calls == [["sweep", *asked]]
    told = _logged(instance, result.run_id, logging.INFO)
    for one in OLD:
        assert [text for text in told if text.startswith(f"{done} {one.id} ({one.name}")]
    assert f"{done} 2 clusters older than {asked[0] / 3600:g} hours" in told


def test_a_sweep_that_is_refused_says_why(
    instance: dg.DagsterInstance, called: Called, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(REFUSES, "yes")
    result = _sweep(instance, {})
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    told = failure.step_failure_data.user_failure_data
    assert told
    assert told.description == "EMR: the AWS credentials have expired."


def test_a_sweep_of_the_future_is_refused(instance: dg.DagsterInstance, called: Called):
    assert not _sweep(instance, {"older_than_hours": -1}).success
    assert called.calls == []


def _sweep(instance: dg.DagsterInstance, config: dict[str, Any]) -> dg.ExecuteInProcessResult:
    job = lifecycle.definitions(Target()).resolve_job_def("sweep_clusters")
    (op,) = job.nodes
    return job.execute_in_process(
        run_config={"ops": {op.name: {"config": config}}}, instance=instance, raise_on_error=False
    )
