"""A standalone Spark cluster on this machine: executors that are processes of their own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyspark

HOST = "127.0.0.1"
DEPLOY = "org.apache.spark.deploy"


@dataclass(frozen=True)
class Cluster:
    """A running one.

    Attributes:
        master: its URL.
        pids: of its workers; each executor is a child of one of them.
    """

    master: str
    pids: tuple[int, ...]


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
    master = [f"{DEPLOY}.master.Master", "--host", HOST, "--port", str(port)]
    worker = [f"{DEPLOY}.worker.Worker", "--cores", "1", "--memory", "1g", url]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_daemon(master, folder / "master.log"))
        processes = [
            stack.enter_context(_daemon(worker, folder / f"worker-{number}.log"))
            for number in range(workers)
        ]
        yield Cluster(url, tuple(process.pid for process in processes))


@contextlib.contextmanager
def _daemon(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    spark_class = Path(pyspark.__file__).parent / "bin" / "spark-class"
    environment = {
        **os.environ,
        "SPARK_LOCAL_IP": HOST,
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
