"""What EMR is asked for, without asking it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError
from pyspark.sql import SparkSession

from fruits_assets.core import storage
from fruits_assets.core.errors import SparkError
from fruits_assets.core.source import photos_at
from fruits_assets.core.storage import Bucket
from fruits_assets.definitions import compose
from fruits_assets.settings import Settings
from fruits_assets.spark.account import EmrLimits
from fruits_assets.spark.emr import EmrSpark
from fruits_assets.spark.target import Call
from fruits_assets.transforms.__main__ import _session
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


def test_a_step_may_use_the_buckets_that_it_reads_and_writes_and_no_other(
    target: EmrSpark, monkeypatch: pytest.MonkeyPatch
):
    buckets = {
        name: Bucket(name, REGION, kms_key="key", endpoint="http://here")
        for name in ("bucket", "source", "logs", "other")
    }
    monkeypatch.setattr(storage, "_connected", buckets)
    arguments = {"source": "s3://bucket/lake/listing.parquet", "max_pixels": 100}
    inputs = {"source": SimpleNamespace(place="s3://source/photos")}
    asked = target.asked(Call(cast("Any", None), ingest, arguments, cast("Any", inputs)))
    assert asked["buckets"] == [
        {"name": name, "region": REGION, "kms_key": "key"} for name in ("bucket", "source")
    ]
    assert asked["transform"] == "fruits_assets.transforms.ingest:ingest"
    assert asked["arguments"] == arguments


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


def test_the_work_that_is_left_decides_the_size(target: EmrSpark, photos: Path, tmp_path: Path):
    listing = photos_at(str(photos)).list(recursive=True)
    folder = tmp_path / "version"
    folder.mkdir()
    arguments = {"raw_images": str(folder)}
    call = Call(cast("Any", None), ingest, arguments, {"source": listing})
    assert target.plan(call).work.images == 90
    (folder / "part-1.parquet").write_bytes(bytes(listing.bytes // 3))
    assert target.plan(call).work.images == 60
    (folder / "part-2.parquet").write_bytes(bytes(listing.bytes))
    assert target.plan(call).work.images == 0
