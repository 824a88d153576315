"""`make aws-acceptance`: what only AWS itself can answer, asked with a hundred drawn photos.

Photos and lake lie below prefixes of their own, which nobody else has, and are removed at the end.
The run is an ordinary one: what it starts, it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np

from fruits_assets.core.errors import FruitsError, SparkError
from fruits_assets.definitions import compose
from fruits_assets.lake.lake import Lake
from fruits_assets.sample.drawing import write_sample
from fruits_assets.settings import SAMPLE, Settings
from fruits_assets.spark.emr import EmrSpark
from fruits_assets.spark.emr_check import Finding
from fruits_assets.spark.emr_target import EmrTarget
from fruits_assets.storage.base import Folder, join
from fruits_assets.storage.places import folder_at

PHOTOS_PER_CLASS = (5, 2)
"""Photos of each class in Training and in Test: 105 photos of 15 classes."""
MAX_EUR = 0.50
TOLERANCE = 1e-4
"""Relative difference (L2) of features: processors with other vector units round otherwise."""
END_MINUTES = 15
"""A cluster is asked to end at once, and takes a few minutes for it."""
RUN_SECONDS = 2 * 3600
JOB = ("job", "execute", "-m", "fruits_assets.definitions", "-j", "fruits_job")


@dataclass(frozen=True)
class Trial:
    """One run of the pipeline by the settings of this account, and one on this machine.

    Attributes:
        settings: with `spark` other than local.
        home: an empty folder, for photos, lake and Dagster of this machine.
        name: of the prefixes below source and lake.
    """

    settings: Settings
    home: Path
    name: str

    @property
    def source(self) -> str:
        """URI of the uploaded photos."""
        return join(self.settings.source, self.name)

    @property
    def lake(self) -> str:
        """URI of the lake that the run fills."""
        return join(self.settings.lake, self.name)

    def upload(self) -> int:
        """Draws the photos, puts them into the bucket and returns how many there are."""
        photos = self.home / "photos"
        write_sample(photos, photos_per_class=PHOTOS_PER_CLASS)
        found = sorted(photos.rglob("*.jpg"))
        target = self._folder(self.source)
        for photo in found:
            uri = join(target.uri, *photo.relative_to(photos).parts)
            target.storage.write(uri, photo.read_bytes())
        return len(found)

    def run(self, where: str, **variables: str) -> str:
        """Runs the job in a process of its own, and returns the id of its run.

        Raises:
            SparkError: it failed.
        """
        home = self.home / where
        home.mkdir()
        own = dict(os.environ, DAGSTER_HOME=str(home), FRUITS_WEIGHTS=SAMPLE)
        done = subprocess.run(  # noqa: S603 - this very environment
            [sys.executable, "-m", "dagster", *JOB],
            env={**own, **variables},
            stdout=sys.stderr,
            check=False,
            timeout=RUN_SECONDS,
        )
        if done.returncode:
            raise SparkError(f"the run failed with exit code {done.returncode}: its log is above")
        with dg.DagsterInstance.from_config(str(home)) as instance:
            return instance.get_runs(limit=1)[0].run_id

    def spent(self, where: str) -> float:
        """EUR of all jobs, by what the run has added to the metadata of its assets."""
        with dg.DagsterInstance.from_config(str(self.home / where)) as instance:
            found = [
                instance.get_latest_materialization_event(key) for key in instance.get_asset_keys()
            ]
        # A job that makes several assets adds its price to each of them.
        jobs = {}
        for event in found:
            made = (
                event.asset_materialization.metadata
                if event and event.asset_materialization
                else {}
            )
            if "emr_cost_eur" in made:
                name = str((made.get("emr_job") or made["emr_step"]).value)
                jobs[name] = float(str(made["emr_cost_eur"].value))
        return sum(jobs.values())

    def differences(self) -> Mapping[str, float]:
        """Relative difference (L2) of what both runs made, by table."""
        place = self.settings.bucket_access()
        there = Lake.at(self.lake, **place)
        here = Lake.at(str(self.home / "lake"))
        columns = {"features": "features", "pca_features": "components"}
        return {
            table: difference(_vectors(there, table, column), _vectors(here, table, column))
            for table, column in columns.items()
        }

    def clean_up(self) -> int:
        """Removes every object below the prefixes of this trial, and returns how many."""
        folders = [self._folder(uri) for uri in (self.source, self.lake)]
        return sum(
            one.storage.remove({found.uri for found in one.storage.everything(one.uri)})
            for one in folders
        )

    def _folder(self, uri: str) -> Folder:
        return folder_at(uri, **self.settings.bucket_access())


def _vectors(lake: Lake, table: str, column: str) -> dict[str, np.ndarray]:
    rows = lake.current(table).arrow(["path", column]).to_pydict()
    return dict(zip(rows["path"], map(np.array, rows[column]), strict=True))


def difference(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """Relative difference (L2) of vectors by path; infinite where paths or lengths differ."""
    if found.keys() != expected.keys() or not expected:
        return float("inf")
    both = [np.stack([rows[path] for path in sorted(expected)]) for rows in (found, expected)]
    if both[0].shape != both[1].shape:
        return float("inf")
    return float(np.linalg.norm(both[0] - both[1]) / np.linalg.norm(both[1]))


def accept(settings: Settings, target: EmrTarget) -> Iterator[Finding]:
    """Runs the pipeline on the account, and yields what was seen, one line for each thing.

    Raises:
        FruitsError: something cannot be tried at all. What was uploaded is removed all the same.
    """
    with tempfile.TemporaryDirectory(prefix="fruits-acceptance-") as home:
        trial = Trial(settings, Path(home), f"acceptance-{uuid.uuid4().hex[:12]}")
        try:
            photos = trial.upload()
            yield Finding("photos", ok=True, told=f"{photos} drawn, uploaded to {trial.source}")
            began = time.monotonic()
            run = trial.run(
                "there",
                FRUITS_SOURCE=trial.source,
                FRUITS_LAKE=trial.lake,
                FRUITS_EMR_MAX_COST_EUR=str(min(target.limits.max_cost_eur or MAX_EUR, MAX_EUR)),
            )
            minutes = (time.monotonic() - began) / 60
            yield Finding("run", ok=True, told=f"succeeded in {minutes:.1f} minutes")
            yield from _compared(trial)
            if isinstance(target, EmrSpark):
                yield from _ended(target, run)
            else:
                yield _affordable(trial.spent("there"))
        finally:
            removed = trial.clean_up()
        yield Finding("clean up", ok=True, told=f"{removed} objects of this trial removed")


def _compared(trial: Trial) -> Iterator[Finding]:
    photos, lake = str(trial.home / "photos"), str(trial.home / "lake")
    trial.run("here", FRUITS_SPARK="local", FRUITS_SOURCE=photos, FRUITS_LAKE=lake)
    for table, found in trial.differences().items():
        ok = found <= TOLERANCE
        told = f"relative difference to this machine's {found:.1e}, allowed {TOLERANCE:.0e}"
        yield Finding(table, ok, told)


def _ended(emr: EmrSpark, run: str) -> Iterator[Finding]:
    clusters = emr.own_clusters
    used = clusters.of_run(run)
    deadline = time.monotonic() + END_MINUTES * 60
    while alive := [one.id for one in clusters.live() if one.id in used]:
        if time.monotonic() > deadline:
            told = f"{', '.join(alive)} alive {END_MINUTES} minutes after the run: end them with "
            yield Finding("clusters", ok=False, told=f"{told}`python -m fruits_assets.spark end`")
            break
        time.sleep(emr.limits.poll_seconds)
    else:
        yield Finding("clusters", ok=True, told=f"{', '.join(used)} ended with the run")
    try:
        eur = emr.bill(used).total_eur
    except FruitsError as error:
        yield Finding("price", ok=False, told=str(error))
    else:
        yield _affordable(eur)


def _affordable(eur: float) -> Finding:
    told = f"{eur:.2f} EUR by the price table, allowed {MAX_EUR:.2f}"
    return Finding("price", ok=eur <= MAX_EUR, told=told)


def main() -> int:
    """Tries the account that the settings name, and returns an exit code."""
    try:
        settings = Settings()
        target = (compose(settings).resources or {})["spark"]
        if not isinstance(target, EmrTarget):
            raise SparkError("nothing to try: set FRUITS_SPARK to emr or emr-serverless")
        good = True
        for finding in accept(settings, target):
            print(finding, flush=True)  # noqa: T201 - a command's output
            good &= finding.ok
    except FruitsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's output
        return 1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
