"""Runs share the lake, an erasure or a repair has it alone, and no lease outlives its holder."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import dagster as dg
import pytest

from fruits_assets.core.errors import LakeError, LeaseError
from fruits_assets.lake import lease
from fruits_assets.lake.io_manager import LakeIOManager
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.resource import LakeResource
from fruits_assets.storage.base import Folder
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets_tests.conftest import failure
from fruits_assets_tests.lake.versions import SCHEMA, recipe_of, write_parts
from fruits_assets_tests.places import Folder as LocalPlace
from fruits_assets_tests.places import Place

DEADLINE = 30.0
Kind = Callable[[Folder, str], AbstractContextManager[lease.Lease]]
"""`lease.shared` or `lease.alone`."""


@pytest.fixture
def lake(place: Place) -> Folder:
    return place.opened


@pytest.fixture
def local(tmp_path: Path) -> LocalPlace:
    (tmp_path / "lake").mkdir()
    return LocalPlace(str(tmp_path / "lake"))


def _leases(place: Place) -> set[str]:
    """Names of the leases, but for one that is being written."""
    return {name for name in place.names("locks") if name.endswith(".json")}


def _holders(place: Place) -> list[str]:
    """Who holds a lease, whether it has ended or not."""
    return sorted(json.loads(place.get(name))["holder"] for name in _leases(place))


def _until(place: Place) -> float:
    (name,) = _leases(place)
    return json.loads(place.get(name))["until"]


def _put(place: Place, name: str, holder: str, seconds: float) -> None:
    """A lease of another process, that ends in so many seconds."""
    fields = {"holder": holder, "until": time.time() + seconds}
    place.put(f"locks/{name}", json.dumps(fields).encode())


def _eventually(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# ------------------------------------------------------------------------------ exclusion


def test_runs_share_the_lake(place: Place, lake: Folder) -> None:
    with lease.shared(lake, "one") as one, lease.shared(lake, "other") as other:
        assert _holders(place) == ["one", "other"]
        one.check()
        other.check()
    assert place.names() == set()


def test_an_erasure_waits_for_no_run(place: Place, lake: Folder) -> None:
    with lease.shared(lake, "the run"):
        with pytest.raises(LeaseError) as told, lease.alone(lake, "erasure"):
            pass
        text = str(told.value)
        assert "another run is at work in this lake (the run)" in text
        assert "Nothing was changed. Wait for its end, then run this again" in text
        assert "lets go within 120 s" in text
        assert _holders(place) == ["the run"]
    with lease.alone(lake, "erasure"):  # the advice helps
        assert _holders(place) == ["erasure"]


def test_no_run_writes_during_an_erasure(place: Place, lake: Folder) -> None:
    with lease.alone(lake, "the erasure"):
        with pytest.raises(LeaseError) as told, lease.shared(lake, "run"):
            pass
        text = str(told.value)
        assert "an erasure or a repair is at work in this lake (the erasure)" in text
        assert "Nothing was written. Run again when it has ended; if it was killed, in" in text
        refused = pytest.raises(LeaseError, match=r"at work in this lake \(the erasure\)")
        with refused, lease.alone(lake, "another erasure"):
            pass
        assert _holders(place) == ["the erasure"]
    with lease.shared(lake, "run"):
        assert _holders(place) == ["run"]
    assert place.names() == set()


def test_who_has_the_lake_alone_may_write(place: Place, lake: Folder) -> None:
    """An erasure makes tables again, as a run does."""
    with lease.alone(lake, "erasure") as held, lease.shared(lake, "erasure") as writes:
        held.check()
        writes.check()
        assert _holders(place) == ["erasure", "erasure"]
    assert place.names() == set()


def test_a_lease_error_is_an_error_of_the_lake() -> None:
    assert issubclass(LeaseError, LakeError)


def test_of_two_who_want_the_lake_alone_at_once_one_gets_it(place: Place, lake: Folder) -> None:
    start, ended = threading.Barrier(2), threading.Barrier(2)

    def want(holder: str) -> bool:
        start.wait()
        try:
            with lease.alone(lake, holder) as held:
                ended.wait()
                held.check()
                return True
        except LeaseError:
            ended.wait()
            return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(want, ("one", "other"))) == [False, True]
    assert place.names() == set()


def test_run_and_erasure_never_both_get_the_lake(local: LocalPlace) -> None:
    """Whoever looks first: each says so before it looks for the other."""
    lake = local.opened

    def want(kind: Kind) -> bool:
        start.wait()
        try:
            with kind(lake, str(kind)):
                ended.wait()
                return True
        except LeaseError:
            ended.wait()
            return False

    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            start, ended = threading.Barrier(2), threading.Barrier(2)
            assert sum(pool.map(want, (lease.shared, lease.alone))) <= 1
            assert local.names() == set()


# ------------------------------------------------------------------------------ ends


def test_a_lease_ends_with_its_block_however_that_ends(place: Place, lake: Folder) -> None:
    for kind in (lease.shared, lease.alone):
        with pytest.raises(KeyboardInterrupt), kind(lake, "run"):  # noqa: PT012
            assert _holders(place) == ["run"]
            raise KeyboardInterrupt
        assert place.names() == set()
    assert not [thread for thread in threading.enumerate() if "(keep)" in thread.name]


@pytest.mark.parametrize("name", ["alone.json", "run-0123.json"])
def test_a_lease_that_has_ended_hinders_nobody(place: Place, lake: Folder, name: str) -> None:
    """Its holder was killed."""
    _put(place, name, "killed", -1)
    with lease.shared(lake, "run"):
        pass
    with lease.alone(lake, "erasure"):
        assert "erasure" in _holders(place)


@pytest.mark.parametrize("take", [lease.shared, lease.alone])
def test_leases_of_killed_runs_are_removed(place: Place, lake: Folder, take: Kind) -> None:
    _put(place, "run-killed.json", "killed", -2 * lease.FORGET_SECONDS)
    _put(place, "run-late.json", "a run whose clock is late", -1)
    with take(lake, "next"):
        assert _holders(place) == ["a run whose clock is late", "next"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"holder": 1}', b"\xff"])
@pytest.mark.parametrize("name", ["alone.json", "run-0123.json"])
def test_a_file_that_is_no_lease_hinders_nobody(
    local: LocalPlace, name: str, content: bytes
) -> None:
    local.put(f"locks/{name}", content)
    local.put("locks/notes.txt", b"mine")
    with lease.shared(local.opened, "run"):
        pass
    with lease.alone(local.opened, "erasure"):
        pass
    assert local.get("locks/notes.txt") == b"mine"


def test_a_killed_process_holds_up_nobody_for_long(
    place: Place, lake: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as a lease lasts, but not for ever."""
    monkeypatch.setattr(lease, "FREE_SECONDS", 0.3)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 1000.0)
    with lease.shared(lake, "killed") as killed:
        (name,) = _leases(place)
        _eventually(lambda: killed.is_lost)
        with lease.alone(lake, "erasure"):
            assert _holders(place) == ["erasure", "killed"]
    assert place.names() == {name}


