"""Clusters: their machines, and their lives from STARTING to TERMINATED, as EMR documents them.

https://docs.aws.amazon.com/emr/latest/ManagementGuide/emr-overview.html#emr-overview-cluster-lifecycle
"""

from __future__ import annotations

import contextlib
import math
import random
import re
import shlex
import shutil
import signal
import string
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fruits_assets_tests.emulator import processes, spark_submit
from fruits_assets_tests.emulator.node import Node
from fruits_assets_tests.emulator.plan import Plan
from fruits_assets_tests.emulator.processes import SESSIONS
from fruits_assets_tests.yarn.cluster import Machine, Yarn

ACCOUNT = "123456789012"
OVER = frozenset({"TERMINATING", "TERMINATED", "TERMINATED_WITH_ERRORS"})
"""States of a cluster that takes no more work."""
ACTIVE = frozenset({"PENDING", "RUNNING"})
"""States of a step that has not ended."""
INSTANCE_STATES = {
    "STARTING": "PROVISIONING",
    "BOOTSTRAPPING": "BOOTSTRAPPING",
    "RUNNING": "RUNNING",
    "WAITING": "RUNNING",
}
"""State of a cluster -> state of its machines."""
ERROR_LINE = re.compile(r"(Exception in thread|[\w.]*(Error|Exception)(:|$))")
TASK_MACHINES = 2
"""NodeManagers for the task nodes of a cluster, at most: this machine has to run them."""
CAPITALS = string.ascii_uppercase + string.digits
_random = random.SystemRandom()


def now() -> float:
    """Seconds since the epoch, in EMR's milliseconds."""
    return round(time.time(), 3)


def new_id(prefix: str, length: int = 13, letters: str = CAPITALS) -> str:
    """An identifier such as EMR gives."""
    return f"{prefix}-{''.join(_random.choices(letters, k=length))}"


class End(NamedTuple):
    """How a cluster ends: its last state, with the reason's code and message."""

    state: str
    code: str
    message: str

    @property
    def failed(self) -> bool:
        return self.state == "TERMINATED_WITH_ERRORS"


@dataclass
class Instance:
    """A machine of a cluster, for those who list them; only the first one really exists.

    Attributes:
        kind: MASTER, CORE or TASK.
        group: identifier of its fleet or group.
        type: such as m7g.xlarge.
        market: ON_DEMAND or SPOT.
    """

    kind: str
    group: str
    type: str
    market: str
    id: str = field(default_factory=lambda: new_id("ci"))
    ec2_id: str = field(default_factory=lambda: new_id("i", 17, "0123456789abcdef"))
    created: float = field(default_factory=now)
    ready: float | None = None
    ended: float | None = None
    reason: tuple[str, str] | None = None


@dataclass
class Step:
    """A step.

    Attributes:
        config: as it was submitted.
        state: by EMR's name.
        session: of its processes, while there are any.
        cancelled: someone has cancelled it while it ran.
        failure: EMR's FailureDetails.
    """

    config: dict[str, Any]
    folder: Path
    id: str
    state: str = "PENDING"
    message: str | None = None
    created: float = field(default_factory=now)
    started: float | None = None
    ended: float | None = None
    session: int | None = None
    cancelled: bool = False
    failure: dict[str, str] | None = None

    @property
    def on_failure(self) -> str:
        action = self.config.get("ActionOnFailure", "TERMINATE_CLUSTER")
        return "TERMINATE_CLUSTER" if action == "TERMINATE_JOB_FLOW" else action


