"""Ctrl-C and SIGTERM end a run soon, whatever it is doing.

Dagster's signal handler raises an exception wherever the main thread is. Python drops it where that
is a destructor or the callback of a weak reference, and so does a library that catches everything:
the run would go on to its end. And no handler runs before a long call of a C library has returned.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

SIGNALS = (signal.SIGINT, signal.SIGTERM)
RAISED = (KeyboardInterrupt, dg.DagsterExecutionInterruptedError)
AGAIN_SECONDS = 1.0
"""An interrupt that nobody minds is repeated after so long."""
PATIENCE_SECONDS = 6.0
"""A run that has not ended by itself so long after an interrupt is ended."""
SENTENCE = (
    "Interrupted: the run was ended before it was done. Nothing of what was under way is "
    "published. Run again: what is finished is kept."
)


class Interrupts:
    """Watches for interrupts from a thread of its own, which nothing holds up.

    Attributes:
        received: whether there was one.
        minded: whether the main thread has begun to end because of it.
    """

    def __init__(self, end: Callable[[], object] | None) -> None:
        self.received = self.minded = False
        self._end = end
        self._over = threading.Event()

    def watch(self, written: int) -> None:
        """Waits for a signal, then for the main thread to mind it.

        Args:
            written: descriptor on which the numbers of signals arrive.
        """
        while not self.received:
            if not (numbers := os.read(written, 1)):
                return
            self.received = numbers[0] in SIGNALS
        until = time.monotonic() + PATIENCE_SECONDS
        while not self._over.wait(AGAIN_SECONDS):
            if self._end and time.monotonic() > until:
                self._end()
            if not (self.minded or _is_raised()):
                # To that very thread: it may wait for something that only a signal ends.
                signal.pthread_kill(_main(), signal.SIGINT)

    def stop(self) -> None:
        """Nothing is to be interrupted any more."""
        self._over.set()


@contextlib.contextmanager
def heeded(end: Callable[[], object] | None = None) -> Iterator[Interrupts]:
    """While this is open, an interrupt is repeated until the main thread minds it.

    Python writes the numbers of signals to a descriptor as they arrive, whoever handles them.

    Args:
        end: ends the process where an interrupt has not done so in time.
    """
    watching = Interrupts(end)
    if threading.get_ident() != _main():
        yield watching  # signals are for the main thread
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=watching.watch, args=(reading,), daemon=True)
    thread.start()
    try:
        yield watching
    finally:
        watching.stop()
        signal.set_wakeup_fd(before)
        os.close(writing)
        thread.join()
        os.close(reading)


def _main() -> int:
    ident = threading.main_thread().ident
    assert ident is not None  # noqa: S101 - it has been started
    return ident


def _is_raised() -> bool:
    """Whether the main thread is cleaning up after an interrupt just now."""
    active = sys._current_exceptions().get(_main())  # noqa: SLF001 - documented in `sys`
    error: BaseException | None = active[1] if isinstance(active, tuple) else active
    while error is not None:
        if isinstance(error, RAISED):
            return True
        error = error.__context__
    return False


class WrappingExecutor(dg.Executor):
    """Base of executors that let another one execute; what they add is their `execute`.

    Args:
        inner: executor that does the work.
    """

    def __init__(self, inner: dg.Executor) -> None:
        self._inner = inner

    @property
    def retries(self) -> Any:
        """Retry mode of the inner executor."""
        return self._inner.retries

    @property
    def step_dependency_config(self) -> Any:
        """When the inner executor starts a step."""
        return self._inner.step_dependency_config


class _InProcess(WrappingExecutor):
    """Executes in this process, and lets no interrupt get lost.

    Args:
        inner: executor that does the work.
        forced: whether a run that does not end soon after an interrupt is ended by force.
    """

    def __init__(self, inner: dg.Executor, *, forced: bool = True) -> None:
        super().__init__(inner)
        self._forced = forced

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        # While steps run, Dagster catches standard error, and Ctrl-C ends who shows what it caught.
        terminal = os.dup(2)

        def end() -> None:
            with contextlib.suppress(Exception):  # the process ends, whatever becomes of this
                run = plan_context.instance.get_run_by_id(plan_context.run_id)
                plan_context.instance.report_run_failed(run, SENTENCE)
            with contextlib.suppress(OSError):
                os.write(terminal, f"\n{SENTENCE}\n".encode())
            os._exit(1)

        try:
            with heeded(end if self._forced else None) as interrupts:
                try:
                    for event in self._inner.execute(plan_context, execution_plan):
                        # From a failure on, Dagster is busy with the end of the run.
                        interrupts.minded |= interrupts.received and event.is_step_failure
                        yield event
                except RAISED:
                    interrupts.minded = True
                    raise
        finally:
            os.close(terminal)
        if interrupts.received and not interrupts.minded:
            raise dg.DagsterExecutionInterruptedError(SENTENCE)


def _in_process(name: str, description: str, *, forced: bool) -> dg.ExecutorDefinition:
    inner = dg.in_process_executor

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        created = inner.executor_creation_fn
        assert created is not None  # noqa: S101 - of an executor that Dagster itself defines
        return _InProcess(created(context), forced=forced)

    return dg.ExecutorDefinition(
        name,
        config_schema=dg.Field(
            inner.config_schema.config_type, default_value={}, is_required=False
        ),
        requirements=inner.get_requirements,
        executor_creation_fn=create,
        description=description,
    )


in_process = _in_process(
    "in_process",
    "All steps in the process of the run, which ends soon after an interrupt.",
    forced=True,
)
unforced = _in_process(
    "in_process_unforced",
    "The same, but what the run has under way elsewhere is cancelled first, however long it takes.",
    forced=False,
)
