"""Buckets: in the EU or not touched, read and written whole, and clear about what is wrong."""

import itertools
import os
import pickle
import re
import socket
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from fruits_assets.assets.places import Source, WeightsOrigin
from fruits_assets.core.errors import ConflictError, LakeError, RegionError, S3Error
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets.lake.resource import LakeResource
from fruits_assets.settings import Settings
from fruits_assets.sources.bucket import BucketPhotos
from fruits_assets.sources.places import photos_at
from fruits_assets.storage import s3
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import Origin, write_files, write_part
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.region import EU_REGIONS, check_region
from fruits_assets.storage.s3 import S3Storage
from fruits_assets.storage.snapshot import Output
from fruits_assets_tests.places import Bucket
from fruits_assets_tests.s3 import (
    REGION,
    SECRET_KEY,
    SLOW_DOWN,
    Answer,
    Gate,
    Request,
    Rule,
    Server,
    always,
    by,
    forget,
    in_region,
    refusal,
    used,
)

Forward = Callable[[], Answer]
MEGABYTE = 2**20


def _regions_of_aws() -> list[str]:
    """All regions that botocore knows for S3, in all partitions, and what looks like one."""
    session = boto3.Session()
    return sorted(
        {
            region
            for partition in session.get_available_partitions()
            for region in session.get_available_regions(
                "s3", partition_name=partition, allow_non_regional=True
            )
        }
    )


REGIONS = _regions_of_aws()
IN_THE_EU = {
    "eu-central-1": "Frankfurt",
    "eu-west-1": "Ireland",
    "eu-west-3": "Paris",
    "eu-north-1": "Stockholm",
    "eu-south-1": "Milan",
    "eu-south-2": "Spain",
}


@pytest.fixture(scope="module")
def server(_moto: Server) -> Server:
    """One server will do here: what all servers must do is tested in test_storage.py."""
    return _moto


@pytest.fixture(scope="module")
def versitygw(_versitygw: Server) -> Server:
    """A server that checks signatures, and keeps objects as files."""
    return _versitygw


def _opened(uri: str = "s3://bucket/prefix", *, kms_key: str | None = None) -> Folder:
    """A folder as the pipeline opens it, in `REGION`."""
    return folder_at(uri, region=REGION, kms_key=kms_key)


def _storage(folder: Folder) -> S3Storage:
    assert isinstance(folder.storage, S3Storage)
    return folder.storage


def _words(error: Exception) -> set[str]:
    return set(re.findall(r"[\w-]+", str(error)))


def _says(region: str | None) -> Rule:
    return always(in_region(region))


# Where buckets lie


def test_of_all_regions_of_aws_six_pass() -> None:
    passed = set()
    for region in REGIONS:
        try:
            passed.add(check_region(region))
        except RegionError as error:
            assert {region, *IN_THE_EU} <= _words(error)  # noqa: PT017
    assert passed == IN_THE_EU.keys() == set(EU_REGIONS)
    assert {"eu-west-2", "eu-central-2", "us-east-1", "cn-north-1", "eusc-de-east-1"} <= {*REGIONS}
    assert len(REGIONS) > 40


@pytest.mark.parametrize("region", ["", None, "eu", "EU-WEST-3", " eu-west-3", "eu-west-3 ", "*"])
def test_what_is_not_quite_a_region_is_refused(region: str | None) -> None:
    with pytest.raises(RegionError, match="one of eu-central-1, eu-west-1, eu-west-3, eu-n"):
        check_region(region)


@pytest.mark.parametrize("place", ["lake", "source", "weights"])
def test_settings_accept_buckets_in_six_regions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FRUITS_REGION", raising=False)
    monkeypatch.setenv(f"FRUITS_{place.upper()}", "s3://bucket/prefix")
    with pytest.raises(RegionError, match="no region is set"):
        Settings()
    passed = set()
    for region in REGIONS:
        monkeypatch.setenv("FRUITS_REGION", region)
        try:
            passed.add(Settings().region)
        except (RegionError, ValidationError) as error:
            assert "is not in the European Union" in str(error)  # noqa: PT017
    assert passed == IN_THE_EU.keys()


def test_settings_refuse_other_regions_for_folders_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Weights may lie in a bucket, and nobody means such a region."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITS_REGION", "us-east-1")
    with pytest.raises(RegionError, match="'us-east-1' is not in the European Union"):
        Settings()


def test_a_bucket_is_used_only_where_it_says_that_it_lies_in_the_region_asked_for(
    stub: Gate,
) -> None:
    stub.rule = by(lambda request: in_region(request.bucket.removeprefix("in-")))
    passed = set()
    for configured, found in itertools.product(IN_THE_EU, REGIONS):
        try:
            bucket = s3.verified(f"in-{found}", region=configured, kms_key=None)
            passed.add((configured, bucket.region))
        except RegionError as error:
            assert {found, configured, "nothing"} <= _words(error)  # noqa: PT017
    assert passed == {(region, region) for region in IN_THE_EU}
    assert len(stub.requests) == len(IN_THE_EU) * len(REGIONS)


