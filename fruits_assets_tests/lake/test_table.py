"""A table is a Delta table like any other, and each commit says who made it, from what."""

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake
from deltalake.transaction import AddAction

from fruits_assets import cli
from fruits_assets.core.errors import ConflictError, DatasetError, FruitsError, LakeError, S3Error
from fruits_assets.lake import retention
from fruits_assets.lake import table as table_module
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.table import CONFIGURATION, Table
from fruits_assets.storage.parquet import File, Origin, address_of, write_part
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets_tests.conftest import THE_SAME_EVERYWHERE
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
from fruits_assets_tests.s3 import (
    ACCESS_KEY,
    REGION,
    SECRET_KEY,
    SLOW_DOWN,
    Answer,
    Gate,
    Request,
    Server,
    forwarded,
    refusal,
)
from fruits_assets_tests.users import Unprivileged, unprivileged_fixture  # noqa: F401

KEY = "arn:aws:kms:eu-west-3:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER_SCHEMA = pa.schema([("text", pa.string()), ("digits", pa.int64())])


@pytest.fixture
def lake(place: Place) -> Lake:
    return Lake.at(place.base, region=REGION)


@pytest.fixture
def folder_lake(tmp_path: Path) -> Lake:
    return Lake.at(str(tmp_path / "lake"))


def _entry(name: str, number: int) -> str:
    return f"{name}/_delta_log/{number:020d}.json"


def _others(lake: Lake, name: str) -> DeltaTable:
    """A table as other software opens it."""
    return DeltaTable(lake.table(name).folder.uri, storage_options=lake.storage.delta_options())


def _draft_with_digits(lake: Lake, number: int) -> Snapshot:
    """A version with another column."""
    origin = Origin(address_of("digits", number), 0, 1)
    made = pa.table({"text": [f"raw {number}"], "digits": [number]}, OTHER_SCHEMA)
    file = write_part(lake.table("raw").folder, origin, made)
    return lake.draft(
        recipe_of("raw", number),
        {"raw": Output((file,), {"number": number})},
        {"raw": OTHER_SCHEMA},
        run="run",
        seconds=1.0,
        follows={"raw": lake.table("raw").latest()},
    )


# ------------------------------------------------------------------------------ the log


def _log(place: Place, name: str) -> str:
    """All that a log says, its checkpoints too, as text."""
    found = []
    for one in sorted(place.names(f"{name}/_delta_log")):
        content = place.get(one)
        if one.endswith(".parquet"):
            table = pq.read_table(pa.BufferReader(content))
            found.append(json.dumps(table.to_pylist(), default=str))
        else:
            found.append(content.decode())
    return "\n".join(found)


@THE_SAME_EVERYWHERE
def test_a_log_says_nothing_of_rows_or_of_where_they_lie(place: Place) -> None:
    """However a commit is made: the first, by delta-rs, with other columns, and a checkpoint."""
    lake = Lake.at(place.base, region=REGION)
    publish(lake, "raw", 111)
    publish(lake, "raw", 222)
    lake.publish(_draft_with_digits(lake, 333))
    lake.withdraw("raw", run="erasure")
    publish(lake, "raw", 444)
    _others(lake, "raw").create_checkpoint()
    log = _log(place, "raw")
    assert "checkpoint" in "".join(place.names("raw/_delta_log"))
    for number in (111, 222, 333, 444):
        assert f"raw {number}" not in log
        assert f'{{\\"number\\": {number}}}' in log, "the log was not read"
    location = ("location", place.base, place.base.removeprefix("s3://"))
    for text in (*location, "minValues", "maxValues"):
        assert text not in log
    adds = [json.loads(line).get("add") for line in log.splitlines() if line.startswith('{"add"')]
    assert len(adds) == 7
    for add in adds:
        assert list(json.loads(add["stats"])) == ["numRecords"]
        assert add["partitionValues"] == {}
        assert "/" not in add["path"]


def test_the_first_commit_makes_a_table_that_every_reader_knows(lake: Lake) -> None:
    publish(lake, "raw", 1)
    found = _others(lake, "raw")
    assert found.version() == 0
    assert found.protocol().min_reader_version == 1
    assert found.protocol().min_writer_version == 2
    assert found.metadata().name == "raw"
    assert found.metadata().configuration == {
        "delta.dataSkippingNumIndexedCols": "0",
        "delta.enableExpiredLogCleanup": "false",
    }
    assert pa.schema(found.schema().to_arrow()) == pa.schema(SCHEMA)
    assert seen_by_others(lake, "raw") == of("raw", 1)
    publish(lake, "raw", 2)
    assert seen_by_others(lake, "raw") == of("raw", 2)


