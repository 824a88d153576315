"""Fixtures that the tests of `storage` share."""

from collections.abc import Iterator

import pytest

from fruits_assets.storage import s3
from fruits_assets_tests.s3 import REGION, Gate, always, in_region, used
from fruits_assets_tests.users import unprivileged_fixture  # noqa: F401


@pytest.fixture(scope="module")
def _stub() -> Iterator[Gate]:
    with Gate() as gate:
        yield gate


@pytest.fixture
def stub(_stub: Gate, monkeypatch: pytest.MonkeyPatch, quick_retries: None) -> Iterator[Gate]:
    """A server of a bucket in `REGION`, and of nothing else; requests are repeated once."""
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    with used(_stub.endpoint):
        _stub.open()
        _stub.rule = always(in_region(REGION))
        yield _stub
