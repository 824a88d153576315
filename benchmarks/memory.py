"""Peak resident memory of the processes of a run, by what they are."""

from __future__ import annotations

import threading
from collections import defaultdict
from types import TracebackType

import psutil

INTERVAL_SECONDS = 0.1


class PeakMemory:
    """Samples a process and its descendants: `driver`, `jvm`, and the largest of the `worker`s.

    Attributes:
        peaks: kind of process -> the largest resident set that one such process had, in bytes.
    """

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peaks: dict[str, int] = defaultdict(int)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(INTERVAL_SECONDS):
            for process in [self._root, *self._root.children(recursive=True)]:
                try:
                    kind, size = self._kind(process), process.memory_info().rss
                except psutil.Error:  # it ended meanwhile
                    continue
                self.peaks[kind] = max(self.peaks[kind], size)

    def _kind(self, process: psutil.Process) -> str:
        if process.pid == self._root.pid:
            return "driver"
        return "jvm" if process.name() == "java" else "worker"
