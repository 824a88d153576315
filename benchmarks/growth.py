"""`python -m benchmarks.growth`: what grows with the number of photos, and how fast.

Tiny distinct photos and the smallest network go through the real job: first all of them, then one
in a thousand more, then nothing new, then the erasure of one. Each size runs in a process of its
own, whose memory and reads are sampled from outside, stage by stage.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from PIL import Image

from benchmarks.background import Background
from benchmarks.memory import kind_of

CLASSES = 200
MORE = 1000
"""One in so many photos is new in the second run."""
MAX_DRIVER_BYTES = 200
"""Memory that the process that drives the run takes for each photo more, at most."""
MAX_CLOSURE_BYTES = 100_000
"""Size of the pickled function that Spark sends with each task, at most."""
MAX_READ_BYTES = 2_000_000
"""Read by workers for each new photo, beside the sample of recognition, which is bounded."""
MAX_FILES = 50
"""Files of the lake that the driver opens in a run with few new photos, at most."""
REPORT = "growth.json"


@dataclass
class Stage:
    """Time, memory and reads of one step of one run.

    Attributes:
        run: what was new.
        name: of the Dagster step; `run` for all of them.
        seconds: wall clock.
        driver: largest resident set of the process that drives the run, bytes.
        jvm: the same of Spark's JVM.
        workers: largest sum of the resident sets of all other processes.
        read: bytes that the other processes, Spark's workers among them, read from files and pipes.
    """

    run: str
    name: str
    seconds: float
    driver: int = 0
    jvm: int = 0
    workers: int = 0
    read: int = 0


@dataclass
class Size:
    """All runs with one number of photos.

    Attributes:
        photos: how many, at first.
        stages: of all runs.
        closure: largest pickled function of a Spark task, bytes.
        opened: files of the lake that the driver opened, by run.
        parts: of all tables of the lake in the end.
    """

    photos: int
    stages: list[Stage] = field(default_factory=list)
    closure: int = 0
    opened: dict[str, int] = field(default_factory=dict)
    parts: int = 0

    def whole(self, run: str) -> Stage:
        """A run as a whole."""
        return next(one for one in self.stages if (one.run, one.name) == (run, "run"))

    def driver(self, *, erasure: bool) -> int:
        """Largest resident set of the driver, of an erasure or of all other runs, bytes."""
        return max(one.driver for one in self.stages if (one.run == "erasure") == erasure)


def main() -> int:
    """Measures, prints tables and returns 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--photos", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--output", type=Path, default=Path("artifacts/growth"))
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _run_inside(options.inside, options.photos[0])
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    sizes: list[Size] = []
    for count in sorted(options.photos):
        with tempfile.TemporaryDirectory(prefix="fruits-growth-") as work:
            sizes.append(_measured(Path(work), count))
        _print(sizes[-1])
        (options.output / REPORT).write_text(json.dumps([asdict(it) for it in sizes], indent=2))
    return verdict(sizes)


def drawn(folder: Path, numbers: range) -> None:
    """Writes photos of 32 x 32 pixels, each with another content, in folders of classes."""
    for number in numbers:
        split = "Test" if number % 5 == 0 else "Training"
        path = folder / split / f"class {number % CLASSES:03d}" / f"{number:09d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = (37 * number % 256, 91 * number % 256, 11 * number % 256)
        picture = Image.new("RGB", (32, 32), colour)
        for byte in range(4):
            picture.putpixel((byte, byte), (number >> (8 * byte) & 255, byte, 7))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())