def _publish_often(lake: Lake, numbers: range) -> None:
    """Versions that share one part, so that they are quick to make."""
    table = lake.table("raw")
    (file,) = write_parts(lake, "raw", 0, parts=1)
    for number in numbers:
        table.publish(replace(draft(lake, "raw", number, parts=0), files=(file,)), {})


@pytest.mark.slow
def test_no_commit_is_ever_removed(folder_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though delta-rs makes a checkpoint every hundred commits, and most are old by then.

    It would remove what is older than 30 days and lies before an old checkpoint.
    """
    lake = replace(folder_lake, keep_versions=1)
    _publish_often(lake, range(95))
    _others(lake, "raw").create_checkpoint()
    log = Path(lake.base, "raw", "_delta_log")
    for path in log.iterdir():
        os.utime(path, (0, 0))
    _publish_often(lake, range(95, 118))
    for number in (118, 119):
        publish(lake, "raw", number)
    names = {path.name for path in log.iterdir()}
    assert {f"{number:020d}.json" for number in range(120)} <= names
    assert "_last_checkpoint" in names
    checkpoints = [name for name in names if name.endswith(".checkpoint.parquet")]
    assert len(checkpoints) == 2, "delta-rs has made none"
    table = lake.table("raw")
    assert [number for number, _ in table.history()] == list(range(119, -1, -1))
    assert seen(lake, "raw") == of("raw", 119)
    assert lake.current("raw").number == 119
    assert table.open(3).figures == {"number": 3}
    assert rows(table.open(3).remains()) == []
    assert len(list(Path(lake.base, "raw").glob("part-*"))) == 2


def test_a_version_can_be_opened_before_and_after_a_checkpoint(folder_lake: Lake) -> None:
    for number in range(3):
        publish(folder_lake, "raw", number)
    _others(folder_lake, "raw").create_checkpoint()
    for number in range(3, 5):
        publish(replace(folder_lake, keep_versions=9), "raw", number)
    for number in range(5):
        assert folder_lake.table("raw").open(number).figures == {"number": number}
    assert rows(folder_lake.version("raw", 3)) == of("raw", 3)


# ------------------------------------------------------------------------------ columns


@THE_SAME_EVERYWHERE
def test_other_columns_replace_all_parts_in_one_commit(place: Place, lake: Lake) -> None:
    old = publish(lake, "raw", 1)
    new = lake.publish(_draft_with_digits(lake, 2))
    assert (old.number, new.number) == (0, 1)
    found = _others(lake, "raw")
    assert pa.schema(found.schema().to_arrow()) == pa.schema(OTHER_SCHEMA)
    assert found.to_pyarrow_table().to_pylist() == [{"text": "raw 2", "digits": 2}]
    assert lake.current("raw").schema == OTHER_SCHEMA
    assert lake.current("raw").arrow(["digits"])["digits"].to_pylist() == [2]
    before = lake.version("raw", 0)
    assert (before, before.schema) == (old, SCHEMA)
    assert rows(before) == of("raw", 1)
    third = lake.publish(again(lake, before))
    assert (third.number, third.schema) == (2, SCHEMA)
    assert seen(lake, "raw") == seen_by_others(lake, "raw") == of("raw", 1)
    assert pa.schema(_others(lake, "raw").schema().to_arrow()) == SCHEMA
    assert lake.version("raw", 1).schema == OTHER_SCHEMA


# ------------------------------------------------------------------------------ other software


def _compact(lake: Lake) -> None:
    _others(lake, "raw").optimize.compact()


def _append(lake: Lake) -> None:
    theirs = pa.table({"text": ["theirs"]}, SCHEMA)
    write_deltalake(_others(lake, "raw"), theirs, mode="append")


@THE_SAME_EVERYWHERE
@pytest.mark.parametrize("maintain", [_compact, _append])
def test_a_commit_of_other_software_is_no_version_and_no_conflict(
    lake: Lake, maintain: Callable[[Lake], None]
) -> None:
    published = publish(lake, "raw", 1)
    new = draft(lake, "raw", 2)
    maintain(lake)
    assert _others(lake, "raw").version() == 1
    assert lake.current("raw") == published
    assert seen(lake, "raw") == of("raw", 1)
    assert lake.publish(new).number == 2
    assert seen(lake, "raw") == seen_by_others(lake, "raw") == of("raw", 2)
    assert [number for number, _ in lake.table("raw").history()] == [2, 0]
    maintain(lake)
    assert lake.publish(again(lake, published)).number == 4
    assert seen(lake, "raw") == seen_by_others(lake, "raw") == of("raw", 1)


def test_a_commit_of_other_software_at_the_last_moment_is_no_conflict(
    folder_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look at the log and the commit."""
    publish(folder_lake, "raw", 1)
    new = draft(folder_lake, "raw", 2)

    class Overtaken(DeltaTable):
        def create_write_transaction(self, *args: Any, **kwargs: Any) -> None:
            monkeypatch.setattr(table_module, "DeltaTable", DeltaTable)
            _append(folder_lake)
            super().create_write_transaction(*args, **kwargs)

    monkeypatch.setattr(table_module, "DeltaTable", Overtaken)
    assert folder_lake.publish(new).number == 2
    assert seen(folder_lake, "raw") == seen_by_others(folder_lake, "raw") == of("raw", 2)


def test_any_number_of_commits_of_other_software_hides_no_version(
    folder_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "LOOK_BACK", 2)
    monkeypatch.setattr(Table.publishes, "__defaults__", (2,))
    monkeypatch.setattr(retention, "MAINTENANCE", 0)
    lake = replace(folder_lake, keep_versions=1)
    published = publish(lake, "raw", 1)
    for _ in range(4):
        _append(lake)
    assert lake.current("raw") == published
    retention.clean(lake, ["raw"])
    assert seen(lake, "raw") == of("raw", 1)
    assert lake.tables() == ["raw"]


def test_what_other_software_wrote_stays(folder_lake: Lake) -> None:
    lake = replace(folder_lake, keep_versions=1)
    publish(lake, "raw", 1)
    _append(lake)
    theirs = {path for path in Path(lake.base, "raw").glob("part-*") if "-c000" in path.name}
    assert theirs
    for number in (2, 3):
        publish(lake, "raw", number)
    assert all(path.exists() for path in theirs)


# ------------------------------------------------------------------------------ requests


@pytest.mark.parametrize("published_before", [False, True])
@pytest.mark.parametrize("harm", ["reset", "busy"])
def test_a_publish_whose_answer_is_lost_is_known_by_what_it_wrote(
    gated: Bucket, gate: Gate, quick_retries: None, *, published_before: bool, harm: str
) -> None:
    puts: list[Request] = []

    def lose_the_first(request: Request, forward: Callable[[], Answer]) -> Answer | None:
        if request.method != "PUT" or "_delta_log" not in request.key:
            return forward()
        puts.append(request)
        answer = forward()
        if len(puts) > 1:
            return answer
        assert answer.status == 200
        return None if harm == "reset" else SLOW_DOWN

    lake = Lake.at(gated.base, region=REGION)
    if published_before:
        publish(lake, "raw", 1)
    new = draft(lake, "raw", 2)
    gate.rule = lose_the_first
    published = lake.publish(new)
    assert published.number == (1 if published_before else 0)
    assert lake.current("raw") == published
    assert seen(lake, "raw") == of("raw", 2)
    assert len(puts) == 2, "nothing was repeated: nothing was proved"
    assert all(put.headers["if-none-match"] == "*" for put in puts)
    assert all(put.of_obstore == published_before for put in puts)


def test_a_publish_whose_answer_is_lost_may_be_overtaken(
    gated: Bucket, gate: Gate, quick_retries: None
) -> None:
    lake = Lake.at(gated.base, region=REGION)
    publish(lake, "raw", 1)
    new, rival = draft(lake, "raw", 2), draft(lake, "raw", 3)

    def overtake(request: Request, forward: Callable[[], Answer]) -> Answer | None:
        if request.method != "PUT" or "_delta_log" not in request.key:
            return forward()
        gate.rule = forwarded
        assert forward().status == 200
        lake.publish(replace(rival, follows=1))
        return None

    gate.rule = overtake
    with pytest.raises(ConflictError, match="another run published raw"):
        lake.publish(new)
    assert seen(lake, "raw") == of("raw", 3)
    assert rows(lake.version("raw", 1)) == of("raw", 2)


@pytest.mark.parametrize("published_before", [False, True])
@pytest.mark.parametrize("allowed", [("GET", "HEAD"), ("GET", "HEAD", "POST", "DELETE")])
def test_who_may_only_read_publishes_nothing(
    gated: Bucket, gate: Gate, allowed: tuple[str, ...], *, published_before: bool
) -> None:
    def read_only(request: Request, forward: Callable[[], Answer]) -> Answer:
        return forward() if request.method in allowed else refusal(403, "AccessDenied", "No.")

    lake = Lake.at(gated.base, region=REGION)
    published = publish(lake, "raw", 1) if published_before else None
    new = draft(lake, "raw", 2)
    gate.rule = read_only
    with pytest.raises(LakeError if published_before else S3Error) as told:
        lake.publish(new)
    text = str(told.value)
    if published_before:
        assert f"{gated.base}/raw cannot be published to (The operation lacked the" in text
        assert "403 Forbidden: AccessDenied). Free space or grant the permission to write" in text
    else:
        assert f"access to the bucket {gated.name} is denied" in text
    assert ACCESS_KEY not in text
    assert lake.find("raw") == published
    assert lake.answers(recipe_of("raw", 2), "raw") is None


def test_who_may_only_read_a_folder_publishes_nothing(
    open_folder: Path, unprivileged: Callable[[], Unprivileged]
) -> None:
    lake = Lake.at(str(open_folder / "lake"))
    published = publish(lake, "raw", 1)
    new = draft(lake, "raw", 2)
    with unprivileged(), pytest.raises(LakeError, match=r"raw cannot be published to \(.*denied"):
        lake.publish(new)
    assert lake.current("raw") == published
    assert lake.publish(new).number == 1  # as whoever may


@pytest.mark.parametrize(
    ("status", "code", "listing"),
    [
        (403, "AccessDenied", False),
        (403, "AccessDenied", True),
        (400, "ExpiredToken", False),
        (400, "ExpiredToken", True),
        (404, "NoSuchBucket", True),
    ],
)
def test_a_bucket_that_cannot_be_read_is_not_taken_for_damaged(
    gated: Bucket, gate: Gate, status: int, code: str, *, listing: bool
) -> None:
    """By delta-rs, whose errors quote all that a server answers."""

    def refuse(request: Request, forward: Callable[[], Answer]) -> Answer:
        if request.of_obstore and (not request.key) == listing:
            return refusal(status, code, "No.")
        return forward()

    lake = Lake.at(gated.base, region=REGION)
    published = publish(lake, "raw", 1)
    gate.rule = refuse
    with pytest.raises(FruitsError) as told:
        lake.table("raw").open(0)
    assert not isinstance(told.value, DatasetError)
    text = str(told.value)
    assert f"{gated.base}/raw cannot be read: its log (" in text
    assert f": {code}). It need not be damaged" in text
    chain: BaseException | None = told.value
    while chain:
        assert ACCESS_KEY not in str(chain)
        assert SECRET_KEY not in str(chain)
        chain = chain.__cause__
    gate.rule = forwarded
    assert lake.current("raw") == published


@pytest.mark.parametrize("by_others", [False, True])
def test_nothing_is_published_to_a_log_that_delta_rs_reads_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_others: bool
) -> None:
    """As where its requests are answered by another bucket than those of our own client."""
    lake, other = Lake.at(str(tmp_path / "lake")), Lake.at(str(tmp_path / "other"))
    for one, number in ((lake, 1), (other, 2)):
        publish(one, "raw", number)
    if by_others:
        for one in (lake, other):
            write_deltalake(f"{one.base}/raw", pa.table({"text": ["x"]}), mode="append")
    new, table = draft(lake, "raw", 3), lake.table("raw")
    own = Table._delta
    monkeypatch.setattr(Table, "_delta", lambda _, number: own(other.table("raw"), number))
    with pytest.raises(LakeError, match=r"delta-rs reads another log .* Nothing was published"):
        table.publish(new, {})
    with pytest.raises(DatasetError, match="is not what was written"):
        table.open(0)
    monkeypatch.setattr(Table, "_delta", own)
    assert lake.publish(new).number == 1 + by_others
    assert seen(lake, "raw") == of("raw", 3)


