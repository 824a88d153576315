"""Reading ahead, with a deadline: a file system or a store may never answer.

A thread that waits for a file system which hangs cannot be ended, and neither can the call that it
is in. It is left behind, and what has waited for it goes on without it. All threads are daemons, so
that none keeps the process from ending.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from fruits_assets.core.errors import SourceError

READ_SECONDS = 60.0
"""Time limit of a read from a folder, beside a second for each MiB."""
READ_AHEAD, READ_AHEAD_BYTES = 16, 2**24
"""Files, and their bytes, that are read from this machine before they are asked for."""
SLOWEST = 2**20
"""Bytes per second that every file is given time for."""
LISTING_SECONDS = 120.0
"""A listing that has found nothing for so long has come to a file system that hangs."""
LOST_READS = 3
"""Once so many files of a task have not been read in time, it is the place that does not answer."""

Read = Callable[[Mapping[str, Any]], bytes]
"""Reads the file of a row of a listing."""
Result = TypeVar("Result")


class Readers:
    """Threads that read the files of some rows ahead of whoever asks for them.

    Args:
        threads: reads under way at once, at most.
        ahead: files that are read and not asked for yet, at most.
        ahead_bytes: the same in bytes, as they were listed; a larger file is read alone.
    """

    def __init__(self, threads: int, *, ahead: int, ahead_bytes: int) -> None:
        self._ahead, self._ahead_bytes = ahead, ahead_bytes
        self._threads, self._started = threads, 0
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()

    def fetch(
        self, read: Read, rows: Sequence[Mapping[str, Any]], *, root: str, seconds: float
    ) -> Iterator[Callable[[], bytes]]:
        """Yields, for each row in order, a function that returns the bytes of its file.

        The function raises whatever `read` raises; OSError where the read does not end in time; and
        SourceError where too many have not.

        Args:
            read: reads the file of a row.
            rows: `bytes` of each file, and what `read` needs.
            root: of the source, for the error.
            seconds: time limit of a read, beside that for its size.
        """
        left, waiting = deque(rows), deque[_Job]()
        lost: list[_Job] = []
        held = 0
        try:
            while left or waiting:
                # Several at once: to wake a thread for each would cost as much as reading it.
                if len(waiting) <= self._ahead // 2:
                    while left and self._has_room(waiting, held + left[0]["bytes"]):
                        waiting.append(_Job(read, left.popleft()))
                        held += waiting[-1].size
                        self._put(waiting[-1])
                first = waiting.popleft()
                held -= first.size
                yield partial(self._result, first, root=root, seconds=seconds, lost=lost)
        finally:
            for job in waiting:
                job.unwanted = True

    def close(self) -> None:
        """Ends the threads, once they have done what they are at."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _has_room(self, waiting: deque[_Job], size: int) -> bool:
        return not waiting or (len(waiting) < self._ahead and size <= self._ahead_bytes)

    def _result(self, job: _Job, *, root: str, seconds: float, lost: list[_Job]) -> bytes:
        limit = seconds + job.size / SLOWEST
        if job.ends_within(limit):
            return job.result()
        job.unwanted = job.lost = True
        lost.append(job)
        self._start()  # in place of the thread that does not come back
        if len(lost) < LOST_READS:
            raise OSError(errno.ETIMEDOUT, f"it was not read within {limit:.0f} seconds")
        raise SourceError(
            f"the source {root} does not answer: {len(lost)} files were not read in time, the last "
            f"one within {limit:.0f} seconds. See that its file system or store is up, and run "
            "again: what is finished is kept."
        )

    def _put(self, job: _Job) -> None:
        self._jobs.put(job)
        if self._started < self._threads:
            self._started += 1
            self._start()

    def _start(self) -> None:
        threading.Thread(target=self._work, name="read", daemon=True).start()

    def _work(self) -> None:
        while job := self._jobs.get():
            if not job.unwanted:
                job.run()
                if job.lost:  # another thread has taken the place of this one
                    return


def read_ahead(
    read: Read, rows: Sequence[Mapping[str, Any]], *, root: str
) -> Iterator[Callable[[], bytes]]:
    """Reads files of this machine one after the other, ahead of whoever asks; see `Readers`."""
    readers = Readers(1, ahead=READ_AHEAD, ahead_bytes=READ_AHEAD_BYTES)
    try:
        yield from readers.fetch(read, rows, root=root, seconds=READ_SECONDS)
    finally:
        readers.close()


class _Job:
    """A read that one thread does and another waits for."""

    def __init__(self, read: Read, row: Mapping[str, Any]) -> None:
        self.size: int = row["bytes"]
        self.unwanted = self.lost = False
        self._read, self._row = read, row
        self._begun: float | None = None
        self._content = b""
        self._error: BaseException | None = None
        self._under_way = threading.Lock()
        self._under_way.acquire()

    def run(self) -> None:
        self._begun = time.monotonic()
        try:
            self._content = self._read(self._row)
        except BaseException as error:  # it is raised where it is waited for
            self._error = error
        self._under_way.release()

    def ends_within(self, seconds: float) -> bool:
        """Waits for the end, until some seconds after the beginning."""
        asked = time.monotonic()
        while True:
            left = (self._begun or asked) + seconds - time.monotonic()
            if self._under_way.acquire(timeout=max(0, left)):
                self._under_way.release()
                return True
            if left <= 0:
                return False

    def result(self) -> bytes:
        if self._error:
            raise self._error
        return self._content


def watched(
    work: Callable[[], Result], *, progress: Callable[[], int], seconds: float, doing: str
) -> Result:
    """The result of some work, as long as it makes progress.

    Args:
        work: is done in a thread of its own.
        progress: a number that changes with everything that it finds.
        seconds: that it may find nothing for.
        doing: names the work and its place, for the error.

    Raises:
        SourceError: it has come to a halt. Its thread is left behind.
    """
    outcome: list[Result] = []
    errors: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # it is raised below
            errors.append(error)
        ended.set()

    threading.Thread(target=run, name="list", daemon=True).start()
    seen = -1
    while not ended.wait(seconds):
        if progress() == seen:
            raise SourceError(
                f"{doing} came to a halt: its file system has not answered for {seconds:.0f} "
                "seconds. See that it is up (a network drive, a mount), and run again."
            )
        seen = progress()
    if errors:
        raise errors[0]
    return outcome[0]
