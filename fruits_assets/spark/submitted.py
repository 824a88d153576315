"""Spark on other machines: code and environment are shipped, and a bucket carries what is said.

A job of Spark is one transform. It runs in cluster mode: its driver is on the cluster, too, with
the environment that the archive brings, and needs nothing of this machine but the answer that it
gives through Dagster Pipes. A driver whose request is gone from the bucket ends itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from fruits_assets.core import errors
from fruits_assets.core.errors import FruitsError, SparkError
from fruits_assets.lake.resource import Place, told
from fruits_assets.spark import doors, pipes, workers, yarn
from fruits_assets.spark.code import Code
from fruits_assets.spark.target import Call, SparkTarget
from fruits_assets.spark.work import Work, stages_from
from fruits_assets.storage.base import S3
from fruits_assets.storage.region import check_region
from fruits_assets.storage.snapshot import Output
from fruits_assets.transforms.arguments import to_json

PYTHON = "python3.11"
"""The interpreter of driver and executors, found on the path of whichever machine they are on."""
SETTINGS = {
    "spark.pyspark.python": PYTHON,
    "spark.pyspark.driver.python": PYTHON,
    "spark.executorEnv.PYTHONPATH": workers.ENVIRONMENT,
    # The plan says how many executors there are. Executors that come and go are fewer than that
    # for most of a stage, and a lost machine is not replaced while its tasks are thought to run.
    "spark.dynamicAllocation.enabled": "false",
    # A machine that is gone is noticed after a minute, and not after two.
    "spark.network.timeout": "60s",
    **doors.PROTECTED,
    **workers.SETTINGS,
}
"""Settings of every job, wherever it runs."""


class JobFailedError(SparkError):
    """The job's own program failed.

    Attributes:
        job: its id.
        printed: gives the end of what it printed, which may take a while to arrive.
    """

    def __init__(self, text: str, job: str, printed: Callable[[], str]) -> None:
        super().__init__(text)
        self.job = job
        self.printed = printed


@dataclass(frozen=True)
class Job:
    """A job of Spark, as it is submitted.

    Attributes:
        name: of the transform.
        code: that it runs.
        arguments: of its program.
        settings: of Spark, beside those of the place where it runs.
        begun: whether its driver has said that it is at work.
    """

    name: str
    code: Code
    arguments: Sequence[str]
    settings: Mapping[str, str]
    begun: Callable[[], bool]

    @property
    def options(self) -> list[str]:
        """Options of `spark-submit` that hold whatever the cluster manager is."""
        archives = f"{self.code.environment}#{workers.ENVIRONMENT}"
        settings = [f"{name}={value}" for name, value in self.settings.items()]
        return [
            *("--py-files", self.code.package, "--archives", archives),
            *(text for setting in settings for text in ("--conf", setting)),
        ]


class SubmittedSpark(Place, SparkTarget):
    """Submits every transform as a job of Spark's; one subclass per way to submit."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuses what no cluster could see, before any asset starts. Raises dg.Failure."""
        with told():
            _check_visible("the lake", self.lake.base)
        super().setup_for_execution(context)

    def execute(self, call: Call) -> dict[str, Output]:  # noqa: D102 - see SparkTarget
        for name, value in call.inputs.items():
            _check_visible(name, value.place)
        code = self.ship(call.context.log.info)
        reports: list[Mapping[str, Any]] = []
        asked, place = self.asked(call), self.folder(self.uri)
        try:
            with pipes.session(call.context, place, asked, reports) as session:
                arguments = self.arguments(session.arguments)
                settings = {**SETTINGS, **self.hadoop()}
                job = Job(call.transform.name, code, arguments, settings, session.begun)
                name = self.run_job(call, job)
        except JobFailedError as failure:
            raise _error(reports, failure) from failure
        return _outputs(reports, name)

    def asked(self, call: Call) -> dict[str, Any]:
        """The request of a job; see `fruits_assets.transforms.__main__`."""
        return {
            "transform": call.transform.address,
            "arguments": to_json(call.arguments),
            "begin_seconds": self.begin_minutes * 60,
            "deadline_seconds": self.deadline_minutes * 60,
        }

    def arguments(self, session: Mapping[str, str]) -> list[str]:
        """The arguments of a job's program: where its request lies, and nothing that is in it."""
        owner = ["--bucket-owner", self.bucket_owner] if self.bucket_owner else []
        given = [text for argument in session.items() for text in argument]
        return ["--region", self.checked_region, *owner, *given]

    @property
    def checked_region(self) -> str:
        """Region of the buckets. Raises RegionError where it is none of the EU's."""
        return check_region(self.region)

    def hadoop(self) -> dict[str, str]:
        """Settings by which Spark itself fetches the code, before any of it can say how.

        Without a region it would look for buckets in the United States first, where a private
        network does not reach.
        """
        return {"spark.hadoop.fs.s3a.endpoint.region": self.checked_region}

    def left(self, call: Call) -> Work:
        """The work that a call and the stages after it have left to do."""
        unpublished = self.lake.open().unpublished(call.transform.lead)
        rows = max(value.rows for value in call.inputs.values())
        left = max(value.rows * (1 - value.done(unpublished)) for value in call.inputs.values())
        if earlier := call.arguments.get("earlier"):
            left -= earlier.rows
        share = max(0.0, left) / max(1, rows)
        megabytes = share * max(value.bytes for value in call.inputs.values()) / 1e6
        return Work(round(share * rows), megabytes, stages_from(call.transform.name))

    @property
    @abstractmethod
    def begin_minutes(self) -> float:
        """How long a driver waits for its first executor."""

    @property
    @abstractmethod
    def deadline_minutes(self) -> float:
        """When a driver ends itself, counted from its beginning."""

    @abstractmethod
    def ship(self, log: Callable[[str], None]) -> Code:
        """Puts code and environment where jobs find them. Raises FruitsError."""

    @abstractmethod
    def run_job(self, call: Call, job: Job) -> str:
        """Submits a job and follows it to its end, and cancels it if nobody waits for that.

        Returns:
            The job's id.

        Raises:
            JobFailedError: its program failed, and may have reported why.
            SparkError: it did not complete, for whatever other reason.
        """


