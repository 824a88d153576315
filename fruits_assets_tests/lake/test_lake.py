"""Readers of the lake see the version before or the one after, whole, whatever happens."""

import contextlib
import itertools
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import dagster as dg
import pyarrow as pa
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable

from fruits_assets import cli
from fruits_assets.core.errors import ConflictError, DatasetError, FruitsError, LakeError
from fruits_assets.lake import table as table_module
from fruits_assets.lake.io_manager import LakeIOManager
from fruits_assets.lake.lake import FORMAT, MARKER, Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets.lake.resource import LakeResource
from fruits_assets.storage.base import Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.parquet import Origin, address_of, part_once
from fruits_assets.storage.snapshot import DRAFT, Output, Snapshot
from fruits_assets_tests.conftest import THE_SAME_EVERYWHERE, failure
from fruits_assets_tests.lake.versions import (
    SCHEMA,
    again,
    draft,
    of,
    publish,
    recipe_of,
    rows,
    seen,
    seen_by_others,
    write_parts,
)
from fruits_assets_tests.places import Bucket, Place
from fruits_assets_tests.s3 import REGION, Answer, Gate, Request, Rule, forwarded, refusal


@pytest.fixture
def lake(place: Place) -> Lake:
    return Lake.at(place.base, region=REGION)


@pytest.fixture
def folder_lake(tmp_path: Path) -> Lake:
    return Lake.at(str(tmp_path / "lake"))


def _parts(place: Place, name: str) -> set[str]:
    """Names of the parts in a table's folder."""
    found = place.names(name)
    return {one.removeprefix(f"{name}/") for one in found if one.endswith(".parquet")}


def _published(lake: Lake, name: str, number: int, *inputs: Snapshot) -> Snapshot | None:
    """The version of a recipe, if it can be taken again."""
    return lake.answers(recipe_of(name, number, *inputs), name)


# ------------------------------------------------------------------------------ publishing


def test_what_is_published_is_current(place: Place, lake: Lake) -> None:
    first = publish(lake, "raw", 1)
    assert lake.current("raw") == first
    assert seen(lake, "raw") == of("raw", 1)
    assert lake.tables() == ["raw"]
    assert _published(lake, "raw", 1) == first
    second = publish(lake, "raw", 2)
    assert (first.number, second.number) == (0, 1)
    assert lake.current("raw") == second
    assert rows(lake.version("raw", 0)) == of("raw", 1)


@THE_SAME_EVERYWHERE
def test_a_version_is_taken_again_without_new_parts(place: Place, lake: Lake) -> None:
    """With the tables that were made together with it."""
    first = publish(lake, "raw", 1, siblings=["rejected"])
    publish(lake, "raw", 2, siblings=["rejected"])
    before = {name: _parts(place, name) for name in ("raw", "rejected")}
    known = _published(lake, "raw", 1)
    assert known == first
    assert known
    third = lake.publish(again(lake, known))
    assert third.number == 2
    assert (third.files, third.version) == (first.files, first.version)
    assert third.siblings["rejected"].number == 2
    assert third.siblings["rejected"].files == first.siblings["rejected"].files
    assert seen(lake, "raw") == of("raw", 1)
    assert seen(lake, "rejected") == of("rejected", 1)
    assert {name: _parts(place, name) for name in ("raw", "rejected")} == before


def test_what_is_current_already_is_not_published_again(place: Place, lake: Lake) -> None:
    published = publish(lake, "raw", 1, siblings=["rejected"])
    before = place.names()
    assert publish(lake, "raw", 1, siblings=["rejected"]) == published
    assert lake.publish(again(lake, published)).number == published.number
    assert place.names() == before


@THE_SAME_EVERYWHERE
def test_a_commit_says_how_the_version_came_to_be(lake: Lake) -> None:
    source = publish(lake, "raw", 1)
    publish(lake, "weights", 1)
    weights = publish(lake, "weights", 2)
    features = publish(lake, "features", 7, source, weights)
    for found in (features, lake.current("features"), lake.version("features", 0)):
        commit = found.commit
        assert commit.recipe == recipe_of("features", 7, source, weights).version
        assert commit.inputs == {"raw": source.version, "weights": weights.version}
        assert commit.numbers == {"raw": 0, "weights": 1}
        assert (commit.transform, commit.code_version) == ("make_features", "1")
        assert commit.params == {"number": 7}
        assert (commit.run_id, commit.seconds) == ("run", 1.0)
        assert commit.created_at.endswith("+00:00")
        assert found.figures == {"number": 7}


