"""What a step is asked arrives as it was meant, and only where it may be done."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fruits_assets.core.errors import LakeError, RegionError
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import VECTOR, File
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.s3 import Bucket as Verified
from fruits_assets.storage.s3 import S3Storage
from fruits_assets.storage.snapshot import Commit, Snapshot
from fruits_assets.transforms.arguments import from_json, regions, to_json
from fruits_assets_tests import s3
from fruits_assets_tests.places import Bucket, Place

COMMIT = Commit(
    recipe="0123456789abcdef",
    transform="featurize",
    code_version="3",
    params={"reduced_decoding": False},
    inputs={"raw_images": "fedcba9876543210"},
    run_id="a run",
    created_at="2026-11-02T03:04:05.000006+00:00",
    seconds=12.5,
    numbers={"raw_images": 4},
    siblings={"unreadable_photos": 2},
    figures={"images": 90, "splits": [["Test", 30], [None, 60]]},
    provisional=1,
)
SCHEMA = pa.schema([pa.field("path", pa.string(), nullable=False), ("features", VECTOR)])


def snapshot(folder: Folder) -> Snapshot:
    """A table with a part and a sibling, as the lake hands it to a transform."""
    sibling = Snapshot(
        folder.child("unreadable_photos"), "unreadable_photos", pa.schema([]), 2, COMMIT, ()
    )
    files = (File("part-0123456789abcdef-000000-000090-fedcba9876543210.parquet", 1234, 90),)
    return Snapshot(
        *(folder.child("features"), "features", SCHEMA, 3, COMMIT, files),
        siblings={sibling.name: sibling},
    )


def sent(**arguments: Any) -> dict[str, Any]:
    """Arguments as they come out of a request."""
    return from_json(json.loads(json.dumps(to_json(arguments))))


def test_arguments_arrive_as_they_were(place: Place):
    folder = place.opened
    given = {
        "images": snapshot(folder),
        "raw_images": folder.child("raw_images"),
        "earlier": None,
        "question": "0123456789abcdef",
        "max_pixels": 10**8,
        "fit_split": "auto",
        "n_components": 0.95,
        "standardize": False,
        "nested": {"a": [1, None]},
    }
    found = sent(**given)
    assert found == given
    assert list(found) == list(given)
    assert found["images"].siblings == given["images"].siblings
    assert found["images"].rows == 90
    assert found["images"].schema.equals(SCHEMA, check_metadata=True)


def test_what_arrives_reads_and_writes_the_same_place(place: Place):
    place.put("features/a name.txt", b"as it was")
    found = sent(folder=place.opened.child("features"))["folder"]
    assert found.read("a name.txt") == b"as it was"
    found.write("answer", b"as it is")
    assert place.get("features/answer") == b"as it is"


def test_a_bucket_is_described_by_its_region_and_key_and_nothing_secret(bucket: Bucket):
    folder = folder_at(bucket.base, region=s3.REGION, kms_key="alias/fruits")
    described = json.dumps(to_json({"images": snapshot(folder), "raw_images": folder}))
    assert "alias/fruits" in described
    assert s3.ACCESS_KEY not in described
    assert s3.SECRET_KEY not in described
    # The step reaches its store by its own environment, not by that of the machine that asks.
    assert bucket.server.endpoint not in described
    arrived = from_json(json.loads(described))
    for found in (arrived["raw_images"], arrived["images"].folder):
        assert found.storage.bucket == folder.storage.bucket  # type: ignore[attr-defined]
    (sibling,) = arrived["images"].siblings.values()
    assert sibling.folder.storage == folder.storage


@pytest.mark.parametrize("kind", ["folder", "snapshot"])
def test_a_bucket_that_lies_elsewhere_is_refused_where_the_step_runs(gated: Bucket, kind: str):
    given = to_json({"it": gated.opened if kind == "folder" else snapshot(gated.opened)})
    s3.forget()
    rule = s3.always(s3.in_region("us-east-1"))
    with s3.Gate(rule) as gate, s3.used(gate.endpoint):
        with pytest.raises(RegionError, match="lies in 'us-east-1'"):
            from_json(given)
        assert [request.method for request in gate.requests] == ["HEAD"]


@pytest.mark.parametrize("kind", ["folder", "snapshot"])
@pytest.mark.parametrize("region", ["us-east-1", "eu-west-2", None])
def test_a_region_outside_the_eu_is_refused_before_anything_is_asked(kind: str, region: str | None):
    bucket = Verified("bucket", region)  # type: ignore[arg-type] - nobody has verified it
    folder = Folder(S3Storage(bucket), "s3://bucket/lake")
    with s3.Gate() as gate, s3.used(gate.endpoint):
        with pytest.raises(RegionError):
            sent(it=folder if kind == "folder" else snapshot(folder))
        assert gate.requests == []


def test_a_place_of_an_unknown_kind_is_refused():
    with pytest.raises(LakeError, match="of an unknown kind"):
        from_json({"it": {"$folder": {"uri": "gs://bucket/lake", "storage": {}}}})


def test_every_bucket_is_named_with_its_region(tmp_path: Path):
    def at(name: str, region: str) -> Folder:
        return Folder(S3Storage(Verified(name, region)), f"s3://{name}/a")

    arguments = {
        "images": snapshot(at("lake", "eu-west-3")),
        "photos": at("photos", "eu-south-1"),
        "raw_images": at("lake", "eu-west-3"),
        "features": folder_at(str(tmp_path)),
        "earlier": None,
        "question": "s3://not/a/place",
    }
    assert regions(arguments) == {"lake": "eu-west-3", "photos": "eu-south-1"}
