"""EMR for tests: an emulator in a process of its own, which really runs what it is given.

def test_something(fresh_emr: Emr, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in fresh_emr.environment.items():
        monkeypatch.setenv(name, value)
    fresh_emr.plan(boot_seconds=0, fail=("VALIDATION_ERROR", "no capacity"))
    ...
    (cluster,) = fresh_emr.clusters()
    assert cluster.state == "TERMINATED_WITH_ERRORS"
"""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config

from fruits_assets_tests.emulator.plan import OBSERVER_KEY, SECRET_KEY, Plan
from fruits_assets_tests.s3 import CREDENTIALS, REGION, Server, free_port, running
from fruits_assets_tests.waiting import eventually

REPOSITORY = Path(__file__).parent.parent
CONTROL_SECONDS = 60
STACK = {
    "FRUITS_EMR_SERVICE_ROLE": "arn:aws:iam::123456789012:role/service",
    "FRUITS_EMR_INSTANCE_PROFILE": "arn:aws:iam::123456789012:instance-profile/node",
    "FRUITS_EMR_SECURITY_CONFIGURATION": "encrypted",
    "FRUITS_EMR_TAG": "fruits",
    "FRUITS_EMR_SUBNETS": "subnet-1,subnet-2",
    "FRUITS_EMR_PRIMARY_SECURITY_GROUP": "sg-1",
    "FRUITS_EMR_WORKER_SECURITY_GROUP": "sg-2",
    "FRUITS_EMR_SERVICE_SECURITY_GROUP": "sg-3",
    "FRUITS_EMR_LOGS": "s3://logs/emr/",
    "FRUITS_EMR_CODE": "s3://bucket/code",
    "FRUITS_EMR_PIPES": "s3://bucket/pipes",
    "FRUITS_EMR_SERVERLESS_APPLICATION": "00f1r2u3i4t5s6",
    "FRUITS_EMR_SERVERLESS_ROLE": "arn:aws:iam::123456789012:role/job",
}
"""Settings as a stack gives them; the emulator looks at the places only."""


@dataclass(frozen=True)
class Step:
    """A step, as it is now.

    Attributes:
        state: by EMR's name.
        args: as they were submitted.
    """

    id: str
    name: str
    state: str
    args: tuple[str, ...]


@dataclass(frozen=True)
class Cluster:
    """A cluster, as it is now.

    Attributes:
        states: all that it has had, in order.
        code: why it has ended or is ending; None before.
        message: the same for people.
        request: the parameters of RunJobFlow.
        folder: of its emulated machine.
        instances: how many machines it has.
    """

    id: str
    name: str
    region: str
    states: tuple[str, ...]
    code: str | None
    message: str | None
    tags: Mapping[str, str]
    request: Mapping[str, Any]
    folder: Path
    instances: int
    steps: tuple[Step, ...]

    @property
    def state(self) -> str:
        return self.states[-1]


@dataclass(frozen=True)
class JobRun:
    """A job run of EMR Serverless, as it is now.

    Attributes:
        states: all that it has had, in order.
        request: the parameters of StartJobRun.
        details: why it ended as it did.
    """

    id: str
    name: str
    states: tuple[str, ...]
    request: Mapping[str, Any]
    details: str

    @property
    def state(self) -> str:
        return self.states[-1]


@dataclass(frozen=True)
class Call:
    """A call of AWS, other than those about S3's buckets and objects.

    Attributes:
        service: by the name that it signs with, such as elasticmapreduce.
        action: such as RunJobFlow.
        access_key: of who called: `s3.ACCESS_KEY` for the user, others for machines and tests.
        time: seconds since the epoch.
    """

    service: str
    region: str
    action: str
    parameters: Mapping[str, Any]
    access_key: str
    time: float


@dataclass(frozen=True)
class Account(Server):
    """The emulator's S3, looked at by tests: their access key never expires."""

    @property
    def client(self) -> Any:
        """A client of the tests' own."""
        return _client(self.endpoint, "s3", REGION)


