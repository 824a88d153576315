"""Peak resident memory of the processes of a run, by what they are."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import psutil

from benchmarks.background import Background

INTERVAL_SECONDS = 0.1


class PeakMemory(Background):
    """Samples a process and its descendants: `driver`, `jvm`, and the largest of the `worker`s.

    Further roots are those of executors that are no children of the driver.

    Attributes:
        peaks: kind of process -> the largest resident set that one such process had, in bytes.
    """

    def __init__(self, pid: int, others: Sequence[int] = ()) -> None:
        super().__init__(every_seconds=INTERVAL_SECONDS)
        self._driver = pid
        self._roots = [psutil.Process(root) for root in (pid, *others)]
        self.peaks: dict[str, int] = defaultdict(int)

    def look(self) -> None:  # noqa: D102 - see Background
        for process in self._processes():
            try:
                kind, size = kind_of(process, self._driver), process.memory_info().rss
            except psutil.Error:  # it ended meanwhile
                continue
            self.peaks[kind] = max(self.peaks[kind], size)

    def _processes(self) -> Iterator[psutil.Process]:
        for root in self._roots:
            yield root
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                yield from root.children(recursive=True)


def kind_of(process: psutil.Process, driver: int) -> str:
    """`driver`, `jvm` or `worker`, of a family of processes."""
    if process.pid == driver:
        return "driver"
    return "jvm" if process.name() == "java" else "worker"