@THE_SAME_EVERYWHERE
def test_tables_that_were_made_together_are_found_together(lake: Lake) -> None:
    publish(lake, "rejected", 0)  # alone, so that the numbers differ
    first = publish(lake, "raw", 1, siblings=["rejected", "_listing"])
    publish(lake, "raw", 2, siblings=["rejected", "_listing"])
    assert first.commit.siblings == {"rejected": 1, "_listing": 0}
    for found in (first, lake.version("raw", 0)):
        assert set(found.siblings) == {"rejected", "_listing"}
        assert rows(found.siblings["rejected"]) == of("rejected", 1)
        assert rows(found.siblings["_listing"]) == of("_listing", 1)
    assert lake.current("raw").commit.siblings == {"rejected": 2, "_listing": 1}


@THE_SAME_EVERYWHERE
def test_what_a_version_was_made_from_is_found_by_its_number(lake: Lake) -> None:
    source = publish(lake, "raw", 1)
    features = publish(lake, "features", 1, source)
    publish(lake, "raw", 2)
    assert lake.made_from(features, "raw") == source
    assert rows(lake.made_from(features, "raw")) == of("raw", 1)
    with pytest.raises(DatasetError, match="was made from weights None, which the lake"):
        lake.made_from(features, "weights")


@THE_SAME_EVERYWHERE
def test_what_a_version_was_made_from_is_found_where_it_was_made_again(
    place: Place, lake: Lake
) -> None:
    """Its parts were damaged, and it is current again under another number."""
    source = publish(lake, "raw", 1)
    features = publish(lake, "features", 1, source)
    publish(lake, "raw", 2)
    place.remove(f"raw/{source.files[0].name}")
    with pytest.raises(DatasetError, match=r"Run\s+the whole pipeline again"):
        lake.made_from(features, "raw")
    other_parts = write_parts(lake, "raw", 3, parts=1)
    made = lake.publish(replace(draft(lake, "raw", 1, parts=0), files=other_parts))
    assert (made.number, made.version) == (2, source.version)
    assert lake.made_from(features, "raw") == made


@THE_SAME_EVERYWHERE
def test_drafts_of_several_tables_know_each_other_once_published(lake: Lake) -> None:
    """As an erasure publishes them: all are made before the first is published."""
    for name in ("raw", "features"):
        publish(lake, name, 0)
    raw = draft(lake, "raw", 1)
    features = draft(lake, "features", 1, raw)
    assert features.commit.numbers == {"raw": DRAFT}
    published = {"raw": lake.publish(raw)}
    found = lake.publish(features, made_from=published)
    assert found.commit.numbers == {"raw": 1}
    assert lake.made_from(lake.current("features"), "raw") == published["raw"]


def test_before_anything_is_published_there_is_no_current_version(lake: Lake) -> None:
    assert lake.tables() == []
    assert lake.find("features") is None
    with pytest.raises(DatasetError) as told:
        lake.current("features")
    assert f"{lake.base} has no features yet. Materialise features first." in str(told.value)


def test_an_unfinished_version_is_never_current(place: Place, lake: Lake) -> None:
    unfinished = draft(lake, "raw", 1)
    assert lake.tables() == lake.folders() == []
    assert _published(lake, "raw", 1) is None
    with pytest.raises(DatasetError, match="no raw yet"):
        lake.current("raw")
    published = publish(lake, "raw", 2)
    draft(lake, "raw", 3)
    assert lake.current("raw") == published
    assert {file.name for file in unfinished.files} < _parts(place, "raw")


def test_a_version_that_is_forced_takes_nothing_over(folder_lake: Lake) -> None:
    published = publish(folder_lake, "raw", 1)
    recipe = recipe_of("raw", 1)
    earlier = folder_lake.earlier(recipe, "raw", grown=["source"])
    assert earlier
    assert earlier.files == published.files
    assert folder_lake.earlier(replace(recipe, salt="run"), "raw", grown=["source"]) is None


def test_what_can_be_tried_again_is_answered_by_the_newest_try(folder_lake: Lake) -> None:
    """The first try stays the version of the recipe, until there is another one."""

    def provisional(salt: str, left: int) -> Snapshot:
        recipe = replace(recipe_of("raw", 1), salt=salt)
        made = draft(folder_lake, "raw", 1)
        commit = replace(made.commit, recipe=recipe.version, provisional=left)
        return folder_lake.publish(replace(made, commit=commit))

    first = provisional("", 2)
    assert _published(folder_lake, "raw", 1) == first
    second = provisional("another run", 1)
    assert _published(folder_lake, "raw", 1) == second


