"""What starts runs by itself, and what keeps it from doing so."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.events import StepMaterializationData
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from fruits_assets.assets import places
from fruits_assets.automation import (
    SILENT,
    Batch,
    Changes,
    Look,
    LookError,
    Waiting,
    fail_silent_runs,
    fruits_job,
)
from fruits_assets.definitions import ASSETS, compose
from fruits_assets.erasure.job import gdpr_erasure
from fruits_assets.lake.lake import Lake
from fruits_assets.sample.drawing import write_sample
from fruits_assets.settings import Settings
from fruits_assets_tests import s3
from fruits_assets_tests.conftest import REPOSITORY, Pipeline, draw_no_pictures
from fruits_assets_tests.places import Bucket

DOWNSTREAM = {"features", "pca_model", "pca_features"}
MINUTE = timedelta(minutes=1)
PHOTOS = 90
"""That the source of the tests holds."""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("FRUITS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """Of Dagster, with nothing in it."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@dataclass
class Setting:
    """A source, a lake, and the sensor that looks at both as the daemon would have it look."""

    source: Path
    lake: Lake
    instance: dg.DagsterInstance
    settings: dict[str, Any] = field(default_factory=dict)
    cursor: str | None = None

    @property
    def definitions(self) -> dg.Definitions:
        places = {"source": str(self.source), "lake": self.lake.base, "weights": "sample"}
        return compose(Settings(**{**places, **self.settings}))

    def look(self, *, minutes_later: float = 0) -> dg.RunRequest | str:
        """What a tick asks for, or why it asks for nothing."""
        if minutes_later:
            self.remembers(looked_at=time.time() - 60 * minutes_later)
        repository = self.definitions.get_repository_def()
        resources = repository.get_top_level_resources()
        with dg.build_sensor_context(
            self.instance,
            self.cursor,
            repository_def=repository,
            resources={name: resources[name] for name in ("source", "lake")},
        ) as context:
            found = repository.get_sensor_def("new_photos").evaluate_tick(context)
        self.cursor = found.cursor or self.cursor
        if found.run_requests:
            (request,) = found.run_requests
            return request
        assert found.skip_message
        return found.skip_message

    def settled(self) -> dg.RunRequest | str:
        """What the second of two ticks says, between which nothing changes."""
        self.look()
        return self.look()

    def remembers(self, **changes: Any) -> None:
        """Changes what the cursor says."""
        assert self.cursor is not None
        self.cursor = json.dumps({**json.loads(self.cursor), **changes})

    def started(self, request: dg.RunRequest, status: dg.DagsterRunStatus) -> dg.DagsterRun:
        """A run as the daemon makes it of a request."""
        return self.run(status, tags={**request.tags, "dagster/run_key": str(request.run_key)})

    def run(
        self,
        status: dg.DagsterRunStatus,
        *,
        job: str = "fruits_job",
        tags: Mapping[str, str] | None = None,
        silent: timedelta = timedelta(0),
    ) -> dg.DagsterRun:
        """A run of a job that last said something so long ago."""
        definition = self.definitions.resolve_job_def(job)
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "fruits")
        run = self.instance.create_run_for_job(
            definition,
            status=status,
            tags=tags,
            remote_job_origin=RemoteJobOrigin(repository, job),
        )
        said = time.time() - silent.total_seconds()
        self.instance.handle_new_event(dg.EventLogEntry(None, "info", "here", run.run_id, said))
        return run

    def status(self, run: dg.DagsterRun) -> dg.DagsterRunStatus:
        """Of a run, as it is now."""
        now = self.instance.get_run_by_id(run.run_id)
        assert now is not None
        return now.status


def asked(answer: dg.RunRequest | str) -> dg.RunRequest:
    assert isinstance(answer, dg.RunRequest), answer
    return answer


@pytest.fixture
def empty(photos: Path, tmp_path: Path, instance: dg.DagsterInstance) -> Setting:
    """A source of 90 photos, and nothing in the lake."""
    shutil.copytree(photos, tmp_path / "photos")
    return Setting(tmp_path / "photos", Lake.at(str(tmp_path / "lake")), instance)