ELSEWHERE = {
    "says so": in_region("us-east-1"),
    "is in London": in_region("eu-west-2"),
    "says nothing": in_region(None),
    "has moved": Answer(301, headers={"x-amz-bucket-region": "us-east-1"}),
    "redirects": Answer(
        307, headers={"x-amz-bucket-region": "us-east-1", "Location": "http://127.0.0.1:9/"}
    ),
    "refuses": Answer(403, headers={"x-amz-bucket-region": "us-east-1"}),
    "finds the request bad": Answer(400, headers={"x-amz-bucket-region": "us-east-1"}),
}


@pytest.mark.parametrize("answer", ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize(
    "enter",
    [
        _opened,
        lambda uri: Lake.at(uri, region=REGION),
        lambda uri: LakeResource(base=uri, region=REGION).open(),
        lambda uri: Source(place=uri, region=REGION).photos(),
    ],
    ids=["folder", "lake", "resource", "source"],
)
def test_a_bucket_elsewhere_is_only_asked_where_it_lies(
    stub: Gate, enter: Callable[[str], object], answer: Answer
) -> None:
    stub.rule = always(answer)
    for _ in range(2):  # a second attempt finds no bucket that the first has left open
        with pytest.raises(RegionError) as told:
            enter("s3://bucket/prefix")
        assert "the bucket bucket" in str(told.value)
        assert "FRUITS_REGION is 'eu-west-3': nothing was read or written" in str(told.value)
    assert {request.method for request in stub.requests} == {"HEAD"}


def test_a_place_outside_the_eu_is_not_even_asked(stub: Gate) -> None:
    stub.rule = _says("us-east-1")
    for region in ("us-east-1", "eu-west-2", None):
        with pytest.raises(RegionError):
            folder_at("s3://bucket/prefix", region=region)
    assert stub.requests == []


@pytest.mark.parametrize("value", ["https://s3.us-east-1.amazonaws.com", ""])
@pytest.mark.parametrize(
    "enter",
    [
        _opened,
        lambda uri: Lake.at(uri, region=REGION),
        lambda uri: LakeResource(base=uri, region=REGION).open(),
        lambda uri: Source(place=uri, region=REGION).photos(),
    ],
    ids=["folder", "lake", "resource", "source"],
)
def test_an_endpoint_that_only_some_libraries_follow_is_refused(
    stub: Gate, monkeypatch: pytest.MonkeyPatch, enter: Callable[[str], object], value: str
) -> None:
    """delta-rs would go there, whatever it is told, and not to the bucket that was checked."""
    assert _opened().uri == "s3://bucket/prefix"
    stub.requests.clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", value)
    for told in _told(lambda: enter("s3://bucket/prefix")):
        assert "AWS_ENDPOINT_URL_S3 is set" in told.text
        assert "Unset it; AWS_ENDPOINT_URL is followed by all of them" in told.text
    assert stub.requests == []


@pytest.mark.parametrize("elsewhere", ["lake", "source", "weights"])
def test_no_asset_starts_where_one_bucket_lies_elsewhere(stub: Gate, elsewhere: str) -> None:
    stub.rule = by(lambda it: in_region("us-east-1" if it.bucket == elsewhere else REGION))

    @dg.asset
    def never(lake: LakeResource, source: Source, weights: WeightsOrigin) -> None:
        raise AssertionError("the asset has started")

    resources = {
        "lake": LakeResource(base="s3://lake/prefix", region=REGION),
        "source": Source(place="s3://source/prefix", region=REGION),
        "weights": WeightsOrigin(place="s3://weights/mine.h5", region=REGION),
    }
    result = dg.materialize([never], resources=resources, raise_on_error=False)
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_failure]
    assert f"the bucket {elsewhere} lies in 'us-east-1'" in str(event.event_specific_data)
    asked = {request.method for request in stub.requests if request.bucket == elsewhere}
    assert asked == {"HEAD"}
    assert {request.method for request in stub.requests} <= {"HEAD", "GET"}, "it was written to"


def test_a_bucket_is_asked_once_per_process(gate: Gate, server: Server) -> None:
    base = f"s3://{server.bucket()}/prefix"
    for _ in range(3):
        _opened(base)
        _opened(f"{base}/deeper")
    _opened(base, kms_key="key")
    assert [request.method for request in gate.requests] == ["HEAD"]
    _opened(f"s3://{server.bucket()}/prefix")
    assert len(gate.requests) == 2


def test_workers_use_what_the_driver_has_opened(gated: Bucket, gate: Gate) -> None:
    gated.put("file", b"content")
    pickled = pickle.dumps(gated.opened)
    forget()  # as in another process
    assert pickle.loads(pickled).read("file") == b"content"  # noqa: S301 - our own
    assert {request.method for request in gate.requests} == {"GET"}, "the bucket was asked again"


def test_a_folder_knows_all_that_is_needed_to_reach_it(gated: Bucket, gate: Gate) -> None:
    """Whatever the environment of another process says."""
    gated.put("file", b"content")
    folder = gated.opened
    with used("http://127.0.0.1:9"):
        assert folder.read("file") == b"content"
        folder.write("file", b"new")
        assert folder.remove(["file"]) == 2
    assert {request.bucket for request in gate.requests} == {gated.name}


def test_a_uri_without_a_bucket_is_told() -> None:
    for uri in ("s3://", "s3:///prefix"):
        with pytest.raises(S3Error, match=r"names no bucket. Expected s3://bucket/prefix"):
            Lake.at(uri, region=REGION)


