"""Applications of YARN that `spark-submit` has started: their logs, their errors and their ends."""

import contextlib
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

APPLICATION = re.compile(r"application_\d+_\d+")
CLIENT = "org.apache.hadoop.yarn.client.cli.ApplicationCLI"
"""YARN's own command, which is among the jars of Spark."""
SECONDS = 60.0
TOO_LARGE = re.compile(
    r"Required (?P<what>executor|AM) memory \((?P<asked>[\d+]+) MB\).*? is above the max threshold "
    r"\((?P<most>\d+) MB\)"
)
"""Spark's words for a container that no machine is large enough for."""


def logs(printed: str) -> str:
    """Where the log of a driver is that ran on YARN; nothing where `spark-submit` names none."""
    found = APPLICATION.search(printed)
    return f" (`yarn logs -applicationId {found[0]}` shows its driver's log)" if found else ""


def no_room(printed: str) -> str | None:
    """A sentence for people where no machine has room for a container; None where that is not it.

    Args:
        printed: by `spark-submit`.
    """
    found = TOO_LARGE.search(printed)
    if found is None:
        return None
    what = "an executor" if found["what"] == "executor" else "the driver"
    return (
        f"no machine of the cluster has room for {what}: the memory asked for is {found['asked']} "
        f"MB without its overhead, and the largest container is {found['most']} MB. Ask for "
        "smaller executors (on EMR: FRUITS_EMR_EXECUTOR_CORES=2 or 1), or for a larger cluster."
    )


def kill(printed: str, home: Path, environment: Mapping[str, str]) -> None:
    """Kills the application that `spark-submit` has printed the id of, if it got that far.

    An ended `spark-submit` does not end its application, which may still wait for a machine.

    Args:
        printed: by `spark-submit`.
        home: folder of the Spark distribution.
        environment: of its programs, with `HADOOP_CONF_DIR`.
    """
    if application := APPLICATION.search(printed):
        command = [str(home / "bin" / "spark-class"), CLIENT, "application", "-kill"]
        # Its driver ends by itself where this fails, as its request is gone.
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(  # noqa: S603 - arguments are the project's own and YARN's
                [*command, application[0]],
                env=environment,
                capture_output=True,
                check=False,
                timeout=SECONDS,
            )
