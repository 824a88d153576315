"""A user without privileges: nothing is forbidden to root, as whom tests may run."""

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest

NOBODY = 65534
Unprivileged = contextlib.AbstractContextManager[None]


@contextlib.contextmanager
def _as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(name="unprivileged")
def unprivileged_fixture() -> Callable[[], Unprivileged]:
    """A context in which permissions count."""
    if os.geteuid() != 0:
        return contextlib.nullcontext
    try:
        with _as_nobody():
            pass
    except OSError as error:
        pytest.skip(f"root may not become another user here: {error}")
    return _as_nobody
