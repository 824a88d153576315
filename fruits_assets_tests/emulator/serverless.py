"""EMR Serverless: applications, and job runs that really run, each on a YARN of its own.

Requests are held against AWS's own description of the API, which comes with botocore.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
from botocore.model import OperationModel
from botocore.validate import ParamValidator

from fruits_assets_tests.emulator import processes, spark_submit
from fruits_assets_tests.emulator.api import Answer, Parameters, RefusalError
from fruits_assets_tests.emulator.clusters import ACCOUNT, new_id, now
from fruits_assets_tests.emulator.node import Node
from fruits_assets_tests.emulator.plan import Plan
from fruits_assets_tests.emulator.processes import SESSIONS
from fruits_assets_tests.yarn.cluster import Machine, Yarn

SERVICE = "emr-serverless"
OVER = ("SUCCESS", "FAILED", "CANCELLED")
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
MEMORY_GB = {1: (2, 8), 2: (4, 16), 4: (8, 30), 8: (16, 60), 16: (32, 120)}
"""vCPUs of a worker -> the least and the most memory ("Supported worker configurations")."""
BILLED_SECONDS = 60
MACHINES = 2
"""For executors, at most: this machine has to run them."""
NO_KEY = (
    "java.lang.IllegalArgumentException: requirement failed: A secret key must be specified "
    "via the spark.authenticate.secret config."
)
EXTRA_ENV = "spark.emr-serverless.driverEnv."


def _invalid(message: str) -> RefusalError:
    return RefusalError("ValidationException", message)


@cache
def _operations() -> Mapping[str, OperationModel]:
    client: Any = boto3.Session(region_name="eu-west-1").client(SERVICE)  # type: ignore[call-overload]
    model = client.meta.service_model
    return {name: model.operation_model(name) for name in model.operation_names}


def problems(shape: Any, value: Any) -> Iterator[str]:
    """Where a request is not as AWS describes it."""
    report = ParamValidator().validate(value, shape)
    yield from [report.generate_report()] if report.has_errors() else _misfits(shape, value, "")


def _misfits(shape: Any, value: Any, where: str) -> Iterator[str]:
    """What botocore leaves to AWS: patterns, the most characters, and names of a list."""
    if shape.type_name == "structure":
        for name in value:
            yield from _misfits(shape.members[name], value[name], f"{where}.{name}")
    elif shape.type_name == "list":
        for one in value:
            yield from _misfits(shape.member, one, where)
    elif shape.type_name == "string":
        about = shape.metadata
        if not re.fullmatch(about.get("pattern", ".*"), value, re.DOTALL):
            yield f"{where} does not match {about['pattern']}"
        if len(value) > about.get("max", len(value)):
            yield f"{where} has more than {about['max']} characters"
        if value not in (shape.enum or [value]):
            yield f"{where} is none of {shape.enum}"


@dataclass
class Application:
    """An application.

    Attributes:
        request: the parameters of CreateApplication.
        state: by AWS's name.
        tokens: of the calls so far -> the request and the job run.
    """

    request: Parameters
    region: str
    id: str = field(default_factory=lambda: new_id("00", 13, LETTERS).replace("-", ""))
    state: str = "CREATED"
    created: float = field(default_factory=now)
    tokens: dict[str, tuple[Parameters, str]] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return f"arn:aws:emr-serverless:{self.region}:{ACCOUNT}:/applications/{self.id}"

    def described(self) -> Answer:
        kept = {name: it for name, it in self.request.items() if name != "clientToken"}
        times = {"createdAt": self.created, "updatedAt": self.created}
        own = {"applicationId": self.id, "arn": self.arn, "state": self.state, **times}
        return {"architecture": "X86_64", **kept, **own}


DEPLOYED: dict[str, Application] = {}
"""Those that stacks hold, by identifier."""


@dataclass(frozen=True)
class Workers:
    """What a job run asks for: the settings of Spark in its parameters."""

    settings: Mapping[str, str]

    @property
    def executors(self) -> int:
        return int(self.settings.get("spark.executor.instances", "3"))

    def cpu(self, of: str) -> int:
        return int(self.settings.get(f"spark.{of}.cores", "4"))

    def memory(self, of: str) -> int:
        sizes = [
            self.settings.get(f"spark.{of}.{name}", "0g") for name in ("memory", "memoryOverhead")
        ]
        return sum(int(size.removesuffix("g")) for size in sizes)

    @property
    def vcpus(self) -> int:
        return self.cpu("driver") + self.executors * self.cpu("executor")

    @property
    def memory_gb(self) -> int:
        return self.memory("driver") + self.executors * self.memory("executor")

    def check(self, capacity: Mapping[str, str]) -> None:
        """Refuses workers of sizes that there are not, and more than the application may have."""
        for of in ("driver", "executor"):
            least, most = MEMORY_GB.get(self.cpu(of), (1, 0))
            if not least <= self.memory(of) <= most:
                raise _invalid(f"no {of} has {self.cpu(of)} vCPUs and {self.memory(of)} GB")
        for name, asked in (("cpu", self.vcpus), ("memory", self.memory_gb)):
            if asked > int(capacity.get(name, "10000").split()[0]):
                raise _invalid(f"ApplicationMaxCapacityExceededException: {asked} of {name}")


class JobRun:
    """A job run, which lives in a thread of its own.

    Attributes:
        request: the parameters of StartJobRun.
        states: all that it has had, in order.
    """

    def __init__(
        self, application: Application, request: Parameters, plan: Plan, endpoint: str, folder: Path
    ) -> None:
        self.id = new_id("00", 13, LETTERS).replace("-", "")
        self.application, self.request, self.plan = application, request, plan
        self.submitted = request["jobDriver"]["sparkSubmit"]
        self.settings = _settings(self.submitted.get("sparkSubmitParameters", ""))
        self.workers = Workers(self.settings)
        self.workers.check(application.request.get("maximumCapacity", {}))
        self.states = ["SUBMITTED"]
        self.details = ""
        self.created = now()
        self.started: float | None = None
        self.ended: float | None = None
        self.changed = threading.Condition(threading.RLock())
        self.folder = folder / self.id
        monitoring = request.get("configurationOverrides", {}).get("monitoringConfiguration", {})
        uri = monitoring.get("s3MonitoringConfiguration", {}).get("logUri")
        self.node = Node(self.folder, endpoint, application.region, log_uri=uri)
        self._process: subprocess.Popen[bytes] | None = None
        self._yarn: Yarn | None = None
        self._cancelled = ""

    @property
    def state(self) -> str:
        return self.states[-1]

    def start(self) -> None:
        """Begins its life."""
        threading.Thread(target=self._live, name=self.id, daemon=True).start()

    def cancel(self, why: str) -> None:
        """Ends it, with all that it has started."""
        with self.changed:
            if self.state in OVER or self._cancelled:
                return
            self._cancelled = why
            self._enter("CANCELLING")
            self._kill()

    def running(self) -> list[int]:
        """The processes of driver and executors, and of what has submitted them."""
        with self.changed:
            found = processes.members(self._process.pid) if self._process else []
            machines = self._yarn.machines if self._yarn else ()
            found += [one for it in machines if self._yarn for one in self._yarn.containers(it)]
        return [process.pid for process in found]

    def described(self) -> Answer:
        """As AWS describes it."""
        with self.changed:
            kept = ("jobDriver", "configurationOverrides", "executionTimeoutMinutes", "name")
            found = {
                "applicationId": self.application.id,
                "jobRunId": self.id,
                "arn": f"{self.application.arn}/jobruns/{self.id}",
                "createdBy": f"arn:aws:iam::{ACCOUNT}:user/test",
                "createdAt": self.created,
                "updatedAt": now(),
                "executionRole": self.request["executionRoleArn"],
                "state": self.state,
                "stateDetails": self.details,
                "releaseLabel": self.application.request["releaseLabel"],
                **{name: self.request[name] for name in kept if name in self.request},
            }
            if self.state in OVER and self.started and self.ended:
                hours = max(BILLED_SECONDS, self.ended - self.started) / 3600
                found["billedResourceUtilization"] = {
                    "vCPUHour": self.workers.vcpus * hours,
                    "memoryGBHour": self.workers.memory_gb * hours,
                    "storageGBHour": 0.0,
                }
            return found

    def _enter(self, state: str) -> None:
        self.states.append(state)
        self.changed.notify_all()

    def _live(self) -> None:
        state, details = "FAILED", ""
        timeout = self.request.get("executionTimeoutMinutes", 720) * 60 / self.plan.time_scale
        timer = threading.Timer(timeout, self.cancel, ("Job run exceeded its execution timeout",))
        timer.daemon = True
        timer.start()
        try:
            for step in ("PENDING", "SCHEDULED"):
                with self.changed:
                    if not self._cancelled:
                        self._enter(step)
                    self.changed.wait_for(lambda: self._cancelled, self.plan.boot_seconds)
            if not self._cancelled:
                details = ": ".join(self.plan.fail) if self.plan.fail else self._run()
                state = "FAILED" if details else "SUCCESS"
        except Exception as problem:  # whatever it is, tests have to see it
            details = f"The emulator: {problem!r}"
        timer.cancel()
        self._kill()
        for name in ("stdout", "stderr"):
            if not (self.folder / "run" / name).exists():
                (self.folder / "run").mkdir(parents=True, exist_ok=True)
                (self.folder / "run" / name).touch()
        place = f"applications/{self.application.id}/jobs/{self.id}/SPARK_DRIVER"
        self.node.archive_logs(self.folder / "run", place, delay=self.plan.log_delay)
        with self.changed:
            self.ended = now()
            self.details = self._cancelled or details
            self._enter("CANCELLED" if self._cancelled else state)

    def _run(self) -> str:
        """Runs the job; returns why it failed, and nothing where it did not."""
        run = self.folder / "run"
        self.node.set_up()
        if self.settings.get("spark.authenticate") == "true" and not self.settings.get(
            "spark.authenticate.secret"
        ):
            return NO_KEY
        yarn = Yarn(
            self.folder / "yarn",
            [Machine() for _ in range(min(self.workers.executors, MACHINES))],
            self.node.environment,
        )
        with self.changed:
            if self._cancelled:
                return self._cancelled
            self._yarn = yarn
            yarn.start()
        command, environment = spark_submit.command(
            [
                "--master",
                "yarn",
                "--deploy-mode",
                "cluster",
                *_translated(self.settings),
                self.submitted["entryPoint"],
                *self.submitted.get("entryPointArguments", ()),
            ],
            node=self.node,
            folder=run,
            yarn=yarn,
            configurations=(),
        )
        with self.changed:
            if self._cancelled:
                return self._cancelled
            self._process = process = SESSIONS.start(
                command, run, {**environment, **self.plan.extra_env}
            )
            self.started = now()
            self._enter("RUNNING")
            if self.plan.hang_steps:
                process.send_signal(signal.SIGSTOP)
        code = process.wait()
        SESSIONS.end(process.pid)
        _collect(self.folder / "yarn", run)
        if code == 0:
            return ""
        return (
            "Job failed, please check complete logs in configured logging destination. ExitCode: "
            f"{code}. Last few exceptions: {_last(run)}"
        )

    def _kill(self) -> None:
        with self.changed:
            if self._process:
                processes.kill(self._process.pid)
            if self._yarn:
                self._yarn.stop()
                self._yarn = None


def _settings(parameters: str) -> dict[str, str]:
    """`--conf a=b --conf c=d`, without a shell that would mind quotation marks."""
    words = parameters.split()
    if words[::2] != ["--conf"] * (len(words) // 2) or len(words) % 2:
        raise _invalid(f"only --conf is emulated, not {parameters}")
    return dict(word.split("=", 1) for word in words[1::2])


def _translated(settings: Mapping[str, str]) -> Iterator[str]:
    """What is the same for YARN."""
    own = {"spark.yarn.maxAppAttempts": "1", "spark.yarn.submit.waitAppCompletion": "true"}
    for name, value in {**settings, **own}.items():
        yield from ("--conf", f"{name.replace(EXTRA_ENV, 'spark.yarn.appMasterEnv.')}={value}")


def _collect(yarn: Path, run: Path) -> None:
    """What the driver has printed, before its container is forgotten."""
    for name in ("stdout", "stderr"):
        drivers = sorted(yarn.glob(f"machines/*/logs/application_*/*_000001/{name}"))
        if drivers:
            shutil.copy(drivers[0], run / name)


def _last(run: Path) -> str:
    lines = [
        line
        for name in ("stdout", "stderr")
        for line in (run / name).read_text(errors="replace").splitlines()
        if re.match(r"[\w.]*(Error|Exception)(:|$)", line)
    ]
    return (lines or ["none"])[-1][:200]


class Serverless:
    """The service in all regions.

    Attributes:
        applications: by identifier.
        runs: by identifier, in the order of their beginning.
    """

    def __init__(self, endpoint: str, folder: Path, plan: Callable[[], Plan]) -> None:
        self.applications: dict[str, Application] = {}
        self.runs: dict[str, JobRun] = {}
        self._endpoint, self._folder, self._plan = endpoint, folder / "serverless", plan
        self._lock = threading.Lock()
        self._actions: dict[str, Callable[[str, Parameters], Answer]] = {
            "CreateApplication": self._create_application,
            "DeleteApplication": self._delete_application,
            "GetApplication": self._get_application,
            "StartJobRun": self._start_job_run,
            "GetJobRun": self._get_job_run,
            "CancelJobRun": self._cancel_job_run,
        }

    def knows(self, action: str) -> bool:
        """Whether an action is answered here: moto's answers would be about other job runs."""
        return bool(action)

    def action(self, method: str, path: str, body: Parameters) -> tuple[str, Parameters]:
        """What a request asks for. Raises LookupError."""
        for name, operation in _operations().items():
            template = re.sub(
                r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation.http["requestUri"].partition("?")[0]
            )
            found = re.fullmatch(template, path)
            if found and operation.http["method"] == method:
                parts = {key: unquote(value) for key, value in found.groupdict().items()}
                return name, {**body, **parts}
        raise LookupError(f"{method} {path}")

    def answer(self, action: str, parameters: Parameters, *, region: str) -> Answer:
        """What the service answers in a region. Raises RefusalError."""
        shape = _operations()[action].input_shape
        wrong = list(problems(shape, parameters)) if shape else []
        if wrong:
            raise _invalid("; ".join(wrong))
        if action not in self._actions:
            raise RefusalError("UnknownOperationException", f"{action} is not emulated")
        return self._actions[action](region, parameters)

    def reset(self) -> None:
        """Ends all job runs, and forgets everything."""
        runs = list(self.runs.values())
        for run in runs:
            run.cancel("The test is over")
        for run in runs:
            with run.changed:
                run.changed.wait_for(lambda run=run: run.state in OVER, 30)
        self.runs.clear()
        self.applications.clear()

    def _find(self, region: str, parameters: Parameters) -> Application:
        found = {**DEPLOYED, **self.applications}.get(parameters["applicationId"])
        if found is None or found.region != region:
            message = f"Application {parameters['applicationId']} does not exist"
            raise RefusalError("ResourceNotFoundException", message)
        return found

    def _find_run(self, region: str, parameters: Parameters) -> JobRun:
        application = self._find(region, parameters)
        found = self.runs.get(parameters["jobRunId"])
        if found is None or found.application is not application:
            message = f"Job run {parameters['jobRunId']} does not exist"
            raise RefusalError("ResourceNotFoundException", message)
        return found

    def _create_application(self, region: str, request: Parameters) -> Answer:
        made = Application(request, region)
        self.applications[made.id] = made
        return {"applicationId": made.id, "arn": made.arn}

    def _delete_application(self, region: str, parameters: Parameters) -> Answer:
        self._find(region, parameters).state = "TERMINATED"
        return {}

    def _get_application(self, region: str, parameters: Parameters) -> Answer:
        return {"application": self._find(region, parameters).described()}

    def _start_job_run(self, region: str, request: Parameters) -> Answer:
        application = self._find(region, request)
        if application.state == "TERMINATED":
            raise _invalid(f"Application {application.id} is in an unsupported state: TERMINATED")
        with self._lock:
            before = application.tokens.get(request["clientToken"])
            if before and before[0] != request:
                raise RefusalError("ConflictException", "The client token is another request's")
            if before:
                run = self.runs[before[1]]
            else:
                run = JobRun(application, request, self._plan(), self._endpoint, self._folder)
                self.runs[run.id] = run
                application.tokens[request["clientToken"]] = (request, run.id)
                application.state = "STARTED"
                run.start()
        answer = run.described()
        return {name: answer[name] for name in ("applicationId", "jobRunId", "arn")}

    def _get_job_run(self, region: str, parameters: Parameters) -> Answer:
        return {"jobRun": self._find_run(region, parameters).described()}

    def _cancel_job_run(self, region: str, parameters: Parameters) -> Answer:
        run = self._find_run(region, parameters)
        if run.state in OVER:
            raise _invalid(f"Job run {run.id} is in a terminal state: {run.state}")
        threading.Thread(target=run.cancel, args=("Cancelled by the user",), daemon=True).start()
        return {"applicationId": run.application.id, "jobRunId": run.id}


def summary(run: JobRun) -> dict[str, Any]:
    """For tests."""
    with run.changed:
        return {
            "id": run.id,
            "name": run.request.get("name", ""),
            "states": list(run.states),
            "request": run.request,
            "details": run.details,
        }
