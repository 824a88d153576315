"""What EMR is asked for, without asking it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fruits_assets.core import storage
from fruits_assets.core.source import photos_at
from fruits_assets.core.storage import Bucket
from fruits_assets.definitions import compose
from fruits_assets.settings import Settings
from fruits_assets.spark.emr import EmrSpark
from fruits_assets.spark.target import Call
from fruits_assets.transforms.ingest import ingest
from fruits_assets_tests import s3
from fruits_assets_tests.emr import STACK

REGION = s3.REGION


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> EmrSpark:
    for name, value in STACK.items():
        monkeypatch.setenv(name, value)
    places = {"source": "s3://source/photos", "lake": "s3://bucket/lake", "region": REGION}
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