@pytest.fixture
def ingested(empty: Setting, finished: tuple[Pipeline, dg.ExecuteInProcessResult]) -> Setting:
    """The same, with all photos in the lake."""
    shutil.copytree(finished[0].lake.base, empty.lake.base)
    return empty


def add(setting: Setting, count: int, *, folder: str = "Training/Apple") -> None:
    """New photos, named apart from all others."""
    first = next(setting.source.rglob("*.jpg"))
    (setting.source / folder).mkdir(parents=True, exist_ok=True)
    for _ in range(count):
        number = len(list(setting.source.rglob("*.jpg")))
        shutil.copy(first, setting.source / folder / f"new_{number}.jpg")


class TestTheSensor:
    """One tick after the other, on real folders and lakes."""

    def test_photos_that_came_to_rest_start_one_run(self, empty: Setting) -> None:
        empty.settings = {"batch_photos": PHOTOS}
        said = empty.look()
        assert (
            said == "90 new, 0 changed, 0 gone: waiting until the source rests, 60 minutes at most."
        )
        request = asked(empty.look())
        assert request.tags["fruits/changes"] == "90 new, 0 changed, 0 gone"
        empty.started(request, dg.DagsterRunStatus.STARTED)
        said = empty.look()
        assert isinstance(said, str)
        assert "of fruits_job is started: looking again when it has ended" in said

    def test_an_upload_that_is_under_way_is_waited_for(self, ingested: Setting) -> None:
        ingested.settings = {"batch_photos": 2}
        ingested.look()
        for _ in range(3):
            add(ingested, 2)
            said = ingested.look()
            assert isinstance(said, str)
            assert "waiting until the source rests" in said
        assert asked(ingested.look()).tags["fruits/changes"] == "6 new, 0 changed, 0 gone"

    def test_an_upload_without_an_end_is_not_waited_for_longer_than_allowed(
        self, ingested: Setting
    ) -> None:
        ingested.settings = {"batch_photos": 2, "batch_minutes": 30}
        for minutes in (0, 20, 20):
            add(ingested, 2)
            answer = ingested.look(minutes_later=minutes)
        assert asked(answer).tags["fruits/changes"] == "6 new, 0 changed, 0 gone"

    def test_few_photos_wait_for_others_but_not_for_ever(self, ingested: Setting) -> None:
        ingested.settings = {"batch_photos": 3}
        add(ingested, 2)
        assert (
            ingested.settled()
            == "2 new, 0 changed, 0 gone: waiting for 3 in all, 60 minutes at most."
        )
        said = ingested.look(minutes_later=45)
        assert said == "2 new, 0 changed, 0 gone: waiting for 3 in all, 15 minutes at most."
        asked(ingested.look(minutes_later=16))

    def test_enough_photos_do_not_wait(self, ingested: Setting) -> None:
        ingested.settings = {"batch_photos": 3}
        add(ingested, 3)
        asked(ingested.settled())

    def test_where_nothing_is_new_it_says_so(self, ingested: Setting) -> None:
        for listing in Path(ingested.lake.base, "_listing").glob("*.parquet"):
            listing.write_bytes(bytes(listing.stat().st_size))  # the recipe says it all
        assert ingested.settled() == "nothing is new: the lake holds all 90 files of the source."

    def test_changed_and_removed_photos_count_as_new_ones_do(self, ingested: Setting) -> None:
        ingested.settings = {"batch_photos": 4}
        one, two, three, *_ = sorted(ingested.source.rglob("*.jpg"))
        one.write_bytes(one.read_bytes() + b"\0")
        two.unlink()
        os.utime(three, (0, 0))
        add(ingested, 1, folder="Test/Pear")
        request = asked(ingested.settled())
        assert request.tags["fruits/changes"] == "1 new, 2 changed, 1 gone"

    def test_waiting_begins_with_the_first_photo_that_the_lake_does_not_hold(
        self, ingested: Setting
    ) -> None:
        ingested.settings = {"batch_photos": 3}
        ingested.look()
        add(ingested, 1)
        said = ingested.look(minutes_later=600)  # nothing waited while nothing was new
        assert said == "1 new, 0 changed, 0 gone: waiting for 3 in all, 60 minutes at most."

    def test_waiting_begins_anew_with_what_another_run_published(self, ingested: Setting) -> None:
        ingested.settings = {"batch_photos": 3}
        add(ingested, 1)
        ingested.look()
        ingested.remembers(held="another", seconds=50 * 60)
        said = ingested.look(minutes_later=20)
        assert said == "1 new, 0 changed, 0 gone: waiting for 3 in all, 60 minutes at most."

    def test_a_clock_that_is_set_back_costs_no_more_than_one_look(self, ingested: Setting) -> None:
        ingested.settings = {"batch_photos": 3}
        add(ingested, 1)
        ingested.look()
        ingested.look(minutes_later=50)
        said = ingested.look(minutes_later=-1e6)
        assert said == "1 new, 0 changed, 0 gone: waiting for 3 in all, 10 minutes at most."
        asked(ingested.look(minutes_later=11))

    @pytest.mark.parametrize(
        "cursor",
        [
            "",
            "{",
            "null",
            "[]",
            "12",
            '"2026-11-24"',
            "[" * 100_000,
            '{"last_seen": "0123456789abcdef"}',
            '{"held": "HELD", "found": "", "looked_at": 0, "seconds": NaN}',
            '{"held": "HELD", "found": "", "looked_at": 0, "seconds": Infinity}',
            '{"held": "HELD", "found": "", "looked_at": -Infinity, "seconds": 0}',
            '{"held": "HELD", "found": "", "looked_at": 1e12, "seconds": -1e9}',
            '{"held": "HELD", "found": "", "looked_at": 0, "seconds": "3600"}',
            '{"held": "HELD", "found": null, "looked_at": 0, "seconds": 3600}',
            '{"held": "HELD", "found": "", "looked_at": 0, "seconds": 3600, "more": 1}',
            '{"held": "HELD", "looked_at": 0, "seconds": 3600}',
        ],
    )
    def test_a_cursor_of_others_counts_as_none(self, ingested: Setting, cursor: str) -> None:
        ingested.settings = {"batch_photos": 3}
        held = ingested.lake.current("raw_images").commit.inputs["source"]
        add(ingested, 1)
        ingested.cursor = cursor.replace("HELD", held)
        said = ingested.look()
        assert said == "1 new, 0 changed, 0 gone: waiting for 3 in all, 60 minutes at most."
        asked(ingested.look(minutes_later=61))

    @pytest.mark.parametrize("job", [fruits_job.name, gdpr_erasure.name])
    @pytest.mark.parametrize("status", ["QUEUED", "STARTING", "STARTED", "CANCELING"])
    def test_it_starts_nothing_beside_a_run(self, empty: Setting, job: str, status: str) -> None:
        empty.settings = {"batch_photos": 1}
        run = empty.run(dg.DagsterRunStatus(status), job=job)
        told = (
            f"the run {run.run_id} of {job} is {status.lower()}: looking again when it has ended."
        )
        assert [empty.look(), empty.look()] == [told, told]
        assert empty.cursor is None, "it did not even list the source"

    @pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "CANCELED"])
    def test_runs_that_have_ended_do_not_matter(self, empty: Setting, status: str) -> None:
        empty.run(dg.DagsterRunStatus(status))
        empty.settings = {"batch_photos": 1}
        asked(empty.settled())

    def test_a_dead_run_does_not_hold_it_up(self, empty: Setting) -> None:
        dead = empty.run(dg.DagsterRunStatus.STARTED, silent=SILENT + MINUTE)
        empty.settings = {"batch_photos": 1}
        asked(empty.settled())
        assert empty.status(dead) == dg.DagsterRunStatus.FAILURE

    def test_a_state_whose_run_failed_starts_no_other(self, empty: Setting) -> None:
        empty.settings = {"batch_photos": 1}
        failed = empty.started(asked(empty.settled()), dg.DagsterRunStatus.FAILURE)
        for minutes in (0, 61, 61):
            said = empty.look(minutes_later=minutes)
            assert said == (
                f"the run {failed.run_id} was started for what is new, and ended as failure. "
                "See why, and start fruits_job again once it is mended."
            )
        add(empty, 1)
        request = asked(empty.settled())
        assert request.tags["fruits/changes"] == "91 new, 0 changed, 0 gone"

    def test_a_failed_run_is_not_followed_by_another_at_every_change(self, empty: Setting) -> None:
        empty.settings = {"batch_photos": 1000}
        empty.look()
        request = asked(empty.look(minutes_later=61))
        empty.started(request, dg.DagsterRunStatus.FAILURE)
        add(empty, 1)
        said = empty.look(minutes_later=5)
        assert said == "91 new, 0 changed, 0 gone: waiting for 1000 in all, 55 minutes at most."

    def test_a_source_that_returns_to_an_earlier_state_starts_a_run_again(
        self, ingested: Setting
    ) -> None:
        ingested.settings = {"batch_photos": 1}
        keys = []
        for _ in range(2):  # to and fro: what the lake holds of it is a hundred rows behind
            add(ingested, 1)
            os.utime(newest := max(ingested.source.rglob("new_*.jpg")), (0, 0))
            request = asked(ingested.settled())
            keys.append(request.run_key)
            ingested.started(request, dg.DagsterRunStatus.SUCCESS)
            ingested.instance.report_runless_asset_event(dg.AssetMaterialization("raw_images"))
            newest.unlink()
        assert len(set(keys)) == 2
        assert keys[0].split("-")[0] == keys[1].split("-")[0], "the very same state"

    def test_it_lists_as_its_runs_do(self, ingested: Setting, tmp_path: Path) -> None:
        config = {"ops": {"ingest": {"config": {"recursive": False, "max_rejected": 0.5}}}}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
        ingested.settings = {"batch_photos": 1, "run_config": tmp_path / "run.yaml"}
        add(ingested, 2, folder="")
        request = asked(ingested.settled())
        assert request.tags["fruits/changes"] == "2 new, 0 changed, 90 gone"
        assert request.run_config == config

    def test_the_embedded_sample_is_a_source_like_any_other(
        self, empty: Setting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few = partial(write_sample, photos_per_class=(1, 1))
        monkeypatch.setattr(places, "write_sample", few)
        empty.settings = {"source": "sample", "batch_photos": 1}
        assert asked(empty.settled()).tags["fruits/changes"] == "30 new, 0 changed, 0 gone"

    @pytest.mark.slow
    def test_the_run_that_it_asks_for_is_what_it_waited_for(
        self, monkeypatch: pytest.MonkeyPatch, ingested: Setting
    ) -> None:
        draw_no_pictures(monkeypatch)
        ingested.settings = {"batch_photos": 5}
        add(ingested, 5)
        request = asked(ingested.settled())
        job = ingested.definitions.resolve_job_def("fruits_job")
        result = job.execute_in_process(
            request.run_config,
            instance=ingested.instance,
            tags={**request.tags, "dagster/run_key": str(request.run_key)},
        )
        assert result.success
        files = PHOTOS + 5
        assert ingested.lake.current("pca_features").rows == files
        said = ingested.look()
        assert said == f"nothing is new: the lake holds all {files} files of the source."


class TestErrors:
    """A failed tick shows the sentence that a person needs, and nothing above it."""

    def test_a_source_that_is_missing(self, empty: Setting) -> None:
        shutil.rmtree(empty.source)
        with pytest.raises(LookError, match=r"does not exist\. Point FRUITS_SOURCE at") as caught:
            empty.look()
        assert caught.value.__cause__ is None

    def test_a_source_without_photos(self, empty: Setting) -> None:
        shutil.rmtree(empty.source)
        empty.source.mkdir()
        with pytest.raises(LookError, match=r"holds no file\. Put photos there"):
            empty.look()

    def test_a_lake_that_is_damaged(self, ingested: Setting) -> None:
        add(ingested, 1)
        (listing,) = Path(ingested.lake.base, "_listing").glob("*.parquet")
        content = listing.read_bytes()
        listing.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(LookError, match=r"_listing, version .*is not what was written"):
            ingested.look()

    @pytest.mark.usefixtures("quick_retries")
    def test_photos_in_a_bucket_and_one_that_refuses(
        self, gated: Bucket, gate: s3.Gate, empty: Setting
    ) -> None:
        gated.put("photos/Apple/1.jpg", b"one")
        empty.settings = {
            "source": f"{gated.base}/photos",
            "region": s3.REGION,
            "batch_photos": 1,
        }
        assert asked(empty.settled()).tags["fruits/changes"] == "1 new, 0 changed, 0 gone"
        gate.rule = lambda *_: s3.refusal(403, "AccessDenied", "Access Denied")
        with pytest.raises(LookError, match="denied"):
            empty.look()


class TestSilentRuns:
    """A process that is killed cannot say that its run has ended."""

    @pytest.mark.parametrize("job", [fruits_job.name, gdpr_erasure.name])
    def test_only_what_has_been_silent_for_long_is_taken_for_dead(
        self, empty: Setting, job: str
    ) -> None:
        status = dg.DagsterRunStatus
        runs = [
            (empty.run(status.STARTED, job=job, silent=SILENT + MINUTE), status.FAILURE),
            (empty.run(status.STARTED, job=job, silent=SILENT - MINUTE), status.STARTED),
            (empty.run(status.QUEUED, job=job, silent=SILENT + MINUTE), status.QUEUED),
            (empty.run(status.SUCCESS, job=job, silent=SILENT + MINUTE), status.SUCCESS),
        ]
        fail_silent_runs(empty.instance)
        for run, expected in runs:
            assert empty.status(run) == expected

    def test_runs_of_other_jobs_are_let_alone(self, instance: dg.DagsterInstance) -> None:
        @dg.job
        def another() -> None: ...

        run = instance.create_run_for_job(another, status=dg.DagsterRunStatus.STARTED)
        instance.handle_new_event(dg.EventLogEntry(None, "info", "here", run.run_id, 0.0))
        fail_silent_runs(instance)
        assert instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])) == 1

    def test_it_is_said_why(self, empty: Setting) -> None:
        run = empty.run(dg.DagsterRunStatus.STARTED, silent=2 * SILENT)
        fail_silent_runs(empty.instance)
        (failed,) = empty.instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE
        ).records
        assert failed.event_log_entry.message == "It has said nothing for 2:00:00: it is dead."


