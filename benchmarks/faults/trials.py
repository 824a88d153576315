"""A trial: one lake, from its first run to the last, and somebody who reads it meanwhile."""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.faults.jobs import REFIT, VICTIMS, Ended, Job, Leftovers, Site, Told, started
from benchmarks.faults.lakes import Contents, Differences, compared
from benchmarks.faults.ledger import Ledger, Work
from benchmarks.faults.outcomes import Record
from benchmarks.faults.photos import Photos
from benchmarks.faults.reader import Judge, Reader, one_of
from fruits_assets.core.errors import FruitsError

MAX_RUNS = 2
"""Without a fault, until all is done; more would mean that it never is."""
SAMPLE_SECONDS = LOOK_SECONDS = 0.05

Shared = TypeVar("Shared")
Disturb = Callable[[Job], int]
"""Does faults to a run that has just been started, and returns how many."""


class SkippedError(Exception):
    """A fault cannot be injected here; the text says why."""


@dataclass(frozen=True)
class Start:
    """What a lake holds before the first run, and what an undisturbed run makes of it.

    Attributes:
        lake: folder to begin with a copy of; None for an empty lake.
        before: contents of that.
        after: contents after a run without any fault.
        seconds: that this run took, wall clock.
        alive: kind of process -> first and last second of that run at which one was seen.
        made: site of that run.
    """

    lake: Path | None
    before: Contents | None
    after: Contents
    seconds: float
    alive: Mapping[str, tuple[float, float]]
    made: Site

    @property
    def states(self) -> tuple[Contents, ...]:
        """All that a reader may ever see."""
        return (self.before, self.after) if self.before else (self.after,)