# ------------------------------------------------------------------------------ damage


def _remove(place: Place, name: str) -> None:
    place.remove(name)


def _shorten(place: Place, name: str) -> None:
    place.put(name, b"cut")


@pytest.mark.parametrize("harm", [_remove, _shorten])
@pytest.mark.parametrize("published_before", [False, True])
def test_a_version_with_a_missing_or_shorter_part_is_not_published(
    place: Place, lake: Lake, harm: Callable[[Place, str], None], *, published_before: bool
) -> None:
    if published_before:
        publish(lake, "raw", 1)
    new = draft(lake, "raw", 2)
    harm(place, f"raw/{new.files[1].name}")
    with pytest.raises(DatasetError, match=r"parquet (is missing|has 3 bytes instead of)"):
        lake.publish(new)
    if published_before:
        assert seen(lake, "raw") == of("raw", 1)
    else:
        assert lake.tables() == []


def test_a_current_version_whose_part_is_gone_is_not_taken_for_published(
    place: Place, lake: Lake
) -> None:
    publish(lake, "raw", 1)
    same = draft(lake, "raw", 1)
    place.remove(f"raw/{same.files[0].name}")
    with pytest.raises(DatasetError, match="is missing"):
        lake.publish(same)


@THE_SAME_EVERYWHERE
@pytest.mark.parametrize("harm", [_remove, _shorten])
def test_a_damaged_version_is_not_taken_again_and_can_be_made_again(
    place: Place, lake: Lake, harm: Callable[[Place, str], None]
) -> None:
    published = publish(lake, "raw", 1)
    harm(place, f"raw/{published.files[0].name}")
    assert _published(lake, "raw", 1) is None
    for look in (lake.current, lambda name: lake.version(name, 0)):
        with pytest.raises(DatasetError, match=r"is damaged: part-.* Run `make repair`"):
            look("raw")
    made = publish(lake, "raw", 1)
    assert made == published
    assert seen(lake, "raw") == of("raw", 1)
    publish(lake, "raw", 2)
    harm(place, f"raw/{published.files[1].name}")
    assert _published(lake, "raw", 1) is None
    assert _published(lake, "raw", 2) == lake.current("raw")


def test_a_version_whose_sibling_is_damaged_is_not_taken_again(place: Place, lake: Lake) -> None:
    published = publish(lake, "raw", 1, siblings=["rejected"])
    place.remove(f"rejected/{published.siblings['rejected'].files[0].name}")
    assert _published(lake, "raw", 1) is None


# ------------------------------------------------------------------------------ crashes


class _Crash(BaseException):
    """The process dies: nothing may catch this and go on."""


@dataclass
class _Killer:
    """Ends the process before its nth change of the file system.

    Attributes:
        nth: change, from 1.
        done: what it did, or would have done.
    """

    nth: int
    done: list[str] = field(default_factory=list)

    def step(self, what: str) -> None:
        self.done.append(what)
        if len(self.done) == self.nth:
            raise _Crash

    @property
    def crashed(self) -> bool:
        return len(self.done) >= self.nth


class _MortalStorage(LocalStorage):
    killer: _Killer

    def __init__(self, killer: _Killer) -> None:
        object.__setattr__(self, "killer", killer)

    @contextlib.contextmanager
    def create(self, uri: str) -> Iterator[BinaryIO]:
        self.killer.step("create")
        with super().create(uri) as file:
            yield file

    def swap(self, uri: str, content: bytes, *, expected: bytes | None) -> None:
        self.killer.step("swap")
        super().swap(uri, content, expected=expected)

    def remove(self, uris: Iterable[str]) -> int:
        count = 0
        for uri in uris:
            self.killer.step("remove")
            count += super().remove([uri])
        return count


@contextlib.contextmanager
def _mortal(lake: Lake, patch: pytest.MonkeyPatch, killer: _Killer) -> Iterator[Lake]:
    """The lake of a process that will die; delta-rs changes files by itself, too."""

    class Mortal(DeltaTable):
        def create_write_transaction(self, *args: Any, **kwargs: Any) -> None:
            killer.step("commit")
            super().create_write_transaction(*args, **kwargs)

    with patch.context() as inner:
        inner.setattr(table_module, "DeltaTable", Mortal)
        yield replace(lake, folder=Folder(_MortalStorage(killer), lake.base))


