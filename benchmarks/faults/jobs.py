"""The job as a person runs it: a process of its own, what it said and how it ended."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from fruits_assets.lake.lake import Lake
from fruits_assets.storage.parquet import PART_NAME

REPOSITORY = Path(__file__).parents[2]
DAGSTER = Path(sys.executable).with_name("dagster")
AMBIENT = ("AWS_", "DAGSTER_", "FRUITS_", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
"""Variables of whoever runs this that no run may see."""
QUIET = (
    "telemetry: {enabled: false}\nnux: {enabled: false}\npython_logs: {python_log_level: INFO}\n"
)
REFIT = {"pca_model": {"refit": "always"}}
"""By default, a PCA that still fits stays: it is not the one that a first run would make."""
HUNG_SECONDS = 1800
GONE_SECONDS = 30
"""A process that outlives its run by so long has been left behind."""
POLL_SECONDS = 0.01
AT_WORK = frozenset({psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP})
PARTED = ("raw_images", "rejected_images", "features", "pca_features")
"""Tables with a row per photo: what they are made of is what a run computes."""
DECODER_MODULE = "fruits_assets.core.decoder"
DRIVER, JVM, WORKER, DECODER = VICTIMS = ("driver", "jvm", "worker", "decoder")
"""Processes of a run; the two last ones only while they are at work: nobody misses idle ones."""

FOR_PEOPLE = re.compile(r"^dagster\._core\.definitions\.events\.Failure: (.+)$", re.MULTILINE)
FOR_NOBODY = re.compile(
    r"The above exception was caused by the following exception:\n(\S+?: .*)$", re.MULTILINE
)
INTERRUPTED = re.compile(
    r"^(?:.*RUN_FAILURE - .*?)?(Execution was interrupted.*|Interrupted: .*)$", re.MULTILINE
)
UNTOLD = re.compile(r"STEP_FAILURE.*\n\n(\S.*)$", re.MULTILINE)

Stamp = tuple[Any, ...]
"""Of a file: another one whenever it is written."""


def is_part(uri: str) -> bool:
    """Whether a file is a finished part of one of `PARTED`."""
    folder, _, name = uri.rpartition("/")
    return folder.rpartition("/")[2] in PARTED and PART_NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Told:
    """What a failed run says.

    Attributes:
        text: its first sentence.
        clear: whether that is meant for people, and not the text of some exception.
    """

    text: str
    clear: bool


def told(output: str) -> Told | None:
    """The first thing that somebody who looks for the reason in an output finds."""
    if found := FOR_PEOPLE.search(output) or INTERRUPTED.search(output):
        return Told(found[1], clear=True)
    found = FOR_NOBODY.search(output) or UNTOLD.search(output)
    return Told(found[1], clear=False) if found else None


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        status: 0 if well; negative if by a signal.
        seconds: that it took, wall clock.
        said: why it failed; None where it did not, or was killed before it could say so.
    """

    status: int
    seconds: float
    said: Told | None = None

    @property
    def well(self) -> bool:
        """Whether all is done."""
        return self.status == 0


@dataclass(frozen=True)
class Site:
    """What a person has: a source, a lake, a Dagster home.

    Attributes:
        folder: holds everything but the source.
        source: folder of photos, or `s3://bucket/prefix`.
        environment: further variables of every run.
        prefix: of the command.
        config: of every run, by op.
    """

    folder: Path
    source: str
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """Where the lake lies."""
        return str(self.folder / "lake")

    def lake(self) -> Lake:
        """The lake, as this process reads it."""
        return Lake.at(self.base)

    def parts(self) -> Mapping[str, Stamp]:
        """URI -> stamp of every finished part of `PARTED` in the lake, published or not."""
        found = {}
        for path in (path for table in PARTED for path in Path(self.base, table).glob("*")):
            if is_part(str(path)):
                with contextlib.suppress(OSError):  # pruned meanwhile
                    status = path.stat()
                    found[str(path)] = (status.st_ino, status.st_mtime_ns)
        return found

    def variables(self) -> dict[str, str]:
        """The environment of a run."""
        own = {name: it for name, it in os.environ.items() if not name.startswith(AMBIENT)}
        return {
            **own,
            "DAGSTER_HOME": str(self.folder / "home"),
            "FRUITS_SOURCE": self.source,
            "FRUITS_LAKE": self.base,
            "FRUITS_WEIGHTS": "sample",
            "FRUITS_SPARK": "local",
            "PYTHONPATH": str(REPOSITORY),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **self.environment,
        }


