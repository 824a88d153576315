"""A permission that is lost while a run is at work, and given back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.faults.changes import own_source
from benchmarks.faults.jobs import JVM, Job, Site
from benchmarks.faults.outcomes import Outcome
from benchmarks.faults.photos import jpegs_of
from benchmarks.faults.reader import all_but_unreadable
from benchmarks.faults.trials import Bench, SkippedError, Trial

PARTS_BEFORE = 3
"""Written before the permission is lost."""
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")
"""Root without the privilege to pass over permissions; another user could not start this Python."""


def lake_read_only(bench: Bench) -> Outcome:
    """The lake's folders are made read-only after some parts."""
    site = _bound(bench.site("lake-permission"))

    def disturb(job: Job) -> int:
        job.until(lambda: len(site.parts()) >= PARTS_BEFORE)
        for folder in _folders(Path(site.base)):
            folder.chmod(0o555)
        return 1

    def restore() -> None:
        for folder in _folders(Path(site.base)):
            folder.chmod(0o755)

    return _lost(Trial(site, bench.empty), disturb, restore, "the lake read-only midway")


def folder_unreadable(bench: Bench) -> Outcome:
    """One folder of photos cannot be read any more once it is listed."""
    source = own_source(bench, "folder-permission")
    site = _bound(bench.site("folder-permission", source=source))
    folder = min({file.parent for file in jpegs_of(source)}, key=lambda it: len([*it.iterdir()]))

    def disturb(job: Job) -> int:
        job.until(lambda: job.victims(JVM))  # the source is listed before Spark is started
        folder.chmod(0)
        return 1

    trial = Trial(site, bench.empty, judge=all_but_unreadable(bench.empty.after))
    return _lost(
        trial, disturb, lambda: folder.chmod(0o755), "a folder of photos unreadable midway"
    )


def source_unreadable(bench: Bench) -> Outcome:
    """The whole source cannot be read any more after some parts."""
    source = own_source(bench, "source-permission")
    site = _bound(bench.site("source-permission", source=source))

    def disturb(job: Job) -> int:
        job.until(lambda: len(site.parts()) >= PARTS_BEFORE)
        source.chmod(0)
        return 1

    trial = Trial(site, bench.empty, judge=all_but_unreadable(bench.empty.after))
    return _lost(trial, disturb, lambda: source.chmod(0o755), "the source unreadable midway")


def _lost(
    trial: Trial, disturb: Callable[[Job], int], restore: Callable[[], None], title: str
) -> Outcome:
    with trial:
        try:
            trial.run(disturb)
        finally:
            restore()
        trial.until_done()
        return Outcome(title, "chmod while the run is at work, then back", [trial.record()])


def _bound(site: Site) -> Site:
    """A site whose runs must obey permissions. Raises SkippedError where root cannot be bound."""
    if os.geteuid():
        return site
    if not shutil.which(UNPRIVILEGED[0]):
        raise SkippedError("root passes over permissions, and there is no setpriv (util-linux)")
    return replace(site, prefix=UNPRIVILEGED)


def _folders(base: Path) -> list[Path]:
    return [base, *(path for path in base.rglob("*") if path.is_dir())]