def _number_seen(lake: Lake) -> int | None:
    """Number of the version that readers see; fails unless it is whole, with its siblings."""
    if lake.find("raw") is None:
        return None
    found = lake.current("raw")
    number = found.figures["number"]
    assert rows(found) == of("raw", number)
    assert rows(found.siblings["rejected"]) == of("rejected", number)
    assert seen(lake, "rejected") in (of("rejected", number), of("rejected", number + 1))
    return number


@pytest.mark.parametrize(
    ("published_before", "keep_versions", "changes"),
    [
        (False, 3, {"swap", "create"}),
        (True, 3, {"swap", "commit"}),
        (True, 1, {"swap", "commit", "remove"}),
    ],
)
def test_after_a_crash_the_lake_reads_whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keep_versions: int,
    changes: set[str],
    *,
    published_before: bool,
) -> None:
    """Before any change of any file, while two tables are published and old parts go.

    Whoever dies after a change dies before the next one.
    """
    before, found, killer = (1 if published_before else None), [], None
    for nth in itertools.count(1):
        lake = Lake.at(str(tmp_path / f"lake {nth}"), keep_versions=keep_versions)
        if published_before:
            publish(lake, "raw", 1, siblings=["rejected"])
        killer, new = _Killer(nth), draft(lake, "raw", 2, siblings=["rejected"])
        with _mortal(lake, monkeypatch, killer) as mortal, contextlib.suppress(_Crash):
            mortal.publish(new)
        found.append(_number_seen(lake))
        if keep_versions == 3 and published_before:
            assert _published(lake, "raw", 1)
        publish(lake, "raw", 2, siblings=["rejected"])
        assert _number_seen(lake) == 2
        assert seen(lake, "rejected") == of("rejected", 2)
        if not killer.crashed:
            break
    replaced = found.index(2)
    assert found == [before] * replaced + [2] * (len(found) - replaced)
    assert replaced > 1, "it was not killed before the commit"
    assert ("remove" in changes) == (len(found) - replaced > 1)
    assert killer
    assert set(killer.done) == changes


def _refused_after(count: int, counts: Callable[[Request], bool], reached: list[Request]) -> Rule:
    """So many requests of those that count reach the server, and then none any more."""

    def rule(request: Request, forward: Callable[[], Answer]) -> Answer:
        if counts(request):
            if len(reached) == count:
                return refusal(403, "AccessDenied", "No.")
            reached.append(request)
        return forward()

    return rule


def test_after_a_crash_at_any_request_the_lake_reads_whole(gated: Bucket, gate: Gate) -> None:
    """At any that changes something, of boto3 and of delta-rs, while two tables are published.

    For the bucket, who is cut off is dead. Each try gets one change further than the one before.
    """
    lake = Lake.at(gated.base, region=REGION, keep_versions=1)
    publish(lake, "raw", 1, siblings=["rejected"])
    new, replaced = draft(lake, "raw", 2, siblings=["rejected"]), []
    for count in (0, *[1] * 20):
        reached: list[Request] = []
        gate.rule = _refused_after(count, lambda it: it.method in {"PUT", "POST"}, reached)
        with contextlib.suppress(FruitsError):
            lake.publish(new)
        gate.rule = forwarded
        replaced.append(_number_seen(lake) == 2)
        if len(reached) < count:
            break
    # A commit each, and the removal of four parts; nothing is left to do for the last try.
    assert replaced == [False, False, True, True, True, True, True, True]
    assert seen(lake, "rejected") == of("rejected", 2)
    for name in ("raw", "rejected"):
        assert len(_parts(gated, name)) == 2, "the old parts are still there"


@pytest.mark.parametrize("stride", [18, pytest.param(3, marks=pytest.mark.slow)])
def test_a_bucket_that_refuses_a_request_keeps_a_whole_version(
    gated: Bucket, gate: Gate, stride: int
) -> None:
    """Any request, those that only read too: nothing is ever taken for damaged."""
    replaced = []
    for count in itertools.count(0, stride):
        lake = Lake.at(gated.uri(str(count)), region=REGION, keep_versions=1)
        publish(lake, "raw", 1)
        new, reached = draft(lake, "raw", 2), []
        gate.rule = _refused_after(count, lambda _: True, reached)
        error = _error_of(partial(lake.publish, new))
        gate.rule = forwarded
        assert not isinstance(error, DatasetError), error
        found = lake.current("raw").figures["number"]
        replaced.append(found == 2)
        assert seen(lake, "raw") == of("raw", found)
        assert lake.publish(new).number == 1
        assert seen(lake, "raw") == of("raw", 2)
        assert len(_parts(gated, f"{count}/raw")) == 2, "the old parts are still there"
        if len(reached) < count:
            break
    assert replaced == sorted(replaced)
    assert {*replaced} == {False, True}, "it was not cut off on both sides of the commit"


