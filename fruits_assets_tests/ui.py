"""The Dagster UI as a person starts it, and what it answers."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from fruits_assets_tests import s3
from fruits_assets_tests.emulator import processes

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).parent.parent
END_SECONDS = 30


def environment_of(photos: Path, folder: Path) -> dict[str, str]:
    """Of a person who set up a source, and lake and DAGSTER_HOME in a folder."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("FRUITS_")}
    (folder / "home").mkdir()
    shutil.copy(REPOSITORY / "dagster-home.yaml", folder / "home" / "dagster.yaml")
    return {
        **own,
        "FRUITS_SOURCE": str(photos),
        "FRUITS_WEIGHTS": "sample",
        "FRUITS_LAKE": str(folder / "lake"),
        "DAGSTER_HOME": str(folder / "home"),
    }


@contextlib.contextmanager
def served(*, environment: Mapping[str, str], log: Path) -> Iterator[int]:
    """Serves the workspace on a free port, as `make ui` does; nothing that it starts outlives it.

    Args:
        environment: of the server.
        log: file for what it prints.
    """
    port = s3.free_port()
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "fruits_assets.webserver", "-p", str(port)],
            cwd=REPOSITORY,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield port
    finally:
        # A notebook's kernel has a session of its own.
        family = psutil.Process(server.pid).children(recursive=True)
        os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=END_SECONDS)
        _, alive = psutil.wait_procs(family, timeout=END_SECONDS)
        for process in alive:
            process.kill()
        processes.kill(server.pid)
        server.wait(timeout=END_SECONDS)


def graphql(port: int, query: str, variables: dict | None = None, *, patience: float = 60) -> dict:
    """Asks the web server, as soon as it is up."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query, "variables": variables or {}}).encode(),
        {"Content-Type": "application/json"},
    )
    deadline = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return json.load(answer)["data"]
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
