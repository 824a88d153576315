"""A source that changes while it is read."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from benchmarks.faults.jobs import JVM, Job
from benchmarks.faults.journal import Journal
from benchmarks.faults.outcomes import Outcome
from benchmarks.faults.photos import commented, copied, files_of, jpegs_of
from benchmarks.faults.trials import Bench, Trial

PAUSE_SECONDS = 0.02
AT_ONCE, HALFWAY_SECONDS = 10, 0.05
"""So many files at once, for so long, are neither the old nor the new ones."""
TOUCHED = 0.3
"""Share of the photos that are ever changed."""
FEW = 0.01
"""Share of the photos that are truncated, renamed, removed at a time: a run fails from 5 % on."""


class Changes:
    """Changes files of a source at random, and notes everything that they have been.

    Attributes:
        done: how many so far.
    """

    def __init__(self, source: Path, journal: Journal, chance: Random) -> None:
        self.done = 0
        self._source, self._journal, self._chance = source, journal, chance
        jpegs = jpegs_of(source)
        self._files = chance.sample(jpegs, int(TOUCHED * len(jpegs)))
        self._few = max(1, int(FEW * len(jpegs)))
        self._away: list[tuple[Path, Path]] = []
        self._short: list[Path] = []
        self._removed = 0

    def until(self, ended: threading.Event) -> None:
        """One after the other until the run has ended; then names are as before."""
        kinds = (self._replace, self._rewrite, self._truncate, self._rename, self._swap, self._add)
        while not ended.wait(PAUSE_SECONDS):
            self._chance.choice((*kinds, self._remove))()
            self.done += 1
        while self._away:
            self._return()

    def _replace(self) -> None:
        """In one step."""
        file = self._pick()
        partial = file.with_name(f".{file.name}")
        partial.write_bytes(self._note(file, self._new_content()))
        partial.replace(file)

    def _rewrite(self) -> None:
        """Several in place: whoever reads one meanwhile reads what never was a photo."""
        files = {self._pick() for _ in range(AT_ONCE)}
        contents = {file: self._note(file, self._new_content()) for file in files}
        with contextlib.ExitStack() as stack:
            sinks = {stack.enter_context(file.open("r+b")): contents[file] for file in files}
            for sink, content in sinks.items():
                sink.write(content[: len(content) // 2])
                sink.flush()
            time.sleep(HALFWAY_SECONDS)
            for sink, content in sinks.items():
                sink.write(content[len(content) // 2 :])
                sink.truncate()

    def _truncate(self) -> None:
        if len(self._short) >= self._few:
            file = self._short.pop(0)
            file.write_bytes(self._note(file, self._new_content()))
            return
        file = self._pick()
        content = file.read_bytes()
        half = self._note(file, content[: len(content) // 2])
        with file.open("r+b") as sink:
            sink.truncate(len(half))
        self._short.append(file)

    def _rename(self) -> None:
        if len(self._away) >= self._few:
            self._return()
            return
        file = self._pick()
        other = file.with_name(f"renamed-{file.name}")
        self._note(other, file.read_bytes())
        file.rename(other)
        self._away.append((file, other))

    def _return(self) -> None:
        file, other = self._away.pop(0)
        other.rename(file)

    def _swap(self) -> None:
        swap(self._journal, self._source, self._pick(), self._pick())

    def _add(self) -> None:
        file = self._pick()
        new = file.with_name(f"new-{self.done}-{file.name}")
        new.write_bytes(self._note(new, self._new_content()))

    def _remove(self) -> None:
        if self._removed < self._few:
            file = self._pick()
            self._files.remove(file)
            file.unlink()
            self._removed += 1

    def _pick(self) -> Path:
        return self._chance.choice(
            [file for file in self._files if file.exists() and file not in self._short]
        )

    def _note(self, file: Path, content: bytes) -> bytes:
        self._journal.note(file.relative_to(self._source).as_posix(), content)
        return content

    def _new_content(self) -> bytes:
        return commented(self._pick().read_bytes(), f"{self.done}")


def swap(journal: Journal, source: Path, one: Path, other: Path) -> None:
    """Each gets the other's name; for a moment, one of them has none."""
    if one == other:
        return
    for file, content in ((one, other.read_bytes()), (other, one.read_bytes())):
        journal.note(file.relative_to(source).as_posix(), content)
    between = one.with_name(f".{one.name}-{other.name}")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def changing(bench: Bench) -> Outcome:
    """All sorts of changes as long as a run takes; then one more run, in peace."""
    records, total = [], 0
    for number in range(1, bench.repeat + 1):
        source = own_source(bench, f"changing-{number}")
        journal = Journal(source)
        changes = Changes(source, journal, bench.random(f"changing-{number}"))
        site = bench.site(f"changing-{number}", source=source)
        with Trial(site, bench.empty, judge=journal.judge) as trial:
            trial.faults = 1
            _while_running(trial, changes)
            trial.until_done()
            reference = bench.start(bench.site("reference-changing", source=source))
            records.append(trial.record(expected=reference.after))
        total += changes.done
    how = "files rewritten (at once, or in place), truncated, renamed, swapped, added, removed"
    return Outcome("source changes while it is read", how, records, times=f"{total} changes")


def _while_running(trial: Trial, changes: Changes) -> None:
    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(changes.until, ended)
        try:
            trial.run()
        finally:
            ended.set()
        future.result()


def put_back(bench: Bench) -> Outcome:
    """Files are renamed and swapped once they are listed, and put back when the run has ended."""
    source = own_source(bench, "put-back")
    journal, chance = Journal(source), bench.random("put-back")
    jpegs = jpegs_of(source)
    few = max(1, int(FEW * len(jpegs)))
    chosen = chance.sample(jpegs, 3 * few)  # each once: swapped twice, all are as they were
    away, ones, others = (chosen[start : start + few] for start in (0, few, 2 * few))
    away = [(file, file.with_name(f"renamed-{file.name}")) for file in away]

    def disturb(job: Job) -> int:
        job.until(lambda: job.victims(JVM))  # the source is listed before Spark is started
        for file, other in away:
            file.rename(other)
        for one, other in zip(ones, others, strict=True):
            swap(journal, source, one, other)
        return len(away) + len(ones)

    with Trial(bench.site("put-back", source=source), bench.empty, judge=journal.judge) as trial:
        trial.run(disturb)
        for file, other in away:
            other.rename(file)
        for one, other in zip(ones, others, strict=True):
            swap(journal, source, one, other)
        trial.until_done()
        record = trial.record()
    how = "files renamed or swapped between listing and reading, then put back"
    return Outcome("source changes, and back", how, [record])


def own_source(bench: Bench, name: str) -> Path:
    """A copy of today's photos, to be changed; what is not is as old as the original."""
    folder = bench.work / f"source-{name}" / "source"
    shutil.rmtree(folder, ignore_errors=True)
    for file in files_of(bench.photos.today):
        copied(file, folder / file.relative_to(bench.photos.today))
    return folder
