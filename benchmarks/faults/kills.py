"""`kill -9`, at any moment: of Dagster's process, the JVM, a Python worker, a decoder."""

from __future__ import annotations

import contextlib
import itertools
import random
from functools import partial

import psutil

from benchmarks.faults.jobs import DECODER, DRIVER, JVM, VICTIMS, WORKER, Job
from benchmarks.faults.outcomes import Outcome, Record
from benchmarks.faults.photos import Photos
from benchmarks.faults.trials import Bench, Start, Trial

NAMES = {
    DRIVER: "Dagster's process killed",
    JVM: "Spark's JVM killed",
    WORKER: "a Python worker of Spark killed",
    DECODER: "a decoder of photos killed",
}
HOW = (
    "SIGKILL at random moments, in an empty lake and in one that holds yesterday's photos, then "
    "the same command again"
)
SURE = 0.7
"""Share of the seconds of one run that another one takes at least."""
AFTERWARDS_SECONDS = 0.5
"""In which a run fails, if it does."""
EARLIER = 0.75
"""A moment at which there was nothing left to kill is tried again, this much earlier."""


def kills(bench: Bench, victim: str) -> Outcome:
    """Kills at moments spread over the life of a kind of process; the same lake goes on."""
    chance = bench.random(victim)
    shares = [(number + chance.random()) / bench.kills for number in range(bench.kills)]
    records: list[Record] = []
    starts = itertools.cycle([bench.empty, bench.yesterday])
    while shares:
        start, site = next(starts), bench.site(f"{victim}-{len(records) + 1}")
        with Trial(site, start) as trial:
            _interrupt(trial, victim, shares, chance)
            records.append(trial.record())
    return Outcome(NAMES[victim], HOW, records)


def _interrupt(trial: Trial, victim: str, shares: list[float], chance: random.Random) -> None:
    """Runs until all is done, or there is no moment left."""
    while shares:
        ended = trial.run(partial(_kill, trial.start, victim=victim, shares=shares, chance=chance))
        if ended.well:
            return
    trial.until_done()


def _kill(
    start: Start, job: Job, *, victim: str, shares: list[float], chance: random.Random
) -> int:
    """Kills at a random moment, and at later ones as long as the run survives it.

    Args:
        start: says when processes of a kind live.
        job: the run.
        victim: kind of process.
        shares: of its life, at which one is still to be killed; those that are done are removed.
        chance: chooses.
    """
    first, last = start.alive.get(victim, (0.0, start.seconds))
    share, done = chance.choice(shares), 0
    while strike(job, victim=victim, seconds=first + share * (last - first), chance=chance):
        shares.remove(share)
        done += 1
        if not job.passed(job.elapsed + AFTERWARDS_SECONDS):
            return done
        later = [it for it in shares if first + it * (last - first) > job.elapsed]
        if not later:
            return done
        share = min(later)
    shares[shares.index(share)] *= EARLIER
    return done


def strike(job: Job, *, victim: str, seconds: float, chance: random.Random) -> int:
    """Kills one process of a kind, so long after the start or once there is one."""
    if not job.passed(seconds) or not job.until(lambda: job.victims(victim)):
        return 0
    for process in chance.sample(found := job.victims(victim), len(found)):
        with contextlib.suppress(psutil.Error):  # it ended in this very moment
            process.kill()
            return 1
    return 0


def many(bench: Bench) -> Outcome:
    """One run of many photos, interrupted again and again."""
    title = f"{bench.many:,} photos, interrupted {bench.interruptions} times"
    large = Photos.of(bench.work, bench.original, count=bench.many)
    start = bench.start(bench.site("reference-many", source=large.today))
    chance = bench.random("many")
    startup = start.alive[JVM][0]
    gaps = _gaps(chance, bench.interruptions, SURE * (start.seconds - startup))
    with Trial(bench.site("many", source=large.today), start) as trial:
        while gaps:
            if trial.run(partial(_strikes, gaps=gaps, startup=startup, chance=chance)).well:
                break
        trial.until_done()
        trial.notes.append(f"an uninterrupted run takes {start.seconds:.0f} s")
        return Outcome(title, "SIGKILL of a random one of these four", [trial.record()])


def _strikes(job: Job, *, gaps: list[float], startup: float, chance: random.Random) -> int:
    """Kills after each gap, until the run dies of it; gaps that are done with are removed."""
    done, last = 0, startup
    while gaps:
        victim = chance.choice(VICTIMS)
        if not strike(job, victim=victim, seconds=last + gaps[0], chance=chance):
            return done
        del gaps[0]
        done, last = done + 1, job.elapsed
        if not job.passed(last + AFTERWARDS_SECONDS):
            return done
    return done


def _gaps(chance: random.Random, count: int, seconds: float) -> list[float]:
    """So many random stretches of the work, which do not use it up together."""
    gaps: list[float] = []
    for left in range(count, 0, -1):
        gaps.append(chance.uniform(0, 2 * (seconds - sum(gaps)) / (left + 1)))
    return gaps
