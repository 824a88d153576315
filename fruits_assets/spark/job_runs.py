"""Job runs of EMR Serverless: started, followed until they end, and never left behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from fruits_assets.core.errors import FruitsError, SparkError
from fruits_assets.spark import logs
from fruits_assets.spark.account import EmrLimits, Release
from fruits_assets.spark.aws import emr_client, told
from fruits_assets.spark.submitted import JobFailedError
from fruits_assets.storage.aws_errors import code_of
from fruits_assets.storage.base import join

RELEASE: Release = "emr-spark-8.0.0"
"""The one whose image is known to have the Python of `submitted.PYTHON`."""
BILLED = {
    "vcpu_hours": "vCPUHour",
    "memory_gb_hours": "memoryGBHour",
    "storage_gb_hours": "storageGBHour",
}
"""Argument of `Prices.serverless_eur` -> field of AWS's answer."""
OVER = ("SUCCESS", "FAILED", "CANCELLED")
BILL_LOOKS = 4
"""At a job that has ended: what is billed may be known a little later than its end."""


@dataclass(frozen=True)
class JobRuns:
    """The job runs of one application.

    Attributes:
        region: of AWS.
        application: its id.
        logs: URI of the folder with a folder for each of them.
        bucket_owner: AWS account that owns the bucket of the logs; None where that is not known.
        limits: how long to wait.
        log: told every change.
    """

    region: str
    application: str
    logs: str
    bucket_owner: str | None
    limits: EmrLimits
    log: Callable[[str], None]

    def described(self) -> Mapping[str, Any]:
        """The application, as AWS describes it. Raises SparkError."""
        with told(self.region):
            try:
                answer = self._client.get_application(applicationId=self.application)
            except ClientError as error:
                if code_of(error) != "ResourceNotFoundException":
                    raise
                raise SparkError(
                    f"there is no application {self.application!r} of EMR Serverless in "
                    f"{self.region} in this account. FRUITS_EMR_SERVERLESS_APPLICATION names "
                    "one of the region FRUITS_REGION: `make deploy` makes one, and prints both."
                ) from error
        return answer["application"]

    def check(self, architecture: str) -> None:
        """Raises SparkError where jobs of this project cannot run on the application."""
        found = self.described()
        named = f"the application {self.application} of EMR Serverless"
        if found["state"] == "TERMINATED":
            raise SparkError(f"{named} was deleted. `make deploy` makes one, and prints its id.")
        if (release := found["releaseLabel"]) != RELEASE:
            raise SparkError(
                f"{named} has the release {release}, and must have {RELEASE}. `make deploy` makes "
                "one that has."
            )
        if (machines := found.get("architecture", "X86_64").lower()) != architecture:
            raise SparkError(
                f"{named} has machines of {machines}, and FRUITS_EMR_ARCHITECTURE is "
                f"{architecture}: jobs would bring libraries for others. Set it to {machines}."
            )

    def start(self, request: Mapping[str, Any]) -> str:
        """Starts a job run and returns its id. Raises SparkError: AWS refuses it."""
        return self._ask("start_job_run", **request)["jobRunId"]

    def wait(self, run: str, begun: Callable[[], bool]) -> None:
        """Follows a job run to its end, and cancels it if this process is not to see that.

        Args:
            run: its id.
            begun: whether its program has said that it is at work.

        Raises:
            JobFailedError: it failed, and its log may say why.
            SparkError: it did not succeed, for whatever other reason.
        """
        try:
            found = self._follow(run, begun)
        except BaseException:  # an interrupt, a deadline, credentials: nobody waits for it any more
            with contextlib.suppress(FruitsError):
                self._ask("cancel_job_run", jobRunId=run)
            raise
        if found["state"] == "SUCCESS":
            return
        place = join(self.logs, run, "SPARK_DRIVER")
        text = (
            f"job {run} of {self.application} ended as {found['state']} "
            f"({found.get('stateDetails') or 'EMR Serverless gives no reason'}). "
            f"Its logs: {place}/"
        )
        if found["state"] == "FAILED":
            pause = self.limits.poll_seconds
            printed = partial(logs.tail, place, self.region, self.bucket_owner, pause)
            raise JobFailedError(text, run, printed)
        raise SparkError(f"{text} Run again: what is finished is kept.")

    def _follow(self, run: str, begun: Callable[[], bool]) -> Mapping[str, Any]:
        """The description of a job run that has ended."""
        of, state, since = self.limits, "", {}
        pause = min(1.0, of.poll_seconds)
        while True:
            found = self._described(run)
            if found["state"] != state:
                state = found["state"]
                self.log(f"job {run} of {self.application}: {state}")
            if state in OVER:
                return found
            # Behind others a job may wait for as long as it may run, but its workers come soon.
            phase = state if state in ("QUEUED", "RUNNING", "CANCELLING") else "started"
            minutes = (time.monotonic() - since.setdefault(phase, time.monotonic())) / 60
            if minutes > (of.start_minutes if phase == "started" else of.step_minutes):
                raise SparkError(
                    f"job {run} of {self.application} is {state} for more than {minutes:.1f} "
                    "minutes, and is cancelled. Raise FRUITS_EMR_STEP_MINUTES or "
                    "FRUITS_EMR_START_MINUTES if that is too short for this work; run again: what "
                    "is finished is kept."
                )
            if state == "RUNNING" and minutes > of.begin_minutes and not begun():
                raise SparkError(
                    f"the program of job {run} has not begun within {of.begin_minutes:g} minutes, "
                    "and is cancelled: its worker did not start, or does not reach the bucket. "
                    f"Its logs: {join(self.logs, run, 'SPARK_DRIVER')}/"
                )
            time.sleep(pause)
            pause = min(1.5 * pause, of.poll_seconds)

    def billed(self, run: str) -> dict[str, float]:
        """Hours that are billed for a job run that has ended; empty where AWS says none yet."""
        with contextlib.suppress(SparkError):
            for _ in range(BILL_LOOKS):
                if used := self._described(run).get("billedResourceUtilization"):
                    return {name: used[field] for name, field in BILLED.items()}
                time.sleep(self.limits.poll_seconds)
        return {}

    def _described(self, run: str) -> Mapping[str, Any]:
        return self._ask("get_job_run", jobRunId=run)["jobRun"]

    def _ask(self, action: str, **parameters: Any) -> Mapping[str, Any]:
        with told(self.region):
            return getattr(self._client, action)(applicationId=self.application, **parameters)

    @property
    def _client(self) -> Any:
        return emr_client(self.region, "emr-serverless")
