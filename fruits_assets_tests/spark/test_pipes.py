"""A request is where its step finds it while the step runs, and nowhere afterwards."""

from typing import Any

import dagster as dg
import pytest
from dagster._core.pipes import utils as pipes_utils

from fruits_assets.spark import pipes
from fruits_assets_tests.places import Bucket


def test_nothing_of_a_session_is_left(bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipes_utils, "WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 0)
    monkeypatch.setattr(pipes, "MESSAGE_SECONDS", 0.01)
    seen: dict[str, Any] = {}

    @dg.op
    def step(context: dg.OpExecutionContext) -> None:
        request = {"arguments": {"question": "a secret path"}}
        with pipes.session(context, bucket.opened, request, []) as opened:
            assert not opened.begun()
            seen["arguments"] = dict(opened.arguments)
            seen["requests"] = {name: bucket.get(name) for name in bucket.names("requests")}
            (name,) = seen["requests"]
            bucket.put(name, b"written again: an older version is kept")
            bucket.put(f"messages/{name.split('/')[1]}/1.json", b'{"method": "closed"}')

    @dg.job
    def job() -> None:
        step()

    assert job.execute_in_process().success
    (content,) = seen["requests"].values()
    assert b"a secret path" in content
    assert "a secret path" not in str(seen["arguments"])
    assert bucket.versions() == []
