"""A person who has deployed the stack to an emulated account and runs the pipeline on EMR."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.pipes import utils as pipes_utils

from fruits_assets.definitions import compose
from fruits_assets.lake.lake import Lake
from fruits_assets.settings import Settings
from fruits_assets_tests import s3
from fruits_assets_tests.conftest import REPOSITORY
from fruits_assets_tests.emr import STACK, Cluster, Emr, eventually

BIN = Path(sys.executable).parent
CONFIG = {"model_weights": {"alpha": 0.35, "image_size": 96}}
"""As the fixture `finished` runs on this machine."""
ENDED = ("TERMINATED", "TERMINATED_WITH_ERRORS")


@dataclass(frozen=True)
class User:
    """Somebody with photos in a bucket.

    Attributes:
        emr: the account.
        bucket: name of the one with photos, code and messages.
        logs: name of the one that clusters log to.
        home: of Dagster.
        lake: URI.
        pipes: URI for requests and messages, the person's own.
        changed: environment variables that differ from what the stack printed.
    """

    emr: Emr
    bucket: str
    logs: str
    home: Path
    lake: str
    pipes: str
    changed: Mapping[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        """What the person's `.env` holds."""
        return {
            **STACK,
            "FRUITS_SPARK": "emr",
            "FRUITS_REGION": s3.REGION,
            "FRUITS_SOURCE": f"s3://{self.bucket}/photos",
            "FRUITS_LAKE": self.lake,
            "FRUITS_WEIGHTS": "sample",
            "FRUITS_EMR_LOGS": f"s3://{self.logs}/emr/",
            "FRUITS_EMR_CODE": f"s3://{self.bucket}/code",
            "FRUITS_EMR_PIPES": self.pipes,
            # The emulated machines are of this machine's kind.
            "FRUITS_EMR_ARCHITECTURE": "x86_64",
            "FRUITS_EMR_POLL_SECONDS": "0.2",
            **self.changed,
        }

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command line tool of Dagster's, as a group of processes of its own."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("FRUITS_")}
        return subprocess.Popen(
            [str(BIN / "dagster"), *arguments],
            cwd=REPOSITORY,
            env={**own, **self.emr.environment, **self.variables, "DAGSTER_HOME": str(self.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def job(self, **config: Mapping[str, Any]) -> subprocess.Popen[str]:
        """Starts `dagster job execute` of the whole pipeline."""
        ops = {name: {"config": dict(of)} for name, of in {**CONFIG, **config}.items()}
        file = self.home / "run.yaml"
        file.write_text(yaml.safe_dump({"ops": ops}))
        return self.command(
            *("job", "execute", "-m", "fruits_assets.definitions", "-j", "fruits_job"),
            *("-c", str(file)),
        )

    def run(
        self, *assets: str, meanwhile: Callable[[Cluster], None] | None = None, **config: Any
    ) -> tuple[dg.JobExecutionResult, str]:
        """Runs some assets in this process, by the definitions' own executor.

        Args:
            *assets: to materialise.
            meanwhile: called with the cluster once a step is running on it, in another thread.
            **config: op name -> its config.

        Returns:
            The result, and the sentence that a person reads first; empty where all went well.
        """
        done = threading.Event()
        with contextlib.ExitStack() as stack:
            stack.callback(done.set)
            if meanwhile:
                thread = threading.Thread(target=_once_running, args=(self.emr, meanwhile, done))
                stack.callback(thread.join)
                thread.start()
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            for name, value in self.variables.items():
                patch.setenv(name, value)
            instance = stack.enter_context(dg.DagsterInstance.local_temp(str(self.home)))
            # Not entered: that would initialise the resources again, for outputs that nobody reads.
            result = dg.execute_job(
                dg.reconstructable(fruits_job),
                instance=instance,
                asset_selection=[dg.AssetKey(asset) for asset in assets],
                run_config={"ops": {name: {"config": of} for name, of in config.items()}},
                raise_on_error=False,
            )
            return result, _failure(result)

    def published(self) -> list[str]:
        """The tables for people that the lake has current versions of."""
        tables = Lake.at(self.lake, region=s3.REGION).tables()
        return [name for name in tables if not name.startswith("_")]

    def all_ended(self) -> Sequence[Cluster]:
        """All clusters there have been, once they have ended and nothing runs on them."""
        eventually(
            lambda: (
                not self.emr.step_processes()
                and all(one.state in ENDED for one in self.emr.clusters())
            ),
            seconds=300,  # a step that nobody waits for any more is finished all the same
        )
        return self.emr.clusters()


def fruits_job() -> dg.JobDefinition:
    """What the environment asks for."""
    return compose(Settings()).resolve_job_def("fruits_job")


def _failure(result: dg.JobExecutionResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            return str(data.user_failure_data.description if data.user_failure_data else data.error)
        if event.event_type is dg.DagsterEventType.RUN_FAILURE:  # before any step
            return str(event.job_failure_data.error)
    return ""


def _once_running(emr: Emr, act: Callable[[Cluster], None], done: threading.Event) -> None:
    while not done.wait(0.02):
        for cluster in emr.clusters():
            if any(step.state == "RUNNING" for step in cluster.steps):
                act(cluster)
                return


@pytest.fixture(scope="module")
def _buckets(emr_service: Emr, photos: Path) -> tuple[str, str]:
    bucket, logs = emr_service.s3.bucket(), emr_service.s3.bucket(versioned=False)
    for photo in photos.rglob("*.jpg"):
        key = f"photos/{photo.relative_to(photos).as_posix()}"
        emr_service.s3.client.put_object(Bucket=bucket, Key=key, Body=photo.read_bytes())
    return bucket, logs


@pytest.fixture
def user(
    fresh_emr: Emr,
    _buckets: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[User]:
    """Somebody with an empty lake, whose clusters come up at once and end 60 times as fast."""
    # For the last messages of a step that has died: they are in this machine's memory, if any.
    monkeypatch.setattr(pipes_utils, "WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 2)
    fresh_emr.plan(time_scale=60)
    bucket, logs = _buckets
    (tmp_path / "home").mkdir()
    with s3.used(fresh_emr.endpoint):
        own = f"s3://{bucket}/{tmp_path.name}"
        yield User(fresh_emr, bucket, logs, tmp_path / "home", own, f"{own}-pipes")


@pytest.fixture(scope="module")
def resident(
    emr_service: Emr, _buckets: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[User]:
    """Somebody with a lake of the module's, and clusters with executors of their own."""
    emr_service.reset()
    emr_service.plan(time_scale=5)  # the weights take a while in which the cluster is idle
    bucket, logs = _buckets
    home = tmp_path_factory.mktemp("home")
    with s3.used(emr_service.endpoint):
        lake, pipes = f"s3://{bucket}/lake", f"s3://{bucket}/pipes"
        yield User(emr_service, bucket, logs, home, lake, pipes)
    emr_service.reset()
