"""Jobs for clusters that exist already: submitted, followed and ended."""

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import psutil
import pyspark
import pytest

from fruits_assets.core.errors import SparkError
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.resource import LakeResource
from fruits_assets.settings import Settings
from fruits_assets.spark import doors, yarn
from fruits_assets.spark.account import SparkMaster
from fruits_assets.spark.code import Code
from fruits_assets.spark.master import MasterSpark
from fruits_assets.spark.submitted import SETTINGS, Job, JobFailedError
from fruits_assets.spark.target import Call
from fruits_assets.transforms.ingest import ingest
from fruits_assets_tests import s3
from fruits_assets_tests.emulator.node import PYTHON, Node
from fruits_assets_tests.spark.conftest import CONFIG, User
from fruits_assets_tests.waiting import eventually
from fruits_assets_tests.yarn.cluster import Machine, Yarn, running

YARN, KUBERNETES, STANDALONE = "yarn", "k8s://https://192.0.2.1:6443", "spark://192.0.2.1:7077"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A Spark distribution whose programs only record how they were called."""
    programs = tmp_path / "spark" / "bin"
    programs.mkdir(parents=True)
    for name in ("spark-submit", "spark-class"):
        _program(programs / name, "")
    return tmp_path / "spark"


def _program(file: Path, then: str) -> None:
    lines = ["#!/bin/bash", f'printf "%s\\n" "$@" > {file}.called', f"echo $$ > {file}.pid", then]
    file.write_text("\n".join(lines))
    file.chmod(0o755)


def target(home: Path, master: str = "yarn", **options: Any) -> MasterSpark:
    cluster = SparkMaster(master=master, pipes="s3://b/pipes", home=str(home), **options)
    return MasterSpark(lake=LakeResource(base="unused"), cluster=cluster)


def submit(spark: MasterSpark, begun: Callable[[], bool] = bool) -> str:
    """Runs a job whose program does nothing."""
    code = Code("/code/fruits.zip", "/code/run.py", "/code/environment.tar.gz")
    call = Call(dg.build_asset_context(), ingest, {}, {})
    return spark.run_job(call, Job("ingest", code, ["--region", s3.REGION], SETTINGS, begun))


def called(home: Path, program: str = "spark-submit") -> list[str]:
    return (home / "bin" / f"{program}.called").read_text().splitlines()


def settings(arguments: list[str]) -> dict[str, str]:
    """The settings that a command names, where the last one counts."""
    named = [arguments[i + 1] for i, name in enumerate(arguments) if name == "--conf"]
    return dict(one.split("=", 1) for one in named)


@pytest.mark.parametrize(
    ("master", "mode"), [(YARN, "cluster"), (KUBERNETES, "cluster"), (STANDALONE, "client")]
)
def test_a_job_asks_for_static_executors(home: Path, master: str, mode: str) -> None:
    submit(target(home, master, executors=3, executor_cores=2, python="/opt/python"))
    arguments = called(home)
    assert arguments[:4] == ["--master", master, "--deploy-mode", mode]
    assert arguments[-3:] == ["/code/run.py", "--region", s3.REGION]
    assert arguments[arguments.index("--archives") + 1] == "/code/environment.tar.gz#environment"
    found = settings(arguments)
    assert found["spark.dynamicAllocation.enabled"] == "false"
    assert found["spark.executor.instances"] == "3"
    assert found["spark.executor.cores"] == "2"
    assert found["spark.cores.max"] == found["spark.default.parallelism"] == "6"
    assert found["spark.pyspark.python"] == "/opt/python"
    driver = sys.executable if mode == "client" else "/opt/python"
    assert found["spark.pyspark.driver.python"] == driver
    assert found["spark.yarn.appMasterEnv.PYTHONPATH"] == "environment"
    assert found["spark.authenticate"] == "true"


def test_a_failed_job_shows_what_it_printed(home: Path) -> None:
    _program(home / "bin" / "spark-submit", "echo application_17_0001: no such queue; exit 1")
    with pytest.raises(
        JobFailedError, match=r"ingest on yarn failed .*-applicationId application_17_0001"
    ) as failure:
        submit(target(home))
    assert "no such queue" in failure.value.printed()


def test_a_job_whose_driver_never_begins_is_ended(home: Path) -> None:
    _program(home / "bin" / "spark-submit", "echo application_17_0001; exec sleep 600")
    with pytest.raises(SparkError, match=r"has not begun within 0.001 minutes"):
        submit(target(home, begin_minutes=0.001))
    assert not _alive(home)
    assert called(home, "spark-class")[-3:] == ["application", "-kill", "application_17_0001"]


def test_a_job_that_takes_too_long_is_ended(home: Path) -> None:
    _program(home / "bin" / "spark-submit", "exec sleep 600")
    with pytest.raises(SparkError, match=r"has not ended within 0.001 minutes"):
        submit(target(home, begin_minutes=0.001, job_minutes=0.001), lambda: True)
    assert not _alive(home)


def test_an_interrupted_job_is_ended(home: Path) -> None:
    _program(home / "bin" / "spark-submit", "exec sleep 600")

    def interrupted() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit(target(home, begin_minutes=1e-6), interrupted)
    assert not _alive(home)


def _alive(home: Path) -> bool:
    return psutil.pid_exists(int((home / "bin" / "spark-submit.pid").read_text()))


def test_a_missing_spark_distribution_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SparkError, match=r"cannot be started .* FRUITS_SPARK_HOME names"):
        submit(target(tmp_path))


@pytest.mark.parametrize("master", [None, "local[2]", "mesos://192.0.2.1"])
def test_a_master_that_is_no_cluster_is_refused(
    master: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRUITS_SPARK_PIPES", "s3://b/pipes")
    if master:
        monkeypatch.setenv("FRUITS_SPARK_MASTER", master)
    with pytest.raises(SparkError, match=r"for FRUITS_SPARK=spark: FRUITS_SPARK_MASTER"):
        Settings(spark="spark").master()


def _features(user: User, finished: Any) -> None:
    """Computes features on a cluster, and compares them with those of this machine."""
    result, text = user.run(
        "raw_images", "rejected_images", "model_weights", "features", meanwhile=None, **CONFIG
    )
    assert result.success, text
    there, here = (
        lake.current("features").arrow(["path", "features"]).combine_chunks().sort_by("path")
        for lake in (Lake.at(user.lake, region=s3.REGION), finished[0].lake)
    )
    assert there["path"].equals(here["path"])
    found, expected = (np.stack(one["features"].to_numpy()) for one in (there, here))
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


def _user(user: User, **variables: str) -> User:
    """Somebody who has a cluster instead of EMR's."""
    given = {f"FRUITS_SPARK_{name}": value for name, value in variables.items()}
    changed = {"FRUITS_SPARK": "spark", "FRUITS_SPARK_PIPES": user.pipes, **given}
    return User(user.emr, user.bucket, user.logs, user.home, user.lake, user.pipes, changed)


