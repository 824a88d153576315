"""What the UI shows of a dataset."""

from pathlib import Path

from fruits_assets.core.dataset import Output, write_file
from fruits_assets.lake.io_manager import dataset_metadata
from fruits_assets.lake.lake import Lake, Recipe
from fruits_assets_tests import s3
from fruits_assets_tests.places import Bucket


def _metadata(lake: Lake) -> dict:
    recipe = Recipe.of("make", "1", [])
    files = (write_file(lake.folder("raw", recipe.version), "a", b"12345"),)
    return dataset_metadata(lake.draft("raw", recipe, Output(files), run="run", seconds=1.0))


def test_a_dataset_in_a_bucket_shows_where_it_lies(bucket: Bucket):
    shown = _metadata(Lake.at(bucket.base, region=s3.REGION))
    assert shown["uri"].value.startswith(f"{bucket.base}/raw/")
    assert shown["region"] == s3.REGION
    assert shown["encryption"] == "S3's own key (SSE-S3)"
    assert shown["size_bytes"] == 5


def test_the_key_is_shown(bucket: Bucket):
    lake = Lake.at(bucket.base, region=s3.REGION, kms_key="arn:aws:kms:::key/1")
    assert _metadata(lake)["encryption"] == "SSE-KMS, arn:aws:kms:::key/1"


def test_a_folder_has_no_region(tmp_path: Path):
    assert "region" not in _metadata(Lake.at(str(tmp_path)))
