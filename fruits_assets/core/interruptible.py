"""Work that an interrupt of this thread stops, and does not leave half done.

Ctrl-C becomes an exception wherever the main thread happens to be. Libraries that start processes
or talk to one are not made for that: a JVM that nobody waits for any more stays for ever. Their
work goes into a thread, which no interrupt reaches, and this one waits for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Result = TypeVar("Result")

STOP_SECONDS = 0.2
"""Between two attempts to stop what does not end."""


def interruptible(
    work: Callable[[], Result],
    *,
    stop: Callable[[], object],
    meanwhile: Callable[[], object] = lambda: None,
    every_seconds: float | None = None,
) -> Result:
    """Runs something in a thread, and waits for it; where the wait is interrupted, stops it first.

    Args:
        work: what to run. It must end, with whatever error, soon after it was stopped.
        stop: stops it. It is called again and again until the work has ended: at first, there may
            be nothing to stop yet. Its own errors are ignored: what it talks to may be gone.
        meanwhile: called while the work runs.
        every_seconds: between two calls of that.

    Returns:
        What the work returns.

    Raises:
        BaseException: what the work raises, or the interrupt.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            while not wait([future], timeout=every_seconds).done:
                meanwhile()
            return future.result()
        except BaseException:
            while not future.done():
                with contextlib.suppress(Exception):
                    stop()
                wait([future], timeout=STOP_SECONDS)
            raise