@dataclass(frozen=True)
class Bench:
    """What is the same for all trials of a sitting.

    Attributes:
        work: folder for what is made.
        original: folder of JPEGs that sources are made from; drawn photos without.
        photos: the source.
        seed: of all that is random.
        kills: of each kind of process.
        repeat: trials of what depends on chance.
        many: photos of the largest trial; 0 for none.
        interruptions: of that.
        stack: closes what scenarios share.
    """

    work: Path
    original: Path | None
    photos: Photos
    seed: int
    kills: int
    repeat: int
    many: int
    interruptions: int
    stack: contextlib.ExitStack
    _shared: dict[Any, Any] = field(default_factory=dict)

    def random(self, name: str) -> random.Random:
        """Numbers of a scenario's own, whichever others run."""
        return random.Random(f"{self.seed} {name}")  # noqa: S311 - the same faults in every sitting

    def site(self, name: str, *, source: Path | None = None) -> Site:
        """A new site; one with a source of its own that may change."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return Site(folder, str(source or self.photos.today), config=REFIT if source else {})

    @cached_property
    def empty(self) -> Start:
        """A lake that holds nothing yet."""
        return self.start(self.site("reference-empty"))

    @cached_property
    def yesterday(self) -> Start:
        """A lake that holds some of the photos already."""
        before = self.start(self.site("reference-yesterday", source=self.photos.yesterday))
        return self.start(self.site("reference-today"), before=before)

    def shared(self, make: Callable[[Bench], contextlib.AbstractContextManager[Shared]]) -> Shared:
        """What is made for the first scenario that asks, and closed after the last."""
        if make not in self._shared:
            self._shared[make] = self.stack.enter_context(make(self))
        return self._shared[make]

    def start(self, site: Site, *, before: Start | None = None) -> Start:
        """Runs the job without any fault. Exits where that fails: there is nothing to compare."""
        lake = Path(before.made.base) if before else None
        if lake:
            shutil.copytree(lake, site.base)
        alive = _Alive()
        with Reader(site.lake(), None), started(Job(site, site.folder / "run.log")) as job:
            alive.watch(job)
            ended = job.wait()
        after = Contents.of(site.lake())
        if not ended.well or after.unreadable:
            sys.exit(
                f"a run without any fault failed ({ended.said or after.unreadable}): {job.log}"
            )
        return Start(
            lake, before.after if before else None, after, ended.seconds, alive.between, site
        )


class _Alive:
    """When processes of each kind were first and last seen."""

    def __init__(self) -> None:
        self.between: dict[str, tuple[float, float]] = {}

    def watch(self, job: Job) -> None:
        seconds = 0.0
        while job.passed(seconds):
            for kind in job.kinds() & set(VICTIMS):
                self.between[kind] = (self.between.get(kind, (seconds,))[0], seconds)
            seconds += SAMPLE_SECONDS


class Trial:
    """One lake, which runs are done to until all is done.

    Attributes:
        site: where.
        start: what it began with.
        faults: done to it so far.
        notes: what else there is to say of it.
        found: lost or bent before the end.
    """

    def __init__(self, site: Site, start: Start, *, judge: Judge | None = None) -> None:
        self.site, self.start = site, start
        self.faults = 0
        self.notes: list[str] = []
        self.found = Differences()
        self._runs: list[Ended] = []
        self._leftovers: list[Leftovers] = []
        if start.lake:
            shutil.copytree(start.lake, site.base, dirs_exist_ok=True)
        self._ledger = Ledger(site.parts)
        self._reader = Reader(site.lake(), judge or one_of(start.states))

    def __enter__(self) -> Trial:
        self._reader.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__()

    def run(
        self,
        disturb: Disturb | None = None,
        *,
        config: Mapping[str, Mapping[str, Any]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """The same command as ever; while it runs, something may be done to it."""
        site = replace(
            self.site,
            environment={**self.site.environment, **(environment or {})},
            config={**self.site.config, **(config or {})},
        )
        self._ledger.look()
        with started(Job(site, self._log(1))) as job:
            if disturb:
                self.faults += disturb(job)
            return self._ended(job)

    def runs(self, count: int) -> list[Ended]:
        """The same command several times at once."""
        with contextlib.ExitStack() as stack:
            jobs = [
                stack.enter_context(started(Job(self.site, self._log(number))))
                for number in range(1, count + 1)
            ]
            while any(job.running for job in jobs):
                self._ledger.look()  # what one has made, the other may replace
                time.sleep(LOOK_SECONDS)
            return [self._ended(job) for job in jobs]

    def outlived(self) -> float:
        """Seconds that the last process outlived the last run; waits for its end."""
        self._leftovers[-1].join()
        return self._leftovers[-1].seconds

    def until_done(self) -> None:
        """The same command, undisturbed, until it ends well."""
        for _ in range(MAX_RUNS):
            if self.run().well:
                return

    def record(
        self, *, expected: Contents | None = None, reference_seconds: float | None = None
    ) -> Record:
        """What became of the lake.

        Args:
            expected: what it should hold now; what the undisturbed run made, without.
            reference_seconds: that undisturbed runs take for the same.
        """
        for leftovers in self._leftovers:
            leftovers.join()
        lake = self.site.lake()
        found = Contents.of(lake)
        spent = sum(run.seconds for run in self._runs)
        usual = self.start.seconds if reference_seconds is None else reference_seconds
        return Record(
            faults=self.faults,
            runs=tuple(self._runs),
            differences=self.found + compared(found, expected or self.start.after),
            work=self._ledger.work(self._used()) if expected is None else Work(),
            seconds_lost=spent - usual,
            looks=self._reader.looks,
            wrong=tuple(self._reader.wrong),
            outlived=max((one.seconds for one in self._leftovers), default=0.0),
            orphans=tuple(orphan for one in self._leftovers for orphan in one.orphans),
            notes=tuple(self.notes),
        )

    def mended(self) -> Record:
        """What became of a lake that was whole before it was damaged."""
        record = self.record(reference_seconds=0.0)
        self._ledger.look()
        return replace(record, work=self._ledger.repaired(self._used()))

    def read_in_vain(self, said: Told) -> None:
        """Counts as a run that failed: somebody read the lake, and was told this."""
        self._runs.append(Ended(1, 0.0, said))

    def _log(self, number: int) -> Path:
        return self.site.folder / f"run-{len(self._runs) + number}.log"

    def _ended(self, job: Job) -> Ended:
        ended = job.wait()
        self._leftovers.append(Leftovers(job))
        self._runs.append(ended)
        return ended

    def _used(self) -> set[str]:
        lake = self.site.lake()
        used: set[str] = set()
        for table in lake.folders():
            with contextlib.suppress(FruitsError):  # the comparison says so
                current = lake.current(table)
                used |= {current.folder.at(file.name) for file in current.files}
        return used
