"""Spark on any cluster that `spark-submit --master` reaches: YARN, Kubernetes or standalone.

The cluster is somebody else's: nothing of it is started or ended here but the jobs themselves. On
YARN and Kubernetes the driver runs on the cluster; a standalone cluster starts no drivers of
Python, so that there it runs on this machine. Code and environment are files of this machine that
Spark itself carries to the executors: the cluster needs a Python and no packages.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Literal

import dagster as dg
import pyspark

from fruits_assets.core.errors import SparkError, without_secrets
from fruits_assets.spark import doors, interrupts, private, workers, yarn
from fruits_assets.spark.account import SparkMaster
from fruits_assets.spark.code import Code, ship
from fruits_assets.spark.submitted import Job, JobFailedError, SubmittedSpark
from fruits_assets.spark.target import Call

END_SECONDS = 15.0
"""Seconds that `spark-submit` has to end in once it is asked to."""
POLL_SECONDS = 1.0
LAST_CHARACTERS = 4000


class MasterSpark(SubmittedSpark):
    """Runs every transform as a job of a cluster that exists already."""

    cluster: SparkMaster

    @property
    def uri(self) -> str:  # noqa: D102 - see Place
        return self.cluster.pipes

    @property
    def begin_minutes(self) -> float:  # noqa: D102 - see SubmittedSpark
        return self.cluster.begin_minutes

    @property
    def deadline_minutes(self) -> float:  # noqa: D102 - see SubmittedSpark
        return self.cluster.job_minutes

    def definitions(self) -> dg.Definitions:  # noqa: D102 - see SparkTarget
        return dg.Definitions(executor=interrupts.in_process)

    def ship(self, log: Callable[[str], None]) -> Code:  # noqa: D102 - see SubmittedSpark
        folder = Path.home() / ".cache" / "fruits" / "code"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ship(self.folder(str(folder)), self.cluster.architecture, log=log)

    def run_job(self, call: Call, job: Job) -> str:  # noqa: D102 - see SubmittedSpark
        with tempfile.TemporaryFile(dir=private.folder()) as printed:
            process = self._submit(job, printed)
            call.context.log.info("%s: submitted to %s", job.name, self.cluster.master)
            try:
                self._wait(process, job)
            except BaseException:  # nobody waits for it any more
                self._end(process, _text(printed))
                raise
            said = _text(printed)
        if process.returncode:
            text = f"the job {job.name} on {self.cluster.master} failed{yarn.logs(said)}"
            raise JobFailedError(text, job.name, lambda: without_secrets(said[-LAST_CHARACTERS:]))
        return f"the job {job.name}"

    @property
    def _deploy_mode(self) -> Literal["client", "cluster"]:
        """Where drivers run: on this machine, or on the cluster."""
        return "client" if self.cluster.master.startswith("spark://") else "cluster"

    def _settings(self) -> dict[str, str]:
        """Settings of Spark: static executors, and the interpreters."""
        cores = self.cluster.executors * self.cluster.executor_cores
        here = self._deploy_mode == "client"
        return {
            "spark.pyspark.python": self.cluster.python,
            "spark.pyspark.driver.python": sys.executable if here else self.cluster.python,
            "spark.executor.instances": str(self.cluster.executors),
            "spark.executor.cores": str(self.cluster.executor_cores),
            "spark.cores.max": str(cores),
            "spark.default.parallelism": str(cores),
            "spark.executor.memory": self.cluster.executor_memory,
            "spark.executor.memoryOverhead": self.cluster.worker_memory,
            "spark.yarn.appMasterEnv.PYTHONPATH": workers.ENVIRONMENT,
            "spark.kubernetes.driverEnv.PYTHONPATH": workers.ENVIRONMENT,
            "spark.yarn.maxAppAttempts": "1",
            "spark.ui.enabled": "false",
            **(doors.closed(self.cluster.master) if here else {}),
        }

    @property
    def _home(self) -> Path:
        return Path(self.cluster.home or pyspark.__path__[0])

    @property
    def _environment(self) -> Mapping[str, str]:
        here = doors.ENVIRONMENT if doors.is_here(self.cluster.master) else {}
        kept = private.environment(private.folder())
        return {**os.environ, "SPARK_HOME": str(self._home), **kept, **here}

    def _submit(self, job: Job, printed: IO[bytes]) -> subprocess.Popen[bytes]:
        mode = ["--master", self.cluster.master, "--deploy-mode", self._deploy_mode]
        own = [text for pair in self._settings().items() for text in ("--conf", "=".join(pair))]
        command = [str(self._home / "bin" / "spark-submit"), *mode, *job.options, *own]
        try:
            return subprocess.Popen(  # noqa: S603 - arguments are the project's own
                [*command, job.code.entry, *job.arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise SparkError(
                f"spark-submit cannot be started ({error}). FRUITS_SPARK_HOME names the folder of "
                "a Spark distribution; without it, PySpark's own is used."
            ) from error

    def _wait(self, process: subprocess.Popen[bytes], job: Job) -> None:
        began = time.monotonic()
        while process.poll() is None:
            minutes = (time.monotonic() - began) / 60
            if minutes > self.begin_minutes and not job.begun():
                raise SparkError(
                    f"the driver of {job.name} has not begun within {self.begin_minutes:g} "
                    f"minutes, and the job is ended: {self.cluster.master} has no room for it. "
                    "Wait, ask for less, or raise FRUITS_SPARK_BEGIN_MINUTES."
                )
            if minutes > self.begin_minutes + self.deadline_minutes:
                raise SparkError(
                    f"the job {job.name} has not ended within {self.deadline_minutes:g} minutes, "
                    "and is ended. Raise FRUITS_SPARK_JOB_MINUTES if that is too short for this "
                    "work; run again: what is finished is kept."
                )
            time.sleep(POLL_SECONDS)

    def _end(self, process: subprocess.Popen[bytes], printed: str) -> None:
        """Ends a job; a driver on a cluster also ends by itself once its request is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if self.cluster.master == "yarn":
            yarn.kill(printed, self._home, self._environment)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