# Keys, and what objects hold


@pytest.mark.parametrize(
    ("key", "neighbour"),
    [
        ("x//y", "x/y"),
        ("/x", "x"),
        ("//x", "x"),
        ("x/", "x"),
        ("x//", "x/"),
        ("a/../x", "x"),
        ("./x", "x"),
        ("a/./x", "a/x"),
        ("x/..", "x"),
        ("..", "."),
        ("x%2Fy", "x/y"),
        ("x+y", "x y"),
        ("x%20y", "x y"),
        ("\u00ea", "e\u0302"),
        ("X", "x"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "prefix/"])
def test_a_key_is_taken_as_it_is(server: Server, prefix: str, key: str, neighbour: str) -> None:
    """Where S3 has two objects, the pipeline has two."""
    name = server.bucket()
    for one, content in ((key, b"mine"), (neighbour, b"another's")):
        server.client.put_object(Bucket=name, Key=prefix + one, Body=content)
    with used(server.endpoint):
        root = f"s3://{name}/{prefix}".rstrip("/")
        folder = _opened(root)
        storage = _storage(folder)
        assert storage.get_object(prefix + key) == b"mine"
        assert storage.get_object(prefix + neighbour) == b"another's"
        assert storage.tail(prefix + key) == (b"mine", 4)
        assert BucketPhotos(folder).erase([key]) == 1
    left = [found["Key"] for found in server.client.list_objects_v2(Bucket=name)["Contents"]]
    assert left == [prefix + neighbour]


def test_a_file_that_is_too_large_for_memory_is_collected_on_disk(
    gated: Bucket, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "SPOOL_BYTES", MEGABYTE)
    block = os.urandom(MEGABYTE)
    with gated.opened.storage.create(gated.uri("large")) as file:
        for number in range(19):
            file.write(block[number:])
        assert file._rolled  # type: ignore[attr-defined]
        assert gate.requests == []
    assert gated.get("large") == b"".join(block[number:] for number in range(19))
    sent = Counter(request.method for request in gate.requests if "uploadId" in request.query)
    assert sent["PUT"] == 3


def test_a_large_file_that_is_abandoned_leaves_nothing(gated: Bucket, gate: Gate) -> None:
    with pytest.raises(KeyboardInterrupt), gated.opened.storage.create(gated.uri("a")) as file:  # noqa: PT012
        file.write(bytes(20 * MEGABYTE))
        raise KeyboardInterrupt
    assert gate.requests == []


def test_a_large_file_whose_part_is_refused_leaves_no_part(
    gated: Bucket, gate: Gate, quick_retries: None
) -> None:
    def refuse_a_part(request: Request, forward: Forward) -> Answer:
        second = request.query.get("partNumber") == "2"
        return refusal(403, "AccessDenied", "Access Denied") if second else forward()

    gate.rule = refuse_a_part
    with (
        pytest.raises(S3Error, match=r"access to the bucket .* is denied"),
        gated.opened.storage.create(gated.uri("large")) as file,
    ):
        file.write(bytes(20 * MEGABYTE))
    assert gated.names() == set()
    uploads = gated.server.client.list_multipart_uploads(Bucket=gated.name)
    assert uploads.get("Uploads", []) == []


def test_a_full_temporary_folder_is_told(gated: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "SPOOL_BYTES", 1000)
    with (
        pytest.raises(LakeError, match=r"No space left on device.*TMPDIR"),
        Path("/dev/full").open("wb", buffering=0) as full,
        gated.opened.storage.create(gated.uri("file")),
    ):
        full.write(b"content")
    assert gated.names() == set()


def test_columns_are_read_without_the_content_beside_them(gated: Bucket, gate: Gate) -> None:
    rows = 200
    table = pa.table(
        {
            "path": [f"Training/Apple/{row}.jpg" for row in range(rows)],
            "content": [os.urandom(20_000) for _ in range(rows)],
            "label": ["Apple", "Pear"] * (rows // 2),
        }
    )
    folder, origin = gated.opened, Origin("0" * 16, 0, rows)
    part = write_part(folder, origin, table, incompressible=["content"], group_bytes=MEGABYTE)
    assert part.bytes > 4_000_000

    gate.requests.clear()
    with folder.open(part.name) as source, pq.ParquetFile(source, pre_buffer=True) as parquet:
        light = parquet.read(["path", "label"])
    assert light.equals(table.select(["path", "label"]))
    assert sum(request.answered for request in gate.requests) < 100_000
    assert len(gate.requests) < 15
    assert all(request.of_obstore for request in gate.requests), "boto3 had to help"


def test_a_small_file_is_opened_and_read_with_one_request(gated: Bucket, gate: Gate) -> None:
    content = os.urandom(50_000)
    gated.put("part", content)
    with gated.opened.storage.open(gated.uri("part")) as file:
        assert file.read() == content
        file.seek(100)
        assert file.read(50) == content[100:150]
    assert len(gate.requests) == 1


def test_a_missing_object_is_asked_for_once(gated: Bucket, gate: Gate) -> None:
    with pytest.raises(FileNotFoundError):
        gated.opened.storage.read(gated.uri("missing"))
    assert len(gate.requests) == 1


@pytest.mark.parametrize("by_boto3", [False, True])
def test_an_object_that_was_replaced_is_an_os_error(
    gated: Bucket, gate: Gate, *, by_boto3: bool
) -> None:
    gated.put("1.jpg", b"old")
    (row,) = photos_at(gated.opened).list(recursive=True).files.to_pylist()
    assert photos_at(gated.opened).read(row) == b"old"
    gated.put("1.jpg", b"new")
    if by_boto3:
        gate.rule = lambda request, forward: None if request.of_obstore else forward()
    with pytest.raises(OSError, match="it has been replaced since it was listed") as told:
        photos_at(gated.opened).read(row)
    found = f"it has been replaced since it was listed; run again ({gated.uri('1.jpg')})"
    assert told.value.strerror == found
    gated.put("1.jpg", b"old")  # the same content has the same ETag
    assert photos_at(gated.opened).read(row) == b"old"


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_an_object_in_an_archive_is_a_problem(server: Server, storage_class: str) -> None:
    name = server.bucket()
    with used(server.endpoint):
        for key, kind in (("1.jpg", storage_class), ("2.jpg", "STANDARD_IA")):
            server.client.put_object(Bucket=name, Key=key, Body=b"photo", StorageClass=kind)
        photos = photos_at(_opened(f"s3://{name}"))
        archived, other = photos.list(recursive=True).files.to_pylist()
        assert archived["problem"] == "it is in an archive (Glacier): restore it first"
        assert other["problem"] is None
        assert photos.read(other) == b"photo"
        with pytest.raises(OSError, match=r"it is in an archive \(Glacier\); restore it") as told:
            photos.read(archived)
        assert told.value.strerror


# Encryption


KEY = "arn:aws:kms:eu-west-3:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SCHEMA = pa.schema([pa.field("a", pa.int64(), nullable=False)])


def _write_in_every_way(folder: Folder) -> None:
    storage, base = folder.storage, folder.uri
    folder.write("written", b"content")
    folder.write("empty", b"")
    with storage.create(f"{base}/created") as file:
        file.write(b"content")
    with storage.create(f"{base}/large") as file:
        file.write(bytes(9 * MEGABYTE))
    storage.swap(f"{base}/swapped", b"1", expected=None)
    storage.swap(f"{base}/swapped", b"2", expected=b"1")
    write_files(folder, "0" * 16, {"file": b"content"})
    write_part(folder, Origin("1" * 16, 0, 1), pa.table({"a": [1]}, SCHEMA))


def _encryption(request: Request) -> dict[str, str]:
    name = "x-amz-server-side-encryption"
    return {key.removeprefix(name): it for key, it in request.headers.items() if name in key}


def test_every_object_is_encrypted_with_the_key_of_s3(gate: Gate, server: Server) -> None:
    _write_in_every_way(_opened(f"s3://{server.bucket()}/prefix"))
    made = [request for request in gate.requests if request.makes_object]
    assert len(made) == 8
    for request in made:
        assert _encryption(request) == {"": "AES256"}, request.key


def test_every_object_is_encrypted_with_the_key_that_is_given(gate: Gate, server: Server) -> None:
    name = server.bucket()
    _write_in_every_way(_opened(f"s3://{name}/prefix", kms_key=KEY))
    made = [request for request in gate.requests if request.makes_object]
    for request in made:
        assert _encryption(request) == {"": "aws:kms", "-aws-kms-key-id": KEY}, request.key
    names = {request.key for request in made}
    assert len(names) == 7
    for one in names:
        head = server.client.head_object(Bucket=name, Key=one)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KEY)


def _publish(lake: Lake, number: int) -> None:
    """A version of a table: the first is committed by the project itself, others by delta-rs."""
    table = lake.table("table")
    made = write_part(table.folder, Origin("1" * 16, 0, 1), pa.table({"a": [number]}, SCHEMA))
    recipe = Recipe("make", "1", {"number": number}, {})
    outputs, follows = {"table": Output((made,))}, {"table": table.latest()}
    schemas = {"table": SCHEMA}
    lake.publish(lake.draft(recipe, outputs, schemas, run="run", seconds=0.0, follows=follows))


def test_folders_of_one_bucket_keep_their_own_keys(server: Server) -> None:
    """Whichever was opened last, in whichever order they are written to, and by delta-rs too."""
    name = server.bucket()
    keys = {"one": KEY, "two": KEY.replace("1234", "5678"), "three": None}
    with used(server.endpoint):
        folders = {
            prefix: _opened(f"s3://{name}/{prefix}", kms_key=key) for prefix, key in keys.items()
        }
        for number, prefix in enumerate(("two", "one", "three", "one", "two", "three")):
            _publish(Lake(folders[prefix]), number)
        _write_in_every_way(folders["two"])
        found = {
            prefix: set(_encryptions(Bucket(it.uri, server))) for prefix, it in folders.items()
        }
        for prefix, key in keys.items():
            storage, ours = folders[prefix].storage, f"spark.hadoop.fs.s3a.bucket.{name}.encryption"
            assert storage.to_dict() == {"region": REGION, "kms_key": key}
            assert (key or "SSE-S3") in storage.described()["encryption"]
            assert storage.delta_options().get("aws_sse_kms_key_id") == key
            assert storage.spark_config().get(f"{ours}.key") == key
            assert storage.spark_config()[f"{ours}.algorithm"] == ("SSE-KMS" if key else "AES256")
    assert found == {
        prefix: {("aws:kms", key) if key else ("AES256", None)} for prefix, key in keys.items()
    }


def _encryptions(bucket: Bucket) -> Iterator[tuple[str, str | None]]:
    """Algorithm and key of every object that was written below a prefix."""
    names = bucket.names()
    assert {f"table/_delta_log/{number:020}.json" for number in range(2)} < names
    for one in names:
        key = bucket.uri(one).removeprefix(f"s3://{bucket.name}/")
        head = bucket.server.client.head_object(Bucket=bucket.name, Key=key)
        yield head["ServerSideEncryption"], head.get("SSEKMSKeyId")


def test_no_key_is_sent_unencrypted_or_shown(gate: Gate, server: Server) -> None:
    """Requests are signed with the secret key, and never hold it."""
    folder = _opened(f"s3://{server.bucket()}/prefix")
    _write_in_every_way(folder)
    assert all("authorization" in request.headers for request in gate.requests)
    assert SECRET_KEY not in repr(gate.requests)
    assert SECRET_KEY not in repr(folder)
    assert SECRET_KEY not in repr(folder.to_dict())


# Removal


def test_more_than_a_thousand_objects_are_listed_and_removed(versitygw: Server) -> None:
    """In the 1000 at most that a request may name, or an answer."""
    assert versitygw.folder
    name, count = versitygw.bucket(versioned=False), 1001
    bucket = Bucket(f"s3://{name}/prefix", versitygw)
    bucket.put("raw_images/1", b"")
    with Gate(before=versitygw.endpoint) as gate, used(gate.endpoint):
        raw, folder = bucket.opened.child("raw"), versitygw.folder / name / "prefix" / "raw"
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}").write_bytes(b"")
        gate.requests.clear()
        names = list(raw.sizes())
        assert len(names) == count
        assert len(gate.requests) == 2
        assert raw.remove(names) >= count  # some are listed on two pages
        assert Counter(request.method for request in gate.requests)["POST"] == 2
        assert bucket.names() == {"raw_images/1"}


