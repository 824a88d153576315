"""What EMR is asked for, without asking it."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from pydantic import ValidationError
from pyspark.sql import SparkSession

from fruits_assets.core.errors import SparkError
from fruits_assets.definitions import compose
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets.lake.resource import LakeResource
from fruits_assets.settings import Settings
from fruits_assets.sources.listing import LISTING_SCHEMA
from fruits_assets.sources.places import photos_at
from fruits_assets.spark.account import EmrLimits
from fruits_assets.spark.emr import EmrSpark
from fruits_assets.spark.target import Call
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import File, digest_of
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.s3 import Bucket, S3Storage
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.__main__ import _session
from fruits_assets.transforms.arguments import to_json
from fruits_assets.transforms.featurize import featurize
from fruits_assets.transforms.ingest import ingest
from fruits_assets_tests import s3
from fruits_assets_tests.emr import STACK

REGION = s3.REGION


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> EmrSpark:
    for name, value in STACK.items():
        monkeypatch.setenv(name, value)
    places: Any = {
        "source": "s3://source/photos",
        "lake": "s3://bucket/lake",
        "region": REGION,
    }
    resources = compose(Settings(spark="emr", **places)).resources
    assert resources
    return cast("EmrSpark", resources["spark"])


def test_a_step_is_given_the_places_that_it_reads_and_writes_and_no_other(target: EmrSpark):
    def at(name: str) -> Folder:
        verified = Bucket(name, REGION, kms_key="key", endpoint="http://here")
        return Folder(S3Storage(verified), f"s3://{name}/a")

    listing = Snapshot.unpublished(at("lake"), "_listing", LISTING_SCHEMA, ())
    arguments = {"source": listing, "photos": at("photos"), "max_pixels": 100, "earlier": None}
    asked = target.asked(Call(cast("Any", None), ingest, arguments, {"source": listing}))
    assert asked["transform"] == "fruits_assets.transforms.ingest:ingest"
    assert (asked["begin_seconds"], asked["deadline_seconds"]) == (10 * 60, 120 * 60)
    assert asked["arguments"] == to_json(arguments)
    # Nodes need not ask where the buckets of logs and messages lie: they are not even told.
    named = set(re.findall('s3://([^/"]+)', json.dumps(asked)))
    assert named == {"lake", "photos"}


def test_everything_that_lies_in_buckets_has_their_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in STACK.items():
        monkeypatch.setenv(name, value)
    places: Any = {"source": "s3://source/photos", "lake": "s3://bucket/lake", "region": REGION}
    settings = Settings(spark="emr", bucket_owner="111122223333", **places)
    resources = compose(settings).resources
    assert resources
    owners = {name: resources[name].bucket_owner for name in ("lake", "source", "weights", "spark")}
    assert set(owners.values()) == {"111122223333"}
    spark = cast("EmrSpark", resources["spark"])
    assert spark.own_clusters._bucket_owner == "111122223333"
    expected = ["--region", REGION, "--bucket-owner", "111122223333", "--x", "y"]
    assert spark.arguments({"--x": "y"}) == expected


def test_the_jvm_is_told_the_region_of_each_bucket(session: SparkSession):
    _session("any", {"one": REGION, "two": REGION})
    for bucket in ("one", "two"):
        name = f"spark.hadoop.fs.s3a.bucket.{bucket}.endpoint.region"
        assert session.conf.get(name) == REGION


@pytest.mark.parametrize("content", [None, "no JSON", '{"spot_share": "half"}'])
def test_prices_that_cannot_be_read_are_told(target: EmrSpark, tmp_path: Path, content: str | None):
    file = tmp_path / "prices.json"
    if content:
        file.write_text(content)
    wrong = target.limits.model_copy(update={"prices": str(file)})
    with pytest.raises(SparkError, match=r"prices|spot_share"):
        target.model_copy(update={"limits": wrong}).plan_of(4)


@pytest.mark.parametrize("name", ["idle_minutes", "step_minutes", "start_minutes", "poll_seconds"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0, 10**6])
def test_limits_that_no_cluster_has_are_refused(name: str, value: float):
    with pytest.raises(ValidationError, match=name):
        EmrLimits.model_validate({name: value})


def _left(folder: Path, rows: int, size: int) -> File:
    """A part that a run has left, of so many rows and bytes."""
    folder.mkdir(exist_ok=True)
    content = bytes(size)
    name = f"part-{len(list(folder.iterdir())):016x}-000000-{rows:06d}-{digest_of(content)}.parquet"
    (folder / name).write_bytes(content)
    return File(name, size, rows)


def _published(lake: Lake, name: str, *files: File) -> Snapshot:
    schema = pa.schema([("path", pa.string())])
    recipe = Recipe("made", "1", {}, {"files": str(files)})
    follows = {name: lake.table(name).latest()}
    outputs = {name: Output(files)}
    draft = lake.draft(recipe, outputs, {name: schema}, run="", seconds=0.0, follows=follows)
    return lake.publish(draft)


def test_the_work_that_is_left_decides_the_size(
    target: EmrSpark, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lake = Lake.at(str(tmp_path))
    monkeypatch.setattr(LakeResource, "open", lambda _: lake)
    listing = photos_at(folder_at(str(photos))).list(recursive=True)
    call = Call(cast("Any", None), ingest, {"earlier": None}, {"source": listing})
    assert target.plan(call).work.images == 90
    _left(tmp_path / "raw_images", 30, listing.bytes // 3)
    assert target.plan(call).work.images == 60
    (tmp_path / "raw_images" / "part-1.parquet").write_bytes(bytes(listing.bytes))
    assert target.plan(call).work.images == 60, "a file of somebody else is no work done"
    _left(tmp_path / "raw_images", 90, listing.bytes)
    assert target.plan(call).work.images == 0


def test_what_an_earlier_version_holds_is_not_left_to_do(
    target: EmrSpark, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lake = Lake.at(str(tmp_path), keep_versions=1)
    monkeypatch.setattr(LakeResource, "open", lambda _: lake)
    listing = photos_at(folder_at(str(photos))).list(recursive=True)
    earlier = _published(lake, "raw_images", _left(tmp_path / "raw_images", 40, listing.bytes))
    call = Call(cast("Any", None), ingest, {"earlier": earlier}, {"source": listing})
    assert target.plan(call).work.images == 50
    assert target.plan(replace(call, arguments={})).work.images == 90, "it holds for another state"


def test_parts_of_interrupted_runs_count_by_their_rows(
    target: EmrSpark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lake = Lake.at(str(tmp_path))
    monkeypatch.setattr(LakeResource, "open", lambda _: lake)
    images = _published(lake, "raw_images", _left(tmp_path / "raw_images", 80, 1000))
    call = Call(cast("Any", None), featurize, {"earlier": None}, {"images": images})
    assert target.plan(call).work.images == 80
    _left(tmp_path / "features", 20, 10)
    assert target.plan(call).work.images == 60


def test_older_versions_that_are_in_use_are_no_work_done(
    target: EmrSpark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lake = Lake.at(str(tmp_path), keep_versions=1)
    monkeypatch.setattr(LakeResource, "open", lambda _: lake)
    first = _published(lake, "raw_images", _left(tmp_path / "raw_images", 80, 1000))
    recipe = Recipe.of("featurize", "1", [first])
    schema = pa.schema([("path", pa.string())])
    outputs = {"features": Output(())}
    follows = {"features": lake.table("features").latest()}
    lake.publish(
        lake.draft(recipe, outputs, {"features": schema}, run="", seconds=0.0, follows=follows)
    )
    images = _published(lake, "raw_images", _left(tmp_path / "raw_images", 90, 1001))
    assert len(list((tmp_path / "raw_images").glob("*.parquet"))) == 2
    call = Call(cast("Any", None), ingest, {}, {"source": images})
    assert target.plan(call).work.images == 90
