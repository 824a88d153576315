"""Spark in this process, or on a standalone cluster that this process drives."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
from dagster_pyspark.resources import spark_session_from_config
from py4j.protocol import Py4JError, Py4JJavaError
from pydantic import Field, field_validator
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from fruits_assets.core.errors import SparkError
from fruits_assets.core.interruptible import interruptible
from fruits_assets.spark import doors, interrupts, jars, private, tuning, workers
from fruits_assets.spark.target import Call, SparkTarget
from fruits_assets.storage.snapshot import Output

JVM_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xms160m -Xmn64m"
"""The JVM only plans and schedules: it should start fast, stay small and leave the cores alone."""
SMALL_QUERIES = {
    # Plans are compared by queries of a few thousand rows: compiling them, and planning them again
    # while they run, would take the JVM several times as long as running them.
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.shuffle.partitions": str(os.cpu_count() or 1),
}
"""Settings of SQL for the cores of one machine."""
JVM_END_SECONDS = 5.0


class LocalSpark(SparkTarget):
    """One Spark session, started when first needed and shared by all assets of a process."""

    master: str = Field(
        default="local[*,4]",
        description="Spark master: local[<cores>,<attempts of a task>], or spark://host:port.",
    )
    driver_memory: str = Field(
        default="1g", description="Heap of the JVM; images and features never pass through it."
    )
    spark_config: dict[str, str] = Field(
        default_factory=dict,
        description="Further Spark settings that only say how much of something, such as "
        "spark.sql.shuffle.partitions.",
    )

    s3a: bool = Field(
        default=False,
        description="Whether Spark itself can read and write the lake's bucket, for code of your "
        "own: fetches 570 MB of jars, once. The pipeline reads and writes without them.",
    )

    @field_validator("driver_memory")
    @classmethod
    def _is_a_size(cls, size: str) -> str:
        tuning.check_memory(size)
        return size

    @field_validator("spark_config")
    @classmethod
    def _is_tuning(cls, settings: dict[str, str]) -> dict[str, str]:
        tuning.check_settings(settings)
        return settings

    def tunable(self) -> dict[str, dg.Field]:  # noqa: D102 - see Deployed
        described = {name: field.description for name, field in type(self).model_fields.items()}
        settings = {name: dg.Field(str, is_required=False) for name in tuning.TUNABLE}
        return {
            "driver_memory": dg.Field(
                str, default_value=self.driver_memory, description=described["driver_memory"]
            ),
            "spark_config": dg.Field(
                settings, default_value=self.spark_config, description=described["spark_config"]
            ),
        }

    def execute(self, call: Call) -> dict[str, Output]:  # noqa: D102 - see SparkTarget
        run = call.transform.function
        try:
            return run(self.session(), log=call.context.log.info, **call.arguments)
        except (ConnectionError, Py4JError) as error:
            if not _jvm_has_ended():
                raise
            raise SparkError(
                f"Spark's JVM ended while it ran {call.transform.name} (killed, perhaps as "
                "memory was short: see above). Nothing of it was published. Run again: "
                "what is finished is kept."
            ) from error

    def definitions(self) -> dg.Definitions:  # noqa: D102 - see SparkTarget
        # One process per run, so that all of its assets share one Spark session.
        return dg.Definitions(executor=interrupts.in_process)

    def session(self) -> SparkSession:
        """The session of this process, started where there is none yet."""
        if session := SparkSession.getActiveSession():
            return session
        # Workers must run this very interpreter, or they lack the packages it has.
        os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
        os.environ.update(private.environment(private.folder()))
        if doors.is_here(self.master):
            os.environ.update(doors.ENVIRONMENT)
        settings = self._config()
        try:
            _start_jvm(settings)
            with _same_handler():
                session = spark_session_from_config(settings)
        except PySparkRuntimeError as error:
            raise SparkError(
                f"Spark did not start ({error}). See what the JVM printed above."
            ) from error
        except Py4JJavaError as error:
            if doors.SECRET not in str(error):
                raise
            raise SparkError(
                f"Spark did not start: the cluster {self.master} is only talked to with a secret "
                f"that its master, its workers and this program know. Write it as {doors.SECRET} "
                "into a file spark-defaults.conf that only you may read, and name its folder in "
                "SPARK_CONF_DIR, here and where master and workers are started."
            ) from error
        session.sparkContext.setLogLevel("ERROR")
        return session

    def _config(self) -> dict[str, str]:
        """All settings. None of them is secret: PySpark puts them on the JVM's command line."""
        return {
            "spark.app.name": "fruits",
            "spark.master": self.master,
            "spark.driver.memory": self.driver_memory,
            "spark.driver.extraJavaOptions": (
                f"{JVM_OPTIONS} {private.java_options(private.folder())}"
            ),
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            # Nobody looks at finished tasks here; kept, they grow with the number of photos.
            "spark.ui.retainedTasks": "100",
            "spark.ui.retainedStages": "20",
            "spark.ui.retainedJobs": "20",
            "spark.sql.ui.retainedExecutions": "5",
            **SMALL_QUERIES,
            # Larger results are encrypted, sent through a port and decrypted, which took the JVM
            # 0.5 s for two Gram matrices. One has 26 MB at most (alpha 1.4).
            "spark.task.maxDirectResultSize": "32m",
            **workers.SETTINGS,
            **(jars.provided(self.lake.open().storage.spark_config()) if self.s3a else {}),
            **self.spark_config,
            **doors.closed(self.master),
            **private.SETTINGS,
        }


def _start_jvm(settings: Mapping[str, str]) -> None:
    """Starts the JVM that a session will find, unless this process has one."""
    conf = SparkConf().setAll(list(settings.items()))
    children: list[Path] = []

    def start() -> None:
        children.append(Path(f"/proc/self/task/{threading.get_native_id()}/children"))
        SparkContext._ensure_initialized(conf=conf)  # noqa: SLF001 - what a session begins with

    def kill() -> None:
        for pid in children[0].read_text().split():
            os.kill(int(pid), signal.SIGKILL)

    # Interrupted, PySpark forgets a JVM that has not reported yet, which then stays for ever.
    interruptible(start, stop=kill)


@contextlib.contextmanager
def _same_handler() -> Iterator[None]:
    """Keeps the handler of Ctrl-C, which a new session replaces.

    Its handler talks to the JVM, perhaps in the middle of another conversation with it. What an
    interrupt cancels is known where it arrives (`interruptible`).
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread has handlers, and PySpark leaves them alone elsewhere
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _jvm_has_ended() -> bool:
    # PySpark keeps the process that it started, and says nothing of it in public.
    process = getattr(SparkContext._gateway, "proc", None)  # noqa: SLF001
    if process is None:
        return False
    with contextlib.suppress(subprocess.TimeoutExpired):  # its sockets are closed before it is gone
        process.wait(JVM_END_SECONDS)
    return process.returncode is not None
