"""One cluster per run, whoever asks for it and whatever becomes of them, and none that is left."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from fruits_assets.core.errors import RegionError, SparkError
from fruits_assets.spark import clusters
from fruits_assets.spark.clusters import GivenCluster, OwnClusters
from fruits_assets.spark.steps import Patience, Steps
from fruits_assets.storage.base import Folder
from fruits_assets.storage.places import folder_at
from fruits_assets_tests import s3
from fruits_assets_tests.conftest import REPOSITORY
from fruits_assets_tests.emr import Emr

RUN = "0f1e2d3c"
LONG, SHORT = 60.0, 0.2
"""A claim that outlives every test, and one that nobody waits for."""
REQUEST: Mapping[str, Any] = {
    "ReleaseLabel": "emr-spark-8.0.0",
    "Instances": {"MasterInstanceType": "m6g.xlarge", "KeepJobFlowAliveWhenNoSteps": True},
    "Tags": [
        {"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"},
        {"Key": "fruits-stack", "Value": "fruits"},
    ],
}
"""The smallest that the emulator takes."""
CONFIGURATIONS = [
    {"Classification": "spark-defaults", "Properties": {"spark.executor.instances": "1"}}
]
ACQUIRE = """
import json, sys

from fruits_assets.spark import clusters

region, stack, pipes, run, request, held = sys.argv[1:]
clusters.WAIT_SECONDS = 0.02


def hold(moment):
    print(moment, flush=True)
    if moment == held:
        sys.stdin.readline()


class Held(clusters.OwnClusters):
    def _swap(self, run, content, **expected):
        if content.get("cluster"):
            hold("started")
        super()._swap(run, content, **expected)


def launch():
    hold("launching")
    return json.loads(request)