def _error_of(call: Callable[[], object]) -> FruitsError | None:
    try:
        call()
    except FruitsError as error:
        return error
    return None


def test_a_publish_that_fails_keeps_the_version_before(
    folder_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = publish(folder_lake, "raw", 1), draft(folder_lake, "raw", 2)

    class Full(DeltaTable):
        def create_write_transaction(self, *_: object, **__: object) -> None:
            raise OSError("No space left on device (os error 28)\n   0: <unknown>\n   1: a call")

    with monkeypatch.context() as patch:
        patch.setattr(table_module, "DeltaTable", Full)
        with pytest.raises(LakeError) as told:
            folder_lake.publish(new)
    assert "raw cannot be published to (No space left on device (os error 28)). Free space" in str(
        told.value
    )
    assert folder_lake.current("raw") == old
    assert folder_lake.publish(new).number == 1  # the advice helps


@pytest.mark.parametrize("number", [0, 1])
def test_a_commit_that_cannot_be_written_is_reported(folder_lake: Lake, number: int) -> None:
    """A folder is in its way."""
    for one in range(number):
        publish(folder_lake, "raw", one)
    new, entry = draft(folder_lake, "raw", 2), Path(folder_lake.table("raw").entry(number))
    Path(entry, "in the way").mkdir(parents=True)
    with pytest.raises(LakeError):
        folder_lake.publish(new)
    assert [path for path in entry.parent.rglob("*") if path.is_file()] == [
        entry.with_name(f"{one:020d}.json") for one in range(number)
    ]
    Path(entry, "in the way").rmdir()
    entry.rmdir()
    assert folder_lake.publish(new).number == number


# ------------------------------------------------------------------------------ at once


@pytest.mark.parametrize("published_before", [False, True])
def test_of_two_who_publish_at_once_one_wins(place: Place, *, published_before: bool) -> None:
    def publish_it(rival: Snapshot) -> FruitsError | None:
        start.wait()
        return _error_of(lambda: lake.publish(rival))

    with ThreadPoolExecutor(2) as pool:
        for number in range(3):
            lake, start = Lake.at(place.uri(str(number)), region=REGION), threading.Barrier(2)
            if published_before:
                publish(lake, "raw", 0)
            rivals = [draft(lake, "raw", one) for one in (1, 2)]
            ends = list(zip(rivals, pool.map(publish_it, rivals), strict=True))
            ((lost, error),) = [(rival, error) for rival, error in ends if error]
            (won,) = [rival for rival, error in ends if not error]
            assert isinstance(error, ConflictError)
            text = str(error)
            assert "another run published raw" in text
            assert f"the parts of this run's version {lost.version} stay in the lake" in text
            assert "Materialise raw again to make it current" in text
            assert seen(lake, "raw") == of("raw", won.figures["number"])
            assert {file.name for file in lost.files} < _parts(place, f"{number}/raw")
            assert lake.publish(again(lake, lost)).version == lost.version  # the advice helps


def test_of_two_processes_that_publish_at_once_one_wins(bucket: Bucket) -> None:
    lake = Lake.at(bucket.base, region=REGION)
    publish(lake, "raw", 0)
    rivals = [draft(lake, "raw", one) for one in (1, 2)]
    program = (
        "import pickle, sys\n"
        "from fruits_assets.core.errors import ConflictError\n"
        "lake, draft = pickle.load(sys.stdin.buffer)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.buffer.read()\n"
        "try:\n"
        "    print(lake.publish(draft).number)\n"
        "except ConflictError as error:\n"
        "    print(error)\n"
    )
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe)
            )
            for _ in rivals
        ]
        for process, rival in zip(processes, rivals, strict=True):
            assert process.stdin
            assert process.stdout
            pickle.dump((lake, rival), process.stdin)
            process.stdin.flush()
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.close()
        printed = []
        for process in processes:
            assert process.stdout
            printed.append(process.stdout.read().decode())
    (won,) = [one for one, text in zip(rivals, printed, strict=True) if text == "1\n"]
    assert sum("another run published raw" in text for text in printed) == 1
    assert seen(lake, "raw") == of("raw", won.figures["number"])


