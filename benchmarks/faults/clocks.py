"""A clock that goes backwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from benchmarks.faults.changes import own_source
from benchmarks.faults.jobs import REPOSITORY
from benchmarks.faults.journal import Journal
from benchmarks.faults.outcomes import Outcome
from benchmarks.faults.photos import commented, jpegs_of
from benchmarks.faults.trials import Bench, SkippedError, Trial
from fruits_assets.core.errors import DatasetError

LIBRARIES = "*/faketime/libfaketimeMT.so.1"
KEPT = 3
"""Versions of a table that the lake promises to keep."""
OFFSETS = (None, "-1d", "-1d", "-1d")
"""Of the clock, from run to run."""


def backwards(bench: Bench) -> Outcome:
    """Runs on a source that grows, the last ones a day before the first."""
    source = own_source(bench, "clock")
    start = replace(bench.yesterday, lake=Path(bench.yesterday.made.base))
    journal, chance = Journal(source), bench.random("clock")
    with Trial(bench.site("clock", source=source), start, judge=journal.judge) as trial:
        published = [_number(trial)]
        for offset in OFFSETS:
            _grow(source, journal, chance)
            trial.faults += offset is not None
            if not trial.run(environment=_clock(offset) if offset else None).well:
                continue
            published.append(_number(trial))
            trial.notes += _pruned(trial, published)
        expected = bench.start(bench.site("reference-clock", source=source))
        usual = len(OFFSETS) * start.seconds
        record = trial.record(expected=expected.after, reference_seconds=usual)
    how = "libfaketime: Dagster's process is a day before the runs that it follows"
    return Outcome("clock goes backwards", how, [record])


def _clock(offset: str) -> Mapping[str, str]:
    found = [*Path("/usr/lib").glob(LIBRARIES)]
    if not found:
        raise SkippedError("libfaketime is not installed (apt-get install faketime)")
    here = Path(__file__).parent / "clock"
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",  # times of files are the kernel's, whatever the clock says
        "PYTHONPATH": f"{here}:{REPOSITORY}",
    }


def _grow(source: Path, journal: Journal, chance: Random) -> None:
    """One photo more, another one replaced."""
    pattern, victim = chance.sample(jpegs_of(source), 2)
    for target in (pattern.with_name(f"later-{chance.random()}.jpg"), victim):
        content = commented(pattern.read_bytes(), str(chance.random()))
        journal.note(target.relative_to(source).as_posix(), content)
        target.write_bytes(content)


def _number(trial: Trial) -> int:
    return trial.site.lake().current("raw_images").number


def _pruned(trial: Trial, published: Sequence[int]) -> list[str]:
    """What is said of versions that should have been kept, but are gone."""
    gone = [number for number in published[-KEPT:] if not _is_there(trial, number)]
    return [f"{len(gone)} of the last {KEPT} versions of raw_images were pruned"] if gone else []


def _is_there(trial: Trial, number: int) -> bool:
    try:
        trial.site.lake().version("raw_images", number)
    except DatasetError:
        return False
    return True
