"""Jobs as they are submitted to clusters, on a genuine YARN that things happen to."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyspark
import pytest

from fruits_assets.core.errors import SparkError
from fruits_assets.spark import code, sizing
from fruits_assets.spark.code import Code
from fruits_assets.spark.emr import SUBMIT
from fruits_assets.spark.prices import Prices
from fruits_assets.spark.sizing import Limits, Work
from fruits_assets.spark.submitted import SETTINGS, Job
from fruits_assets_tests import node
from fruits_assets_tests.emulator.node import PYTHON, SMALL_JVM
from fruits_assets_tests.emulator.spark_submit import classified
from fruits_assets_tests.waiting import eventually
from fruits_assets_tests.yarn.cluster import Machine, Yarn, running

pytestmark = [pytest.mark.slow, pytest.mark.yarn]

SECONDS = 240
"""Within which a job ends, well or not, whatever happens to its cluster."""
PROGRAM = """
import json, operator, os, sys, time
from pyspark.sql import SparkSession
from fruits_assets.core.errors import FruitsError
from fruits_assets.transforms.spread import Done, for_each, run_logged

out, count, seconds, megabytes = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
spark = SparkSession.builder.getOrCreate()
context = spark.sparkContext

def work(number):
    import os, time
    held = bytes([1]) * (megabytes * 10**6)
    time.sleep(seconds)
    open(f"{out}/done-{number}-{time.monotonic_ns()}", "w").close()
    return Done(1, [number, os.environ["CONTAINER_ID"]])

def wide(number):
    return number % 3, number

found = {"cores": context.defaultParallelism}
try:
    found["tasks"] = context.parallelize(range(count)).getNumPartitions()
    began = time.monotonic()
    done = for_each(spark, range(count), work, doing="sleeping", total=count, log=print)
    found["numbers"] = sorted(number for number, _ in done)
    found["seconds"] = time.monotonic() - began
    found["containers"] = len({container for _, container in done})
    shuffled = context.parallelize(range(24), 6).map(wide).reduceByKey(operator.add, 3).collect()
    found["shuffled"] = sorted(shuffled)
except FruitsError as error:
    found["error"] = str(error)
finally:
    with open(f"{out}/found.json", "w") as file:
        json.dump(found, file)
"""


@dataclass
class Submitted:
    """A job on its way.

    Attributes:
        process: the `spark-submit` that waits for its end.
        folder: where its tasks leave a file each, and its driver what it has found.
        began: when, by a clock that never goes back.
    """

    process: subprocess.Popen[str]
    folder: Path
    began: float = field(default_factory=time.monotonic)

    def tasks(self) -> int:
        """How many have ended so far."""
        return len(list(self.folder.glob("done-*")))

    def found(self) -> dict[str, Any]:
        """What its driver has found, once the job has ended."""
        printed, _ = self.process.communicate(timeout=SECONDS)
        file = self.folder / "found.json"
        assert file.exists(), printed[-3000:]
        return json.loads(file.read_text())


@dataclass(frozen=True)
class Cluster:
    """A YARN configured as a plan of this project configures EMR's.

    Attributes:
        yarn: with a core node and two task nodes.
        configurations: that its clusters are launched with.
        folder: for jobs.
        environment: the archive of packages.
    """

    yarn: Yarn
    configurations: list[dict[str, Any]]
    folder: Path
    environment: Path

    def submit(
        self, count: int, seconds: float, *, megabytes: int = 0, **settings: str
    ) -> Submitted:
        """Submits a job of so many tasks, each of which sleeps and holds some memory."""
        folder = self.folder / f"job-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        package, entry = (str(self.folder / name) for name in ("fruits.zip", "run.py"))
        shipped = Code(package, entry, str(self.environment))
        arguments = [str(folder), str(count), str(seconds), str(megabytes)]
        job = Job("test", shipped, arguments, SETTINGS, bool)
        given = {**classified(self.configurations, "spark-defaults"), **settings}
        given |= {
            "spark.yarn.stagingDir": (self.folder / "staging").as_uri(),
            "spark.yarn.jars": f"local:{pyspark.__path__[0]}/jars/*",
        }
        defaults = folder / "spark-defaults.conf"
        defaults.write_text("".join(f"{name} {value}\n" for name, value in given.items()))
        command = [*SUBMIT, "--properties-file", str(defaults), *job.options, shipped.entry]
        process = subprocess.Popen(
            [f"{pyspark.__path__[0]}/bin/{command[0]}", *command[1:], *arguments],
            env={
                **self.yarn.environment,
                "SPARK_HOME": pyspark.__path__[0],
                "HADOOP_CONF_DIR": str(self.yarn.conf),
                "SPARK_LOCAL_IP": self.yarn.primary,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return Submitted(process, folder)


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of three machines with an executor of two cores each, for several jobs."""
    with launched(tmp_path_factory) as cluster:
        yield cluster