class Cluster:
    """A cluster, which lives in a thread of its own.

    Attributes:
        request: the parameters of RunJobFlow.
        plan: what becomes of it.
        states: all that it has had, in order.
        changed: notified, and to be held, whenever anything about the cluster changes.
    """

    def __init__(
        self, request: dict[str, Any], plan: Plan, *, region: str, endpoint: str, folder: Path
    ) -> None:
        self.id = new_id("j")
        self.request = request
        self.plan = plan
        self.region = region
        self.name = request["Name"]
        self.tags: dict[str, str] = {
            tag["Key"]: tag.get("Value", "") for tag in request.get("Tags", ())
        }
        self.states = ["STARTING"]
        self.created = now()
        self.ready: float | None = None
        self.ended: float | None = None
        self.end_reason: End | None = None
        wanted = request["Instances"]
        self.keep_alive = wanted.get("KeepJobFlowAliveWhenNoSteps", False)
        self.protected = wanted.get("TerminationProtected", False)
        self.concurrency = request.get("StepConcurrencyLevel", 1)
        self.auto_termination = request.get("AutoTerminationPolicy")
        self.fleets, self.groups, self.instances = _machines(wanted)
        self.steps: list[Step] = []
        self.changed = threading.Condition(threading.RLock())
        self._starting = threading.Lock()
        self.idle_since = math.inf
        self._yarn: Yarn | None = None
        self._folder = folder / self.id
        self.node = Node(
            self._folder,
            endpoint,
            region,
            log_uri=request.get("LogUri"),
            log_key=request.get("LogEncryptionKmsKeyId"),
        )
        self.node.set_up()
        self.add_steps(request.get("Steps", ()))

    @property
    def arn(self) -> str:
        return f"arn:aws:elasticmapreduce:{self.region}:{ACCOUNT}:cluster/{self.id}"

    @property
    def state(self) -> str:
        return self.states[-1]

    @property
    def master(self) -> Instance:
        return self.instances[0]

    @property
    def sessions(self) -> list[int]:
        """Of everything that runs on it."""
        with self.changed:
            return [step.session for step in self.steps if step.session is not None]

    def start(self) -> None:
        """Begins its life."""
        threading.Thread(target=self._live, name=self.id, daemon=True).start()

    def add_steps(self, configs: Any) -> list[str]:
        """Takes steps, and returns their identifiers."""
        with self.changed:
            added = []
            for config in configs:
                identifier = new_id("s")
                folder = self._folder / "steps" / identifier
                added.append(Step(config, folder, identifier))
            self.steps += added
            self.changed.notify_all()
        return [step.id for step in added]

    def end(self, state: str, code: str, message: str) -> None:
        """Lets it end; whatever runs on it is killed at once. Its first end is the one it has."""
        with self.changed:
            if self.end_reason is not None:
                return
            self.end_reason = End(state, code, message)
            self._enter("TERMINATING")
            for step in self.steps:
                if step.state == "PENDING":
                    step.state, step.message = "CANCELLED", "Job terminated"
            for session in self.sessions:
                processes.kill(session)

    def cancel(self, step: Step, *, force: bool) -> bool:
        """Cancels a step that waits or runs; returns whether it did either."""
        with self.changed:
            if step.state == "PENDING":
                step.state, step.message = "CANCELLED", "Cancelled by user"
                self.changed.notify_all()
            elif step.state == "RUNNING":
                step.cancelled = True
                if step.session is not None:
                    processes.send(step.session, signal.SIGKILL if force else signal.SIGTERM)
            else:
                return False
            return True

    @property
    def yarn(self) -> Yarn:
        """Its resource manager, started when a first application needs it."""
        with self._starting:
            if self._yarn is None:
                task = sum(one.kind == "TASK" for one in self.instances)
                labels = [self.plan.core_label, *["TASK"] * min(task, TASK_MACHINES)]
                configurations = self.request.get("Configurations", ())
                self._yarn = Yarn(
                    self._folder / "yarn",
                    [Machine(label, megabytes=self.plan.machine_mb) for label in labels],
                    self.node.environment,
                    site=spark_submit.classified(configurations, "yarn-site"),
                    scheduler=spark_submit.classified(configurations, "capacity-scheduler"),
                )
                self._yarn.start()
            return self._yarn

    def _enter(self, state: str) -> None:
        if self.state != state:
            self.states.append(state)
        self.changed.notify_all()

    def _live(self) -> None:
        try:
            self._boot()
            self._work()
        except Exception as problem:  # whatever it is, tests have to see it
            self._break_down(problem)
        self._finish()

    def _break_down(self, problem: Exception) -> None:
        self.end("TERMINATED_WITH_ERRORS", "INTERNAL_ERROR", f"The emulator: {problem!r}")

    def _boot(self) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.end_reason, self.plan.boot_seconds)
            if self.plan.fail:
                self.end("TERMINATED_WITH_ERRORS", *self.plan.fail)
            if self.end_reason is None:
                self._enter("BOOTSTRAPPING")

    def _work(self) -> None:
        """Runs steps, until there is a reason to end."""
        with self.changed:
            if self.end_reason is None:
                self.ready = self.idle_since = now()
                for instance in self.instances:
                    instance.ready = self.ready
            while self.end_reason is None:
                active = [step for step in self.steps if step.state in ACTIVE]
                running = [step for step in active if step.state == "RUNNING"]
                waiting = [step for step in active if step.state == "PENDING"]
                for step in waiting[: max(0, self.concurrency - len(running))]:
                    step.state, step.started = "RUNNING", now()
                    threading.Thread(target=self._execute, args=(step,), daemon=True).start()
                if active:
                    self._enter("RUNNING")
                    self.idle_since = math.inf
                    self.changed.wait()
                    continue
                self.idle_since = min(self.idle_since, now())
                if not self.keep_alive:
                    self._end_without_steps()
                    return
                self._enter("WAITING")
                left = self._idle_until() - now()
                if left <= 0:
                    self.end("TERMINATED", "USER_REQUEST", "Terminated by auto-termination policy")
                    return
                self.changed.wait(None if left == math.inf else left)

    def _idle_until(self) -> float:
        timeout = (self.auto_termination or {}).get("IdleTimeout")
        if timeout is None or self.protected:
            return math.inf
        return self.idle_since + timeout / self.plan.time_scale

    def _end_without_steps(self) -> None:
        if any(step.state == "FAILED" for step in self.steps):
            self.end("TERMINATED", "STEP_FAILURE", "Steps completed with errors")
        else:
            self.end("TERMINATED", "ALL_STEPS_COMPLETED", "Steps completed")

    def _finish(self) -> None:
        """The end of the end, once nothing runs any more."""
        with self.changed:
            self.changed.wait_for(lambda: all(s.state != "RUNNING" for s in self.steps))
            if self._yarn:
                self._yarn.stop()
            assert self.end_reason is not None
            self.ended = now()
            for instance in self.instances:
                instance.ended = instance.ended or self.ended
                instance.reason = instance.reason or ("CLUSTER_TERMINATED", "Cluster terminated.")
            self._enter(self.end_reason.state)

    def _execute(self, step: Step) -> None:
        """Runs a step, from RUNNING to whatever becomes of it."""
        try:
            code = self._run_step(step)
        except Exception as problem:  # whatever it is, tests have to see it
            self._break_down(problem)
            code = 1
        with self.changed:
            step.session = None
            ended, step_state = self.end_reason, "COMPLETED" if code == 0 else "FAILED"
        if step.cancelled:
            step_state = "CANCELLED"
        elif code != 0 and ended:
            step_state = "INTERRUPTED" if ended.failed else "CANCELLED"
        place = f"{self.id}/steps/{step.id}"
        self.node.archive_logs(step.folder, place, delay=self.plan.log_delay)
        shutil.rmtree(step.folder / "tmp", ignore_errors=True)
        with self.changed:
            step.ended = now()
            if step_state == "FAILED":
                step.failure = {"Reason": "Unknown Error.", "Message": _cause(step.folder)}
                if self.node.log_uri:
                    log = f"{self.node.log_uri.rstrip('/')}/{place}/stderr.gz"
                    step.failure["LogFile"] = log
            elif step_state == "CANCELLED":
                step.message = "Cancelled by user" if step.cancelled else "Job terminated"
            step.state = step_state
            if step_state == "FAILED":
                self._after_failure(step)
            self.changed.notify_all()

    def _after_failure(self, failed: Step) -> None:
        if failed.on_failure == "TERMINATE_CLUSTER":
            self.end("TERMINATED_WITH_ERRORS", "STEP_FAILURE", "Shut down as step failed")
        elif failed.on_failure == "CANCEL_AND_WAIT":
            for step in self.steps:
                if step.state == "PENDING":
                    step.state, step.message = "CANCELLED", "A previous step failed"

    def _run_step(self, step: Step) -> int:
        """Runs what a step says; returns its exit code."""
        step.folder.mkdir(parents=True, exist_ok=True)
        controller = step.folder / "controller"
        try:
            command, environment = self._command(step)
        except (OSError, ValueError, LookupError) as problem:
            (step.folder / "stderr").write_text(f"{problem}\n")
            controller.write_text("WARN Step failed before it started\n")
            return 1
        controller.write_text(f"INFO startExec '{shlex.join(command)}'\n")
        with self.changed:
            if self.end_reason is not None or step.cancelled:
                return 1
            process = SESSIONS.start(command, step.folder, {**environment, **self.plan.extra_env})
            step.session = process.pid
            if self.plan.hang_steps:
                process.send_signal(signal.SIGSTOP)
        code = process.wait()
        SESSIONS.end(process.pid)
        seconds = round(now() - (step.started or 0))
        word = "INFO Step succeeded" if code == 0 else "WARN Step failed"
        with controller.open("a") as file:
            file.write(f"{word} with exitCode {code} and took {seconds} seconds\n")
        return code

    def _command(self, step: Step) -> tuple[list[str], dict[str, str]]:
        jar = step.config["HadoopJarStep"]
        program, *args = jar.get("Args") or [""]
        if jar["Jar"] != "command-runner.jar" or not program:
            raise ValueError(f"only command-runner.jar with arguments is emulated, not {jar}")
        if program.rpartition("/")[2] == "spark-submit":
            return spark_submit.command(
                args,
                node=self.node,
                folder=step.folder,
                yarn=self.yarn,
                configurations=self.request.get("Configurations", ()),
            )
        return [program, *args], self.node.environment


