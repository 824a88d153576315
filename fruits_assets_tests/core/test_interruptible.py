"""Work in a thread ends before an interrupt goes on, and is stopped as often as it takes."""

import threading
from collections.abc import Iterator

import pytest

from fruits_assets.core.interruptible import interruptible


def test_the_work_s_result_or_error_is_that_of_the_call():
    assert interruptible(lambda: 3, stop=pytest.fail) == 3
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 // 0, stop=pytest.fail)


def test_something_is_done_meanwhile():
    enough = threading.Event()
    assert interruptible(
        lambda: enough.wait(60), stop=pytest.fail, meanwhile=enough.set, every_seconds=0.01
    )


def test_interrupted_work_is_stopped_until_it_has_ended():
    stopped = threading.Event()
    attempts: Iterator[int] = iter(range(3))

    def interrupt() -> None:
        raise KeyboardInterrupt

    def stop() -> None:
        if next(attempts) == 0:
            raise ConnectionError("what it talks to is not there yet")
        stopped.set()

    with pytest.raises(KeyboardInterrupt):
        interruptible(lambda: stopped.wait(60), stop=stop, meanwhile=interrupt, every_seconds=0.01)
    assert stopped.is_set()
    assert next(attempts) == 2, "it was stopped after it had ended"