@dataclass(frozen=True)
class Emr:
    """A running emulator of AWS.

    Attributes:
        endpoint: its URL, for all of AWS.
    """

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a user's programs find it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint}

    @property
    def s3(self) -> Account:
        """Its S3."""
        return Account(self.endpoint)

    def client(self, service: str = "emr", region: str = REGION) -> Any:
        """A client of the tests' own, for any service."""
        return _client(self.endpoint, service, region)

    def plan(self, *, once: bool = False, **options: Any) -> None:
        """Decides what becomes of clusters that are created from now on.

        Args:
            once: only of the next one; several calls are about several clusters, in order.
            **options: attributes of `emulator.plan.Plan`; those not given have their defaults.
        """
        self._control("plan", once=once, **dataclasses.asdict(Plan(**options)))

    def kill_cluster(self, id: str, code: str, message: str) -> None:  # noqa: A002
        """Ends a cluster with errors, as AWS would, under whatever runs on it."""
        self._control("kill_cluster", id=id, code=code, message=message)

    def expire_credentials(self) -> None:
        """The user's credentials have expired; those of machines and of tests have not."""
        self._control("expire_credentials")

    def restore_credentials(self) -> None:
        """The user's credentials are good again."""
        self._control("restore_credentials")

    def history(self, service: str | None = "elasticmapreduce") -> list[Call]:
        """The calls so far of a service, or of all but S3."""
        calls = [Call(**call) for call in self._control("history")]
        return [call for call in calls if service in (None, call.service)]

    def clusters(self) -> list[Cluster]:
        """All clusters since the last reset, in the order of their creation."""
        return [_cluster(found) for found in self._control("clusters")]

    def application(self, region: str = REGION, **changed: Any) -> str:
        """Makes an application of EMR Serverless, as the stack does but for this machine's kind."""
        asked = {"name": "fruits", "type": "SPARK", "releaseLabel": "emr-spark-8.0.0"}
        asked |= {"maximumCapacity": {"cpu": "16 vCPU", "memory": "160 GB"}, **changed}
        client = self.client("emr-serverless", region)
        return client.create_application(**asked)["applicationId"]

    def job_runs(self) -> list[JobRun]:
        """All job runs since the last reset, in the order of their beginning."""
        return [
            JobRun(**{**found, "states": tuple(found["states"])})
            for found in self._control("job_runs")
        ]

    def cluster(self, id: str) -> Cluster:  # noqa: A002
        """One of them."""
        (found,) = [cluster for cluster in self.clusters() if cluster.id == id]
        return found

    def step_processes(self) -> list[int]:
        """The processes of steps that are alive."""
        return self._control("step_processes")

    def reset(self) -> None:
        """Ends all clusters, and forgets them, all plans, and the history; S3 stays as it is."""
        self._control("reset")

    def wait(self, id: str, *states: str, seconds: float = 60) -> Cluster:  # noqa: A002
        """Waits until a cluster is, or has been, in one of some states."""
        return eventually(
            lambda: (found := self.cluster(id)) and set(states) & set(found.states) and found,
            seconds=seconds,
        )

    def _control(self, name: str, **parameters: Any) -> Any:
        connection = HTTPConnection(urlsplit(self.endpoint).netloc, timeout=CONTROL_SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", f"/emulator/{name}", json.dumps(parameters))
            response = connection.getresponse()
            content = json.loads(response.read())
        assert response.status == 200, f"{name}: {content}"
        return content


@contextlib.contextmanager
def emr(folder: Path) -> Iterator[Emr]:
    """Runs an emulator; its clusters keep their files in a folder. Nothing of it stays alive."""
    port = free_port()
    command = [sys.executable, "-m", "fruits_assets_tests.emulator"]
    arguments = ["--port", str(port), "--folder", str(folder)]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    with running([*command, *arguments], port, PYTHONPATH=path):
        yield Emr(f"http://127.0.0.1:{port}")


@pytest.fixture(scope="session", name="emr_service")
def emr_service_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emr]:
    """An emulator for all tests."""
    with emr(tmp_path_factory.mktemp("emr")) as service:
        yield service


@pytest.fixture(name="fresh_emr")
def fresh_emr_fixture(emr_service: Emr) -> Iterator[Emr]:
    """The emulator with no cluster, nothing planned, nothing asked; nothing is left running."""
    emr_service.reset()
    yield emr_service
    emr_service.reset()


@lru_cache(maxsize=16)
def _client(endpoint: str, service: str, region: str) -> Any:
    return boto3.Session(OBSERVER_KEY, SECRET_KEY, region_name=region).client(
        service, endpoint_url=endpoint, config=Config(retries={"total_max_attempts": 1})
    )


def _cluster(found: dict[str, Any]) -> Cluster:
    steps = tuple(Step(**{**it, "args": tuple(it["args"])}) for it in found.pop("steps"))
    return Cluster(
        **{**found, "states": tuple(found["states"]), "folder": Path(found["folder"])}, steps=steps
    )
