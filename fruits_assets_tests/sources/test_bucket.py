"""Photos in a bucket are listed and read as those in a folder are, however bad the connection."""

import errno
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from fruits_assets.core.errors import S3Error, SourceError
from fruits_assets.sources import bucket as bucket_module
from fruits_assets.sources.bucket import LISTINGS_IN_FLIGHT, READS_IN_FLIGHT
from fruits_assets.sources.listing import LISTING, LISTING_SCHEMA, Listing
from fruits_assets.sources.places import photos_at
from fruits_assets.storage import s3
from fruits_assets.storage.base import Folder
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.snapshot import Commit, Output, Snapshot
from fruits_assets.transforms.changes import changes
from fruits_assets.transforms.ingest import TABLES, ingest
from fruits_assets_tests.places import Bucket
from fruits_assets_tests.s3 import (
    REGION,
    Answer,
    BadConnection,
    Gate,
    Request,
    Server,
    refusal,
    used,
)

Forward = Callable[[], Answer]
ONE_SERVER = pytest.mark.parametrize("server", ["versitygw"], indirect=True)
"""For what does not depend on the server."""

TREE = {
    "1.jpg": b"12345",
    "empty.jpg": b"",
    "B.JPG": b"b",
    "a/1.jpg": b"1",
    "a/10.jpg": b"10",
    "a/2.jpg": b"2",
    "a b/p\u00eache.jpg": b"peach",
    "a/x/y/z/deep.png": b"deep",
    "a.jpg/1.jpg": b"a folder that is named like a file",
    "a+b%20c#d?/e&f=g.jpg": b"odd",
    "Training/Apple Red 1/0_100.jpg": b"apple",
    "Training/🍓/0.jpg": b"strawberry",
    "no extension": b"",
    "deep.tar.gz": b"not a photo",
    ".DS_Store": b"hidden",
    "a/Thumbs.db": b"hidden",
    "a/thumbs.db.jpg": b"seen",
    "a/DESKTOP.INI": b"hidden",
    "__MACOSX/a.jpg": b"hidden with its folder",
    "a/.git/one": b"hidden with its folder",
    "a/.git/two": b"hidden with its folder",
    "a/x/.hidden.jpg": b"hidden",
    ".ipynb_checkpoints/a/b/1.jpg": b"hidden with its folder",
}


@pytest.fixture(scope="module")
def versitygw(_versitygw: Server) -> Server:
    """A server that keeps objects as files."""
    return _versitygw


def _fill(folder: Path, tree: dict[str, bytes]) -> None:
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _opened(place: str | Path) -> Folder:
    return folder_at(str(place), region=REGION)


def _call(read: Callable[[], bytes]) -> bytes:
    return read()


def _rows(listing: Listing) -> list[dict[str, Any]]:
    """What a folder's listing and a bucket's have in common."""
    return listing.files.select(["path", "bytes", "problem"]).to_pylist()


@pytest.mark.parametrize("recursive", [True, False])
def test_the_same_tree_has_the_same_listing(
    bucket: Bucket, tmp_path: Path, *, recursive: bool
) -> None:
    _fill(tmp_path, TREE)
    for name, content in TREE.items():
        bucket.put(name, content)
    bucket.server.client.put_object(Bucket=bucket.name, Key="a/prefix_too/1.jpg", Body=b"")
    found = photos_at(bucket.opened).list(recursive=recursive)
    expected = photos_at(_opened(tmp_path)).list(recursive=recursive)
    assert _rows(found) == _rows(expected)
    assert found.hidden == expected.hidden == (7 if recursive else 3)
    assert found.files.schema == LISTING_SCHEMA
    assert found.root == bucket.base
    assert found.files["etag"].null_count == 0


