"""A run's cluster ends with the run: by its executor, by sensors, and by a sweep."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Protocol

import dagster as dg
from pydantic import Field

from fruits_assets.core.errors import FruitsError
from fruits_assets.lake.resource import told
from fruits_assets.spark import interrupts
from fruits_assets.spark.clusters import Cluster

ENDINGS = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)
IN_PROCESS = {"in_process": {}}
"""As a person types it, `dagster job execute` may have no storage that processes could share."""


class Ending(Protocol):
    """What can end clusters."""

    def end(self, run: str) -> dict[str, str]:
        """Ends the clusters of a run, if any is alive; what they cost, as tags for the run."""
        ...

    def sweep(self, older_than: timedelta, *, dry_run: bool) -> list[Cluster]:
        """Ends old clusters, or only lists them."""
        ...


def definitions(target: Ending) -> dg.Definitions:
    """The executor that ends clusters, and what ends them where it could not."""
    return dg.Definitions(
        executor=_executor(target),
        jobs=[_sweep_job(target)],
        sensors=[_sensor(target, status) for status in ENDINGS],
    )


def end(target: Ending, run: str, instance: dg.DagsterInstance, log: Any) -> None:
    """Ends the clusters of a run, and tags it with what they cost; never raises FruitsError."""
    try:
        tags = target.end(run)
    except FruitsError as error:
        log.error(  # noqa: TRY400 - its text says it all
            "the cluster of the run %s may still be running (%s). It ends by itself when it is "
            "idle; the job `sweep_clusters` and the EMR console end it at once.",
            run,
            error,
        )
        return
    if tags:
        log.info("ended the run's cluster: %s", ", ".join(f"{k} {v}" for k, v in tags.items()))
        instance.add_run_tags(run, tags)


class _Executor(interrupts.WrappingExecutor):
    """Executes by another executor, and ends the run's cluster whatever comes of it."""

    def __init__(self, inner: dg.Executor, target: Ending) -> None:
        super().__init__(inner)
        self._target = target

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        try:
            with interrupts.heeded():  # without an end by force: it would leave the cluster
                yield from self._inner.execute(plan_context, execution_plan)
        finally:
            run, instance = plan_context.run_id, plan_context.instance
            end(self._target, run, instance, plan_context.log)


def _executor(target: Ending) -> dg.ExecutorDefinition:
    inner = dg.multi_or_in_process_executor
    kinds: dict[str, Any] = dict(inner.config_schema.config_type.fields)  # type: ignore[attr-defined]
    processes = dict(kinds["multiprocess"].config_type.fields)
    del processes["start_method"]  # it imports any module that a run's config names

    @dg.executor(
        name="emr",
        config_schema=dg.Field(
            dg.Selector({**kinds, "multiprocess": dg.Field(processes)}),
            default_value=IN_PROCESS,
            is_required=False,
        ),
        requirements=inner.get_requirements,
    )
    def emr(context: dg.InitExecutorContext) -> dg.Executor:
        created = inner.executor_creation_fn
        assert created is not None  # noqa: S101 - of an executor that Dagster itself defines
        return _Executor(created(context), target)

    return emr


def _sensor(target: Ending, status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        run_status=status,
        name=f"end_cluster_on_{status.value.lower()}",
        description=f"Ends the cluster of a run that ended as {status.value}, should it be alive.",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
    )
    def sensor(context: dg.RunStatusSensorContext) -> None:
        end(target, context.dagster_run.run_id, context.instance, context.log)

    return sensor


class SweepConfig(dg.Config):
    """Which clusters are too old."""

    older_than_hours: float = Field(
        default=12.0, ge=0, description="Clusters of this stack that are older are ended."
    )
    dry_run: bool = Field(default=False, description="Only list them.")


def _sweep_job(target: Ending) -> dg.JobDefinition:
    @dg.op
    def sweep(context: dg.OpExecutionContext, config: SweepConfig) -> None:
        """Lists the clusters of this stack that are too old, and ends them."""
        with told():
            old = target.sweep(timedelta(hours=config.older_than_hours), dry_run=config.dry_run)
        done = "found" if config.dry_run else "ended"
        for one in old:
            context.log.info("%s %s (%s, started %s)", done, one.id, one.name, one.created_at)
        hours = config.older_than_hours
        context.log.info("%s %d clusters older than %g hours", done, len(old), hours)

    @dg.job(
        name="sweep_clusters",
        executor_def=dg.in_process_executor,
        description="Ends clusters of this stack that have outlived every run.",
    )
    def job() -> None:
        sweep()

    return job
