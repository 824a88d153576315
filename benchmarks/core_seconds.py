"""CPU time of the processes of a run, by what they are."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping

import psutil

from benchmarks.memory import kind_of


class CoreSeconds:
    """What a process and its descendants spend: `driver`, `jvm`, all `worker`s together.

    Processes that end meanwhile are not counted: those of a session stay.

    Attributes:
        spent: kind of process -> user and system time, seconds.
    """

    def __init__(self, pid: int, beside: Mapping[str, int]) -> None:
        self._driver, self._beside = pid, beside
        self.spent: dict[str, float] = {}

    def __enter__(self) -> CoreSeconds:
        self._before = self._until_now()
        return self

    def __exit__(self, *_: object) -> None:
        until_now = self._until_now()
        self.spent = {kind: until_now[kind] - self._before.get(kind, 0.0) for kind in until_now}

    def _until_now(self) -> dict[str, float]:
        own = psutil.Process(self._driver)
        family = [own, *own.children(recursive=True)]
        processes = [(process, kind_of(process, self._driver)) for process in family]
        processes += [(psutil.Process(pid), kind) for kind, pid in self._beside.items()]
        seconds: dict[str, float] = defaultdict(float)
        for process, kind in processes:
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                times = process.cpu_times()
                seconds[kind] += times.user + times.system
        return seconds
