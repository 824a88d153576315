"""Steps of a cluster: submitted, followed until they end, and never left behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fruits_assets.core.errors import FruitsError, SparkError
from fruits_assets.spark import logs
from fruits_assets.spark.aws import told
from fruits_assets.spark.clusters import DYING, Clusters
from fruits_assets.spark.submitted import JobFailedError
from fruits_assets.storage.base import join

BOOTING = ("STARTING", "BOOTSTRAPPING")
MAX_NAME = 256


class StepEndedError(SparkError):
    """The step is over: there is nothing to cancel."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for what.

    Attributes:
        poll_seconds: between two looks.
        start_minutes: until the cluster is up, from when the step was submitted.
        begin_minutes: until the step's program has said that it is at work, from when EMR began it.
        step_minutes: until the step has ended, from when it began; and for which it may be queued.
    """

    poll_seconds: float = 10.0
    start_minutes: float = 30.0
    begin_minutes: float = 10.0
    step_minutes: float = 120.0


@dataclass(frozen=True)
class Steps:
    """The steps that a process submits to one cluster.

    Attributes:
        clusters: that the cluster is one of.
        cluster: its id.
        logs: URI that clusters write their logs to.
        patience: how long to wait.
        log: told every change.
        bucket_owner: AWS account that owns the bucket of the logs; None where that is not known.
    """

    clusters: Clusters
    cluster: str
    logs: str
    patience: Patience
    log: Callable[[str], None]
    bucket_owner: str | None = None

    def submit(self, name: str, arguments: Sequence[str]) -> str:
        """Adds a step and returns its id.

        Raises:
            SparkError: EMR refuses it; where the cluster has ended already, why it has.
        """
        step = {
            "Name": name[:MAX_NAME],
            # The cluster goes on: what failed is one asset's, and others may still need it.
            "ActionOnFailure": "CONTINUE",
            "HadoopJarStep": {"Jar": "command-runner.jar", "Args": list(arguments)},
        }
        try:
            with told(self.clusters.region):
                answer = self.clusters.client.add_job_flow_steps(
                    JobFlowId=self.cluster, Steps=[step]
                )
        except SparkError as refused:
            # A cluster that could not start takes no steps; the refusal does not say why it ended.
            status = self.clusters.describe(self.cluster)["Status"]
            if status["State"] in DYING:
                raise SparkError(self._end_of_cluster(status)) from refused
            raise
        submitted = answer["StepIds"][0]
        with told(self.clusters.region):
            self._cancel_twins(submitted, list(arguments))
        return submitted

    def _cancel_twins(self, step: str, arguments: Sequence[str]) -> None:
        """A request that was repeated because its answer got lost has submitted two."""
        pages = self.clusters.client.get_paginator("list_steps").paginate(
            ClusterId=self.cluster, StepStates=["PENDING", "RUNNING"]
        )
        for other in [other for page in pages for other in page["Steps"]]:
            if other["Id"] != step and other["Config"]["Args"] == arguments:
                self._cancel(other["Id"])

    def wait(self, step: str, *, begun: Callable[[], bool]) -> float:
        """Follows a step to its end, and cancels it if this process is not to see that.

        Args:
            step: its id.
            begun: whether its program has said that it is at work.

        Returns:
            How long it ran, in seconds.

        Raises:
            JobFailedError: it failed, and its log may say why.
            SparkError: it did not complete, for whatever other reason.
        """
        try:
            return self._follow(step, begun)
        except (StepEndedError, JobFailedError):
            raise
        except BaseException:  # an interrupt, a deadline, credentials: nobody waits for it any more
            with contextlib.suppress(FruitsError):
                self._cancel(step)
            raise

    def _follow(self, step: str, begun: Callable[[], bool]) -> float:
        submitted, began, queued = time.monotonic(), 0.0, 0.0
        state = cluster = ""
        while True:
            found = self._status(step)
            if found["State"] != state:
                state = found["State"]
                self.log(f"step {step} on {self.cluster}: {state}")
            if state == "COMPLETED":
                return _seconds(found) or time.monotonic() - (began or submitted)
            if state in ("FAILED", "CANCELLED", "INTERRUPTED"):
                raise self._why(step, found)
            description = self.clusters.describe(self.cluster)["Status"]
            if description["State"] != cluster:
                cluster = description["State"]
                self.log(f"cluster {self.cluster}: {cluster}")
            if cluster in DYING:
                raise StepEndedError(self._end_of_cluster(description))
            now = time.monotonic()
            if state == "RUNNING":
                began = began or now
                self._check(now - began, self.patience.step_minutes, step, "did not end")
                if now - began > self.patience.begin_minutes * 60 and not begun():
                    raise SparkError(
                        f"the program of step {step} on {self.cluster} has not begun within "
                        f"{self.patience.begin_minutes:g} minutes, and is cancelled: YARN has no "
                        "room for its driver (spark.driver.memory and its overhead, on a core "
                        "node), or no machine with the label that drivers ask for (CORE). See the "
                        "step's log and the cluster's `yarn application -status`."
                    )
            elif cluster in BOOTING:
                self._check(now - submitted, self.patience.start_minutes, step, "did not begin")
            else:  # behind others, on a cluster that several runs share
                queued = queued or now
                self._check(now - queued, self.patience.step_minutes, step, "did not begin")
            time.sleep(self.patience.poll_seconds)

    def _check(self, seconds: float, minutes: float, step: str, what: str) -> None:
        if seconds > minutes * 60:
            raise SparkError(
                f"step {step} on {self.cluster} {what} within {minutes:g} minutes, and is "
                "cancelled. Raise FRUITS_EMR_STEP_MINUTES or FRUITS_EMR_START_MINUTES if that is "
                "too short for this work; run again: what is finished is kept."
            )

    def _status(self, step: str) -> Mapping[str, Any]:
        with told(self.clusters.region):
            answer = self.clusters.client.describe_step(ClusterId=self.cluster, StepId=step)
        return answer["Step"]["Status"]

    def _cancel(self, step: str) -> None:
        with told(self.clusters.region):
            # A driver that hangs does not mind an interrupt, and one that is killed harms nothing:
            # parts appear whole or not at all.
            self.clusters.client.cancel_steps(
                ClusterId=self.cluster,
                StepIds=[step],
                StepCancellationOption="TERMINATE_PROCESS",
            )

    def _why(self, step: str, status: Mapping[str, Any]) -> SparkError:
        described = self.clusters.describe(self.cluster)["Status"]
        if described["State"] in DYING:
            return StepEndedError(self._end_of_cluster(described))
        details = status.get("FailureDetails") or status.get("StateChangeReason") or {}
        reason = " ".join(str(value) for value in details.values()) or "EMR gives no reason"
        place = join(self.logs, self.cluster, "steps", step)
        text = (
            f"step {step} on {self.cluster} ended as {status['State']} ({reason}). "
            f"Its logs: {place}/"
        )
        if status["State"] == "FAILED":
            region, pause = self.clusters.region, self.patience.poll_seconds
            printed = partial(logs.tail, place, region, self.bucket_owner, pause)
            return JobFailedError(text, step, printed)
        return StepEndedError(text)

    def _end_of_cluster(self, status: Mapping[str, Any]) -> str:
        reason = status.get("StateChangeReason") or {}
        code, message = reason.get("Code", "no code"), reason.get("Message", "EMR says no more")
        return (
            f"the cluster {self.cluster} is {status['State']} ({code}: {message}). "
            f"{ADVICE.get(code, ADVICE_OTHERWISE)} Nothing was published; what is finished is kept."
        )


ADVICE = {
    "VALIDATION_ERROR": "See that quotas, roles and subnets allow it: `make emr-check`.",
    "INSTANCE_FAILURE": "Machines were lost; run again.",
    "INTERNAL_ERROR": "EMR or EC2 could not provide machines; run again later, or in another zone.",
    "USER_REQUEST": "Somebody, or a sensor of an ended run, ended it.",
    "INSTANCE_FLEET_TIMEOUT": "Its machines were not to be had in time; run again later, or in "
    "another zone.",
}
"""Code of EMR -> what to do."""
ADVICE_OTHERWISE = "See its events in the EMR console, and `make emr-check`."


def _seconds(status: Mapping[str, Any]) -> float | None:
    times = status.get("Timeline", {})
    if "StartDateTime" in times and "EndDateTime" in times:
        return (times["EndDateTime"] - times["StartDateTime"]).total_seconds()
    return None