def test_a_whole_bucket_is_a_source(server: Server, tmp_path: Path) -> None:
    _fill(tmp_path, TREE)
    bucket = Bucket(f"s3://{server.bucket()}", server)
    for name, content in TREE.items():
        bucket.put(name, content)
    with used(server.endpoint):
        for root in (bucket.base, f"{bucket.base}/"):
            photos = photos_at(_opened(root))
            listing = photos.list(recursive=True)
            assert _rows(listing) == _rows(photos_at(_opened(tmp_path)).list(recursive=True))
        rows = listing.files.to_pylist()
        assert {row["path"]: photos.read(row) for row in rows} == {
            row["path"]: TREE[row["path"]] for row in rows
        }


def test_the_version_of_a_listing_changes_with_the_photos(bucket: Bucket) -> None:
    for name in ("a/1.jpg", "a/2.jpg"):
        bucket.put(name, b"photo")
    versions = [photos_at(bucket.opened).list(recursive=True).version for _ in range(2)]
    assert versions[0] == versions[1]
    bucket.put("a/2.jpg", b"other")
    versions.append(photos_at(bucket.opened).list(recursive=True).version)
    bucket.put("a/3.jpg", b"photo")
    versions.append(photos_at(bucket.opened).list(recursive=True).version)
    assert len(set(versions[1:])) == 3


def test_markers_of_folders_are_no_photos(server: Server) -> None:
    name = server.bucket()
    for key in ("source/", "source/a/", "source/a/1.jpg", "source/empty/", "source/.hidden/"):
        body = b"photo" if key.endswith("jpg") else b""
        server.client.put_object(Bucket=name, Key=key, Body=body)
    with used(server.endpoint):
        listing = photos_at(_opened(f"s3://{name}/source")).list(recursive=True)
    assert listing.files["path"].to_pylist() == ["a/1.jpg"]
    assert listing.hidden == 1


def test_a_deleted_photo_is_not_listed(bucket: Bucket) -> None:
    bucket.put("1.jpg", b"photo")
    bucket.put("gone/2.jpg", b"photo")
    bucket.remove("gone/2.jpg")
    assert photos_at(bucket.opened).list(recursive=True).files["path"].to_pylist() == ["1.jpg"]


@pytest.mark.parametrize("name", ["missing", "prefi", "file", "hidden"])
def test_a_source_without_photos_is_told(bucket: Bucket, name: str) -> None:
    bucket.put("prefix_too/1.jpg", b"photo")
    bucket.put("file", b"photo")
    bucket.put("hidden/.git/1.jpg", b"photo")
    source = bucket.uri(name)
    with pytest.raises(SourceError) as told:
        photos_at(_opened(source)).list(recursive=True)
    assert f"the source {source} holds no file" in str(told.value)
    assert ("(1 .* were passed over)" in str(told.value)) == (name == "hidden")
    listing = photos_at(_opened(source)).list(recursive=True, allow_empty=True)
    assert (listing.rows, listing.files.schema) == (0, LISTING_SCHEMA)
    assert listing.hidden == (name == "hidden")


def test_a_source_with_more_than_a_thousand_photos_in_a_folder_is_listed(
    versitygw: Server, tmp_path: Path
) -> None:
    assert versitygw.folder
    name = versitygw.bucket(versioned=False)
    _fill(tmp_path, {f"a/{number}.jpg": b"x" * (number % 7) for number in range(2005)})
    shutil.copytree(tmp_path / "a", versitygw.folder / name / "source" / "a")
    with used(versitygw.endpoint):
        found = photos_at(_opened(f"s3://{name}/source")).list(recursive=True)
    assert _rows(found) == _rows(photos_at(_opened(tmp_path)).list(recursive=True))


@ONE_SERVER
def test_folders_are_listed_side_by_side(gated: Bucket, gate: Gate) -> None:
    """No answer to the listing of one comes before all the others have been asked for."""
    folders = 8
    assert folders <= LISTINGS_IN_FLIGHT
    for number in range(folders):
        gated.put(f"folder {number}/1.jpg", b"photo")
    together = threading.Barrier(folders, timeout=20)

    def wait_for_the_others(request: Request, forward: Forward) -> Answer:
        if "folder" in request.query.get("prefix", ""):
            together.wait()
        return forward()

    gate.rule = wait_for_the_others
    assert photos_at(gated.opened).list(recursive=True).files.num_rows == folders


