"""What assets hand to each other, and what the UI shows of it."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fruits_assets.lake.io_manager import LakeIOManager, snapshot_metadata
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.resource import LakeResource
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets_tests.conftest import THE_SAME_EVERYWHERE, failure
from fruits_assets_tests.lake.versions import SCHEMA, draft, of, publish, rows, seen
from fruits_assets_tests.places import Bucket, Place
from fruits_assets_tests.s3 import REGION

KEY = "arn:aws:kms:eu-west-3:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@dg.asset
def raw(lake: LakeResource) -> Snapshot:
    """A version that is written, and published by the IO manager."""
    return draft(lake.open(), "raw", 1, siblings=["rejected"])


@dg.asset
def features(context: dg.AssetExecutionContext, lake: LakeResource, raw: Snapshot) -> Snapshot:
    """Reads the table upstream."""
    assert rows(raw) == of("raw", 1)
    assert rows(raw.siblings["rejected"]) == of("rejected", 1)
    return draft(lake.open(), "features", 1, raw)


@pytest.fixture
def resource(place: Place) -> LakeResource:
    return LakeResource(base=place.base, region=REGION)


def _run(resource: LakeResource, *selection: str) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [raw, features],
        selection=list(selection),
        resources={"lake": resource, "io_manager": LakeIOManager(lake=resource)},
        raise_on_error=False,
    )


def _shown(result: dg.ExecuteInProcessResult, name: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(name)
    return {key: value.value for key, value in event.metadata.items()}


def test_what_an_asset_returns_is_published_and_handed_on(resource: LakeResource) -> None:
    result = _run(resource, "raw", "features")
    assert result.success
    lake = resource.open()
    assert seen(lake, "features") == of("features", 1)
    assert lake.current("features").commit.numbers == {"raw": 0}
    shown = _shown(result, "features")
    assert shown["number"] == 0
    assert shown["version"] == lake.current("features").version
    assert shown["dagster/row_count"] == 2
    assert shown["files"] == 2
    assert shown["uri"] == f"{lake.base}/features"
    assert [column.name for column in shown["dagster/column_schema"].columns] == ["text"]


@THE_SAME_EVERYWHERE
def test_an_asset_reads_what_an_earlier_run_has_published(resource: LakeResource) -> None:
    lake = resource.open()
    publish(lake, "raw", 2)
    publish(lake, "raw", 1, siblings=["rejected"])
    result = _run(resource, "features")
    assert result.success
    assert lake.current("features").commit.numbers == {"raw": 1}


def test_an_asset_whose_input_was_never_published_says_so(resource: LakeResource) -> None:
    result = _run(resource, "features")
    assert not result.success
    assert f"the lake {resource.base} has no raw yet. Materialise raw first." in failure(result)


@THE_SAME_EVERYWHERE
def test_an_asset_whose_input_is_damaged_says_so(resource: LakeResource, place: Place) -> None:
    published = publish(resource.open(), "raw", 1, siblings=["rejected"])
    place.remove(f"raw/{published.files[0].name}")
    text = failure(_run(resource, "features"))
    assert f"{published.files[0].name} is missing. Run `make repair`" in text


def test_a_lake_of_another_format_is_refused_before_any_asset_starts(
    resource: LakeResource, place: Place
) -> None:
    place.put("fruits-lake.json", b'{"format": 1}')
    result = _run(resource, "raw", "features")
    assert not result.success
    assert place.names() == {"fruits-lake.json"}


def test_a_snapshot_in_a_bucket_shows_where_it_lies(bucket: Bucket) -> None:
    lake = Lake.at(bucket.base, region=REGION)
    shown = snapshot_metadata(published := publish(lake, "raw", 1))
    assert shown["uri"].value == f"{bucket.base}/raw"
    assert shown["region"] == REGION
    assert shown["encryption"] == "S3's own key (SSE-S3)"
    assert shown["size_bytes"] == published.bytes == sum(file.bytes for file in published.files)


def test_the_key_is_shown(bucket: Bucket) -> None:
    lake = Lake.at(bucket.base, region=REGION, kms_key=KEY)
    folder = lake.table("raw").folder
    unpublished = Snapshot.unpublished(folder, "raw", SCHEMA, ())
    assert snapshot_metadata(unpublished)["encryption"] == f"SSE-KMS, {KEY}"


def test_a_folder_has_no_region(tmp_path: Path) -> None:
    assert "region" not in snapshot_metadata(draft(Lake.at(str(tmp_path)), "raw", 1))
