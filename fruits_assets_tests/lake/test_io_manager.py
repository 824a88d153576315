"""What assets hand to each other, and what the UI shows of it."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fruits_assets.lake.io_manager import LakeIOManager, snapshot_metadata
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.resource import LakeResource
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets_tests.conftest import failure
from fruits_assets_tests.lake.versions import draft, of, publish, rows
from fruits_assets_tests.places import Bucket, Place
from fruits_assets_tests.s3 import REGION

KEY = "arn:aws:kms:eu-west-3:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@dg.asset
def raw(lake: LakeResource) -> Snapshot:
    """A version that is written, and published by the IO manager."""
    return draft(lake.open(), "raw", 1, siblings=["rejected"])


@dg.asset
def features(context: dg.AssetExecutionContext, raw: Snapshot) -> None:
    """Reads the table upstream."""
    context.add_output_metadata({"read": rows(raw), "number": raw.number})


def _run(lake: LakeResource, *assets: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    io_manager = LakeIOManager(lake=lake)
    return dg.materialize(
        [raw, features.with_attributes()] if not assets else list(assets),
        selection=[asset.key for asset in assets] if assets else None,
        resources={"lake": lake, "io_manager": io_manager},
        raise_on_error=False,
    )
