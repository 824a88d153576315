"""Sessions of processes: whatever a program starts stays in its session, whatever its group.

Spark's Python daemons leave the process group that they are started in, but not its session.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

KILL_SECONDS = 10


class Sessions:
    """The sessions that this process has started: none of them outlives it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: set[int] = set()
        self._closed = False

    def start(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Starts a program as a session of its own, in `folder/work`.

        Its standard output and error go to `folder/stdout` and `folder/stderr`.
        """
        work = folder / "work"
        work.mkdir(parents=True, exist_ok=True)
        with (
            (folder / "stdout").open("wb") as out,
            (folder / "stderr").open("wb") as err,
            self._lock,
        ):
            if self._closed:
                raise InterruptedError("the emulator ends")
            process = subprocess.Popen(
                command,
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            self._started.add(process.pid)
        return process

    def end(self, session: int) -> None:
        """Kills what is left of a session."""
        kill(session)
        with self._lock:
            self._started.discard(session)

    def close(self) -> None:
        """Kills them all, and starts no more."""
        with self._lock:
            self._closed = True
            started = list(self._started)
        for session in started:
            kill(session)


SESSIONS = Sessions()


def members(session: int) -> list[psutil.Process]:
    """The processes of a session that are alive."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            process = psutil.Process(pid)
            if os.getsid(pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def send(session: int, number: signal.Signals) -> None:
    """Signals all processes of a session, and wakes those that are stopped."""
    for process in members(session):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)


def kill(session: int) -> None:
    """Kills all processes of a session; those that they start meanwhile too."""
    deadline = time.monotonic() + KILL_SECONDS
    while found := members(session):
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # Not waited for: who started them waits, and only one can have an exit code.
        time.sleep(0.01)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{found} cannot be killed")
