"""`python -m benchmarks.increments`: what a run costs when few photos are new, or none.

Three runs of the job on the same lake, in one process: of all photos, of one percent more, and of
nothing new. The time of a stage is what its commit says it took to make; that of its Dagster
step has the listing of the source, the pictures for the UI and the publishing in it, too. Spark's
session is up before: it takes the same few seconds whatever there is to do.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from pyspark.sql import SparkSession

from benchmarks import photos
from benchmarks.weights import random_weights
from fruits_assets.definitions import compose
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.resource import LakeResource
from fruits_assets.settings import Settings
from fruits_assets.spark.local import LocalSpark

STAGES = {
    "ingest": ("raw_images",),
    "features": ("features",),
    "pca_model": ("pca_model", "_drift"),
    "pca_features": ("pca_features",),
}
"""Dagster step -> what it may make."""
MAX_SHARE = 0.05
"""Of the stages' time of a full run, for one percent more photos."""
MAX_SECONDS = 2.0
"""Of any asset, when nothing is new."""
REPORT = "increments.json"


@dataclass(frozen=True)
class Run:
    """One run of the job.

    Attributes:
        name: what was new.
        photos: in the source.
        seconds: wall clock, of the whole command.
        stages: seconds that each of `STAGES` took to make something.
        steps: seconds of each of their Dagster steps.
        checks: seconds of all asset checks together.
        read: files that were read from the source.
        inferences: runs of the model.
        jobs: that Spark ran.
    """

    name: str
    photos: int
    seconds: float
    stages: Mapping[str, float]
    steps: Mapping[str, float]
    checks: float
    read: int
    inferences: int
    jobs: int

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.stages.values())


def main() -> int:
    """Measures, prints a table and returns 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.increments", description=__doc__)
    parser.add_argument("--photos", type=int, default=14_000)
    parser.add_argument("--source", type=Path, help="folder of JPEGs; drawn ones without")
    parser.add_argument("--weights", help="Keras weights file; random ones without")
    parser.add_argument("--output", type=Path, default=Path("artifacts/increments"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fruits-increments-") as work:
        runs = _measure(options, Path(work))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / REPORT).write_text(json.dumps([asdict(run) for run in runs], indent=2))
    _print(runs)
    full, more, nothing = runs
    good = more.total <= MAX_SHARE * full.total and max(nothing.steps.values()) <= MAX_SECONDS
    return 0 if good and not nothing.jobs else 1


def _measure(options: argparse.Namespace, work: Path) -> list[Run]:
    source = options.source or photos.drawn(work / "drawn")
    more = options.photos // 100
    every = photos.multiplied(source, work / "every", count=options.photos + more)
    aside = work / "aside"
    for path in sorted(every.rglob("*.jpg"), key=lambda it: it.name)[options.photos :]:
        (aside / path.parent.relative_to(every)).mkdir(parents=True, exist_ok=True)
        path.rename(aside / path.relative_to(every))
    job = Job.started(work, every, options.weights or str(random_weights(work)))
    runs = [job.run("all photos", options.photos)]
    for path in aside.rglob("*.jpg"):
        path.rename(every / path.relative_to(aside))
    runs.append(job.run(f"{more} photos", options.photos + more))
    runs.append(job.run("nothing", options.photos + more))
    return runs


@dataclass(frozen=True)
class Job:
    """The job on one lake, with a session that is up and has run something."""

    lake: str
    home: Path
    job: dg.JobDefinition
    session: SparkSession

    @classmethod
    def started(cls, work: Path, source: Path, weights: str) -> Job:
        """The job on a new lake in a folder, with Spark's session up."""
        home = work / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text(
            "telemetry: {enabled: false}\npython_logs: {python_log_level: WARNING}\n"
        )
        lake = str(work / "lake")
        definitions = compose(Settings(source=str(source), lake=lake, weights=weights))
        session = LocalSpark(lake=LakeResource(base=lake)).session()
        session.sparkContext.parallelize(range(8)).map(float).collect()
        return cls(lake, home, definitions.resolve_job_def("fruits_job"), session)

    def run(self, name: str, count: int) -> Run:
        """Runs it once."""
        jobs, started = self._jobs(), time.monotonic()
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            result = self.job.execute_in_process(instance=instance)
            if not result.success:
                sys.exit("the job failed")
        seconds = time.monotonic() - started
        steps, lake = _steps(self.home), Lake.at(self.lake)
        raw, features = (lake.current(asset) for asset in ("raw_images", "features"))
        ran = self._jobs() - jobs
        return Run(
            name,
            count,
            seconds,
            {step: _made(lake, tables, result.run_id) for step, tables in STAGES.items()},
            {step: steps[step] for step in STAGES},
            sum(spent for step, spent in steps.items() if step not in (*STAGES, "model_weights")),
            raw.figures["files_read"] if ran else 0,
            features.figures["inferences"] if ran else 0,
            ran,
        )

    def _jobs(self) -> int:
        context: Any = self.session.sparkContext
        return context._jsc.sc().dagScheduler().numTotalJobs()  # noqa: SLF001 - nothing public


def _made(lake: Lake, tables: Iterable[str], run: str) -> float:
    """Seconds that a run took to make some tables; 0 for those that it found."""
    commits = [lake.current(table).commit for table in tables if table in lake.tables()]
    return sum(commit.seconds for commit in commits if commit.run_id == run)


def _steps(home: Path) -> dict[str, float]:
    """Seconds of every step of the last run."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (record,) = instance.get_run_records(limit=1)
        return {
            step.step_key: step.end_time - step.start_time
            for step in instance.get_run_step_stats(record.dagster_run.run_id)
            if step.start_time and step.end_time
        }


def _print(runs: list[Run]) -> None:
    print(f"{'new':<12}{'photos':>7}{'read':>7}{'inferred':>9}", end="")
    print("".join(f"{name:>22}" for name in STAGES), f"{'stages':>9}{'checks':>9}{'run':>9}")
    for run in runs:
        print(f"{run.name:<12}{run.photos:>7}{run.read:>7}{run.inferences:>9}", end="")
        for name in STAGES:
            print(f"{run.stages[name]:>9.2f} of {run.steps[name]:>6.2f} s", end="")
        print(f"{run.total:>9.2f} s{run.checks:>7.1f} s{run.seconds:>7.1f} s")
    full, more, nothing = runs
    print(f"one percent more: {more.total / full.total:.1%} of the stages' time (at most 5 %)")
    print(
        f"nothing new: {max(nothing.steps.values()):.2f} s the slowest step (at most 2 s); ", end=""
    )
    print(f"Spark ran {nothing.jobs} jobs")


if __name__ == "__main__":
    sys.exit(main())