class Job:
    """A run under way.

    Attributes:
        started: when, on the monotonic clock.
        log: file of all that it says.
    """

    def __init__(self, site: Site, log: Path) -> None:
        self.log = log
        self._command = [*site.prefix, sys.executable, str(DAGSTER), "job", "execute"]
        self._command += ["-m", "fruits_assets.definitions", "-j", "fruits_job"]
        if site.config:
            path = log.with_suffix(".yaml")
            ops = {name: {"config": dict(it)} for name, it in site.config.items()}
            path.write_text(yaml.safe_dump({"ops": ops}))
            self._command += ["-c", str(path)]
        home = site.folder / "home"
        home.mkdir(exist_ok=True)
        (home / "dagster.yaml").write_text(QUIET)
        self.started = time.monotonic()
        with log.open("w") as sink:
            # A session of its own: whoever belongs to this run is known by it, whatever becomes
            # of its parent.
            self._process = subprocess.Popen(
                self._command,
                cwd=site.folder,
                env=site.variables(),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def passed(self, seconds: float) -> bool:
        """Waits until so long after the start; whether the run is still at work then."""
        while self.running and time.monotonic() < self.started + seconds:
            time.sleep(POLL_SECONDS)
        return self.running

    def until(self, happened: Callable[[], object]) -> bool:
        """Waits for something; whether it happened while the run was at work."""
        while self.running:
            if happened():
                return True
            time.sleep(POLL_SECONDS)
        return False

    def processes(self) -> list[psutil.Process]:
        """All processes of the run that live, children of dead ones too."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def victims(self, kind: str) -> list[psutil.Process]:
        """Those of `VICTIMS` that live."""
        return [process for process in self.processes() if self._kind(process) == kind]

    def kinds(self) -> set[str]:
        """Of `VICTIMS`, those of which any lives."""
        return {kind for process in self.processes() if (kind := self._kind(process))}

    def wait(self) -> Ended:
        """How it ended; one that hangs is killed."""
        hung = False
        try:
            status = self._process.wait(timeout=HUNG_SECONDS)
        except subprocess.TimeoutExpired:
            hung = True
            self._process.kill()
            status = self._process.wait()
        seconds = time.monotonic() - self.started
        if hung:
            return Ended(
                status, seconds, Told(f"nothing: it hung for {HUNG_SECONDS} s", clear=False)
            )
        return Ended(status, seconds, told(self.log.read_text()) if status else None)

    def signal(self, number: int, *, everybody: bool) -> None:
        """Sends a signal to all processes of the run's group, or to its first one only."""
        with contextlib.suppress(ProcessLookupError):  # it ended in this very moment
            (os.killpg if everybody else os.kill)(self._process.pid, number)

    def abort(self) -> None:
        """Ends all processes of the run."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait()

    def _owns(self, process: psutil.Process) -> bool:
        with contextlib.suppress(OSError, psutil.Error):
            own = os.getsid(process.pid) == self._process.pid
            return own and process.status() != psutil.STATUS_ZOMBIE
        return False

    def _kind(self, process: psutil.Process) -> str:
        with contextlib.suppress(psutil.Error):
            if process.pid == self._process.pid:
                return DRIVER
            if process.name() == "java":
                return JVM
            if process.status() in AT_WORK:
                return _kind_of_worker(process)
        return ""


def _kind_of_worker(process: psutil.Process) -> str:
    if DECODER_MODULE in process.cmdline():
        return DECODER
    parent = process.parent()  # the daemon, whose children work
    return WORKER if parent and _is_daemon(process) and _is_daemon(parent) else ""


def _is_daemon(process: psutil.Process) -> bool:
    return "pyspark.daemon" in process.cmdline()


class Leftovers:
    """Looks whether the processes of a run end with it.

    Attributes:
        seconds: that the last of them outlived the run.
        orphans: those that had to be killed: what they were, and the CPU time that they took.
    """

    def __init__(self, job: Job) -> None:
        self.seconds = 0.0
        self.orphans: list[str] = []
        self._ended = time.monotonic()
        self._left = [(process, _cpu_seconds(process)) for process in job.processes()]
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Waits until there are none."""
        self._thread.join()

    def _watch(self) -> None:
        _, alive = psutil.wait_procs([process for process, _ in self._left], timeout=GONE_SECONDS)
        self.seconds = time.monotonic() - self._ended
        for process, before in self._left:
            if process in alive:
                with contextlib.suppress(psutil.Error):
                    spent = _cpu_seconds(process) - before
                    self.orphans.append(f"{process.name()} ({spent:.1f} s of CPU time)")
                    process.kill()


def _cpu_seconds(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return times.user + times.system
    return 0.0


@contextlib.contextmanager
def started(job: Job) -> Iterator[Job]:
    """Ends what is left of a run where this program is interrupted."""
    try:
        yield job
    except BaseException:
        job.abort()
        raise
