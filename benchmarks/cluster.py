"""A standalone Spark cluster on this machine: executors that are processes of their own."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyspark

from fruits_assets.spark.doors import ENVIRONMENT, PROTECTED, SECRET
from fruits_assets.spark.doors import LOOPBACK as HOST

DEPLOY = "org.apache.spark.deploy"


@dataclass(frozen=True)
class Cluster:
    """A running one.

    Attributes:
        master: its URL.
        pids: of its workers; each executor is a child of one of them.
        environment: of programs that use it. They read its secret where master and workers do, in
            a file that nobody else may read.
    """

    master: str
    pids: tuple[int, ...]
    environment: Mapping[str, str]


@contextlib.contextmanager
def standalone(workers: int, folder: Path) -> Iterator[Cluster]:
    """Starts a master and workers of one core each, and ends them.

    Args:
        workers: how many.
        folder: for what they write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    url = f"spark://{HOST}:{port}"
    environment = {**ENVIRONMENT, "SPARK_CONF_DIR": str(_settings(folder / "conf"))}
    master = [f"{DEPLOY}.master.Master", "--host", HOST, "--port", str(port)]
    worker = [f"{DEPLOY}.worker.Worker", "--cores", "1", "--memory", "1g", url]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_daemon(master, folder / "master.log", environment))
        processes = [
            stack.enter_context(_daemon(worker, folder / f"worker-{number}.log", environment))
            for number in range(workers)
        ]
        yield Cluster(url, tuple(process.pid for process in processes), environment)


def _settings(folder: Path) -> Path:
    """A folder of Spark's settings, with a new secret, for this user's eyes only."""
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / "spark-defaults.conf"
    file.touch(mode=0o600)
    settings = {**PROTECTED, SECRET: secrets.token_hex(32)}
    file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    return folder


@contextlib.contextmanager
def _daemon(
    command: list[str], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    spark_class = Path(pyspark.__file__).parent / "bin" / "spark-class"
    environment = {
        **os.environ,
        **environment,
        "SPARK_WORKER_DIR": str(log.with_suffix("")),
        "PYSPARK_PYTHON": sys.executable,
    }
    with log.open("w") as sink:
        process = subprocess.Popen(
            [str(spark_class), *command, "--webui-port", "0"],
            env=environment,
            stdout=sink,
            stderr=sink,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)