def _deletions(answers: Callable[[], Answer]) -> Rule:
    """Deletions are answered like this; everything else is asked of the server."""
    return lambda request, forward: answers() if request.method == "POST" else forward()


@pytest.mark.parametrize("count", [1, s3.FEW])
def test_an_object_that_may_not_be_deleted_is_told(gated: Bucket, gate: Gate, count: int) -> None:
    uris = [gated.uri(f"raw/{number}") for number in range(count)]
    for number in range(count):
        gated.put(f"raw/{number}", b"")
    body = b"<DeleteResult><Error><Key>raw/0</Key><Code>%s</Code><Message>No.</Message></Error>"
    for code, advice in (("AccessDenied", "is denied"), ("SlowDown", "did not recover")):
        answer = Answer(200, body % code.encode() + b"</DeleteResult>")
        gate.rule = _deletions(lambda answer=answer: answer)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(s3, "ATTEMPTS", 2)
            with pytest.raises(S3Error, match=rf"raw/0 cannot be deleted: .*{advice}"):
                gated.opened.storage.remove(uris)
    assert len(gated.names()) == count


def test_an_object_that_cannot_be_deleted_just_now_is_deleted_after_all(
    gated: Bucket, gate: Gate
) -> None:
    for name in ("raw/a", "raw/b"):
        gated.put(name, b"")
    busy = (
        "<DeleteResult><Error><Key>a/prefix/raw/a</Key><Code>SlowDown</Code>"
        f"<VersionId>{_version_of(gated, 'raw/a')}</VersionId></Error></DeleteResult>"
    )
    answers = iter([Answer(200, busy.encode())])

    def delete_one_later(request: Request, forward: Forward) -> Answer:
        answer = forward()
        return next(answers, answer) if request.method == "POST" else answer

    gate.rule = delete_one_later
    many = [f"{number}" for number in range(s3.FEW)]  # so that all are asked for together
    assert gated.opened.child("raw").remove(["a", "b", *many]) == 2
    assert gated.versions() == []
    assert [request.method for request in gate.requests].count("POST") == 2