def _machine(user: User, folder: Path) -> Node:
    """A machine with a Python elsewhere and credentials, and nothing else."""
    machine = Node(folder, user.emr.endpoint, s3.REGION)
    machine.set_up()
    return machine


@pytest.mark.slow
def test_a_standalone_cluster_makes_the_features_of_this_machine(
    user: User, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    defaults = conf / "spark-defaults.conf"
    defaults.touch(0o600)
    defaults.write_text(f"{doors.SECRET} {secrets.token_hex(32)}\n")
    for name, value in {"SPARK_CONF_DIR": str(conf), **user.emr.environment}.items():
        monkeypatch.setenv(name, value)
    with _standalone(_machine(user, tmp_path / "machine"), conf, tmp_path / "logs") as master:
        cluster = {"MASTER": master, "EXECUTORS": "2", "EXECUTOR_CORES": "1"}
        python = str(tmp_path / "machine" / "bin" / PYTHON.name)
        own = _user(user, **cluster, PYTHON=python, EXECUTOR_MEMORY="512m")
        _features(own, finished)
        workers = tmp_path / "machine" / "work"
        assert len({folder.name for folder in workers.glob("app-*/*")}) == 2, "two executors"


@contextlib.contextmanager
def _standalone(machine: Node, conf: Path, logs: Path) -> Iterator[str]:
    """A master and two workers of Spark's own, whose executors know no package."""
    logs.mkdir()
    port = s3.free_port()
    master = f"spark://127.0.0.1:{port}"
    environment = {
        **machine.environment,
        "SPARK_HOME": pyspark.__path__[0],
        "SPARK_CONF_DIR": str(conf),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_WORKER_DIR": str(machine.folder / "work"),
    }
    options = ["--host", "127.0.0.1", "--webui-port", "0"]
    protected = [f"-D{name}={value}" for name, value in doors.PROTECTED.items()]
    worker = ["Worker", "--cores", "1", "--memory", "2g", *options, master]
    programs = [["Master", "--port", str(port), *options], worker, worker]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number, (name, *arguments) in enumerate(programs):
            log = (logs / f"{number}.log").open("wb")
            started.append(
                subprocess.Popen(
                    [
                        f"{pyspark.__path__[0]}/bin/spark-class",
                        f"org.apache.spark.deploy.{name.lower()}.{name}",
                        *arguments,
                    ],
                    env={**environment, "SPARK_DAEMON_JAVA_OPTS": " ".join(protected)},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
            log.close()
        registered = logs / "0.log"
        eventually(lambda: registered.read_text().count("Registering worker") == 2, seconds=120)
        yield master
    finally:
        for process in started:
            os.killpg(process.pid, 9)
            process.wait()


@pytest.mark.slow
@pytest.mark.yarn
def test_a_yarn_of_others_makes_the_features_of_this_machine(
    user: User, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = _machine(user, tmp_path / "machine")
    yarn = Yarn(tmp_path / "yarn", [Machine(), Machine()], machine.environment)
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "spark-defaults.conf").write_text(
        f"spark.yarn.jars local:{pyspark.__path__[0]}/jars/*\n"
        f"spark.yarn.stagingDir {(tmp_path / 'staging').as_uri()}\n"
    )
    with running(yarn):
        environment = {"SPARK_CONF_DIR": str(conf), "HADOOP_CONF_DIR": str(yarn.conf)}
        environment |= {"SPARK_LOCAL_IP": yarn.primary, **user.emr.environment}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        memory = {"EXECUTOR_MEMORY": "1g", "WORKER_MEMORY": "2g"}
        own = _user(user, MASTER="yarn", EXECUTORS="2", EXECUTOR_CORES="2", **memory)
        _features(own, finished)
        states = [one["finalStatus"] for one in yarn.applications()]
        assert states == ["SUCCEEDED"] * len(states)
        assert not [one for it in yarn.machines for one in yarn.containers(it)]


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ("executor memory (10240 MB), offHeap memory (0) MB, overhead (8192 MB)", "an executor"),
        ("AM memory (1024+1024 MB)", "the driver"),
    ],
)
def test_no_room_is_one_sentence_that_says_for_what(asked: str, what: str) -> None:
    text = f"IllegalArgumentException: Required {asked} is above the max threshold (4096 MB) of it"
    found = yarn.no_room(f"at one.place\n{text}\nat another.place")
    assert found is not None
    assert found.startswith(f"no machine of the cluster has room for {what}")
    assert "the largest container is 4096 MB" in found
    assert "\n" not in found
    assert yarn.no_room("Application application_1_0001 finished with failed status") is None