@ONE_SERVER
def test_photos_are_read_side_by_side_and_come_in_order(gated: Bucket, gate: Gate) -> None:
    """No photo is answered before all those that are read ahead have been asked for."""
    for number in range(READS_IN_FLIGHT):
        gated.put(f"{number:04}.jpg", b"%d" % number)
    photos = photos_at(gated.opened)
    rows = photos.list(recursive=True).files.to_pylist()
    together = threading.Barrier(READS_IN_FLIGHT, timeout=20)

    def wait_for_the_others(_: Request, forward: Forward) -> Answer:
        together.wait()
        return forward()

    gate.rule = wait_for_the_others
    contents = list(map(_call, photos.fetch(rows)))
    assert contents == [b"%d" % number for number in range(READS_IN_FLIGHT)]
    assert all(request.of_obstore for request in gate.requests if request.key.endswith("jpg"))


def test_a_photo_that_cannot_be_read_does_not_keep_the_others_from_being_read(
    gated: Bucket,
) -> None:
    for number in range(5):
        gated.put(f"{number}.jpg", b"%d" % number)
    photos = photos_at(gated.opened)
    rows = photos.list(recursive=True).files.to_pylist()
    gated.remove("1.jpg")
    gated.put("3.jpg", b"another")
    contents: list[object] = []
    for read in photos.fetch(rows):
        try:
            contents.append(read())
        except OSError as error:
            contents.append(error.strerror)
    assert contents == [
        *(b"0", f"it has vanished since it was listed ({gated.uri('1.jpg')})", b"2"),
        f"it has been replaced since it was listed; run again ({gated.uri('3.jpg')})",
        b"4",
    ]


@ONE_SERVER
def test_what_is_not_about_one_photo_ends_the_reading(gated: Bucket, gate: Gate) -> None:
    for number in range(50):
        gated.put(f"{number:02}.jpg", b"photo")
    photos = photos_at(gated.opened)
    rows = photos.list(recursive=True).files.to_pylist()
    gate.rule = lambda *_: refusal(403, "AccessDenied", "Access Denied")
    with pytest.raises(S3Error, match="is denied"):
        list(map(_call, photos.fetch(rows)))


OF_ONE_OBJECT = {
    "denied": (refusal(403, "AccessDenied", "Access Denied"), "allow this user s3:GetObject on it"),
    "another key": (
        refusal(403, "AccessDenied", "User me is not authorized to perform: kms:Decrypt on key/1"),
        "encrypted with a key that may not be used",
    ),
    "disabled key": (
        refusal(400, "KMS.DisabledException", "key/1 is disabled."),
        "allow this user kms:Decrypt on that key, or store it with another one",
    ),
    "its owner's key": (
        refusal(400, "InvalidRequest", "The object was stored using Server Side Encryption."),
        "store it without one, or move it out of the source",
    ),
    "archived": (
        refusal(403, "InvalidObjectState", "The operation is not valid."),
        "it is in an archive (Glacier); restore it, then run again",
    ),
    "vanished": (refusal(404, "NoSuchKey", "There is none."), "it has vanished since it was"),
}
"""What S3 refuses for one object only -> what to do."""


@ONE_SERVER
@pytest.mark.parametrize("name", OF_ONE_OBJECT)
def test_an_object_that_cannot_be_read_costs_itself(gated: Bucket, gate: Gate, name: str) -> None:
    for number in range(3):
        gated.put(f"{number}.jpg", b"photo")
    photos = photos_at(gated.opened)
    rows = photos.list(recursive=True).files.to_pylist()
    answer, words = OF_ONE_OBJECT[name]
    gate.rule = lambda request, forward: answer if request.key.endswith("/1.jpg") else forward()
    photos.check(rows)
    first, second, third = photos.fetch(rows)
    with pytest.raises(OSError) as told:  # noqa: PT011 - its words are looked at
        second()
    assert words in str(told.value.strerror)
    assert f"({gated.uri('1.jpg')})" in str(told.value.strerror)
    assert (first(), third()) == (b"photo", b"photo")