def _version_of(bucket: Bucket, name: str) -> str:
    found = bucket.server.client.list_object_versions(Bucket=bucket.name, Prefix=f"a/prefix/{name}")
    return found["Versions"][0]["VersionId"]


# What goes wrong on the way and is put right


WRONG: dict[str, Answer | None] = {
    "a reset": None,
    "garbage": Answer(200, b"", {"ETag": "?", "Last-Modified": "yesterday"}),
    "not modified": Answer(304),
    "bad request": refusal(400, "InvalidRequest"),
    "expired": refusal(400, "ExpiredToken"),
    "unauthenticated": refusal(401, "InvalidAccessKeyId"),
    "denied": refusal(403, "AccessDenied"),
    "no bucket": refusal(404, "NoSuchBucket"),
    "conflict": refusal(409, "OperationAborted"),
    "precondition": refusal(412, "PreconditionFailed"),
    "range": refusal(416, "InvalidRange"),
    "too many": refusal(429, "TooManyRequests"),
    "moved": Answer(301, headers={"Location": "http://127.0.0.1:9/"}),
    "moved for now": Answer(307),
    "internal": refusal(500, "InternalError"),
    "not implemented": refusal(501, "NotImplemented"),
    "slow down": SLOW_DOWN,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_obstore_cannot_read_is_read_by_boto3(
    gated: Bucket, gate: Gate, wrong: Answer | None
) -> None:
    content = os.urandom(100_000)
    gated.put("file", content)
    gate.rule = lambda request, forward: wrong if request.of_obstore else forward()
    storage = gated.opened.storage
    assert storage.read(gated.uri("file")) == content
    assert {request.of_obstore for request in gate.requests} == {False, True}


@pytest.mark.parametrize("wrong", [None, WRONG["internal"], WRONG["range"]])
def test_what_obstore_cannot_open_is_opened_by_boto3(
    gated: Bucket, gate: Gate, wrong: Answer | None
) -> None:
    storage = gated.opened.storage
    gate.rule = lambda request, forward: wrong if request.of_obstore else forward()
    for content in (b"", b"small", os.urandom(100_000)):
        gated.put("file", content)
        with storage.open(gated.uri("file")) as file:
            assert file.size() == len(content)
            start = len(content) // 3
            file.seek(start)
            assert file.read(50) == content[start : start + 50]
            assert file.tell() == min(start + 50, len(content))
            file.seek(0)
            assert file.read() == content
    with pytest.raises(FileNotFoundError):
        storage.open(gated.uri("missing"))


def test_an_empty_object_has_no_last_bytes(gated: Bucket, gate: Gate) -> None:
    """S3 refuses to send some of nothing, which the server of these tests does not."""
    gated.put("file", b"")
    gate.rule = lambda request, forward: WRONG["range"] if "range" in request.headers else forward()
    with gated.opened.storage.open(gated.uri("file")) as file:
        assert file.size() == 0
        assert file.read() == b""


@pytest.mark.parametrize("cut", [0, 1, 99_999])
@pytest.mark.parametrize("times", [1, 3])
def test_a_body_that_breaks_off_is_read_again(
    gated: Bucket, gate: Gate, quick_retries: None, cut: int, times: int
) -> None:
    """Where obstore gives up, that is: before, it goes on where it broke off."""
    content = os.urandom(100_000)
    gated.put("file", content)
    cuts = Counter[bool]()

    def break_off(request: Request, forward: Forward) -> Answer:
        whole = not request.of_obstore and cuts[False] >= times
        cuts[request.of_obstore] += not whole
        return forward() if whole else replace(forward(), cut=cut)

    gate.rule = break_off
    assert gated.opened.storage.read(gated.uri("file")) == content
    assert cuts[True] >= 1
    assert cuts[False] == (times if cut <= 1 else 0)


def test_a_body_that_always_breaks_off_is_told(
    gated: Bucket, gate: Gate, monkeypatch: pytest.MonkeyPatch, quick_retries: None
) -> None:
    gated.put("file", bytes(1000))
    monkeypatch.setattr(s3, "ATTEMPTS", 3)
    gate.rule = lambda _, forward: replace(forward(), cut=10)
    with pytest.raises(S3Error, match="S3 cannot be reached for the bucket"):
        gated.opened.storage.read(gated.uri("file"))
    assert sum(not request.of_obstore for request in gate.requests) == 3


def test_a_swap_reads_again_what_breaks_off(gated: Bucket, gate: Gate) -> None:
    gated.put("file", b"old content")
    cuts = itertools.count()
    gate.rule = lambda request, forward: (
        replace(forward(), cut=3) if request.method == "GET" and next(cuts) == 0 else forward()
    )
    gated.opened.storage.swap(gated.uri("file"), b"new", expected=b"old content")
    assert gated.get("file") == b"new"


def test_a_request_in_three_that_is_refused_is_repeated(
    gated: Bucket, gate: Gate, quick_retries: None
) -> None:
    count = itertools.count(1)
    gate.rule = lambda _, forward: SLOW_DOWN if next(count) % 3 == 0 else forward()
    storage = gated.opened.storage
    for number in range(10):
        storage.write(gated.uri(f"{number}"), b"%d" % number)
    assert [storage.read(gated.uri(f"{number}")) for number in range(10)] == [
        b"%d" % number for number in range(10)
    ]
    assert len(storage.children(gated.base)) == 10
    storage.swap(gated.uri("1"), b"new", expected=b"1")
    with pytest.raises(ConflictError):
        storage.swap(gated.uri("2"), b"new", expected=b"1")
    names = [f"{number}" for number in range(s3.FEW)]
    assert gated.opened.remove(names[:1]) == 1
    assert gated.opened.remove(names) == 10
    assert gated.versions() == []


def test_a_part_that_is_there_is_not_written_again(gated: Bucket, gate: Gate) -> None:
    """Whoever may only create could otherwise replace what is published."""
    table, origin = pa.table({"number": [1, 2, 3]}), Origin("0" * 16, 0, 3)
    first = write_part(gated.opened, origin, table)
    assert write_part(gated.opened, origin, table) == first
    puts = [request for request in gate.requests if request.method == "PUT"]
    assert [request.headers.get("if-none-match") for request in puts] == ["*", "*"]
    assert len(gated.versions()) == 1


# What goes wrong and must be told


class Told:
    """What a person reads of an error."""

    def __init__(self, error: BaseException) -> None:
        self.text = str(error)
        self.everything = "".join(traceback.format_exception(error))


def _told(*actions: Callable[[], object]) -> Iterator[Told]:
    for action in actions:
        with pytest.raises(S3Error) as caught:
            action()
        told = Told(caught.value)
        assert SECRET_KEY not in told.everything
        assert len(told.text) < 500
        assert "\n" not in told.text
        yield told


def _uses(storage: S3Storage, uri: str) -> list[Callable[[], object]]:
    """Everything that the pipeline ever asks of a bucket."""
    return [
        lambda: storage.read(uri),
        lambda: storage.open(uri),
        lambda: storage.write(uri, b"content"),
        lambda: _create(storage, uri),
        lambda: storage.swap(uri, b"new", expected=None),
        lambda: storage.write_once(uri, b"content"),
        lambda: storage.files(uri),
        lambda: storage.files(uri, prefix="part-"),
        lambda: storage.sizes(uri),
        lambda: storage.children(uri),
        lambda: storage.remove([uri]),
        lambda: storage.remove([f"{uri}/{number}" for number in range(s3.FEW)]),
        lambda: storage.purge_object("key"),
        lambda: photos_at(Folder(storage, uri)).list(recursive=True),
        lambda: photos_at(Folder(storage, uri)).read({"path": "1.jpg", "bytes": 1, "etag": '"1"'}),
    ]


def _create(storage: S3Storage, uri: str) -> None:
    with storage.create(uri) as file:
        file.write(b"content")


KMS = "is not authorized to perform: kms:GenerateDataKey on this resource"
REFUSALS = {
    "expired": (
        refusal(400, "ExpiredToken", "The provided token has expired."),
        ("have expired", "aws sso login", "run again"),
    ),
    "unknown key": (
        refusal(403, "InvalidAccessKeyId", "The key you provided does not exist."),
        ("are not accepted", "InvalidAccessKeyId", "access key, the secret key"),
    ),
    "wrong secret": (
        refusal(403, "SignatureDoesNotMatch", "The signature does not match."),
        ("are not accepted", "SignatureDoesNotMatch", "belong together"),
    ),
    "denied": (
        refusal(403, "AccessDenied", "Access Denied"),
        ("access to the bucket bucket is denied", "docs/s3.md"),
    ),
    "no bucket": (
        refusal(404, "NoSuchBucket", "The specified bucket does not exist"),
        ("the bucket bucket does not exist", "FRUITS_LAKE", "make deploy"),
    ),
    "clock": (
        refusal(403, "RequestTimeTooSkewed", "The difference is too large."),
        ("the clock of this machine is wrong", "timedatectl"),
    ),
    "key denied": (
        refusal(403, "AccessDenied", f"User: arn:aws:iam::1:user/me {KMS}"),
        ("the key that encrypts the bucket bucket may not be used", "kms:Decrypt"),
    ),
    "key disabled": (
        refusal(400, "KMS.DisabledException", "arn:aws:kms:::key/1 is disabled."),
        (
            "the key that encrypts the bucket bucket may not be used",
            "is disabled",
            "FRUITS_KMS_KEY",
        ),
    ),
    "throttled": (SLOW_DOWN, ("S3 asks to slow down", "in a few minutes")),
    "internal": (
        refusal(500, "InternalError", "We encountered an internal error."),
        ("S3 had an internal error", "Run again"),
    ),
    "other region": (
        refusal(400, "AuthorizationHeaderMalformed", "the region is wrong; expecting 'eu-west-1'"),
        ("lies in another region than FRUITS_REGION says", "expecting 'eu-west-1'"),
    ),
    "full": (
        refusal(507, "StorageFull", "There is no space."),
        ("has no space left for the bucket bucket", "Free space"),
    ),
    "unheard of": (
        refusal(418, "ImATeapot", "I am\n a teapot."),
        ("S3 refused a request for the bucket bucket", "ImATeapot: I am a teapot"),
    ),
}
OF_HEAD = {"no bucket": 404, "throttled": 503, "internal": 500, "full": 507, "unheard of": 418}
"""Status of the answers to HEAD that say enough without a body."""


@pytest.mark.parametrize(("answer", "words"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_told_whatever_was_asked(
    stub: Gate, answer: Answer, words: tuple[str, ...]
) -> None:
    storage = _storage(_opened())
    stub.rule = always(answer)
    for told in _told(*_uses(storage, "s3://bucket/prefix/file")):
        assert all(word in told.text for word in words), told.text


@pytest.mark.parametrize(
    ("answer", "words"),
    [it for name, it in REFUSALS.items() if name not in OF_HEAD],
    ids=[name for name in REFUSALS if name not in OF_HEAD],
)
@pytest.mark.parametrize("region", [REGION, None])
def test_a_refusal_of_the_first_request_is_told(
    stub: Gate, answer: Answer, words: tuple[str, ...], region: str | None
) -> None:
    """It is a HEAD, and an answer to that has no body: S3 is asked for the reason."""
    bare = Answer(400 if answer.status == 400 else 403, headers=in_region(region).headers)
    stub.rule = by(lambda request: bare if request.method == "HEAD" else answer)
    for told in _told(_opened, _opened):  # nor is the bucket used the second time
        assert all(word in told.text for word in words), told.text


@pytest.mark.parametrize(("name", "status"), OF_HEAD.items())
def test_a_failure_of_the_first_request_is_told(stub: Gate, name: str, status: int) -> None:
    stub.rule = always(Answer(status))
    words = REFUSALS[name][1][0].split(" (")[0]
    for told in _told(_opened):
        assert words in told.text
    assert {request.method for request in stub.requests} == {"HEAD"}


def test_a_bucket_that_does_not_exist_is_told(gate: Gate) -> None:
    for told in _told(lambda: Lake.at("s3://no-such-bucket-here/lake", region=REGION)):
        assert "the bucket no-such-bucket-here does not exist" in told.text


def test_a_bucket_name_that_cannot_be_is_told(stub: Gate) -> None:
    for told in _told(lambda: _opened("s3://My Bucket/lake")):
        assert "My Bucket" in told.text
        assert "Invalid bucket name" in told.text
    assert stub.requests == []


def test_wrong_keys_are_told(versitygw: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a server that really checks signatures."""
    base = f"s3://{versitygw.bucket()}/lake"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    forget()
    with used(versitygw.endpoint):
        for told in _told(lambda: _opened(base)):
            assert "are not accepted" in told.text
            assert "SignatureDoesNotMatch" in told.text
    forget()


def _no_keys(patch: pytest.MonkeyPatch) -> None:
    patch.delenv("AWS_ACCESS_KEY_ID")
    patch.delenv("AWS_SECRET_ACCESS_KEY")


def _half_a_key(patch: pytest.MonkeyPatch) -> None:
    patch.delenv("AWS_SECRET_ACCESS_KEY")


def _an_unknown_profile(patch: pytest.MonkeyPatch) -> None:
    _no_keys(patch)
    patch.setenv("AWS_PROFILE", "nobody")


def _a_program_that_fails(patch: pytest.MonkeyPatch, folder: Path) -> None:
    _no_keys(patch)
    (folder / "config").write_text("[default]\ncredential_process = false\n")
    patch.setenv("AWS_CONFIG_FILE", str(folder / "config"))


def _a_session_that_has_ended(patch: pytest.MonkeyPatch, folder: Path) -> None:
    _no_keys(patch)
    (folder / "config").write_text(
        "[default]\nsso_session = mine\nsso_account_id = 1\nsso_role_name = me\n"
        "[sso-session mine]\nsso_region = eu-west-3\nsso_start_url = https://127.0.0.1:9/\n"
    )
    patch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    patch.setenv("HOME", str(folder))


SPOILED = {
    "none": lambda patch, _: _no_keys(patch),
    "half": lambda patch, _: _half_a_key(patch),
    "profile": lambda patch, _: _an_unknown_profile(patch),
    "program": _a_program_that_fails,
    "session": _a_session_that_has_ended,
}


@pytest.mark.parametrize(
    ("name", "opened"), [*((name, False) for name in SPOILED), ("none", True), ("program", True)]
)
def test_missing_credentials_are_told(
    stub: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, *, opened: bool
) -> None:
    """By the driver, which opens a folder, and by a worker, which is given an open one."""
    folder = _opened() if opened else None
    forget()
    stub.requests.clear()
    SPOILED[name](monkeypatch, tmp_path)
    enter = [_opened]
    if folder:
        enter = [lambda: folder.read("file"), folder.storage.delta_options]
    for told in _told(*enter):
        assert "no usable AWS credentials were found" in told.text
        assert "aws sso login" in told.text
    assert stub.requests == []


@pytest.mark.parametrize("endpoint", ["localhost:9000", "not a url", "http://"])
def test_an_endpoint_that_is_no_url_is_told(endpoint: str) -> None:
    with used(endpoint):
        for told in _told(_opened):
            assert "AWS_ENDPOINT_URL" in told.text


def test_an_endpoint_that_does_not_answer_is_told(stub: Gate, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for endpoint in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        with used(endpoint):
            for told in _told(_opened):
                assert "S3 cannot be reached for the bucket bucket" in told.text
                assert "AWS_ENDPOINT_URL" in told.text


def test_a_server_that_goes_away_is_told(stub: Gate) -> None:
    storage = _storage(_opened())
    stub.rule = always(None)
    for told in _told(*_uses(storage, "s3://bucket/prefix/file")):
        assert "S3 cannot be reached for the bucket bucket" in told.text
    by_boto3 = [request for request in stub.requests if not request.of_obstore]
    assert len(by_boto3) <= 2 * len(_uses(storage, "")) + 1, "attempts have been multiplied"


def test_a_throttled_request_is_repeated_as_often_as_is_said(
    stub: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 5)
    forget()
    folder = _opened()
    stub.rule = always(SLOW_DOWN)
    stub.requests.clear()
    for told in _told(lambda: folder.write("a", b"")):
        assert "S3 asks to slow down" in told.text
    assert len(stub.requests) == 5
    forget()
