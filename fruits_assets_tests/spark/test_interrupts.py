"""Ctrl-C and SIGTERM: no interrupt is lost, and a run that does not mind one is ended."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import psutil
import pytest

from fruits_assets.spark import interrupts
from fruits_assets_tests.conftest import REPOSITORY
from fruits_assets_tests.emr import eventually

SECONDS = 60


@pytest.fixture(autouse=True)
def _as_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C is not ignored, as in the background; what Python drops is not reported as a fault."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Loses:
    """Receives a signal where Python drops whatever its handler raises."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_is_lost_is_repeated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interrupts, "AGAIN_SECONDS", 0.01)
    with interrupts.heeded() as heard, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        Loses()
        threading.Event().wait(SECONDS)
    assert heard.received


def test_who_cleans_up_after_an_interrupt_is_not_interrupted_again(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(interrupts, "AGAIN_SECONDS", 0.01)
    looked = threading.Event()
    monkeypatch.setattr(interrupts, "_is_raised", _noting(interrupts._is_raised, looked))
    cleaned = 0
    with interrupts.heeded(), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            for _ in range(3):
                looked.clear()
                assert looked.wait(SECONDS), "nobody looks any more"
                cleaned += 1
            try:
                os.close(-1)
            except OSError:  # of its own, while it cleans up
                looked.clear()
                assert looked.wait(SECONDS), "nobody looks any more"
                cleaned += 1
    assert cleaned == 4


def _noting(look: Callable[[], bool], looked: threading.Event) -> Callable[[], bool]:
    def noting() -> bool:
        try:
            return look()
        finally:
            looked.set()

    return noting


def test_handlers_and_descriptors_are_as_before():
    files = psutil.Process().num_fds()
    before = signal.getsignal(signal.SIGINT)
    with interrupts.heeded():
        pass
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1
    assert psutil.Process().num_fds() == files


@dg.op
def loses() -> None:
    Loses()
    threading.Event().wait(SECONDS)


@dg.job(executor_def=interrupts.in_process)
def losing() -> None:
    loses()


def test_a_run_that_loses_an_interrupt_is_interrupted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interrupts, "AGAIN_SECONDS", 0.05)
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.execute_job(dg.reconstructable(_losing), instance=instance)
        assert not result.success
        assert [it for it in result.all_events if it.is_step_failure], "the step has ended well"
        (event,) = [it for it in result.all_events if it.event_type_value == "PIPELINE_FAILURE"]
        assert "interrupted" in str(event.message)


def _losing() -> dg.JobDefinition:
    return losing


@dg.op
def loses_and_ends() -> None:
    Loses()


@dg.job(executor_def=interrupts.in_process)
def ending() -> None:
    loses_and_ends()


def _ending() -> dg.JobDefinition:
    return ending


def test_a_run_that_loses_an_interrupt_at_its_end_has_not_ended_well(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(interrupts, "AGAIN_SECONDS", SECONDS)
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.execute_job(dg.reconstructable(_ending), instance=instance)
        assert [it for it in result.all_events if it.is_step_success]
        assert not result.success


def test_the_end_of_a_run_whose_step_was_interrupted_is_not_interrupted(
    monkeypatch: pytest.MonkeyPatch,
):
    heard: list[interrupts.Interrupts] = []

    @contextlib.contextmanager
    def noted(end: Callable[[], object]) -> Iterator[interrupts.Interrupts]:
        with heeded(end) as watching:
            heard.append(watching)
            yield watching

    class Failing(interrupts.WrappingExecutor):
        def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[Any]:  # noqa: ARG002
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            eventually(lambda: heard[0].received)
            yield SimpleNamespace(is_step_failure=False)
            minded.append(heard[0].minded)
            yield SimpleNamespace(is_step_failure=True)
            minded.append(heard[0].minded)

    heeded, minded = interrupts.heeded, list[bool]()
    inner: Any = None
    monkeypatch.setattr(interrupts, "AGAIN_SECONDS", SECONDS)
    monkeypatch.setattr(interrupts, "heeded", noted)
    assert len(list(interrupts._InProcess(Failing(inner)).execute(None, None))) == 2
    assert minded == [False, True]


@pytest.mark.parametrize(
    ("send", "number"), [(os.kill, signal.SIGTERM), (os.killpg, signal.SIGINT)]
)
def test_a_run_that_minds_no_interrupt_is_ended_and_reported(
    send: Callable[[int, int], None],
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    process = subprocess.Popen(
        [sys.executable, "-c", "from fruits_assets_tests.spark import stuck; stuck.main()"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "DAGSTER_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    while "at work" not in process.stdout.readline():
        assert process.poll() is None
    send(process.pid, number)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert interrupts.SENTENCE in said
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.FAILURE
        logged = [it.message for it in instance.all_logs(run.run_id)]
    assert interrupts.SENTENCE in logged


START = """
import psutil
from fruits_assets.lake.resource import LakeResource
from fruits_assets.spark.local import LocalSpark

try:
    LocalSpark(lake=LakeResource(base="unused"), master="local[1]").session()
except KeyboardInterrupt:
    children = psutil.Process().children()
    print("left:", [it.name() for it in children if it.status() != psutil.STATUS_ZOMBIE])
"""


def test_no_jvm_is_left_of_a_session_whose_start_is_interrupted():
    """The process lives on, as a notebook's does: with it, its JVM would end in any case."""
    program = subprocess.Popen(
        [sys.executable, "-c", START],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    eventually(psutil.Process(program.pid).children)
    program.send_signal(signal.SIGINT)
    assert program.communicate(timeout=SECONDS)[0] == "left: []\n"


STAND_IN = f"""#!{sys.executable} -ES
import signal
ends = [signal.SIGINT, signal.SIGTERM]
signal.pthread_sigmask(signal.SIG_BLOCK, ends)
print("at work", flush=True)
signal.sigwait(ends)
print("interrupted", flush=True)
raise SystemExit(3)
"""


@pytest.mark.parametrize("job", ["run", "deliverables"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_make_passes_signals_on_and_shows_what_is_said_of_them(
    job: str, number: signal.Signals, tmp_path: Path
):
    """The command of the Makefile, with something in the place of `dagster`."""
    (tmp_path / "dagster").write_text(STAND_IN)
    (tmp_path / "dagster").chmod(0o755)
    given = {name: it for name, it in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = subprocess.run(
        ["make", "-n", "-C", REPOSITORY, "-o", "install", job, f"BIN={tmp_path}"],
        env=given,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = command.replace("\\\n", " ").splitlines()
    (line,) = [line for line in lines if "dagster job execute" in line]
    process = subprocess.Popen(
        ["bash", "-eu", "-o", "pipefail", "-c", line],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "at work\n"
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal
    else:
        process.send_signal(number)  # as make
    assert process.communicate(timeout=SECONDS)[0] == "interrupted\n"
    assert process.returncode == 3