@pytest.fixture
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The same for one test, which may break its machines."""
    with launched(tmp_path_factory) as cluster:
        yield cluster


@contextlib.contextmanager
def launched(factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster configured by a plan; the test is skipped where Hadoop cannot be fetched."""
    folder = factory.mktemp("cluster")
    plan = sizing.plan(
        Work(10**7, 50_000),
        Limits(max_cores=12, executor_cores=2),
        Prices.load(),
        "eu-west-3",
        node.architecture(),
    )
    configurations = sizing.configurations(plan)
    machines = [Machine("CORE"), Machine("TASK"), Machine("TASK")]
    yarn = Yarn(
        folder / "yarn",
        machines,
        _environment(folder),
        site=classified(configurations, "yarn-site"),
        scheduler=classified(configurations, "capacity-scheduler"),
    )
    jobs = folder / "jobs"
    jobs.mkdir()
    (jobs / "fruits.zip").write_bytes(code.packed())
    (jobs / "run.py").write_text(PROGRAM)
    archive = folder / "environment.tar.gz"
    tarfile.open(archive, "w:gz").close()
    try:
        with running(yarn):
            yield Cluster(yarn, configurations, jobs, archive)
    except SparkError as problem:
        pytest.skip(f"Hadoop cannot be fetched from here: {problem}")


def _environment(folder: Path) -> Mapping[str, str]:
    """Variables of the machines, whose Python has all packages, so that no job unpacks them.

    `test_emr_job.py` shows that jobs bring their packages along.
    """
    programs = folder / "bin"
    programs.mkdir()
    for name in ("python3", PYTHON.name):
        program = programs / name
        program.write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} "$@"\n')
        program.chmod(0o755)
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "JAVA_HOME") if name in os.environ}
    own = {"PYTHONNOUSERSITE": "1", "JAVA_TOOL_OPTIONS": SMALL_JVM}
    return {**kept, **own, "PATH": f"{programs}:{os.environ['PATH']}"}


def whole(found: Mapping[str, Any], count: int) -> bool:
    """Whether a job has done all of its tasks, and what comes after them."""
    shuffled = [[part, sum(range(part, 24, 3))] for part in range(3)]
    return found.get("numbers") == list(range(count)) and found["shuffled"] == shuffled


def executor(cluster: Cluster, machine: Machine) -> list[psutil.Process]:
    """The processes of executors on a machine, once a task runs there."""
    return eventually(
        lambda: (
            [one for one in cluster.yarn.containers(machine) if "pyspark.daemon" in _line(one)]
            and cluster.yarn.containers(machine)
        ),
        seconds=SECONDS,
    )


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_all_cores_of_a_plan_are_at_work(steady: Cluster) -> None:
    found = steady.submit(12, 1.0).found()
    assert whole(found, 12), found
    assert found["cores"] == 6
    assert found["containers"] == 3


def test_tasks_follow_the_number_of_executors(
    steady: Cluster, record_property: Callable[[str, object], None]
) -> None:
    small = {"spark.executor.memory": "512m", "spark.executor.memoryOverhead": "1g"}
    for executors in (1, 2, 4):
        wanted = {"instances": executors, "cores": 1}
        given = {f"spark.executor.{name}": str(value) for name, value in wanted.items()}
        job = steady.submit(
            16, 1.0, megabytes=0, **small, **given, **{"spark.default.parallelism": str(executors)}
        )
        found = job.found()
        assert whole(found, 16), found
        assert found["cores"] == found["tasks"] == found["containers"] == executors
        record_property(f"seconds at {executors}", found["seconds"])


def test_a_machine_that_is_lost_costs_its_tasks_and_no_others(fragile: Cluster) -> None:
    job = fragile.submit(30, 2.0)
    executor(fragile, fragile.yarn.machines[1])
    eventually(lambda: job.tasks() >= 6, seconds=SECONDS)
    fragile.yarn.switch_off(fragile.yarn.machines[1])
    found = job.found()
    assert whole(found, 30), found
    assert job.tasks() <= 30 + 2, "only what the machine was at is done again"


def test_a_machine_that_is_taken_out_of_the_cluster_is_done_without(fragile: Cluster) -> None:
    job = fragile.submit(30, 2.0)
    executor(fragile, fragile.yarn.machines[1])
    fragile.yarn.decommission(fragile.yarn.machines[1])
    found = job.found()
    assert whole(found, 30), found
    assert fragile.yarn.active() == 2


def test_an_executor_that_hangs_is_done_without(fragile: Cluster) -> None:
    job = fragile.submit(30, 2.0)
    stopped = executor(fragile, fragile.yarn.machines[1])
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    found = job.found()
    assert whole(found, 30), found


def test_an_executor_that_takes_too_much_memory_is_named_in_a_sentence(steady: Cluster) -> None:
    small = {"spark.executor.memory": "512m", "spark.executor.memoryOverhead": "512m"}
    found = steady.submit(3, 5.0, megabytes=1500, **small).found()
    assert "took more memory than it has" in found["error"]
    assert "FRUITS_EMR_EXECUTOR_CORES" in found["error"]


def test_a_driver_that_is_killed_ends_its_job_and_leaves_nothing(steady: Cluster) -> None:
    job = steady.submit(30, 2.0)
    eventually(lambda: job.tasks() >= 1, seconds=SECONDS)
    (driver,) = [
        one
        for machine in steady.yarn.machines
        for one in steady.yarn.containers(machine)
        if "ApplicationMaster" in _line(one) and one.name() == "java"
    ]
    driver.kill()
    printed, _ = job.process.communicate(timeout=SECONDS)
    assert job.process.returncode != 0
    assert "failed" in printed
    eventually(
        lambda: not [one for it in steady.yarn.machines for one in steady.yarn.containers(it)]
    )