@ONE_SERVER
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refusal(404, "NoSuchBucket", "It is gone."), "does not exist"),
        (refusal(400, "ExpiredToken", "It has expired."), "have expired"),
    ],
)
def test_a_fault_of_the_bucket_is_none_of_one_object(
    gated: Bucket, gate: Gate, answer: Answer, words: str
) -> None:
    gated.put("1.jpg", b"photo")
    photos = photos_at(gated.opened)
    rows = photos.list(recursive=True).files.to_pylist()
    gate.rule = lambda request, forward: answer if request.key.endswith(".jpg") else forward()
    with pytest.raises(S3Error, match=words):
        photos.read(rows[0])


@ONE_SERVER
def test_a_bucket_that_refuses_all_objects_is_told_before_the_run(
    gated: Bucket, gate: Gate
) -> None:
    """It may be listed all the same."""
    for number in range(50):
        gated.put(f"{number:02}.jpg", b"photo")
    photos = photos_at(gated.opened)
    rows = photos.list(recursive=True).files.to_pylist()
    answer, _ = OF_ONE_OBJECT["denied"]
    gate.rule = lambda request, forward: answer if request.key.endswith(".jpg") else forward()
    with pytest.raises(S3Error, match=r"access to the bucket .* is denied"):
        photos.check(rows)
    gate.rule = lambda request, forward: forward() if request.key.endswith("/18.jpg") else answer
    photos.check(rows)


RESTORED = "<RestoreExpiryDate>2030-01-01T00:00:00.000Z</RestoreExpiryDate>"
IN_AN_ARCHIVE = {
    "": "it is in an archive (Glacier): restore it first",
    "<IsRestoreInProgress>true</IsRestoreInProgress>": "it is being restored from an archive "
    "(Glacier): run again once it is there",
    f"<IsRestoreInProgress>false</IsRestoreInProgress>{RESTORED}": None,
}
"""What a listing says of an archived object -> its problem."""


@ONE_SERVER
@pytest.mark.parametrize("status", IN_AN_ARCHIVE)
def test_an_object_that_was_restored_from_an_archive_is_read(
    gated: Bucket, gate: Gate, status: str
) -> None:
    gated.put("1.jpg", b"photo")

    def archived(request: Request, forward: Forward) -> Answer:
        answer = forward()
        if "list-type" not in request.query:
            return answer
        assert request.headers["x-amz-optional-object-attributes"] == "RestoreStatus"
        more = f"<RestoreStatus>{status}</RestoreStatus>" if status else ""
        kind = b"<StorageClass>%b</StorageClass>"
        new = (kind % b"DEEP_ARCHIVE") + more.encode()
        return replace(answer, body=answer.body.replace(kind % b"STANDARD", new))

    gate.rule = archived
    photos = photos_at(gated.opened)
    (row,) = photos.list(recursive=True).files.to_pylist()
    assert row["problem"] == IN_AN_ARCHIVE[status]
    if row["problem"] is None:
        assert photos.read(row) == b"photo"


@ONE_SERVER
@pytest.mark.parametrize("pays", [True, False])
def test_requests_say_who_pays(gated: Bucket, gate: Gate, *, pays: bool) -> None:
    gated.put("1.jpg", b"photo")
    s3._verified_region.cache_clear()  # so that the bucket is asked where it lies, too
    folder = folder_at(gated.base, region=REGION, requester_pays=pays)
    photos = photos_at(folder_at(folder.uri, **folder.storage.to_dict()))
    (row,) = photos.list(recursive=True).files.to_pylist()
    assert photos.read(row) == b"photo"
    assert {request.method for request in gate.requests} == {"HEAD", "GET"}
    assert any(request.of_obstore for request in gate.requests)
    said = {request.headers.get("x-amz-request-payer") for request in gate.requests}
    assert said == {"requester" if pays else None}


