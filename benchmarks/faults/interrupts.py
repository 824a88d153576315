"""Ctrl-C and SIGTERM, at any moment: how soon a run ends, what it says, and what it leaves."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from benchmarks.faults.jobs import Ended, Job
from benchmarks.faults.outcomes import Outcome, Record
from benchmarks.faults.trials import Bench, Trial

END_SECONDS = 10.0
"""A run and all of its processes are gone so long after an interrupt."""
DONE_SECONDS = 1.0
"""A run that succeeds so soon after an interrupt had done everything when it came."""
EARLIER = 0.75
"""A moment at which the run had ended already is tried again, this much earlier."""


@dataclass(frozen=True)
class Kind:
    """A way to interrupt a run.

    Attributes:
        fault: for people.
        how: it is done.
        send: does it.
    """

    fault: str
    how: str
    send: Callable[[Job], None]


KINDS: Mapping[str, Kind] = {
    "ctrl-c": Kind(
        "Ctrl-C",
        "SIGINT to all processes of the run, as a terminal sends it",
        lambda job: job.signal(signal.SIGINT, everybody=True),
    ),
    "sigterm": Kind(
        "SIGTERM",
        "SIGTERM to Dagster's process",
        lambda job: job.signal(signal.SIGTERM, everybody=False),
    ),
}


def interrupted(bench: Bench, name: str) -> Outcome:
    """Interrupts at moments spread over a whole run; the same lake goes on until all is done."""
    kind, chance = KINDS[name], bench.random(name)
    shares = [(number + chance.random()) / bench.kills for number in range(bench.kills)]
    chance.shuffle(shares)
    records: list[Record] = []
    waits: list[float] = []
    starts = itertools.cycle([bench.empty, bench.yesterday])
    while shares:
        with Trial(bench.site(f"{name}-{len(records) + 1}"), next(starts)) as trial:
            wrong = _interrupt(trial, kind, shares, waits)
            records.append(replace(trial.record(), unheeded=tuple(wrong)))
    how = f"{kind.how}, at random moments, then the same command again"
    ended = f"{len(waits)}, ended after {sorted(waits)[len(waits) // 2]:.1f} s"
    return Outcome(kind.fault, how, records, times=f"{ended} (median; {max(waits):.1f} s at most)")


def _interrupt(trial: Trial, kind: Kind, shares: list[float], waits: list[float]) -> list[str]:
    """Runs until all is done, or there is no moment left; what was not as it should be."""
    wrong: list[str] = []
    while shares:
        sent: list[float] = []
        seconds = shares[-1] * trial.start.seconds

        def send(job: Job, seconds: float = seconds, sent: list[float] = sent) -> int:
            if not job.passed(seconds):
                return 0
            sent.append(job.elapsed)
            kind.send(job)
            return 1

        ended = trial.run(send)
        if not sent:
            shares[-1] *= EARLIER
            return wrong
        shares.pop()
        gone = ended.seconds - sent[0] + trial.outlived()
        waits.append(gone)
        print(f"{kind.fault} after {sent[0]:.1f} s: gone after {gone:.1f} s", flush=True)
        if problem := unheeded(ended, after=sent[0], gone=gone):
            wrong.append(f"interrupted after {sent[0]:.1f} s: {problem}")
        if ended.well:
            return wrong
    trial.until_done()
    return wrong


def unheeded(ended: Ended, *, after: float, gone: float) -> str:
    """Faults in the end of a run that was interrupted; empty where there is none.

    Args:
        ended: how it ended.
        after: seconds after its start at which it was interrupted.
        gone: seconds after that, after which none of its processes was left.
    """
    if gone > END_SECONDS:
        return f"its last process was gone after {gone:.1f} s only"
    if ended.well and ended.seconds - after > DONE_SECONDS:
        return "it went on, and ended as if nothing had happened"
    if ended.status > 0 and not (ended.said and ended.said.clear):
        return f"it does not say that it was interrupted: {ended.said and ended.said.text}"
    return ""