# ------------------------------------------------------------------------------ renewal


@pytest.mark.parametrize("kind", [lease.shared, lease.alone])
def test_a_lease_is_renewed_as_long_as_it_is_held(
    place: Place, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    with kind(place.opened, "run") as held:
        seen = set()
        for _ in range(3):
            _eventually(lambda: _until(place) not in seen)
            seen.add(_until(place))
        held.check()
    assert place.names() == set()


def test_a_lease_that_lasts_is_renewed_in_time() -> None:
    """Several times before it ends, so that one failed renewal does no harm."""
    assert lease.RENEW_SECONDS * 3 < lease.FREE_SECONDS <= 120


def test_a_renewal_that_fails_is_tried_again(
    local: LocalPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    failed = []
    write = lease.Lease.write

    def fail_twice(self: lease.Lease, *, expected: bytes | None) -> None:
        if expected is not None and len(failed) < 2:
            failed.append(1)
            raise LakeError("the disk is full")
        write(self, expected=expected)

    monkeypatch.setattr(lease.Lease, "write", fail_twice)
    with lease.shared(local.opened, "run") as held:
        first = _until(local)
        _eventually(lambda: _until(local) > first)
        held.check()
    assert len(failed) == 2


@pytest.mark.parametrize("kind", [lease.shared, lease.alone])
@pytest.mark.parametrize("is_removed", [False, True])
def test_a_lease_that_somebody_else_has_now_is_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch, kind: Kind, *, is_removed: bool
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    with kind(place.opened, "run") as held:
        held.check()
        (name,) = _leases(place)

        def take() -> bool:
            """Again where a renewal was under way, which overwrites what it has not seen."""
            if not is_removed:
                _put(place, name.removeprefix("locks/"), "another", 100)
            else:
                place.opened.storage.remove([place.uri(name)])
            return held.is_lost

        _eventually(take)
        with pytest.raises(LeaseError) as told:
            held.check()
        assert "lost its lease, and others may have written meanwhile" in str(told.value)
        assert "Nothing more is written. Run again: what is finished is kept" in str(told.value)
    left = [] if is_removed else ["another"]
    assert _holders(place) == left, "somebody else's lease was given up"


def test_a_lease_that_has_ended_is_lost_though_nobody_took_it(
    local: LocalPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may have come and gone while this process was suspended."""
    monkeypatch.setattr(lease, "RENEW_SECONDS", 1000.0)
    with lease.shared(local.opened, "run") as held:
        held.check()
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + lease.FREE_SECONDS + 1)
        with lease.alone(local.opened, "erasure"):
            pass
        with pytest.raises(LeaseError, match="suspended or cut off"):
            held.check()


def test_a_lease_that_has_ended_is_not_renewed(
    local: LocalPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "FREE_SECONDS", 0.0)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    with lease.shared(local.opened, "run") as held:
        first = _until(local)
        monkeypatch.setattr(lease, "FREE_SECONDS", 1000.0)
        _eventually(lambda: held._lost)
        assert _until(local) == first
        with pytest.raises(LeaseError):
            held.check()


def test_leases_are_no_table(local: LocalPlace) -> None:
    lake = Lake.at(local.base)
    with lease.alone(lake.folder, "erasure"):
        assert Lake.at(local.base).folders() == []


# ------------------------------------------------------------------------------ runs


def _run(
    base: str, make: Callable[[Mapping[str, Folder]], Mapping[str, Output]]
) -> dg.ExecuteInProcessResult:
    """A run that makes one table."""
    resource = LakeResource(base=base)

    @dg.asset
    def raw(context: dg.AssetExecutionContext, lake: LakeResource) -> Snapshot:
        return lake.produce(context, recipe_of("raw", 1), {"raw": SCHEMA}, make)

    resources = {"lake": resource, "io_manager": LakeIOManager(lake=resource)}
    return dg.materialize([raw], resources=resources, raise_on_error=False)


def test_a_run_has_a_lease_while_it_writes_and_only_then(local: LocalPlace) -> None:
    held: list[list[str]] = []

    def make(folders: Mapping[str, Folder]) -> Mapping[str, Output]:
        held.append(_holders(local))
        return {"raw": Output(write_parts(Lake.at(local.base), "raw", 1, parts=2))}

    result = _run(local.base, make)
    assert result.success
    assert held == [[result.run_id]]
    assert local.names("locks") == set()
    with lease.alone(local.opened, "erasure"):  # it writes no part
        assert _run(local.base, make).success
    assert len(held) == 1


def test_a_run_during_an_erasure_fails_before_it_writes(local: LocalPlace) -> None:
    with lease.alone(local.opened, "the erasure"):
        result = _run(local.base, lambda _: pytest.fail("it was made"))
    assert not result.success
    assert "an erasure or a repair is at work in this lake (the erasure)" in failure(result)
    assert local.names() == set()


def test_a_run_that_has_lost_its_lease_publishes_nothing(local: LocalPlace) -> None:
    def make(folders: Mapping[str, Folder]) -> Mapping[str, Output]:
        output = Output(write_parts(Lake.at(local.base), "raw", 1, parts=2))
        now = time.time()
        patch.setattr(time, "time", lambda: now + lease.FREE_SECONDS + 1)
        return {"raw": output}

    with pytest.MonkeyPatch.context() as patch:
        result = _run(local.base, make)
    assert not result.success
    assert "lost its lease" in failure(result)
    assert Lake.at(local.base).tables() == []