def _run_inside(work: Path, count: int) -> None:
    """All runs with one number of photos, in this process; writes what only it can know."""
    from benchmarks.increments import Job  # noqa: PLC0415 - imports what the parent needs not

    source, found = work / "photos", Size(count)
    with _counted(found):
        job = Job.started(work, source, "sample")
        marks: list[Mapping[str, Any]] = []
        for run in ("all", "more", "nothing", "erasure"):
            if run == "more":
                drawn(source, range(count, count + max(1, count // MORE)))
            before, began = found.opened.get("now", 0), time.time()
            if run == "erasure":
                _erase_one(job.lake, source)
                steps = []
            else:
                job.run(run, count)
                steps = _steps(job.home)
            marks.append({"run": run, "began": began, "ended": time.time(), "steps": steps})
            found.opened[run] = found.opened.get("now", 0) - before
    found.opened.pop("now", None)
    found.parts = sum(1 for _ in Path(job.lake).rglob("part-*.parquet"))
    (work / "inside.json").write_text(json.dumps({**asdict(found), "marks": marks}))


@contextmanager
def _counted(found: Size) -> Iterator[None]:
    """Counts files that are opened, and sees how large the functions are that tasks are sent."""
    from pyspark.serializers import CPickleSerializer  # noqa: PLC0415 - see `_run_inside`
    from pyspark.sql.classic.dataframe import DataFrame  # noqa: PLC0415

    from fruits_assets.storage.base import Folder  # noqa: PLC0415

    mapped, read, opened = DataFrame.mapInArrow, Folder.read, Folder.open

    def map_in_arrow(self: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        found.closure = max(found.closure, len(CPickleSerializer().dumps(function)))
        return mapped(self, function, *args, **kwargs)

    def count(function: Any) -> Any:
        def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
            found.opened["now"] = found.opened.get("now", 0) + 1
            return function(self, *args, **kwargs)

        return counting

    with (
        mock.patch.object(DataFrame, "mapInArrow", map_in_arrow),
        mock.patch.object(Folder, "read", count(read)),
        mock.patch.object(Folder, "open", count(opened)),
    ):
        yield


def _steps(home: Path) -> list[tuple[str, float, float]]:
    """Name, begin and end of each step of the last run."""
    import dagster as dg  # noqa: PLC0415 - see `_run_inside`

    with dg.DagsterInstance.from_config(str(home)) as instance:
        (record,) = instance.get_run_records(limit=1)
        return [
            (step.step_key, step.start_time, step.end_time)
            for step in instance.get_run_step_stats(record.dagster_run.run_id)
            if step.start_time and step.end_time
        ]


def _erase_one(lake: str, source: Path) -> None:
    from fruits_assets.definitions import compose  # noqa: PLC0415 - see `_run_inside`
    from fruits_assets.erasure.job import gdpr_erasure  # noqa: PLC0415
    from fruits_assets.settings import Settings  # noqa: PLC0415

    path = min(source.rglob("*.png")).relative_to(source).as_posix()
    resources = compose(Settings(source=str(source), lake=lake, weights="sample")).resources or {}
    config = {
        "loggers": {"console": {"config": {"log_level": "WARNING"}}},
        "ops": {"erase": {"config": {"paths": [path]}}},
    }
    given = {name: resources[name] for name in ("spark", "source")}
    gdpr_erasure.execute_in_process(resources=given, run_config=config)


class _Samples(Background):
    """Samples memory and reads of a process and its descendants.

    Attributes:
        seen: time, resident sets of driver, JVM and all others, bytes that the others have read.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(every_seconds=0.2)
        self._root = psutil.Process(pid)
        self._read: dict[int, int] = {}
        self.seen: list[tuple[float, tuple[int, int, int, int]]] = []

    def look(self) -> None:
        """Takes one sample."""
        sizes = {"driver": 0, "jvm": 0, "worker": 0}
        try:
            family = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:  # it has ended
            return
        for process in family:
            try:
                kind = kind_of(process, self._root.pid)
                sizes[kind] += process.memory_info().rss
                if kind == "worker":  # others read their own programs, and hardly any rows
                    counters: Any = process.io_counters()
                    self._read[process.pid] = counters.read_chars
            except psutil.Error:  # it ended meanwhile
                continue
        total = sum(self._read.values())
        row = (sizes["driver"], sizes["jvm"], sizes["worker"], total)
        self.seen.append((time.time(), row))

    def between(self, run: str, name: str, began: float, ended: float) -> Stage:
        """Peaks and reads of a span of time."""
        rows = [row for at, row in self.seen if began <= at <= ended] or [(0, 0, 0, 0)]
        driver, jvm, workers = (max(row[i] for row in rows) for i in range(3))
        read = rows[-1][3] - rows[0][3]
        return Stage(run, name, round(ended - began, 2), driver, jvm, workers, read)


def _measured(work: Path, count: int) -> Size:
    drawn(work / "photos", range(count))
    command = [sys.executable, "-m", "benchmarks.growth", "--photos", str(count)]
    with (
        subprocess.Popen(
            [*command, "--inside", str(work)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process,
        _Samples(process.pid) as samples,
    ):
        _, error = process.communicate()
    if process.returncode:
        sys.exit(error.decode()[-4000:])
    inside = json.loads((work / "inside.json").read_text())
    marks = inside.pop("marks")
    size = Size(**inside)
    for mark in marks:
        size.stages.append(samples.between(mark["run"], "run", mark["began"], mark["ended"]))
        size.stages += [samples.between(mark["run"], *step) for step in mark["steps"]]
    return size


def _print(size: Size) -> None:
    print(f"{size.photos:,} photos, {size.parts} parts, functions of {size.closure:,} bytes")
    print(f"{'run':<9}{'step':<34}{'s':>8}{'driver':>8}{'JVM':>6}{'others':>8}{'read MB':>9}")
    for one in size.stages:
        print(
            f"{one.run:<9}{one.name[:33]:<34}{one.seconds:>8.1f}{one.driver / 1e6:>8.0f}"
            f"{one.jvm / 1e6:>6.0f}{one.workers / 1e6:>8.0f}{one.read / 1e6:>9.1f}"
        )
    print(f"files of the lake that the driver opened: {size.opened}", flush=True)


def verdict(sizes: Sequence[Size]) -> int:
    """Prints exponents and bounds; 1 where a bound does not hold."""
    small, large = sizes[0], sizes[-1]
    new = max(1, large.photos // MORE)
    news = sum(
        one.read
        for one in large.stages
        if one.run == "more" and one.name != "run" and "recognition" not in one.name
    )
    bounds = {
        "closure bytes per task": (large.closure, MAX_CLOSURE_BYTES),
        "bytes read per new photo": (news / new, MAX_READ_BYTES),
        "files opened by the driver for few new photos": (large.opened["more"], MAX_FILES),
    }
    if large is not small:
        more = large.photos - small.photos
        for name, erasure in (("runs", False), ("erasure", True)):
            grown = large.driver(erasure=erasure) - small.driver(erasure=erasure)
            bounds[f"driver bytes per photo, {name}"] = (grown / more, MAX_DRIVER_BYTES)
        for run in ("all", "more", "nothing", "erasure"):
            ratio = large.whole(run).seconds / small.whole(run).seconds
            exponent = math.log(ratio) / math.log(large.photos / small.photos)
            print(f"{run}: {ratio:.1f} times the time, exponent {exponent:.2f}")
    for name, (value, most) in bounds.items():
        print(f"{name}: {value:,.0f} (at most {most:,})")
    return 1 if any(value > most for value, most in bounds.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