ODD_KEYS = (
    "/1.jpg",
    "Apple//1.jpg",
    "Apple/1.jpg",
    "Apple/1.jpg/",
    "Apple/",
    "//Pear/1.jpg",
    "x//",
)


def _holding(objects: dict[str, bytes]) -> Callable[[Request, Forward], Answer]:
    """A store that holds objects of any key, which those that keep files cannot."""

    def answer(request: Request, _: Forward) -> Answer:
        if request.method == "HEAD" or "list-type" not in request.query:
            found = objects.get(request.key)
            if request.key and found is None:
                return refusal(404, "NoSuchKey")
            headers = {"x-amz-bucket-region": REGION, "ETag": '"1"'}
            return Answer(body=found or b"", headers={**headers, "Last-Modified": MODIFIED})
        prefix = request.query.get("prefix", "")
        rest = {key: key.removeprefix(prefix) for key in objects if key.startswith(prefix)}
        folders = sorted({it.partition("/")[0] + "/" for it in rest.values() if "/" in it})
        entries = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f'<ETag>"1"</ETag><Size>{len(objects[key])}</Size></Contents>'
            for key, name in sorted(rest.items())
            if "/" not in name
        )
        entries += "".join(
            f"<CommonPrefixes><Prefix>{prefix}{name}</Prefix></CommonPrefixes>" for name in folders
        )
        return Answer(body=f"<ListBucketResult>{entries}</ListBucketResult>".encode())

    return answer


MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"


@ONE_SERVER
def test_odd_keys_are_listed_and_read_as_they_are(gate: Gate) -> None:
    objects = {f"source/{key}": key.encode() for key in ODD_KEYS}
    gate.rule = _holding({**objects, "source/": b"of the source", "source/empty/": b""})
    photos = photos_at(_opened("s3://odd-keys/source"))
    rows = photos.list(recursive=True).files.to_pylist()
    assert [row["path"] for row in rows] == sorted(ODD_KEYS)
    assert [read() for read in photos.fetch(rows)] == [it.encode() for it in sorted(ODD_KEYS)]
    assert {row["path"]: row["label"] for row in rows} == {
        **dict.fromkeys(("/1.jpg", "Apple/", "x//")),
        **dict.fromkeys(("Apple//1.jpg", "Apple/1.jpg", "Apple/1.jpg/"), "Apple"),
        "//Pear/1.jpg": "Pear",
    }


CHUNK = bytes(2**16)


def _endless(answers: dict[str, str]) -> Answer:
    """A body without end, with the headers of an answer."""
    chunk = CHUNK if "Content-Length" in answers else b"10000\r\n%b\r\n" % CHUNK
    return Answer(headers=answers, more=iter(lambda: chunk, b""))


GROWN: dict[str, Callable[[], Answer]] = {
    "one byte more": lambda: Answer(body=b"photo!"),
    "one byte less": lambda: Answer(body=b"phot"),
    "much more": lambda: Answer(body=bytes(2**24)),
    "a terabyte": lambda: _endless({"Content-Length": str(2**40)}),
    "without end": lambda: _endless({"Transfer-Encoding": "chunked"}),
}


@ONE_SERVER
@pytest.mark.parametrize("grown", GROWN)
@pytest.mark.parametrize("by_boto3", [False, True])
def test_no_more_is_read_of_an_object_than_was_listed(
    gated: Bucket, gate: Gate, grown: str, *, by_boto3: bool
) -> None:
    """Whatever a store says of the ETag."""
    gated.put("1.jpg", b"photo")
    gated.put("2.jpg", b"photo")
    photos = photos_at(gated.opened)
    rows = photos.list(recursive=True).files.to_pylist()

    def grow(request: Request, forward: Forward) -> Answer | None:
        if not request.key.endswith("1.jpg"):
            return forward()
        return None if by_boto3 and request.of_obstore else GROWN[grown]()

    gate.rule = grow
    first, second = photos.fetch(rows)
    with pytest.raises(OSError, match="it has been replaced since it was listed"):
        first()
    assert second() == b"photo"
    if grown == "much more":
        read = [request.answered for request in gate.requests if request.key.endswith("1.jpg")]
        assert max(read) < 2**24, "it was read to its end"


