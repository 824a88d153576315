"""A bucket that is listed by its S3 Inventory has the listing that the bucket itself gives."""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet
import pytest

from fruits_assets.assets.places import Source
from fruits_assets.core.errors import SourceError
from fruits_assets.sources.inventory import FIELDS, OPTIONAL, InventoriedPhotos, Inventory
from fruits_assets.sources.listing import Listing
from fruits_assets.sources.places import photos_at
from fruits_assets.storage.places import folder_at
from fruits_assets_tests.places import Bucket
from fruits_assets_tests.s3 import REGION, Server, used

ONE_SERVER = pytest.mark.parametrize("server", ["versitygw"], indirect=True)
TREE = (
    *("Training/Apple/1.jpg", "Training/Apple/pêche 1+2%.jpg", "Test/🍓/0.jpg", "2.jpg"),
    *("Training/Apple/1.xml", ".DS_Store", "a/.git/one", "a/.git/two", "__MACOSX/1.jpg"),
)
COLUMNS = {**FIELDS, **OPTIONAL}
Rows = Sequence[Mapping[str, Any]]


@pytest.fixture(scope="module")
def versitygw(_versitygw: Server) -> Server:
    """A server that keeps objects as files."""
    return _versitygw


def listed(bucket: Bucket) -> list[dict[str, Any]]:
    """All objects of a bucket, as S3 writes them into an inventory."""
    found = bucket.server.client.list_objects_v2(Bucket=bucket.name)["Contents"]
    rows = [
        {
            "Key": one["Key"],
            "Size": one["Size"],
            "LastModifiedDate": one["LastModified"],
            "ETag": one["ETag"].strip('"'),
            "StorageClass": "STANDARD",
            "IsLatest": True,
            "IsDeleteMarker": False,
        }
        for one in found
    ]
    old = {**rows[0], "Size": 99, "IsLatest": False}
    deleted = {**rows[0], "Key": f"{bucket.base.split('/', 3)[3]}/gone.jpg", "IsDeleteMarker": True}
    return [*rows, old, deleted]


