"""A job that minds no interrupt, for a process that imports little else."""

import signal
import sys
import threading

import dagster as dg

from fruits_assets.spark import interrupts

SECONDS = 60


@dg.op
def minds_nothing() -> None:
    """Handles signals itself, as a library may."""
    for number in interrupts.SIGNALS:
        signal.signal(number, lambda *_: None)
    sys.stdout.write("at work\n")
    sys.stdout.flush()
    threading.Event().wait(SECONDS)


@dg.job(executor_def=interrupts.in_process)
def _stuck() -> None:
    minds_nothing()


def job() -> dg.JobDefinition:
    """Makes the job in a process of its own."""
    return _stuck


def main() -> None:
    """Runs the job, and is patient with it for a moment only."""
    interrupts.AGAIN_SECONDS = interrupts.PATIENCE_SECONDS = 0.2
    dg.execute_job(dg.reconstructable(job), instance=dg.DagsterInstance.get())