@ONE_SERVER
def test_an_object_that_comes_too_slowly_costs_its_time_limit_only(
    gated: Bucket, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        gated.put(f"{number}.jpg", b"photo")
    photos = photos_at(gated.opened)
    rows = photos.list(recursive=True).files.to_pylist()
    monkeypatch.setattr(bucket_module, "READ_SECONDS", 0.3)
    over = threading.Event()

    def rest() -> Iterator[bytes]:
        over.wait()
        yield b"to"

    def dawdle(request: Request, forward: Forward) -> Answer:
        if request.key.endswith("2.jpg"):
            return forward()
        return Answer(body=b"pho", headers={"Content-Length": "5"}, more=rest())

    gate.rule = dawdle
    reads = photos.fetch(rows)
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="it was not read within 0 seconds") as told:
                next(reads)()
            assert told.value.errno == errno.ETIMEDOUT
        assert next(reads)() == b"photo"
    finally:
        over.set()


def test_erasing_removes_every_version_of_just_these_photos(bucket: Bucket) -> None:
    names = ["a/1.jpg", "a/1.jpg", "a/1.jpg.bak", "a/1.jpg/deeper.jpg", "a/11.jpg", "b/a/1.jpg"]
    if bucket.server.folder:  # a file is no folder there
        names.remove("a/1.jpg/deeper.jpg")
    for name in names:
        bucket.put(name, os.urandom(5))
    bucket.put("a/2.jpg", b"photo")
    bucket.server.client.delete_object(Bucket=bucket.name, Key="a/prefix/a/2.jpg")
    assert photos_at(bucket.opened).erase(["a/1.jpg", "a/2.jpg", "a/missing.jpg"]) == 2
    assert bucket.versions() == names[2:]
    assert photos_at(bucket.opened).erase(["a/1.jpg"]) == 0


@ONE_SERVER
def test_photos_survive_a_bad_connection(gated: Bucket, gate: Gate, quick_retries: None) -> None:
    """One request in five goes wrong, in one of the ways in which requests do."""
    contents = {
        f"Training/{number % 10}/{number}.jpg": os.urandom(2000 + number) for number in range(200)
    }
    for name, content in contents.items():
        gated.put(name, content)
    rule = BadConnection(seed=0)
    gate.rule = rule
    s3._verified_region.cache_clear()  # so that the bucket is asked through it, too
    photos = photos_at(gated.opened)
    listing = photos.list(recursive=True)
    rows = listing.files.to_pylist()
    assert [row["path"] for row in rows] == sorted(contents)
    read = {row["path"]: content() for row, content in zip(rows, photos.fetch(rows), strict=True)}
    assert read == contents
    assert min(rule.done.values()) >= 3, rule.done
    assert rule.done.total() > 40


# The whole of ingest


def _ingested(session: SparkSession, source: Folder, lake: Folder) -> dict[str, Snapshot]:
    """Its tables, by name."""
    folders = {name: lake.child(name) for name in TABLES}
    listing = photos_at(source).list(recursive=True)
    outputs: dict[str, Output] = ingest.function(
        session,
        source=listing.write(folders[LISTING]),
        photos=source,
        **folders,
        max_pixels=10**7,
        max_bytes=10**6,
        question="0" * 16,
        log=lambda _: None,
    )
    return {
        name: replace(
            Snapshot.unpublished(folders[name], name, TABLES[name], output.files),
            commit=Commit("", "", "", {}, {}, "", "", 0.0, figures=output.figures),
        )
        for name, output in outputs.items()
    }


def _rows_of(snapshot: Snapshot, columns: Iterable[str]) -> list[dict[str, Any]]:
    tables = pa.concat_tables(snapshot.table(file) for file in snapshot.files)
    return sorted(tables.select(list(columns)).to_pylist(), key=repr)


