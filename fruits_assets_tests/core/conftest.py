"""What the tests of `core` share: a user without privileges."""

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


@pytest.fixture
def unprivileged() -> Callable[[], Unprivileged]:
    """A context in which permissions count, for nothing is forbidden to root."""
    if os.geteuid() != 0:
        return contextlib.nullcontext
    try:
        with _as_nobody():
            pass
    except OSError as error:
        pytest.skip(f"root may not become another user here: {error}")
    return _as_nobody
