"""Spark on EMR Serverless: one job run per transform, and nothing that stands or waits to be ended.

dagster-aws has `PipesEMRServerlessClient`. It is not used, because it

- cancels the job run only if Dagster interrupts it, and not on any other error while it waits;
- waits without an end, and raises "job failed" without the reason that AWS gives;
- receives messages from CloudWatch alone, and only once the job has ended;
- puts its request into the job's parameters, which everybody may read who may look at job runs, and
  logs an address of Spark's pages that opens them to everybody who reads the log;
- knows neither limits nor prices.

Its parts that are right for this, context and messages in S3, are used by `pipes.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from fruits_assets.lake.resource import told
from fruits_assets.spark import doors, interrupts, workers
from fruits_assets.spark.account import EmrPlaces, ServerlessAccount
from fruits_assets.spark.capacity import Capacity, Where, capacity
from fruits_assets.spark.emr_target import EmrTarget, named
from fruits_assets.spark.job_runs import JobRuns
from fruits_assets.spark.submitted import PYTHON, Job, add_metadata
from fruits_assets.spark.target import Call
from fruits_assets.storage.base import join

DRIVER = "spark.emr-serverless.driverEnv"
ENVIRONMENT = {
    # What starts the driver looks at the settings of Spark, what starts workers at variables.
    f"{DRIVER}.PYSPARK_DRIVER_PYTHON": PYTHON,
    f"{DRIVER}.PYSPARK_PYTHON": PYTHON,
    "spark.executorEnv.PYSPARK_PYTHON": PYTHON,
    f"{DRIVER}.PYTHONPATH": workers.ENVIRONMENT,
    # Spark makes a key by itself on YARN and Kubernetes alone. Elsewhere it does not start with
    # `spark.authenticate` and without one: workers know each other by certificates instead, which
    # EMR Serverless makes.
    "spark.ssl.internode.enabled": "true",
}


class EmrServerlessSpark(EmrTarget):
    """Runs every transform as a job run of an application of EMR Serverless."""

    account: ServerlessAccount

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuses an application that cannot be used, before any asset starts.

        Raises:
            dg.Failure: it does not exist there, has another architecture, or an unknown release.
        """
        super().setup_for_execution(context)
        with told():
            self._runs(_silent).check(self.account.architecture)

    @property
    def places(self) -> EmrPlaces:  # noqa: D102 - see EmrTarget
        return self.account

    def definitions(self) -> dg.Definitions:  # noqa: D102 - see SparkTarget
        return dg.Definitions(executor=interrupts.unforced)

    def run_job(self, call: Call, job: Job) -> str:  # noqa: D102 - see SubmittedSpark
        runs = self._runs(call.context.log.info)
        asked = self.capacity(call, runs.described().get("maximumCapacity", {}))
        call.context.log.info(asked.sentence())
        add_metadata(call, named(asked.told()))
        asked.check()
        run = runs.start(self.request(call, job, asked))
        runs.wait(run, job.begun)
        hours = runs.billed(run)
        if hours:
            where = (self.checked_region, self.account.architecture)
            eur = self.prices.serverless_eur(*where, **hours)
            self.tell_cost(call, eur, {"job": run, **hours})
        else:  # what was made is not lost for want of its price
            call.context.log.warning("what job %s cost is not known: AWS does not say it yet", run)
        return f"job {run}"

    def capacity(self, call: Call, most: Mapping[str, Any]) -> Capacity:
        """The workers that a call asks for, in an application of a `maximumCapacity`."""
        where = Where(self.checked_region, self.account.architecture, self.prices)
        return capacity(self.left(call), self.sizes, most, where)

    def request(self, call: Call, job: Job, asked: Capacity) -> dict[str, Any]:
        """The parameters of StartJobRun."""
        settings = {
            **{name: it for name, it in job.settings.items() if name not in doors.PROTECTED},
            **ENVIRONMENT,
            **asked.settings(),
            "spark.submit.pyFiles": job.code.package,
            "spark.archives": f"{job.code.environment}#{workers.ENVIRONMENT}",
        }
        op: Any = getattr(call.context, "op_execution_context", call.context)
        told_by = (call.context.run.run_id, job.name, op.retry_number, *job.arguments)
        submitted = {
            "entryPoint": job.code.entry,
            "entryPointArguments": [*job.arguments],
            # No shell reads them: a quotation mark would be a part of a value.
            "sparkSubmitParameters": " ".join(
                f"--conf {name}={settings[name]}" for name in settings
            ),
        }
        logged = {
            "s3MonitoringConfiguration": {"logUri": self.account.logs},
            # Logs that AWS keeps lie in no bucket of ours.
            "managedPersistenceMonitoringConfiguration": {"enabled": False},
        }
        return {
            # A call that is repeated, as its answer was lost, starts nothing twice. The arguments
            # name the request: a run may apply one transform several times.
            "clientToken": hashlib.sha256(repr(told_by).encode()).hexdigest(),
            "executionRoleArn": self.account.serverless_role,
            "name": job.name,
            "executionTimeoutMinutes": asked.timeout_minutes(self.deadline_minutes),
            "jobDriver": {"sparkSubmit": submitted},
            "configurationOverrides": {"monitoringConfiguration": logged},
        }

    def _runs(self, log: Callable[[str], None]) -> JobRuns:
        application = self.account.serverless_application
        logged = join(self.account.logs, "applications", application, "jobs")
        where = (self.checked_region, application, logged, self.bucket_owner)
        return JobRuns(*where, self.limits, log)


def _silent(_: str) -> None:
    """Says nothing."""