# ------------------------------------------------------------------------------ encryption


def _encryption(request: Request) -> tuple[str | None, str | None]:
    name = "x-amz-server-side-encryption"
    return request.headers.get(name), request.headers.get(f"{name}-aws-kms-key-id")


def test_every_object_of_a_table_is_encrypted_as_its_lake_asks(
    gate: Gate, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts, commits, checkpoints and the marker, of two lakes that are written in turn."""
    monkeypatch.setitem(CONFIGURATION, "delta.checkpointInterval", "2")
    bucket = Bucket(f"s3://{server.bucket()}/lakes", server)
    keys = {"with": KEY, "without": None}
    lakes = {
        name: Lake.at(bucket.uri(name), region=REGION, kms_key=key) for name, key in keys.items()
    }
    gate.requests.clear()
    for number in range(3):
        for lake in lakes.values():
            publish(lake, "raw", number)
    for name, key in keys.items():
        requests = [one for one in gate.requests if f"/{name}/" in one.key]
        made = {request.key: request for request in requests if request.makes_object}
        names = bucket.names(name)
        kinds = {f"{name}/fruits-lake.json", f"{name}/raw/_delta_log/_last_checkpoint"}
        kinds |= {f"{name}/{_entry('raw', number)}" for number in range(3)}
        assert kinds < names
        assert any(one.endswith(".checkpoint.parquet") for one in names)
        assert {f"lakes/{one}" for one in names} <= made.keys()
        wanted = ("aws:kms", key) if key else ("AES256", None)
        assert {_encryption(one) for one in made.values()} == {wanted}
        for one in names if server.folder is None else ():  # versitygw does not say
            head = server.client.head_object(Bucket=bucket.name, Key=f"lakes/{one}")
            assert (head["ServerSideEncryption"], head.get("SSEKMSKeyId")) == wanted


# ------------------------------------------------------------------------------ power cuts


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch, folder_lake: Lake) -> list[tuple[str, int]]:
    """What was made durable: path relative to the lake, and how many commits were there."""
    found: list[tuple[str, int]] = []
    log, sync = Path(folder_lake.base, "raw", "_delta_log"), os.fsync

    def record(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))  # noqa: PTH115 - not a file's name
        commits = len(list(log.glob("*.json"))) if log.exists() else 0
        assert stat.S_ISDIR(os.fstat(handle).st_mode) or path.exists()
        found.append((os.path.relpath(path, folder_lake.base), commits))
        sync(handle)

    monkeypatch.setattr(os, "fsync", record)
    return found


def test_what_is_published_survives_a_power_cut(
    folder_lake: Lake, synced: list[tuple[str, int]]
) -> None:
    """Parts and their folder before the commit appears, and the commit and its folders after it.

    The first commit is made by us, the second by delta-rs, which syncs nothing.
    """
    for number in range(2):
        synced.clear()
        made = publish(folder_lake, "raw", number)
        before = [path for path, commits in synced if commits == number]
        after = [path for path, commits in synced if commits == number + 1]
        assert len(before) + len(after) == len(synced)
        parts = [index for index, path in enumerate(before) if path.startswith("raw/.part-")]
        assert len(parts) == len(made.files)
        assert "raw" in before[max(parts) :]
        assert {_entry("raw", number), "raw/_delta_log"} <= set(after)
        assert after.index(_entry("raw", number)) < after.index("raw/_delta_log")
        if number == 0:  # the folders are new, too
            assert any(_entry("raw", 0).rpartition("/")[2] in path for path in before)
            assert after.index("raw") < after.index(".")
            assert any("fruits-lake.json" in path for path in before)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("left", [0.0, 0.5])
def test_a_commit_that_a_power_cut_has_torn_is_reported(
    place: Place, lake: Lake, number: int, left: float
) -> None:
    """An empty one is nothing to delta-rs."""
    for one in range(number + 1):
        publish(lake, "raw", one)
    content, new = place.get(_entry("raw", number)), draft(lake, "raw", 9)
    place.put(_entry("raw", number), content[: int(left * len(content))])
    for look in (
        lambda: lake.current("raw"),
        lambda: lake.find("raw"),
        lambda: lake.table("raw").open(number),
        lambda: lake.publish(new),
    ):
        with pytest.raises(DatasetError, match=r"raw .* is damaged: .* Run `make repair`"):
            look()
    place.put(_entry("raw", number), content)
    assert seen(lake, "raw") == of("raw", number)


# ------------------------------------------------------------------------------ outside


@pytest.mark.parametrize("folder", ["raw", "raw/_delta_log"])
def test_a_table_that_lies_behind_a_link_is_refused(folder_lake: Lake, folder: str) -> None:
    lake = folder_lake
    publish(lake, "raw", 1)
    publish(lake, "features", 1)
    place, elsewhere = Path(lake.base, folder), Path(lake.base).with_name("elsewhere")
    new = draft(lake, "raw", 2)
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    for look in (lambda: lake.current("raw"), lambda: lake.publish(new)):
        with pytest.raises(LakeError) as told:
            look()
        assert f"{place} is a symbolic link: its files would lie outside the lake" in str(
            told.value
        )
        assert "Replace it by a folder, and move its files there" in str(told.value)
    assert sorted(elsewhere.rglob("*")) == before
    assert publish(lake, "features", 2).number == 1, "other tables are not concerned"
    assert sorted(elsewhere.rglob("*")) == before
    place.unlink()
    elsewhere.rename(place)  # the advice helps
    assert lake.publish(new).number == 1


@pytest.mark.parametrize(
    "name",
    [
        "../victim.parquet",
        "{outside}/victim.parquet",
        "%2E%2E/victim.parquet",
        "../raw/../victim.parquet",
        "sub/part-0123456789abcdef-000000-000001-0123456789abcdef.parquet",
        "victim.parquet",
        "_delta_log",
    ],
)
def test_whatever_a_commit_names_nothing_outside_is_read_or_removed(
    folder_lake: Lake, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whoever can write a commit can name any file in it, and seal it."""
    lake = replace(folder_lake, keep_versions=1)
    base = Path(lake.base)
    publish(lake, "raw", 1)
    name = name.format(outside=base)
    victims = [base / "victim.parquet", base / "raw" / "victim.parquet", base / "raw" / "sub" / "x"]
    victims.append(base / "raw" / name)
    for victim in victims:
        if victim.name != "_delta_log":
            victim.parent.mkdir(exist_ok=True)
            victim.write_bytes(b"not of the lake")
            os.utime(victim, (0, 0))
    forged = replace(draft(lake, "raw", 2), files=(File(name, 15, 1),))
    with monkeypatch.context() as patch:
        patch.setattr(Snapshot, "check", lambda forged: forged)
        lake.table("raw").publish(forged, {})
    for look in (lake.current, lake.find, lambda _: lake.table("raw").open(1)):
        with pytest.raises(DatasetError, match="commit 1 is not what was written"):
            look("raw")
    with pytest.raises((LakeError, DatasetError)):
        forged.read("anything")
    assert retention.clean(lake, ["raw"]) == 0
    monkeypatch.setenv("FRUITS_LAKE", lake.base)
    result = CliRunner().invoke(cli.main, ["repair"])
    assert result.exit_code == 1, result.output
    assert result.output.count("It is removed") == 1
    assert _entry("raw", 1) in result.output
    assert seen(lake, "raw") == of("raw", 1)
    publish(lake, "raw", 3)
    for victim in victims:
        if victim.name != "_delta_log":
            assert victim.read_bytes() == b"not of the lake"


@pytest.mark.parametrize("stats", ['{"numRecords": 1}', None])
def test_what_other_software_names_is_not_followed(folder_lake: Lake, stats: Any) -> None:
    lake = replace(folder_lake, keep_versions=1)
    publish(lake, "raw", 1)
    victim = Path(lake.base, "victim.parquet")
    victim.write_bytes(b"not of the lake")
    os.utime(victim, (0, 0))
    add = AddAction("../victim.parquet", 15, {}, 0, True, stats)  # noqa: FBT003  # type: ignore[arg-type]
    table = _others(lake, "raw")
    table.create_write_transaction([add], "append", table.schema())
    assert list(retention.damaged(lake)) == []
    assert seen(lake, "raw") == of("raw", 1)
    publish(lake, "raw", 2)
    assert seen(lake, "raw") == seen_by_others(lake, "raw") == of("raw", 2)
    assert list(retention.damaged(lake)) == []
    assert victim.read_bytes() == b"not of the lake"