def _cause(folder: Path) -> str:
    """What EMR says about a failure is a line of a log: the last error, or the last line."""
    lines: dict[str, list[str]] = {"stderr": [], "stdout": []}
    for name in lines:
        with contextlib.suppress(FileNotFoundError):
            lines[name] = (folder / name).read_text(errors="replace").splitlines()
    # What a Python driver says comes first: Spark prints it to the standard output.
    errors = [line for name in lines for line in lines[name] if ERROR_LINE.match(line)]
    found = errors or [line for line in lines["stderr"] if line.strip()] or [""]
    return found[-1][:10_000]


Group = dict[str, Any]
"""EMR's description of a fleet or a group."""


def _machines(wanted: Mapping[str, Any]) -> tuple[list[Group], list[Group], list[Instance]]:
    """(fleets, groups, machines with the primary one first) that a cluster is asked to have."""
    fleets = [_fleet(config) for config in wanted.get("InstanceFleets", ())]
    groups = [_group(config) for config in _group_configs(wanted)]
    found = [one for fleet in fleets for one in _fleet_instances(fleet)]
    for group in groups:
        found += [
            Instance(
                group["InstanceGroupType"], group["Id"], group["InstanceType"], group["Market"]
            )
            for _ in range(group["RequestedInstanceCount"])
        ]
    found.sort(key=lambda instance: ("MASTER", "CORE", "TASK").index(instance.kind))
    return fleets, groups, found