@pytest.mark.parametrize("published_before", [False, True])
def test_who_publishes_the_same_at_once_both_win(lake: Lake, *, published_before: bool) -> None:
    if published_before:
        publish(lake, "raw", 0)
    rivals = [draft(lake, "raw", 1) for _ in range(3)]
    start = threading.Barrier(len(rivals))

    def publish_it(rival: Snapshot) -> int:
        start.wait()
        return lake.publish(rival).number

    with ThreadPoolExecutor(len(rivals)) as pool:
        assert set(pool.map(publish_it, rivals)) == {1 if published_before else 0}
    assert seen(lake, "raw") == of("raw", 1)
    assert len(lake.table("raw").entries()) == (2 if published_before else 1)


@pytest.mark.parametrize("published_before", [False, True])
def test_who_was_overtaken_does_not_publish(lake: Lake, *, published_before: bool) -> None:
    if published_before:
        publish(lake, "raw", 1)
    late = draft(lake, "raw", 2)
    overtaker = publish(lake, "raw", 3)
    with pytest.raises(ConflictError, match="another run published raw while this one"):
        lake.publish(late)
    assert lake.current("raw") == overtaker
    assert lake.publish(again(lake, late)).version == late.version  # the advice helps
    assert seen(lake, "raw") == of("raw", 2)


def test_who_was_overtaken_gets_a_conflict_though_parts_are_gone(folder_lake: Lake) -> None:
    """What it took over from the version before went with that version."""
    lake = replace(folder_lake, keep_versions=1)
    before = publish(lake, "raw", 1)
    late = draft(lake, "raw", 2, parts=0)
    publish(lake, "raw", 3)
    with pytest.raises(ConflictError, match="another run published raw"):
        lake.publish(replace(late, files=before.files))


def test_who_was_overtaken_by_an_erasure_does_not_publish(folder_lake: Lake) -> None:
    """What was withdrawn meanwhile may hold what had to go."""
    publish(folder_lake, "raw", 1)
    late = draft(folder_lake, "raw", 2)
    folder_lake.withdraw("raw", run="erasure")
    with pytest.raises(ConflictError, match="another run published raw"):
        folder_lake.publish(late)
    assert folder_lake.find("raw") is None


@pytest.mark.parametrize("rival", [2, 3])
@pytest.mark.parametrize("is_empty", [False, True])
def test_who_is_overtaken_at_the_last_moment_finds_out(
    folder_lake: Lake, monkeypatch: pytest.MonkeyPatch, rival: int, *, is_empty: bool
) -> None:
    """Between the last look at the log and the commit; the same recipe is no conflict.

    For delta-rs, two who only add parts do not conflict: both would be in the table.
    """
    publish(folder_lake, "raw", 1)
    if is_empty:
        folder_lake.withdraw("raw", run="erasure")
    late, overtaker = draft(folder_lake, "raw", 2), draft(folder_lake, "raw", rival)

    class Overtaken(DeltaTable):
        def create_write_transaction(self, *args: Any, **kwargs: Any) -> None:
            monkeypatch.setattr(table_module, "DeltaTable", DeltaTable)
            folder_lake.publish(overtaker)
            super().create_write_transaction(*args, **kwargs)

    monkeypatch.setattr(table_module, "DeltaTable", Overtaken)
    with pytest.raises(ConflictError) if rival == 3 else contextlib.nullcontext():
        assert folder_lake.publish(late).number == (2 if is_empty else 1)
    assert seen(folder_lake, "raw") == seen_by_others(folder_lake, "raw") == of("raw", rival)
    assert len(folder_lake.table("raw").entries()) == (3 if is_empty else 2)