def as_csv(rows: Rows, fields: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    for row in rows:
        shown = {
            **row,
            "Bucket": "any",
            "Key": quote_plus(row["Key"], safe="/"),
            "LastModifiedDate": row["LastModifiedDate"].strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }
        values = [shown[field] for field in fields]
        writer.writerow([str(it).lower() if isinstance(it, bool) else it for it in values])
    return gzip.compress(text.getvalue().encode())


def _table(rows: Rows, fields: Sequence[str]) -> pa.Table:
    return pa.table({COLUMNS[it]: [row[it] for row in rows] for it in fields if it != "Bucket"})


def as_parquet(rows: Rows, fields: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(_table(rows, fields), buffer)
    return buffer.getvalue()


def as_orc(rows: Rows, fields: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.orc.write_table(_table(rows, fields), buffer)
    return buffer.getvalue()


WRITERS = {"CSV": as_csv, "Parquet": as_parquet, "ORC": as_orc}


class Inventories:
    """A bucket of photos, and the place of its inventories in the same bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        for name in TREE:
            bucket.put(name, name.encode())

    def put(
        self,
        kind: str = "CSV",
        *,
        fields: Sequence[str] = ("Bucket", *COLUMNS),
        changed: Callable[[bytes], bytes] = lambda content: content,
        date: str = "2026-11-30T01-00Z",
        rows: Rows | None = None,
    ) -> None:
        """Writes an inventory of what lies in the bucket now."""
        client, name = self.bucket.server.client, self.bucket.name
        rows = listed(self.bucket) if rows is None else rows
        files = []
        for number, some in enumerate((rows[:3], rows[3:])):
            content = WRITERS[kind](some, fields)
            key = f"inventories/data/{date}-{number}"
            client.put_object(Bucket=name, Key=key, Body=changed(content))
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            files.append({"key": key, "size": len(content), "MD5checksum": md5})
        manifest = {
            "sourceBucket": name,
            "fileFormat": kind,
            "fileSchema": ", ".join(fields),
            "files": files,
        }
        key = f"inventories/{date}/manifest.json"
        client.put_object(Bucket=name, Key=key, Body=json.dumps(manifest).encode())

    @property
    def uri(self) -> str:
        """Folder of the inventories."""
        return f"s3://{self.bucket.name}/inventories"

    def list(self, *, recursive: bool = True) -> Listing:
        """The listing by the newest inventory."""
        place = folder_at(self.uri, region=REGION)
        return InventoriedPhotos(self.bucket.opened, place).list(recursive=recursive)


@pytest.fixture
def inventories(bucket: Bucket) -> Inventories:
    """Photos in a bucket, without an inventory yet."""
    return Inventories(bucket)


@ONE_SERVER
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("recursive", [True, False])
def test_an_inventory_gives_the_listing_of_the_bucket(
    inventories: Inventories, kind: str, *, recursive: bool
) -> None:
    inventories.put(kind)
    expected = photos_at(inventories.bucket.opened).list(recursive=recursive)
    found = inventories.list(recursive=recursive)
    assert found.files.equals(expected.files)
    assert (found.version, found.kinds) == (expected.version, expected.kinds)
    assert (found.rows, found.hidden) == ((4, 3) if recursive else (1, 2))


@ONE_SERVER
def test_the_newest_complete_inventory_is_taken(inventories: Inventories) -> None:
    inventories.put(date="2026-11-29T01-00Z", rows=listed(inventories.bucket)[:1])
    inventories.put(date="2026-11-30T01-00Z")
    unfinished = "inventories/2026-12-01T01-00Z/manifest.checksum"
    inventories.bucket.server.client.put_object(
        Bucket=inventories.bucket.name, Key=unfinished, Body=b""
    )
    place = folder_at(inventories.uri, region=REGION)
    assert Inventory.at(place).uri.endswith("/2026-11-30T01-00Z/manifest.json")
    old = folder_at(f"{inventories.uri}/2026-11-29T01-00Z/manifest.json", region=REGION)
    assert Inventory.at(old).files[0]["key"].startswith("inventories/data/2026-11-29")


@ONE_SERVER
def test_a_newer_inventory_is_noticed_without_reading_it(inventories: Inventories) -> None:
    client, bucket = inventories.bucket.server.client, inventories.bucket
    source = Source(place=bucket.base, inventory=inventories.uri, region=REGION)
    inventories.put()
    with used(bucket.server.endpoint):
        listing = source.list(recursive=True, labels="parent")
        held = listing.write(folder_at(f"s3://{bucket.name}/lake/_listing", region=REGION))
        for key in ("inventories/data/2026-11-30T01-00Z-0", "inventories/data/2026-11-30T01-00Z-1"):
            client.delete_object(Bucket=bucket.name, Key=key)
        assert source.is_as_listed(held, recursive=True, labels="parent")
        assert not source.is_as_listed(held, recursive=True, labels="first")
        assert not source.is_as_listed(held, recursive=False, labels="parent")
        inventories.put(date="2026-12-01T01-00Z")
        assert not source.is_as_listed(held, recursive=True, labels="parent")


@ONE_SERVER
def test_an_archived_photo_of_an_inventory_is_rejected_with_what_to_do(
    inventories: Inventories,
) -> None:
    rows = [{**row, "StorageClass": "GLACIER"} for row in listed(inventories.bucket)]
    inventories.put("Parquet", rows=rows)
    assert set(inventories.list().files["problem"].to_pylist()) == {
        "it is in an archive (Glacier): restore it first"
    }


@ONE_SERVER
def test_an_inventory_that_cannot_be_used_is_refused(inventories: Inventories) -> None:
    with pytest.raises(SourceError, match=r"there is no S3 Inventory at .*48 hours"):
        inventories.list()
    inventories.put(fields=["Key", "Size", "LastModifiedDate"])
    with pytest.raises(SourceError, match=r"has no field ETag. Add it to"):
        inventories.list()
    inventories.put(changed=lambda content: content[:-1])
    with pytest.raises(SourceError, match="its MD5 is not the one of the manifest"):
        inventories.list()
    inventories.put()
    with used(inventories.bucket.server.endpoint):
        elsewhere = folder_at(f"s3://{inventories.bucket.server.bucket()}/photos", region=REGION)
        place = folder_at(inventories.uri, region=REGION)
        with pytest.raises(SourceError, match=r"is of the bucket .* and the source is"):
            InventoriedPhotos(elsewhere, place).list(recursive=True)


def test_an_inventory_of_a_folder_is_refused(tmp_path: Any) -> None:
    source = Source(place=str(tmp_path), inventory="s3://bucket/inventories")
    with pytest.raises(SourceError, match=r"is not in a bucket. Empty FRUITS_INVENTORY"):
        source.list(recursive=True, labels="parent")
