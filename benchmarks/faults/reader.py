"""Somebody who reads the lake all the time, whatever happens to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from benchmarks.background import Background
from benchmarks.faults.lakes import ASSETS, Contents, differences, rows_of, verified
from fruits_assets.core.errors import DatasetError
from fruits_assets.lake.lake import Lake
from fruits_assets.storage.snapshot import Snapshot

PAUSE_SECONDS = 0.2
READ = (*ASSETS, "model_weights")
UNREADABLE = "unreadable"
NOT_YET = "Materialise {asset} first"

Judge = Callable[[Snapshot], str]
"""What is wrong with the rows of a version; nothing, if nothing is."""


def one_of(states: Sequence[Contents]) -> Judge:
    """A version must hold the rows of one of these states, all of them and as they are."""

    def judge(snapshot: Snapshot) -> str:
        if snapshot.name not in ASSETS:
            return ""
        name, rows = snapshot.name, rows_of(snapshot)
        found = [differences(name, rows, state.tables[name]) for state in states]
        if not all(found):
            return ""
        least = min(found, key=lambda one: one.lost + one.bent)
        return f"{least.lost} rows lost, {least.bent} bent ({'; '.join(least.examples)})"

    return judge


def all_but_unreadable(whole: Contents) -> Judge:
    """Photos may be missing, as long as `rejected_images` says that they cannot be read."""

    def judge(snapshot: Snapshot) -> str:
        name = snapshot.name
        if name.startswith("pca") or name not in ASSETS:
            return ""  # of fewer photos, another PCA
        rows = rows_of(snapshot)
        if name == "rejected_images":
            others = [reason != UNREADABLE for reason in rows["reason"].to_pylist()]
            rows = rows.filter(pa.array(others, pa.bool_()))
        found = differences(name, rows, whole.tables[name])
        return f"{found.bent} rows bent ({'; '.join(found.examples)})" if found.bent else ""

    return judge


class Reader(Background):
    """A thread that opens what is current, verifies every checksum, and compares the rows.

    Attributes:
        looks: how often it looked at an asset that was there.
        wrong: what it saw that nobody must see.
    """

    def __init__(self, lake: Lake, judge: Judge | None) -> None:
        super().__init__(every_seconds=PAUSE_SECONDS)
        self.looks = 0
        self.wrong: list[str] = []
        self._lake, self._judge = lake, judge
        self._seen: set[str] = set()
        self._judged: set[tuple[str, int]] = set()

    def look(self) -> None:  # noqa: D102 - see Background
        for asset in READ:
            try:
                self._look(asset)
            except Exception as error:  # whatever it is told is wrong
                self._note(f"a reader of {asset} was told: {error}")

    def _look(self, asset: str) -> None:
        try:
            snapshot = self._lake.current(asset)
        except DatasetError as error:
            if asset not in self._seen and NOT_YET.format(asset=asset) in str(error):
                return
            raise
        self._seen.add(asset)
        self.looks += 1
        verified(snapshot)
        version = (asset, snapshot.number)
        if self._judge and version not in self._judged:
            self._judged.add(version)
            if problem := self._judge(snapshot):
                self._note(f"a reader of {asset} saw {problem}")

    def _note(self, problem: str) -> None:
        if problem not in self.wrong:
            self.wrong.append(problem)