@pytest.mark.parametrize(
    ("minutes", "seconds"), [(0, 30), (1, 30), (20, 100), (60, 300), (1e6, 300)]
)
def test_it_looks_often_enough_to_keep_to_its_minutes(minutes: float, seconds: int) -> None:
    assert Batch(100, minutes).look_every_seconds == seconds


def test_without_minutes_every_change_starts_a_run_at_once(ingested: Setting) -> None:
    ingested.settings = {"batch_minutes": 0}
    add(ingested, 1)
    asked(ingested.look())


def test_the_schedule_starts_the_job_at_night(empty: Setting, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    empty.instance = dg.DagsterInstance.local_temp(str(tmp_path / "home"))
    config = {"ops": {"pca_model": {"config": {"n_components": 5}}}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    empty.settings = {"run_config": tmp_path / "run.yaml"}
    dead = empty.run(dg.DagsterRunStatus.STARTED, silent=2 * SILENT)
    definitions = empty.definitions
    schedule = definitions.resolve_schedule_def("daily")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * *", "Europe/Paris")
    with dg.build_schedule_context(
        empty.instance,
        scheduled_execution_time=datetime(2026, 11, 24, 2, tzinfo=UTC),
        repository_def=definitions.get_repository_def(),
    ) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or []
    assert request.run_config == config
    assert schedule.job_name == "fruits_job"
    assert empty.status(dead) == dg.DagsterRunStatus.FAILURE


def test_nothing_starts_before_it_is_switched_on(empty: Setting) -> None:
    repository = empty.definitions.get_repository_def()
    sensors = {sensor.name: sensor.default_status for sensor in repository.sensor_defs}
    stopped = dg.DefaultSensorStatus.STOPPED
    assert sensors == {"new_photos": stopped, "follow_upstreams": stopped}
    schedules = {one.name: one.default_status for one in repository.schedule_defs}
    assert schedules == {"daily": dg.DefaultScheduleStatus.STOPPED}


@dataclass
class Conditions:
    """The automation conditions, evaluated as by `follow_upstreams`."""

    instance: dg.DagsterInstance
    definitions: dg.Definitions
    cursor: Any = None

    def requested(self) -> set[str]:
        found = dg.evaluate_automation_conditions(
            self.definitions, self.instance, dg.AssetSelection.all(), cursor=self.cursor
        )
        self.cursor = found.cursor
        keys = self.definitions.resolve_all_asset_keys()
        return {key.to_user_string() for key in keys if found.get_num_requested(key)}

    def made(self, **versions: str) -> None:
        """Assets are materialised, each by a run of its own, with these data versions."""
        for asset, version in versions.items():
            tags = {"dagster/data_version": version}
            event = dg.AssetMaterialization(asset, tags=tags)
            self.instance.report_runless_asset_event(event)


@pytest.fixture
def conditions(empty: Setting) -> Conditions:
    return Conditions(empty.instance, empty.definitions)


class TestConditions:
    """What is downstream follows what is upstream, if that changed."""

    def test_in_an_empty_lake_nothing_starts(self, conditions: Conditions) -> None:
        assert [conditions.requested(), conditions.requested()] == [set(), set()]

    def test_all_that_is_downstream_follows_once_its_inputs_are_there(
        self, conditions: Conditions
    ) -> None:
        conditions.requested()
        conditions.made(model_weights="w1")
        assert conditions.requested() == set(), "there are no photos yet"
        conditions.made(raw_images="r1", rejected_images="r1")
        assert conditions.requested() == DOWNSTREAM
        assert conditions.requested() == set(), "once is enough"

    @pytest.mark.parametrize(
        ("changed", "expected"),
        [
            ({"raw_images": "r2"}, DOWNSTREAM),
            ({"model_weights": "w2"}, DOWNSTREAM),
            ({"features": "f2"}, {"pca_model", "pca_features"}),
            ({"pca_model": "m2"}, {"pca_features"}),
            ({"pca_features": "p2"}, set()),
            ({"rejected_images": "r2"}, set()),
            ({"raw_images": "r1", "model_weights": "w1"}, set()),
            ({"features": "f1"}, set()),
            ({"pca_model": "m1"}, set()),
        ],
    )
    def test_only_a_new_version_is_followed(
        self, conditions: Conditions, changed: dict[str, str], expected: set[str]
    ) -> None:
        conditions.made(raw_images="r1", rejected_images="r1", model_weights="w1")
        conditions.made(features="f1", pca_model="m1", pca_features="p1")
        conditions.requested()
        assert conditions.requested() == set()
        conditions.made(**changed)
        assert conditions.requested() == expected

    def test_the_job_leaves_nothing_to_follow(
        self, monkeypatch: pytest.MonkeyPatch, ingested: Setting
    ) -> None:
        draw_no_pictures(monkeypatch)
        setting = ingested
        definitions = setting.definitions
        conditions = Conditions(setting.instance, definitions)
        conditions.requested()
        job = definitions.resolve_job_def("fruits_job")
        assert job.execute_in_process(instance=setting.instance).success
        assert conditions.requested() == set()
        add(setting, 1)
        config = {"ops": {"pca_model": {"config": {"n_components": 0}}}}
        failed = job.execute_in_process(config, instance=setting.instance, raise_on_error=False)
        assert not failed.success
        told = "a run that failed is for people to start again"
        assert [conditions.requested(), conditions.requested()] == [set(), set()], told
        ingest = Pipeline(setting.lake, setting.source)
        assert ingest.run("raw_images", "rejected_images", instance=setting.instance).success
        assert conditions.requested() == set(), "nothing was new"
        add(setting, 1)
        assert ingest.run("raw_images", "rejected_images", instance=setting.instance).success
        assert conditions.requested() == DOWNSTREAM

    def test_a_run_that_was_cancelled_is_not_gone_on_with(
        self, conditions: Conditions, empty: Setting
    ) -> None:
        conditions.made(raw_images="r1", rejected_images="r1", model_weights="w1")
        conditions.made(features="f1", pca_model="m1", pca_features="p1")
        conditions.requested()
        run = conditions.instance.create_run_for_job(
            empty.definitions.resolve_job_def("fruits_job"),
            status=dg.DagsterRunStatus.CANCELED,
            asset_selection=set(empty.definitions.resolve_all_asset_keys()),
        )
        made = dg.AssetMaterialization("raw_images", tags={"dagster/data_version": "r2"})
        event = dg.DagsterEvent(
            dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            run.job_name,
            event_specific_data=StepMaterializationData(made),
        )
        conditions.instance.report_dagster_event(event, run.run_id)
        assert [conditions.requested(), conditions.requested()] == [set(), set()]

    def test_what_starts_from_outside_never_starts_by_itself(self) -> None:
        following = {
            spec.key.to_user_string()
            for asset in ASSETS
            for spec in asset.specs
            if spec.automation_condition
        }
        assert following == DOWNSTREAM


def make(home: Path) -> None:
    """What `make install` does to DAGSTER_HOME."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(
        ["make", "--silent", "dagster-home", f"DAGSTER_HOME={home}"],
        cwd=REPOSITORY,
        env=own,
        check=True,
    )


class TestDagsterHome:
    """What `make` writes into it, and what it leaves alone."""

    CURRENT = (REPOSITORY / "dagster-home.yaml").read_text()
    FIRST = (
        "telemetry:\n  enabled: false\nnux:\n  enabled: false\n"
        "python_logs:\n  python_log_level: INFO\n"
    )
    """As `make` wrote it before it wrote down that it had."""

    def test_a_new_one_is_set_up(self, tmp_path: Path) -> None:
        home = tmp_path / "a new" / "home"
        make(home)
        assert (home / "dagster.yaml").read_text() == self.CURRENT

    def test_what_an_earlier_make_wrote_is_brought_up_to_date(self, tmp_path: Path) -> None:
        (tmp_path / "dagster.yaml").write_text(self.FIRST)
        make(tmp_path)
        assert (tmp_path / "dagster.yaml").read_text() == self.CURRENT
        for name in ("dagster.yaml", "dagster.yaml.made"):  # as a later version would find it
            (tmp_path / name).write_text("nux:\n  enabled: false\n")
        make(tmp_path)
        assert (tmp_path / "dagster.yaml").read_text() == self.CURRENT

    @pytest.mark.parametrize("made", [False, True])
    def test_a_file_of_your_own_is_left_alone(self, tmp_path: Path, *, made: bool) -> None:
        if made:
            make(tmp_path)
        mine = self.CURRENT.replace("max_concurrent_runs: 1", "max_concurrent_runs: 4")
        (tmp_path / "dagster.yaml").write_text(mine)
        make(tmp_path)
        assert (tmp_path / "dagster.yaml").read_text() == mine

    def test_runs_wait_for_each_other_and_dead_ones_end(self, tmp_path: Path) -> None:
        make(tmp_path)
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            queue = instance.get_concurrency_config().run_queue_config
            assert queue is not None
            assert queue.max_concurrent_runs == 1
            assert instance.run_monitoring_enabled
            assert instance.run_monitoring_max_runtime_seconds == 24 * 3600
            assert instance.freshness_enabled
            assert not instance.telemetry_enabled


def test_assets_belong_to_no_pool() -> None:
    """A slot that a killed run holds is never free again, and `job execute` waits for it."""
    assert {asset.op.pool for asset in ASSETS} == {None}


def test_waiting_is_written_as_it_is_read() -> None:
    seen = Look("held", "found", 1, Changes(1, 0, 0))
    waiting = Waiting.after(None, seen, now=1.5)
    assert Waiting.read(waiting.model_dump_json()) == waiting