def add_metadata(call: Call, metadata: Mapping[str, Any]) -> None:
    """To the assets that a call makes; checks and ops have none."""
    if isinstance(call.context, dg.AssetExecutionContext):
        for key in call.context.selected_asset_keys:
            call.context.add_asset_metadata(dict(metadata), asset_key=key)


def _check_visible(what: str, place: str) -> None:
    if not place.startswith(S3):
        raise SparkError(
            f"FRUITS_SPARK names a cluster, but {what} lies in {place}, which no cluster can see. "
            "Put it in a bucket in the EU: FRUITS_LAKE and FRUITS_SOURCE are s3://bucket/prefix "
            "then (`make deploy` prints both)."
        )


def _error(reports: Sequence[Mapping[str, Any]], failure: JobFailedError) -> FruitsError:
    """Why a job failed, by its own report, or else by the end of what it printed."""
    report = reports[-1] if reports else {}
    if kind := report.get("error"):  # a FruitsError, by name: as if it had been raised here
        return getattr(errors, kind)(report["text"])
    text = f"{failure}\n{report.get('text') or failure.printed()}"
    return SparkError(yarn.no_room(text) or text)


def _outputs(reports: Sequence[Mapping[str, Any]], job: str) -> dict[str, Output]:
    """Outputs of a job, by its own report."""
    for report in reports:
        if "outputs" in report:
            return {name: Output.from_dict(output) for name, output in report["outputs"].items()}
    raise SparkError(
        f"{job} has completed, but its report never arrived: messages in the bucket were lost. "
        "Nothing was published. Run again: finished parts are found, and not computed twice."
    )
