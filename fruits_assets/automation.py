"""The job, and what starts it by itself: new photos, or the night. Both are off by default."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fruits_assets.assets.common import DELIVERABLES, GROUP
from fruits_assets.assets.places import Source
from fruits_assets.assets.raw_images import IngestConfig
from fruits_assets.core.errors import FruitsError
from fruits_assets.erasure.job import gdpr_erasure
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.resource import LakeResource
from fruits_assets.sources.listing import LISTING, Entry, Listing
from fruits_assets.storage.snapshot import Snapshot

RAW = "raw_images"
NIGHTLY, TIMEZONE = "0 3 * * *", "Europe/Paris"
SILENT = timedelta(hours=2)
"""A run says how far it is every few seconds, and EMR what it waits for within half an hour: one
that has said nothing for so long is dead, killed before it could say so."""
RUN_KEY = "dagster/run_key"
"""Dagster's own tag: what a run was started for."""

fruits_job = dg.define_asset_job(
    "fruits_job",
    selection=dg.AssetSelection.groups(GROUP),
    description="From the photos of the source to their principal components.",
)
deliverables_job = dg.define_asset_job(
    "deliverables_job",
    selection=dg.AssetSelection.groups(DELIVERABLES),
    description="What is shown of the last run: notebook, presentation, gallery.",
)
AT_WORK = (
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
WRITERS = (fruits_job.name, deliverables_job.name, gdpr_erasure.name)
"""Jobs that no run is started beside."""


def definitions(batch: Batch, run_config: Mapping[str, Any]) -> dg.Definitions:
    """The job and what starts it.

    Args:
        batch: how many photos the sensor waits for, and how long.
        run_config: of runs that start by themselves.
    """
    return dg.Definitions(
        jobs=[fruits_job, deliverables_job],
        schedules=[_daily(run_config)],
        sensors=[_new_photos(batch, run_config), FOLLOW_UPSTREAMS],
    )


FOLLOW_UPSTREAMS = dg.AutomationConditionSensorDefinition(
    "follow_upstreams",
    target=dg.AssetSelection.all(),
    description="Makes an asset anew when one that it is made from has another data version.",
)


class LookError(dg.DagsterError):
    """The sensor cannot see source or lake; its text is what a failed tick shows first.

    Any other error would be shown below one of Dagster's own, which only says that there is one.
    """


@dataclass(frozen=True)
class Changes:
    """In how many files the source and what the lake holds of it differ."""

    new: int
    changed: int
    gone: int

    @classmethod
    def between(cls, held: Snapshot | None, found: Listing) -> Self:
        """From what the lake holds, if it holds anything, to what the source holds."""
        came, went = found.against(held)
        changed = len(_paths(came) & _paths(went))
        return cls(new=len(came) - changed, changed=changed, gone=len(went) - changed)

    @property
    def files(self) -> int:
        """All of them."""
        return self.new + self.changed + self.gone

    def __str__(self) -> str:
        return f"{self.new} new, {self.changed} changed, {self.gone} gone"


@dataclass(frozen=True)
class Look:
    """What the sensor sees at one look.

    Attributes:
        held: version of the source that the lake holds; empty where it holds none.
        found: version of the source itself.
        files: that the source holds.
        changes: between the two.
    """

    held: str
    found: str
    files: int
    changes: Changes

    @property
    def nothing_new(self) -> str | None:
        """That there is nothing to do, as a sentence; None where there is."""
        if self.held != self.found:
            return None
        return f"nothing is new: the lake holds all {self.files} files of the source."

    @classmethod
    def at(cls, source: Source, lake: Lake, config: IngestConfig) -> Self:
        """Lists the source as a run with this config would. Raises FruitsError."""
        rules: Any = {"recursive": config.recursive, "labels": config.labels}
        raw = lake.find(RAW)
        held = raw.commit.inputs["source"] if raw else ""
        if raw and source.is_as_listed(raw.siblings[LISTING], **rules):
            return cls(held, held, raw.siblings[LISTING].rows, Changes(0, 0, 0))
        found = source.list(**rules)
        if held == found.version:
            return cls(held, held, found.rows, Changes(0, 0, 0))
        listed = raw.siblings[LISTING] if raw else None
        return cls(held, found.version, found.rows, Changes.between(listed, found))


def _paths(entries: Iterable[Entry]) -> set[str]:
    return {entry[0] for entry in entries}


class Waiting(BaseModel):
    """The sensor's cursor: what it saw when it last looked, and for how long changes have waited.

    Waiting is added up from look to look, so that a clock that is set back costs one interval.

    Attributes:
        held: version of the source that the lake held; empty where it held none.
        found: version of the source itself.
        looked_at: by the clock, seconds since 1970.
        seconds: since the sensor first saw a change that the lake does not hold yet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    held: str
    found: str
    looked_at: float = Field(allow_inf_nan=False)
    seconds: float = Field(ge=0, allow_inf_nan=False)

    @classmethod
    def read(cls, cursor: str | None) -> Self | None:
        """None where there is none, or one that others wrote: waiting begins anew then."""
        try:
            return cls.model_validate_json(cursor or "")
        except ValidationError:
            return None

    @classmethod
    def after(cls, last: Self | None, seen: Look, *, now: float) -> Self:
        """What is to be remembered of a look."""
        seconds = 0.0
        # What a run published was all there was when it began: changes since then are later ones.
        if last and last.held == seen.held and last.found != last.held:
            seconds = last.seconds + max(0.0, now - last.looked_at)
        return cls(held=seen.held, found=seen.found, looked_at=now, seconds=seconds)


@dataclass(frozen=True)
class Batch:
    """When changes of the source are worth a run.

    Attributes:
        photos: once so many files have changed, and the source has come to rest.
        minutes: once the first of them has waited so long, whatever else.
    """

    photos: int
    minutes: float

    @property
    def look_every_seconds(self) -> int:
        """Often enough to keep to the minutes, seldom enough to list a large bucket each time."""
        return round(min(300, max(30, self.minutes * 60 / 12)))

    def waits_for(self, changes: Changes, waiting: Waiting, *, last: Waiting | None) -> str | None:
        """What there is still to wait for, as a sentence; None where a run should start.

        Args:
            changes: that the lake does not hold.
            waiting: what is to be remembered of this look.
            last: what was remembered of the look before.
        """
        left = self.minutes - waiting.seconds / 60
        enough = changes.files >= self.photos
        resting = last is not None and last.found == waiting.found
        if left <= 0 or (enough and resting):
            return None
        what = "until the source rests" if enough else f"for {self.photos} in all"
        return f"{changes}: waiting {what}, {left:.0f} minutes at most."


def _new_photos(batch: Batch, run_config: Mapping[str, Any]) -> dg.SensorDefinition:
    @dg.sensor(
        name="new_photos",
        job=fruits_job,
        minimum_interval_seconds=batch.look_every_seconds,
        description=f"Starts fruits_job once {batch.photos} photos of the source are new, changed "
        f"or gone, or once one has waited for {batch.minutes:g} minutes.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, source: Source, lake: LakeResource
    ) -> dg.SensorResult:
        instance = context.instance
        fail_silent_runs(instance)
        if at_work := _at_work(instance):
            return dg.SensorResult(skip_reason=f"{at_work}: looking again when it has ended.")
        try:
            seen = Look.at(source, lake.open(), _ingest_config(run_config))
        except FruitsError as error:
            raise LookError(str(error)) from None
        last = Waiting.read(context.cursor)
        waiting = Waiting.after(last, seen, now=time.time())
        key = f"{seen.found}-{_last_ingest(instance)}"
        reason = seen.nothing_new or _started_before(instance, key)
        if reason := reason or batch.waits_for(seen.changes, waiting, last=last):
            return dg.SensorResult(skip_reason=reason, cursor=waiting.model_dump_json())
        request = dg.RunRequest(key, run_config, tags={"fruits/changes": str(seen.changes)})
        anew = waiting.model_copy(update={"seconds": 0.0})
        return dg.SensorResult([request], cursor=anew.model_dump_json())

    return sensor


def _daily(run_config: Mapping[str, Any]) -> dg.ScheduleDefinition:
    @dg.schedule(
        name="daily",
        job=fruits_job,
        cron_schedule=NIGHTLY,
        execution_timezone=TIMEZONE,
        description="Starts fruits_job at night: where nothing is new, nothing is computed.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        fail_silent_runs(context.instance)
        return dg.RunRequest(run_config=run_config)

    return schedule


def _ingest_config(run_config: Mapping[str, Any]) -> IngestConfig:
    ops = run_config.get("ops") or {}
    return IngestConfig(**((ops.get("ingest") or {}).get("config") or {}))


def fail_silent_runs(instance: dg.DagsterInstance) -> None:
    """Marks runs as failed whose process was killed: else they would hold up the queue for ever."""
    for job in WRITERS:
        for record in instance.get_run_records(dg.RunsFilter(job_name=job, statuses=[*AT_WORK])):
            run = record.dagster_run
            events = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
            said = events[0].timestamp if events else record.create_timestamp.timestamp()
            if time.time() - said > SILENT.total_seconds():
                instance.report_run_failed(run, f"It has said nothing for {SILENT}: it is dead.")


def _at_work(instance: dg.DagsterInstance) -> str | None:
    """Of a run that writes to the lake, or will: what it is."""
    statuses = [dg.DagsterRunStatus.QUEUED, *AT_WORK]
    for job in WRITERS:
        for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=statuses), limit=1):
            return f"the run {run.run_id} of {job} is {run.status.value.lower()}"
    return None


def _last_ingest(instance: dg.DagsterInstance) -> int:
    """Which it was: a source that returns to a state that it was in before starts another run."""
    records = instance.fetch_materializations(dg.AssetKey(RAW), limit=1).records
    return records[0].storage_id if records else 0


def _started_before(instance: dg.DagsterInstance, key: str) -> str | None:
    """What became of a run that was started for this very state, if one was."""
    for run in instance.get_runs(dg.RunsFilter(tags={RUN_KEY: key}), limit=1):
        return (
            f"the run {run.run_id} was started for what is new, and ended as "
            f"{run.status.value.lower()}. See why, and start fruits_job again once it is mended."
        )
    return None