def test_a_run_that_was_overtaken_fails_and_its_work_is_kept(place: Place) -> None:
    """Through Dagster: the run looks at what is current before it sets to work."""
    resource = LakeResource(base=place.base, region=REGION)
    recipe = Recipe("make_raw", "1", {}, {})
    asked, made = [], []

    def rows_of_it() -> pa.Table:
        made.append(1)
        return pa.table({"text": ["mine"]}, SCHEMA)

    def make(folders: Mapping[str, Folder]) -> dict[str, Output]:
        if not asked:
            publish(resource.open(), "raw", 3)  # another run is faster
        asked.append(1)
        file, _ = part_once(folders["raw"], Origin(address_of("mine"), 0, 1), rows_of_it)
        return {"raw": Output((file,))}

    @dg.asset
    def raw(context: dg.AssetExecutionContext, lake: LakeResource) -> Snapshot:
        return lake.produce(context, recipe, {"raw": SCHEMA}, make)

    def run() -> dg.ExecuteInProcessResult:
        resources = {"lake": resource, "io_manager": LakeIOManager(lake=resource)}
        return dg.materialize([raw], resources=resources, raise_on_error=False)

    lake = Lake.at(place.base, region=REGION)
    publish(lake, "raw", 1)
    first = run()
    assert not first.success
    assert "another run published raw while this one was at work" in failure(first)
    assert seen(lake, "raw") == of("raw", 3)
    assert run().success
    assert seen(lake, "raw") == ["mine"]
    assert len(made) == 1, "what was finished was made again"
    assert run().success
    assert len(asked) == 2, "what was published was asked for again"


# ------------------------------------------------------------------------------ withdrawal


@THE_SAME_EVERYWHERE
def test_what_is_withdrawn_is_not_taken_again(lake: Lake) -> None:
    for number in (1, 2):
        publish(lake, "raw", number)
    lake.withdraw("raw", run="erasure")
    assert lake.find("raw") is None
    assert lake.tables() == []
    assert lake.folders() == ["raw"]
    assert seen_by_others(lake, "raw") == []
    for number in (1, 2):
        assert _published(lake, "raw", number) is None
    assert lake.earlier(recipe_of("raw", 2), "raw", grown=["source"]) is None
    with pytest.raises(DatasetError, match="no raw yet"):
        lake.current("raw")
    published = publish(lake, "raw", 2)
    assert published.number == 3
    assert lake.current("raw") == published
    assert _published(lake, "raw", 1) is None
    assert _published(lake, "raw", 2) == published
    lake.withdraw("never", run="erasure")
    assert lake.folders() == ["raw"]


# ------------------------------------------------------------------------------ places


def test_two_lakes_do_not_see_each_other(place: Place) -> None:
    """Though the name of one begins with that of the other."""
    lakes = [Lake.at(place.uri(name), region=REGION) for name in ("lake", "lake_too", "la")]
    for number, lake in enumerate(lakes):
        assert lake.folders() == []
        publish(lake, "raw", number)
    for number, lake in enumerate(lakes):
        assert seen(lake, "raw") == of("raw", number)
        publish(replace(lake, keep_versions=1), "raw", 10 + number)
    assert [seen(lake, "raw") for lake in lakes] == [of("raw", number) for number in (10, 11, 12)]


def test_a_lake_lies_at_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Lake.at("lake").base == str(tmp_path / "lake")
    assert Lake.at("~/lake").base == str(tmp_path / "home" / "lake")
    assert not Path("lake").exists()


def test_a_lake_in_a_place_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(LakeError, match="ftp://host/lake"):
        Lake.at("ftp://host/lake")