hold("ready")
print(Held(region, stack, pipes).acquire(run, launch), flush=True)
"""
"""A process of a run; it waits for a line at the moment that it is to be held at."""


@dataclass(frozen=True)
class Stack:
    """A stack without clusters.

    Attributes:
        emr: the account.
        pipes: URI of a folder of a bucket.
        name: of the stack.
    """

    emr: Emr
    pipes: str
    name: str = "fruits"

    @property
    def clusters(self) -> OwnClusters:
        """As a process of a run sees them."""
        return OwnClusters(s3.REGION, self.name, self.pipes)

    def acquire(self, run: str = RUN) -> str:
        return self.clusters.acquire(run, launch)

    def started(self, name: str) -> str:
        """Starts a cluster of any name, as somebody else would."""
        return self.emr.client().run_job_flow(Name=name, **REQUEST)["JobFlowId"]

    def calls(self, action: str) -> int:
        return len([call for call in self.emr.history() if call.action == action])

    def alive(self) -> list[str]:
        return [one.id for one in self.emr.clusters() if one.state in clusters.LIVE]

    def claim(self, run: str = RUN) -> Any:
        """What is written of the cluster of a run."""
        return json.loads(self._claims.read(f"{run}.json"))

    def write_claim(self, content: Mapping[str, Any], run: str = RUN) -> None:
        self._claims.write(f"{run}.json", json.dumps(content).encode())

    @property
    def _claims(self) -> Folder:
        return folder_at(f"{self.pipes}/clusters", region=s3.REGION)

    @contextlib.contextmanager
    def process(self, *, run: str = RUN, held: str = "") -> Iterator[subprocess.Popen[str]]:
        """A process that acquires the cluster of a run, until the block ends."""
        asked = (s3.REGION, self.name, self.pipes, run, json.dumps(REQUEST), held)
        with subprocess.Popen(
            [sys.executable, "-c", ACQUIRE, *asked],
            env={**os.environ, **self.emr.environment, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def launch() -> Mapping[str, Any]:
    return REQUEST


def said(process: subprocess.Popen[str], moment: str) -> None:
    """Waits until a process has come to a moment."""
    assert process.stdout
    assert any(line.strip() == moment for line in process.stdout), f"never {moment}"


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture
def stack(fresh_emr: Emr, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """An account without clusters, and a bucket for messages; nobody waits long for others."""
    monkeypatch.setattr(clusters, "WAIT_SECONDS", 0.02)
    monkeypatch.setattr(clusters, "CLAIM_SECONDS", LONG)
    fresh_emr.plan(boot_seconds=0)
    with s3.used(fresh_emr.endpoint):
        pipes = f"s3://{fresh_emr.s3.bucket(versioned=False)}/pipes"
        yield Stack(fresh_emr, pipes)


# ------------------------------------------------------------------------------ one per run


def test_threads_of_a_run_share_one_cluster(stack: Stack):
    together = threading.Barrier(8)

    def acquire(run: str) -> tuple[str, str]:
        together.wait()
        return run, stack.acquire(run)

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(acquire, [RUN, "another"] * 4))
    assert len(found) == 2
    assert {run for run, _ in found} == {RUN, "another"}
    assert sorted(cluster for _, cluster in found) == sorted(stack.alive())
    assert {one.name for one in stack.emr.clusters()} == {
        f"fruits fruits {run}" for run, _ in found
    }
    assert stack.calls("RunJobFlow") == 2


def test_processes_of_a_run_share_one_cluster(stack: Stack):
    with contextlib.ExitStack() as processes:
        started = [processes.enter_context(stack.process(held="ready")) for _ in range(2)]
        for one in started:
            said(one, "ready")
        for one in started:
            go_on(one)
        printed = [one.communicate(timeout=60)[0].split() for one in started]
    assert len({words[-1] for words in printed}) == 1
    assert [printed[0][-1]] == stack.alive()
    assert stack.calls("RunJobFlow") == 1
    assert [words.count("launching") for words in printed].count(1) == 1


def test_who_comes_later_finds_it(stack: Stack):
    first = stack.acquire()
    assert stack.acquire() == first
    assert stack.claim() == {"cluster": first}
    assert stack.calls("RunJobFlow") == 1


# ---------------------------------------------------------------- whoever starts it may die


@pytest.mark.parametrize("moment", ["launching", "started"])
def test_one_that_dies_while_it_starts_a_cluster_is_replaced(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, moment: str
):
    with stack.process(held=moment) as process:
        said(process, moment)
        process.kill()
        process.wait()
    assert "by" in stack.claim()
    before = stack.alive()
    assert len(before) == (moment == "started")
    monkeypatch.setattr(clusters, "CLAIM_SECONDS", SHORT)
    found = stack.acquire()
    assert stack.alive() == [found]
    assert before in ([], [found])
    assert len(stack.emr.clusters()) == 1
    assert stack.claim() == {"cluster": found}


def test_a_claim_is_waited_for(stack: Stack):
    looked = threading.Semaphore(0)

    class Watched(OwnClusters):
        def _claim(self, run: str) -> dict[str, Any] | None:
            looked.release()
            return super()._claim(run)

    waiting = Watched(s3.REGION, stack.name, stack.pipes)
    with stack.process(held="launching") as process, ThreadPoolExecutor(1) as pool:
        said(process, "launching")
        other = pool.submit(waiting.acquire, RUN, launch)
        for _ in range(5):
            assert looked.acquire(timeout=30)
        assert not other.done()
        go_on(process)
        printed, _ = process.communicate(timeout=60)
        assert other.result(30) == printed.split()[-1]
    assert stack.calls("RunJobFlow") == 1


@dataclass
class Slow:
    """A process of a run that others think dead: it stops at a moment, and goes on much later."""

    stack: Stack
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None

    def acquire(self) -> str:
        slow = self

        class Own(OwnClusters):
            def start(self, run: str, launch: clusters.Launch) -> str:
                slow.before()
                cluster = super().start(run, launch)
                slow.after()
                return cluster

        return Own(s3.REGION, self.stack.name, self.stack.pipes).acquire(RUN, launch)


def test_one_that_was_thought_dead_before_it_started_uses_what_others_started(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clusters, "CLAIM_SECONDS", SHORT)
    others: list[str] = []
    found = Slow(stack, before=lambda: others.append(stack.acquire())).acquire()
    assert [found] == others
    assert stack.alive() == [found]
    assert stack.calls("RunJobFlow") == 2


def test_what_was_started_by_one_that_was_thought_dead_is_used_by_all(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clusters, "CLAIM_SECONDS", SHORT)
    others: list[str] = []
    found = Slow(stack, after=lambda: others.append(stack.acquire())).acquire()
    assert [found] == others
    assert stack.alive() == [found]
    assert stack.calls("RunJobFlow") == 1


def test_nobody_ends_a_cluster_that_another_has_just_found(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
):
    """The slow one comes back while the other knows its cluster, but has not written that yet."""
    started, found, refused = (threading.Event() for _ in range(3))

    class First(OwnClusters):
        def start(self, run: str, launch: clusters.Launch) -> str:
            cluster = super().start(run, launch)
            started.set()
            assert found.wait(30)
            return cluster

        def _instead_of(self, cluster: str, run: str, launch: clusters.Launch) -> str:
            refused.set()
            return super()._instead_of(cluster, run, launch)

    class Second(OwnClusters):
        def _swap(self, run: str, content: Mapping[str, Any], **expected: Any) -> None:
            if content.get("cluster"):
                monkeypatch.setattr(clusters, "CLAIM_SECONDS", LONG)  # the slow one is patient
                found.set()
                assert refused.wait(30)
            super()._swap(run, content, **expected)

    first, second = (kind(s3.REGION, stack.name, stack.pipes) for kind in (First, Second))
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(first.acquire, RUN, launch)
        assert started.wait(30)
        monkeypatch.setattr(clusters, "CLAIM_SECONDS", 0.0)
        shared = second.acquire(RUN, launch)
        assert slow.result(30) == shared
    assert stack.alive() == [shared]
    assert stack.calls("RunJobFlow") == 1


def test_a_request_that_was_repeated_leaves_one_cluster(stack: Stack):
    lost: list[s3.Request] = []

    def lose_the_first_answer(
        request: s3.Request, forward: Callable[[], s3.Answer]
    ) -> s3.Answer | None:
        answer = forward()
        asked = request.headers.get("x-amz-target", "").rpartition(".")[2]
        if asked == "RunJobFlow" and not lost:
            lost.append(request)
            return None
        return answer

    with s3.Gate(before=stack.emr.endpoint) as gate, s3.used(gate.endpoint):
        gate.rule = lose_the_first_answer
        found = stack.acquire()
    assert lost
    assert stack.calls("RunJobFlow") == 2
    assert stack.alive() == [found]


# ---------------------------------------------------------------------------------- failures


def test_a_launch_that_fails_lets_the_next_one_try_at_once(stack: Stack):
    stack.emr.plan(once=True, refuse=("ValidationException", "no such subnet"))
    with pytest.raises(SparkError, match="no such subnet"):
        stack.acquire()
    assert stack.claim() == {"cluster": None}
    found = stack.acquire()
    assert stack.alive() == [found]


def test_one_that_waits_tries_as_soon_as_a_launch_has_failed(stack: Stack):
    launching, waiting = threading.Event(), threading.Event()

    class Waiting(OwnClusters):
        def _claim(self, run: str) -> dict[str, Any] | None:
            claim = super()._claim(run)
            waiting.set()
            return claim

    def fail() -> Mapping[str, Any]:
        launching.set()
        assert waiting.wait(30)
        raise SparkError("allowed are 0.01 EUR")

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(stack.clusters.acquire, RUN, fail)
        assert launching.wait(30)
        found = Waiting(s3.REGION, stack.name, stack.pipes).acquire(RUN, launch)
        with pytest.raises(SparkError, match=r"0\.01 EUR"):
            first.result()
    assert stack.alive() == [found]


def test_an_interrupted_launch_lets_the_next_one_try_at_once(stack: Stack):
    def interrupt() -> Mapping[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stack.clusters.acquire(RUN, interrupt)
    found = stack.acquire()
    assert stack.alive() == [found]


def test_the_reason_for_a_failed_launch_is_told_whatever_fails_after_it(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
):
    def fail() -> Mapping[str, Any]:
        stack.emr.expire_credentials()
        raise SparkError("allowed are 0.01 EUR")

    try:
        with pytest.raises(SparkError, match=r"0\.01 EUR"):
            stack.clusters.acquire(RUN, fail)
    finally:
        stack.emr.restore_credentials()


def test_a_cluster_that_ended_while_it_was_idle_is_replaced(stack: Stack):
    stack.emr.plan(once=True, boot_seconds=0, time_scale=600)
    idle = {**REQUEST, "AutoTerminationPolicy": {"IdleTimeout": 60}}
    first = stack.clusters.acquire(RUN, lambda: idle)
    stack.emr.wait(first, "TERMINATING")
    second = stack.acquire()
    assert second != first
    assert stack.alive() == [second]
    assert stack.claim() == {"cluster": second}
    assert sorted(stack.clusters.of_run(RUN)) == sorted([first, second])
    assert stack.clusters.release(RUN) == [second]


# ------------------------------------------------------------------------------------ release


def test_a_run_is_released_any_number_of_times(stack: Stack):
    found = stack.acquire()
    assert stack.clusters.release(RUN) == [found]
    assert stack.alive() == []
    assert stack.clusters.release(RUN) == []
    assert stack.emr.wait(found, "TERMINATED").code == "USER_REQUEST"
    assert stack.clusters.release(RUN) == []
    assert stack.clusters.of_run(RUN) == [found]


def test_processes_may_release_a_run_at_once(stack: Stack):
    found = stack.acquire()
    together = threading.Barrier(4)

    def release(_: int) -> list[str]:
        together.wait()
        return stack.clusters.release(RUN)

    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(release, range(4)))
    assert [found] in ended
    assert {tuple(one) for one in ended} <= {(found,), ()}
    assert stack.alive() == []


def test_a_run_without_a_cluster_is_released(stack: Stack):
    assert stack.clusters.release(RUN) == []
    assert stack.clusters.of_run(RUN) == []


@pytest.mark.parametrize("acquired", [True, False])
def test_nobody_starts_a_cluster_for_a_run_that_has_ended(stack: Stack, *, acquired: bool):
    if acquired:
        stack.acquire()
    stack.clusters.release(RUN)
    before = stack.calls("RunJobFlow")
    with pytest.raises(SparkError, match=f"the run {RUN} has ended"):
        stack.acquire()
    assert stack.calls("RunJobFlow") == before
    assert stack.alive() == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_cluster_that_is_started_while_its_run_ends_is_ended_again(stack: Stack, moment: str):
    released: list[list[str]] = []
    slow = Slow(stack, **{moment: lambda: released.append(stack.clusters.release(RUN))})
    with pytest.raises(SparkError, match=f"the run {RUN} has ended"):
        slow.acquire()
    assert stack.calls("RunJobFlow") == 1
    assert len(released[0]) == (moment == "after")
    assert stack.alive() == []


def test_what_a_dead_process_started_is_released(stack: Stack):
    with stack.process(held="started") as process:
        said(process, "started")
        process.kill()
        process.wait()
    (left,) = stack.alive()
    assert stack.clusters.release(RUN) == [left]
    assert stack.alive() == []


def test_only_the_clusters_of_the_run_and_of_the_stack_are_ended(stack: Stack):
    others = [
        stack.started(name)
        for name in (
            f"fruits another {RUN}",
            f"fruits fruits-2 {RUN}",
            f"fruits fruits {RUN}0",
            f"{RUN}",
            "somebody else's",
        )
    ]
    own = stack.acquire()
    assert stack.clusters.of_run(RUN) == [own]
    assert {one.id for one in stack.clusters.live()} == {own, others[2]}
    assert stack.clusters.release(RUN) == [own]
    assert stack.alive() == others
    with pytest.raises(SparkError, match="is no cluster of the stack fruits that is alive"):
        stack.clusters.end([others[2], others[0]])
    assert stack.alive() == others
    assert [one.id for one in stack.clusters.sweep(timedelta(0), dry_run=False)] == [others[2]]
    assert stack.alive() == [one for one in others if one != others[2]]


# -------------------------------------------------------------------------------------- sweep


def test_a_sweep_ends_the_clusters_that_are_older_than_a_bound(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
):
    pages = 55
    old = [stack.started(f"fruits fruits {number}") for number in range(pages)]
    ended = stack.started("fruits fruits ended")
    stack.clusters.end([ended])
    young = stack.acquire()
    (bound,) = [one.created_at for one in stack.clusters.live() if one.id == young]
    monkeypatch.setattr(clusters, "datetime", _clock(bound + timedelta(hours=12)))
    assert len(stack.clusters.live()) == pages + 1
    assert stack.clusters.sweep(timedelta(hours=13), dry_run=False) == []

    found = stack.clusters.sweep(timedelta(hours=12), dry_run=True)
    assert [one.id for one in found] == old
    assert [stack.clusters.run(one) for one in found] == [str(number) for number in range(pages)]
    assert stack.alive() == [*old, young]

    assert stack.clusters.sweep(timedelta(hours=12), dry_run=False) == found
    assert stack.alive() == [young]
    ends = [one for one in stack.emr.history() if one.action == "TerminateJobFlows"]
    # No more than TerminateJobFlows takes, by its documentation.
    assert max(len(one.parameters["JobFlowIds"]) for one in ends) == 10
    assert stack.clusters.sweep(timedelta(hours=12), dry_run=False) == []


def _clock(now: datetime) -> type[datetime]:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return now.astimezone(tz)

    return Stopped


def test_no_region_outside_the_eu_is_asked_for_anything(stack: Stack):
    for region in ("eu-west-2", "us-east-1", ""):
        abroad = OwnClusters(region, stack.name, stack.pipes)
        for act in (
            lambda abroad=abroad: abroad.acquire(RUN, launch),
            lambda abroad=abroad: abroad.release("another"),
            lambda abroad=abroad: abroad.sweep(timedelta(0), dry_run=True),
            lambda abroad=abroad: abroad.state("j-1"),
        ):
            with pytest.raises(RegionError):
                act()
    assert stack.emr.history() == []


# ------------------------------------------------------------------------------ a given one


@pytest.fixture
def prepared(stack: Stack) -> str:
    """A cluster that is and stays about to start, as the command `launch` asks for one."""
    stack.emr.plan(boot_seconds=LONG)
    request = {**REQUEST, "Configurations": CONFIGURATIONS}
    return stack.emr.client().run_job_flow(Name="mine", **request)["JobFlowId"]


def test_a_given_cluster_is_used_and_never_ended(stack: Stack, prepared: str):
    attached = GivenCluster(s3.REGION, prepared)
    assert attached.acquire(RUN, launch) == prepared
    assert stack.clusters.release(RUN) == []
    assert stack.alive() == [prepared]
    assert stack.calls("RunJobFlow") == 1


def test_a_given_cluster_that_does_not_say_how_many_executors_it_has_room_for_is_refused(
    stack: Stack,
):
    stack.emr.plan(boot_seconds=LONG)
    other = stack.emr.client().run_job_flow(Name="other", **REQUEST)["JobFlowId"]
    with pytest.raises(SparkError, match="how many executors") as found:
        GivenCluster(s3.REGION, other).acquire(RUN, launch)
    assert "python -m fruits_assets.spark launch" in str(found.value)
    assert stack.alive() == [other]


def test_a_given_cluster_that_does_not_run_is_refused(stack: Stack, prepared: str):
    stack.emr.kill_cluster(prepared, "USER_REQUEST", "enough")
    stack.emr.wait(prepared, "TERMINATED_WITH_ERRORS")
    attached = GivenCluster(s3.REGION, prepared)
    with pytest.raises(SparkError, match=f"{prepared} is TERMINATED.*FRUITS_EMR_CLUSTER"):
        attached.acquire(RUN, launch)


def test_a_given_cluster_that_never_was_is_refused(stack: Stack):
    with pytest.raises(SparkError, match="j-NEVER"):
        GivenCluster(s3.REGION, "j-NEVER").acquire(RUN, launch)


def test_a_given_cluster_that_is_another_kind_is_refused(stack: Stack, prepared: str):
    attached = GivenCluster(s3.REGION, prepared, {"ReleaseLabel": "emr-7.13.0"})
    with pytest.raises(SparkError, match=r"has ReleaseLabel .*, and not 'emr-7\.13\.0'"):
        attached.acquire(RUN, launch)


def test_a_cluster_is_ended_whatever_ails_the_bucket(stack: Stack):
    stack.acquire()
    without = OwnClusters(s3.REGION, stack.name, "s3://there-is-no-such-bucket/pipes")
    assert len(without.release(RUN)) == 1
    assert stack.alive() == []


def test_a_step_that_was_submitted_twice_runs_once(stack: Stack, prepared: str):
    steps = Steps(stack.clusters, prepared, "s3://logs/emr/", Patience(), print)
    twin, other = steps.submit("ingest", ["one"]), steps.submit("ingest", ["other"])
    step = steps.submit("ingest", ["one"])
    (cluster,) = [one for one in stack.emr.clusters() if one.id == prepared]
    states = {one.id: one.state for one in cluster.steps}
    assert states == {twin: "CANCELLED", other: "PENDING", step: "PENDING"}


def test_a_step_for_a_cluster_that_has_ended_says_why_the_cluster_ended(
    stack: Stack, prepared: str
):
    stack.emr.kill_cluster(prepared, "VALIDATION_ERROR", "the vCPU limit does not allow this")
    stack.emr.wait(prepared, "TERMINATED_WITH_ERRORS")
    steps = Steps(stack.clusters, prepared, "s3://logs/emr/", Patience(), print)
    with pytest.raises(
        SparkError, match=r"\(VALIDATION_ERROR: the vCPU limit does not allow this\)"
    ):
        steps.submit("ingest", ["one"])
