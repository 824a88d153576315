"""Spark on AWS EMR: one cluster per run, one step per transform."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from fruits_assets.core import errors
from fruits_assets.core.errors import FruitsError, SparkError
from fruits_assets.lake.resource import Place, told
from fruits_assets.spark import lifecycle, pipes, sizing
from fruits_assets.spark.account import MANAGED, STACK, EmrAccount, EmrLimits
from fruits_assets.spark.clusters import Cluster, Clusters, GivenCluster, OwnClusters
from fruits_assets.spark.code import Code, ship
from fruits_assets.spark.sizing import Bill, Plan, Prices, Work
from fruits_assets.spark.steps import Patience, StepFailedError, Steps
from fruits_assets.spark.target import Call, SparkTarget
from fruits_assets.storage.base import S3
from fruits_assets.storage.region import check_region
from fruits_assets.storage.snapshot import Output
from fruits_assets.transforms.arguments import to_json

STEPS_AT_ONCE = 2
"""A transform and a check: no two transforms of one run could work at once."""


class EmrSpark(Place, SparkTarget):
    """Runs every transform as a step of a cluster that all assets of a run share."""

    account: EmrAccount
    limits: EmrLimits

    @property
    def uri(self) -> str:  # noqa: D102 - see Place
        return self.account.pipes

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuses what no cluster could see, before any asset starts. Raises dg.Failure."""
        with told():
            _check_visible("the lake", self.lake.base)
        super().setup_for_execution(context)

    def execute(self, call: Call) -> dict[str, Output]:  # noqa: D102 - see SparkTarget
        for name, value in call.inputs.items():
            _check_visible(name, value.place)
        log = call.context.log.info
        code = self.ship(log)
        clusters = self._clusters(code.bootstrap)
        launch = partial(self._launch, call, code)
        steps = Steps(
            clusters,
            clusters.acquire(call.context.run.run_id, launch),
            self.account.logs,
            self._patience,
            log,
            self.bucket_owner,
        )
        reports: list[Mapping[str, Any]] = []
        try:
            place, asked = self.folder(self.account.pipes), self.asked(call)
            with pipes.session(call.context, place, asked, reports) as arguments:
                step = steps.submit(call.transform.name, self._submit(code, arguments))
                seconds = steps.wait(step)
        except StepFailedError as failure:
            raise _error(reports, steps, failure) from failure
        outputs = _outputs(reports, step)
        self._tell_cost(call, steps, step, seconds)
        return outputs

    def ship(self, log: Callable[[str], None]) -> Code:
        """What clusters run, where they find it. Raises FruitsError."""
        for place in (self.account.pipes, self.account.logs):
            self.folder(place)
        return ship(self.folder(self.account.code), self.account.architecture, log=log)

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
        return sizing.bill(machines, self._prices, self._region, datetime.now(UTC))

    @property
    def own_clusters(self) -> OwnClusters:
        """All those of this stack. Raises RegionError."""
        account = self.account
        return OwnClusters(
            self._region, account.tag, account.pipes, self.kms_key, self.bucket_owner
        )

    def _clusters(self, bootstrap: Mapping[str, Any]) -> Clusters:
        if self.account.cluster:
            return GivenCluster(
                self._region,
                self.account.cluster,
                bootstrap,
                {
                    "ReleaseLabel": self.account.release,
                    "SecurityConfiguration": self.account.security_configuration,
                },
            )
        return self.own_clusters

    def _launch(self, call: Call, code: Code) -> dict[str, Any]:
        """The parameters of RunJobFlow, once their price is said and found acceptable."""
        plan = self.plan(call)
        call.context.log.info(plan.sentence())
        _add_metadata(call, plan.told())
        plan.check()
        return self.request(plan, code)

    def plan(self, call: Call) -> Plan:
        """How large a cluster the work that is left asks for, and what it will cost."""
        unpublished = self.lake.open().unpublished(call.transform.lead)
        rows = max(value.rows for value in call.inputs.values())
        left = max(value.rows * (1 - value.done(unpublished)) for value in call.inputs.values())
        if earlier := call.arguments.get("earlier"):
            left -= earlier.rows
        share = max(0.0, left) / max(1, rows)
        megabytes = share * max(value.bytes for value in call.inputs.values()) / 1e6
        return self._plan(
            Work(round(share * rows), megabytes, sizing.stages_from(call.transform.name))
        )

    def plan_of(self, cores: int) -> Plan:
        """A cluster of so many cores, for whatever work will come. Raises SparkError."""
        return self._plan(Work(0, 0.0, ()), cores=cores)

    def _plan(self, work: Work, *, cores: int | None = None) -> Plan:
        limits = sizing.Limits(
            target_minutes=self.limits.target_minutes,
            max_cores=self.limits.max_cores,
            max_cost_eur=self.limits.max_cost_eur,
        )
        architecture = self.account.architecture
        return sizing.plan(work, limits, self._prices, self._region, architecture, cores=cores)

    def request(self, plan: Plan, code: Code) -> dict[str, Any]:
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
            "BootstrapActions": [
                {"Name": "Python environment", "ScriptBootstrapAction": code.bootstrap}
            ],
            "Configurations": sizing.configurations(),
            "StepConcurrencyLevel": STEPS_AT_ONCE,
            "AutoTerminationPolicy": {"IdleTimeout": round(self.limits.idle_minutes * 60)},
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }

    def asked(self, call: Call) -> dict[str, Any]:
        """What the step is asked to do; see `fruits_assets.transforms.__main__`."""
        return {
            "transform": call.transform.address,
            "arguments": to_json(call.arguments),
            "deadline_seconds": self.limits.step_minutes * 60,
        }

    def _submit(self, code: Code, arguments: Mapping[str, str]) -> list[str]:
        options = ["--master", "yarn", "--deploy-mode", "client", "--py-files", code.package]
        given = [text for argument in arguments.items() for text in argument]
        owner = ["--bucket-owner", self.bucket_owner] if self.bucket_owner else []
        return ["spark-submit", *options, code.entry, "--region", self._region, *owner, *given]

    def _tell_cost(self, call: Call, steps: Steps, step: str, seconds: float) -> None:
        try:
            instances = steps.clusters.instances(steps.cluster)
            eur = sizing.rate(instances, self._prices, self._region) * seconds / 3600
        except FruitsError as error:  # what was made is not lost for want of its price
            call.context.log.warning("what step %s cost is not known: %s", step, error)
            return
        images = max(value.rows for value in call.inputs.values())
        told = {
            "cluster": steps.cluster,
            "step": step,
            "step_minutes": round(seconds / 60, 2),
            "instance_hours": round(sizing.running(instances) * seconds / 3600, 3),
            "cost_eur": round(eur, 4),
            "cost_eur_per_1000_images": round(1000 * eur / max(1, images), 4),
        }
        call.context.log.info(", ".join(f"{name} {value}" for name, value in told.items()))
        _add_metadata(call, told)

    @property
    def _region(self) -> str:
        return check_region(self.region)

    @property
    def _prices(self) -> Prices:
        path = self.limits.prices
        try:
            return Prices.load(json.loads(Path(path).read_text()) if path else None)
        except (OSError, ValueError) as error:
            raise SparkError(
                f"the prices in {path} cannot be read ({error}). FRUITS_EMR_PRICES names a JSON "
                "file with some of the figures of fruits_assets/spark/prices.json (docs/emr.md)."
            ) from error

    @property
    def _patience(self) -> Patience:
        of = self.limits
        return Patience(of.poll_seconds, of.start_minutes, of.step_minutes)


