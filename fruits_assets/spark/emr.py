"""Spark on AWS EMR: one cluster per run, one step per transform."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg

from fruits_assets.core.errors import FruitsError
from fruits_assets.spark import lifecycle, sizing
from fruits_assets.spark.account import MANAGED, STACK, EmrAccount, EmrPlaces
from fruits_assets.spark.clusters import Cluster, Clusters, GivenCluster, OwnClusters
from fruits_assets.spark.emr_target import EmrTarget, named
from fruits_assets.spark.sizing import Bill, Plan
from fruits_assets.spark.steps import Patience, Steps
from fruits_assets.spark.submitted import Job, add_metadata
from fruits_assets.spark.target import Call
from fruits_assets.spark.work import Work

SUBMIT = ("spark-submit", "--master", "yarn", "--deploy-mode", "cluster")


class EmrSpark(EmrTarget):
    """Runs every transform as a step of a cluster that all assets of a run share."""

    account: EmrAccount

    @property
    def places(self) -> EmrPlaces:  # noqa: D102 - see EmrTarget
        return self.account

    def run_job(self, call: Call, job: Job) -> str:  # noqa: D102 - see SubmittedSpark
        clusters = self._clusters
        steps = Steps(
            clusters,
            clusters.acquire(call.context.run.run_id, partial(self._launch, call)),
            self.account.logs,
            self._patience,
            call.context.log.info,
            self.bucket_owner,
        )
        step = steps.submit(job.name, [*SUBMIT, *job.options, job.code.entry, *job.arguments])
        seconds = steps.wait(step, begun=job.begun)
        self._tell_cost(call, steps, step, seconds)
        return f"step {step}"

    def definitions(self) -> dg.Definitions:  # noqa: D102 - see SparkTarget
        return lifecycle.definitions(self)

    def end(self, run: str) -> dict[str, str]:
        """Ends the clusters of a run, if any is alive.

        Returns:
            What they took and cost, as tags for the run; nothing where none was alive.

        Raises:
            FruitsError: they cannot be ended.
        """
        # Whatever cluster is used from now on: this run may have started one of its own.
        clusters = self.own_clusters
        if not clusters.release(run):
            return {}
        tags: dict[str, str] = {}
        with contextlib.suppress(FruitsError):  # they end, whether or not their price can be had
            used = clusters.of_run(run)  # one that ended while it was idle was paid for, too
            tags["fruits/cluster"] = ", ".join(used)
            tags |= {f"fruits/{name}": str(value) for name, value in self.bill(used).told().items()}
        return tags

    def sweep(self, older_than: timedelta, *, dry_run: bool) -> list[Cluster]:
        """Ends the clusters of this stack that are older than a bound, or only lists them.

        Raises:
            SparkError: EMR refuses.
        """
        return self.own_clusters.sweep(older_than, dry_run=dry_run)

    def bill(self, clusters: Iterable[str]) -> Bill:
        """What clusters have cost so far. Raises SparkError."""
        instances = self.own_clusters.instances
        machines = [machine for cluster in clusters for machine in instances(cluster)]
        return sizing.bill(machines, self.prices, self.checked_region, datetime.now(UTC))

    @property
    def own_clusters(self) -> OwnClusters:
        """All those of this stack. Raises RegionError."""
        account = self.account
        return OwnClusters(
            self.checked_region, account.tag, account.pipes, self.kms_key, self.bucket_owner
        )

    @property
    def _clusters(self) -> Clusters:
        if self.account.cluster:
            return GivenCluster(
                self.checked_region,
                self.account.cluster,
                {
                    "ReleaseLabel": self.account.release,
                    "SecurityConfiguration": self.account.security_configuration,
                },
            )
        return self.own_clusters

    def _launch(self, call: Call) -> dict[str, Any]:
        """The parameters of RunJobFlow, once their price is said and found acceptable."""
        plan = self.plan(call)
        call.context.log.info(plan.sentence())
        add_metadata(call, named(plan.told()))
        plan.check()
        return self.request(plan)

    def plan(self, call: Call) -> Plan:
        """How large a cluster the work that is left asks for, and what it will cost."""
        return self._plan(self.left(call))

    def plan_of(self, cores: int) -> Plan:
        """A cluster of so many cores, for whatever work will come. Raises SparkError."""
        return self._plan(Work(0, 0.0, ()), cores=cores)

    def _plan(self, work: Work, *, cores: int | None = None) -> Plan:
        architecture = self.account.architecture
        region = self.checked_region
        return sizing.plan(work, self.sizes, self.prices, region, architecture, cores=cores)

    def request(self, plan: Plan) -> dict[str, Any]:
        """The parameters of RunJobFlow for a plan, all but the name."""
        account = self.account
        tags = {MANAGED: "true", STACK: account.tag}
        return {
            "ReleaseLabel": account.release,
            "Applications": [{"Name": "Spark"}],
            "LogUri": account.logs,
            "ServiceRole": account.service_role,
            "JobFlowRole": account.instance_profile,
            "SecurityConfiguration": account.security_configuration,
            "Instances": {
                "InstanceFleets": sizing.fleets(plan),
                "Ec2SubnetIds": [one.strip() for one in account.subnets.split(",")],
                "EmrManagedMasterSecurityGroup": account.primary_security_group,
                "EmrManagedSlaveSecurityGroup": account.worker_security_group,
                "ServiceAccessSecurityGroup": account.service_security_group,
                "KeepJobFlowAliveWhenNoSteps": True,
                "TerminationProtected": False,
            },
            "Configurations": sizing.configurations(plan),
            "AutoTerminationPolicy": {"IdleTimeout": round(self.limits.idle_minutes * 60)},
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }

    def _tell_cost(self, call: Call, steps: Steps, step: str, seconds: float) -> None:
        try:
            instances = steps.clusters.instances(steps.cluster)
            eur = sizing.rate(instances, self.prices, self.checked_region) * seconds / 3600
        except FruitsError as error:  # what was made is not lost for want of its price
            call.context.log.warning("what step %s cost is not known: %s", step, error)
            return
        facts = {
            "cluster": steps.cluster,
            "step": step,
            "step_minutes": round(seconds / 60, 2),
            "instance_hours": round(sizing.running(instances) * seconds / 3600, 3),
        }
        self.tell_cost(call, eur, facts)

    @property
    def _patience(self) -> Patience:
        of = self.limits
        return Patience(of.poll_seconds, of.start_minutes, of.begin_minutes, of.step_minutes)