def _group_configs(wanted: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from wanted.get("InstanceGroups", ())
    if "MasterInstanceType" in wanted:
        master = wanted["MasterInstanceType"]
        yield {"InstanceRole": "MASTER", "InstanceType": master, "InstanceCount": 1}
        others = wanted.get("InstanceCount", 1) - 1
        if others > 0:
            worker = wanted.get("SlaveInstanceType", master)
            yield {"InstanceRole": "CORE", "InstanceType": worker, "InstanceCount": others}


def _group(config: Mapping[str, Any]) -> Group:
    return {
        "Id": new_id("ig"),
        "Name": config.get("Name", ""),
        "Market": config.get("Market", "ON_DEMAND"),
        "InstanceGroupType": config["InstanceRole"],
        "InstanceType": config["InstanceType"],
        "RequestedInstanceCount": config["InstanceCount"],
    }


def _fleet(config: Mapping[str, Any]) -> Group:
    kept = ("LaunchSpecifications", "ResizeSpecifications")
    return {
        "Id": new_id("if"),
        "Name": config.get("Name", ""),
        "InstanceFleetType": config["InstanceFleetType"],
        "TargetOnDemandCapacity": config.get("TargetOnDemandCapacity", 0),
        "TargetSpotCapacity": config.get("TargetSpotCapacity", 0),
        "InstanceTypeSpecifications": [
            {"WeightedCapacity": 1, **one} for one in config.get("InstanceTypeConfigs", ())
        ],
        **{name: config[name] for name in kept if name in config},
    }


def _fleet_instances(fleet: Group) -> Iterator[Instance]:
    """As many machines of the first type as make up each target."""
    chosen = fleet["InstanceTypeSpecifications"][0]
    for market, target in (("ON_DEMAND", "OnDemand"), ("SPOT", "Spot")):
        count = math.ceil(fleet[f"Target{target}Capacity"] / chosen["WeightedCapacity"])
        fleet[f"Provisioned{target}Capacity"] = count * chosen["WeightedCapacity"]
        for _ in range(count):
            kind = fleet["InstanceFleetType"]
            yield Instance(kind, fleet["Id"], chosen["InstanceType"], market)