def _check_visible(what: str, place: str) -> None:
    if not place.startswith(S3):
        raise SparkError(
            f"FRUITS_SPARK is emr, but {what} lies in {place}, which no cluster can see. Put it in "
            "a bucket in the EU: FRUITS_LAKE and FRUITS_SOURCE are s3://bucket/prefix then "
            "(`make deploy` prints both)."
        )


def _error(
    reports: Sequence[Mapping[str, Any]], steps: Steps, failure: StepFailedError
) -> FruitsError:
    """Why a step failed, by its own report, or else by the end of what it printed."""
    report = reports[-1] if reports else {}
    if kind := report.get("error"):  # a FruitsError, by name: as if it had been raised here
        return getattr(errors, kind)(report["text"])
    return SparkError(f"{failure}\n{report.get('text') or steps.tail(failure.step)}")


def _outputs(reports: Sequence[Mapping[str, Any]], step: str) -> dict[str, Output]:
    """What a step wrote, by its own report."""
    for report in reports:
        if "outputs" in report:
            return {name: Output.from_dict(output) for name, output in report["outputs"].items()}
    raise SparkError(
        f"step {step} has completed, but its report never arrived: messages below "
        "FRUITS_EMR_PIPES were lost. Nothing was published. Run again: finished parts are found, "
        "and not computed twice."
    )


def _add_metadata(call: Call, metadata: Mapping[str, Any]) -> None:
    """To the assets that this call makes; checks and ops have none."""
    if isinstance(call.context, dg.AssetExecutionContext):
        for key in call.context.selected_asset_keys:
            named = {f"emr_{name}": value for name, value in metadata.items()}
            call.context.add_asset_metadata(named, asset_key=key)
