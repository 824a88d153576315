"""Two runs of the same assets at once, in the same lake."""

from __future__ import annotations

import itertools

from benchmarks.faults.outcomes import Outcome
from benchmarks.faults.trials import Bench, Trial


def twins(bench: Bench) -> Outcome:
    """Both start at the same moment, in the same Dagster home; afterwards one more run."""
    records = []
    starts = itertools.cycle([bench.empty, bench.yesterday])
    for number, start in zip(range(bench.repeat), starts, strict=False):
        with Trial(bench.site(f"twins-{number + 1}"), start) as trial:
            trial.faults = 1
            ended = trial.runs(2)
            if not all(run.well for run in ended):
                trial.until_done()
            records.append(trial.record())
    how = "the command twice at the same moment"
    return Outcome("two runs at once", how, records, times=f"{len(records)} pairs")
