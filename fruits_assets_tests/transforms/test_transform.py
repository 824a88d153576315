"""How transforms spread work: what becomes of it when it is interrupted."""

import os
import signal
import threading
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from fruits_assets.transforms.transform import Done, for_each

SECONDS = 60


def test_an_interrupted_job_is_cancelled(session: SparkSession, tmp_path: Path):
    driver, done = os.getpid(), tmp_path / "done"

    def work(_: int) -> Done:
        os.kill(driver, signal.SIGINT)
        threading.Event().wait(SECONDS)
        done.touch()
        return Done(0, None)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            for_each(session, [0], work, doing="waiting", total=1, log=list[str]().append)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not done.exists()
    assert not session.sparkContext.statusTracker().getActiveJobsIds()