@pytest.mark.parametrize("name", ["a%20b", "a\\b", "a\tb", "a\x7fb"])
def test_a_path_that_other_software_reads_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LakeError, match="Point FRUITS_LAKE at a path without"):
        Lake.at(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a b", "pêche 🍓", "a+b&c=d;e#f?", "[0-9]*{a}", "~", ":"])
def test_a_lake_may_have_any_other_name(tmp_path: Path, name: str) -> None:
    lake = Lake.at(str(tmp_path / name))
    for number in range(2):
        publish(lake, "raw", number)
    assert seen(lake, "raw") == of("raw", 1)
    assert [path.name for path in tmp_path.iterdir()] == [name]


# ------------------------------------------------------------------------------ formats


FIRST_FORMAT = {
    "raw_images/current.json": b'{"version": "0123456789abcdef"}',
    "raw_images/0123456789abcdef/manifest.json": b"{}",
    "raw_images/0123456789abcdef/part-00000.parquet": b"photos",
}


def _everything(place: Place) -> dict[str, bytes]:
    return {name: place.get(name) for name in place.names()}


def test_a_lake_of_the_first_format_is_refused_and_not_changed(place: Place) -> None:
    for name, content in FIRST_FORMAT.items():
        place.put(name, content)
    before = _everything(place)
    with pytest.raises(LakeError) as told:
        Lake.at(place.base, region=REGION)
    text = str(told.value)
    assert f"{place.base} is a lake of the first format (raw_images/current.json)" in text
    assert "Nothing was changed. Point FRUITS_LAKE at a new place and run again" in text
    assert _everything(place) == before


@pytest.mark.parametrize("found", [1, 3, "2", None])
def test_a_lake_of_another_format_is_refused_and_not_changed(place: Place, found: object) -> None:
    publish(Lake.at(place.base, region=REGION), "raw", 1)
    place.put(MARKER, json.dumps({"format": found}).encode())
    before = _everything(place)
    with pytest.raises(LakeError) as told:
        Lake.at(place.base, region=REGION)
    assert f"is a lake of format {found}, and this version of the project" in str(told.value)
    assert _everything(place) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff"])
def test_a_damaged_marker_is_reported_and_can_be_restored(place: Place, content: bytes) -> None:
    published = publish(Lake.at(place.base, region=REGION), "raw", 1)
    place.put(MARKER, content)
    with pytest.raises(LakeError, match=f"{MARKER} cannot be read") as told:
        Lake.at(place.base, region=REGION)
    assert f'Restore it: {{"format": {FORMAT}}} is its content' in str(told.value)
    place.put(MARKER, f'{{"format": {FORMAT}}}'.encode())  # the advice helps
    lake = Lake.at(place.base, region=REGION)
    assert lake.current("raw") == published
    assert publish(lake, "raw", 2).number == 1
    assert place.get(MARKER) == f'{{"format": {FORMAT}}}'.encode()


def test_a_lake_is_marked_when_it_is_first_published_to(place: Place, lake: Lake) -> None:
    draft(lake, "raw", 1)
    assert lake.find("raw") is None
    assert lake.tables() == []
    assert MARKER not in place.names()
    publish(lake, "raw", 1)
    marker = place.get(MARKER)
    assert json.loads(marker) == {"format": FORMAT, "made_by": "fruits_assets"}
    publish(lake, "raw", 2)
    assert place.get(MARKER) == marker


def test_whoever_opened_the_lake_before_it_was_marked_notices(place: Place, lake: Lake) -> None:
    """Another version of the project has made a lake here meanwhile."""
    place.put(MARKER, b'{"format": 3}')
    with pytest.raises(LakeError, match="is a lake of format 3"):
        publish(lake, "raw", 1)
    assert lake.folders() == []


def test_a_folder_with_files_that_are_not_of_a_lake_may_become_one(place: Place) -> None:
    names = {"README.md", "notes/a.txt", "notes/b/current.json", "raw/notes.txt", ".DS_Store"}
    for name in names:
        place.put(name, b"mine")
    lake = Lake.at(place.base, region=REGION)
    publish(lake, "raw", 1)
    assert Lake.at(place.base, region=REGION).tables() == ["raw"]
    assert {name for name in names if place.get(name) == b"mine"} == names


# ------------------------------------------------------------------------------ the command


@THE_SAME_EVERYWHERE
def test_the_command_shows_what_the_lake_holds(
    place: Place, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITS_LAKE", lake.base)
    monkeypatch.setenv("FRUITS_REGION", REGION)
    made = draft(lake, "presentation", 1)
    figures = {"slides": 30, "minutes": 20}
    whole = lake.publish(replace(made, commit=replace(made.commit, figures=figures)))
    broken, withdrawn, torn = (
        publish(lake, name, 1) for name in ("features", "notebook", "raw_images")
    )
    place.remove(f"features/{broken.files[0].name}")
    lake.withdraw("notebook", run="erasure")
    place.put("raw_images/_delta_log/00000000000000000000.json", b"")
    result = CliRunner().invoke(cli.main, ["status"])
    assert result.exit_code == 0, result.output
    printed = result.output.splitlines()
    assert f"The lake {lake.base} holds:" in printed
    lines = {line.split()[0]: line for line in printed[4:]}
    assert list(lines) == ["raw_images", "features", "notebook", "presentation"]
    assert lines["presentation"].split(None, 6) == [
        *("presentation", whole.version, "0", "0.0", "1.0", "s"),
        "30 slides for 20 minutes",
    ]
    assert f"{broken.files[0].name} is missing. Run `make repair`" in lines["features"]
    assert "withdrawn: materialise it again" in lines["notebook"]
    assert "its last commit is empty. Run `make repair`" in lines["raw_images"]
    assert withdrawn.version not in result.output
    assert torn.version not in result.output
