"""What came of the faults: a table for people, and all of it as JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.faults.jobs import Ended
from benchmarks.faults.lakes import Differences
from benchmarks.faults.ledger import Work

COLUMNS = (
    "fault",
    "how injected",
    "how often",
    "runs that failed",
    "rows lost",
    "rows bent",
    "parts made twice",
    "seconds lost",
)
CHARACTERS = 240
"""Of a sentence, at most."""
PRIVATE: Sequence[tuple[str, str]] = (
    (r"part-[\w-]+\.parquet", "part-….parquet"),
    (r"(s3:/)?/[^\s,:;()']*/(lake|photos|source)(?=[/\s,:;()'.]|$)", r"<\2>"),
    (r"\b[0-9a-f]{12,}\b", "…"),
    (r"\b(port|after) \d+", r"\1 …"),
)
"""What differs between two sentences that say the same, and what to call it."""


@dataclass(frozen=True)
class Record:
    """What became of one lake.

    Attributes:
        faults: done to it.
        runs: on it, in the order of their ends.
        differences: between it and what it should hold.
        work: kept, and done twice.
        seconds_lost: more than undisturbed runs take; negative where the difference is noise.
        looks: of a reader meanwhile.
        wrong: what that reader should not have seen.
        outlived: seconds that the last process outlived its run.
        orphans: processes that had to be killed.
        unheeded: interrupts that did not end their run as they should.
        notes: for people.
    """

    faults: int
    runs: Sequence[Ended]
    differences: Differences
    work: Work = field(default_factory=Work)
    seconds_lost: float = 0.0
    looks: int = 0
    wrong: Sequence[str] = ()
    outlived: float = 0.0
    orphans: Sequence[str] = ()
    unheeded: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of one kind of fault.

    Attributes:
        fault: for people.
        injected: how.
        records: one per lake.
        times: how often, for people; the number of faults without.
        skipped: why it could not be done here.
    """

    fault: str
    injected: str
    records: Sequence[Record] = ()
    times: str = ""
    skipped: str = ""

    @property
    def faults(self) -> int:
        """Done in all."""
        return sum(record.faults for record in self.records)

    @property
    def differences(self) -> Differences:
        """Of all lakes together; what a reader saw that it should not have counts as bent."""
        total = Differences()
        for record in self.records:
            total += record.differences + Differences(0, len(record.wrong), tuple(record.wrong))
        return total

    @property
    def work(self) -> Work:
        """Of all lakes together."""
        return sum((record.work for record in self.records), Work())

    @property
    def seconds_lost(self) -> float:
        """Per fault; per lake where faults are too many to tell apart."""
        per = sum(max(1, record.faults) for record in self.records)
        return sum(record.seconds_lost for record in self.records) / max(1, per)

    @property
    def sentences(self) -> Counter[tuple[str, bool]]:
        """What failed runs said, and whether that is meant for people."""
        told = [run.said for record in self.records for run in record.runs if run.said]
        return Counter((shortened(it.text), it.clear) for it in told)

    def failed(self) -> str:
        """How many runs failed, and what the commonest sentence is."""
        runs = [run for record in self.records for run in record.runs]
        failed = [run for run in runs if not run.well]
        text = f"{len(failed)} of {len(runs)}"
        killed = sum(run.said is None for run in failed)
        if killed:
            text += f", {killed} of them killed"
        unclear = sum(count for (_, clear), count in self.sentences.items() if not clear)
        if self.sentences:
            ((sentence, _), _), *others = self.sentences.most_common()
            text += f": “{sentence}”" + (f" and {len(others)} other texts" if others else "")
        return text + (f" ({unclear} without a sentence for people)" if unclear else "")

    def cells(self) -> Sequence[str]:
        """A row of the table."""
        if self.skipped:
            return (self.fault, self.injected, f"skipped: {self.skipped}", *[""] * 5)
        differences, work = self.differences, self.work
        finished = work.kept + work.redone
        return (
            self.fault,
            self.injected,
            self.times or str(self.faults),
            self.failed(),
            str(differences.lost),
            str(differences.bent),
            f"{work.redone} of {finished}" if finished else "",
            f"{self.seconds_lost:.1f}",
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            **asdict(self),
            "lost": self.differences.lost,
            "bent": self.differences.bent,
            "seconds_lost_per_fault": round(self.seconds_lost, 2),
            "sentences": [[*told, count] for told, count in self.sentences.most_common()],
        }


def shortened(text: str) -> str:
    """A sentence without what differs from run to run, and not too long for a table."""
    for pattern, name in PRIVATE:
        text = re.sub(pattern, name, text)
    text = text.replace("|", "/")
    return text if len(text) <= CHARACTERS else f"{text[: CHARACTERS - 1].rstrip()}…"


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown, a row per kind of fault."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(outcome.cells() for outcome in outcomes)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def remarks(outcomes: Sequence[Outcome]) -> list[str]:
    """What the table has no column for, a line each."""
    records = [record for outcome in outcomes for record in outcome.records]
    looks = sum(record.looks for record in records)
    wrong = [it for record in records for it in record.wrong]
    outlived = max((record.outlived for record in records), default=0.0)
    orphans = [it for record in records for it in record.orphans]
    lines = [
        f"A reader looked {looks:,} times at published versions meanwhile, verifying every "
        f"checksum: {len(wrong)} times it saw what it should not have.",
        f"The last process of a run was gone {outlived:.1f} s after it; {len(orphans)} were left "
        "behind and had to be killed.",
    ]
    for outcome in outcomes:
        said = [*outcome.differences.examples[:5], *_all_notes(outcome)]
        lines += [f"{outcome.fault}: {it}" for it in said]
    return lines


def _all_notes(outcome: Outcome) -> list[str]:
    notes = Counter(note for record in outcome.records for note in record.notes)
    orphans = [f"left behind: {it}" for record in outcome.records for it in record.orphans]
    unheeded = [it for record in outcome.records for it in record.unheeded]
    return [*notes, *orphans, *unheeded]


def as_json(outcomes: Sequence[Outcome], setting: Mapping[str, Any]) -> str:
    """All of it."""
    whole = {"setting": dict(setting), "outcomes": [outcome.as_dict() for outcome in outcomes]}
    return json.dumps(whole, indent=2, ensure_ascii=False)


def spoilt(outcomes: Sequence[Outcome]) -> bool:
    """Whether anything was lost or bent, or an interrupt did not end its run."""
    return any(
        outcome.differences or any(record.unheeded for record in outcome.records)
        for outcome in outcomes
    )
