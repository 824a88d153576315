"""Waiting for what other processes do."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

Found = TypeVar("Found")


def eventually(found: Callable[[], Found], *, seconds: float = 60) -> Any:
    """Asks again and again; returns the first answer that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        time.sleep(0.02)
    return answer