@ONE_SERVER
def test_ingest_makes_the_same_of_a_bucket_as_of_a_folder(
    gated: Bucket, gate: Gate, photos: Path, session: SparkSession, tmp_path: Path
) -> None:
    source = tmp_path / "photos"
    shutil.copytree(photos, source)
    _fill(
        source,
        {
            "empty.jpg": b"",
            "no photo.jpg": b"text",
            "large.jpg": bytes(1_000_001),
            "a+b%20c#d?/\u00e9.jpg": next(photos.rglob("*.jpg")).read_bytes(),
            ".hidden/1.jpg": b"",
        },
    )
    for path in source.rglob("*"):
        if path.is_file():
            gated.put(path.relative_to(source).as_posix(), path.read_bytes())
    gate.requests.clear()
    gate.rule = BadConnection(seed=1)
    found = _ingested(session, gated.opened, _opened(tmp_path / "of bucket"))
    gate.rule = lambda _, forward: forward()
    expected = _ingested(session, _opened(source), _opened(tmp_path / "of folder"))
    assert found.keys() == expected.keys() == TABLES.keys()
    for name, rows in (("raw_images", 91), ("rejected_images", 3), ("_classes", 31)):
        columns = [column for column in TABLES[name].names if column != "modified_at"]
        assert _rows_of(found[name], columns) == _rows_of(expected[name], columns)
        assert found[name].rows == rows
        assert found[name].figures == expected[name].figures
    read = Counter(request.key for request in gate.requests if request.key.endswith("jpg"))
    assert "a/prefix/large.jpg" not in read, "it was read, and then found to be too large"


@ONE_SERVER
def test_one_refused_object_is_one_rejected_row(
    gated: Bucket, gate: Gate, photos: Path, session: SparkSession, tmp_path: Path
) -> None:
    for path in sorted((photos / "Test" / "Banana").iterdir()):
        gated.put(f"Test/Banana/{path.name}", path.read_bytes())
    gated.put("Test/Banana/9.jpg", b"refused")
    answer, words = OF_ONE_OBJECT["denied"]
    gate.rule = lambda request, forward: answer if request.key.endswith(".jpg") else forward()
    with pytest.raises(S3Error, match="is denied"):
        _ingested(session, gated.opened, _opened(tmp_path / "refused"))
    gate.rule = lambda request, forward: answer if request.key.endswith("/9.jpg") else forward()
    found = _ingested(session, gated.opened, _opened(tmp_path / "lake"))
    assert found["raw_images"].rows == 2
    (row,) = _rows_of(found["rejected_images"], ["path", "reason", "detail"])
    assert (row["path"], row["reason"]) == ("Test/Banana/9.jpg", "unreadable")
    assert row["detail"].startswith("the file cannot be read: access to it is denied (AccessDenied")
    assert words in row["detail"]
    assert gated.uri("Test/Banana/9.jpg") in row["detail"]
    _keeps_what_was_archived(session, found, gated.opened)


def _keeps_what_was_archived(
    session: SparkSession, found: dict[str, Snapshot], source: Folder
) -> None:
    """A photo that goes back into an archive once it was read stays in the table."""
    listing = photos_at(source).list(recursive=True)
    problems = pa.array(["it is in an archive"] * listing.rows, pa.string())
    column = listing.files.schema.get_field_index("problem")
    archived = listing.files.set_column(column, LISTING_SCHEMA.field("problem"), problems)
    raw = replace(found["raw_images"], siblings=found)
    written = replace(listing, files=archived).write(found[LISTING].folder)
    with changes(session, written, raw, block=32) as differing:
        rows = differing.new.select("path").collect()
        assert [row.path for row in rows] == ["Test/Banana/9.jpg"]
        assert differing.kept.classes == {("Banana", "Test"): 2}
        assert [sum(parts.values()) for parts in differing.lost.values()] == [1]
