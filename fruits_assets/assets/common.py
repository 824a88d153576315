"""What all assets share."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from fruits_assets.core.dataset import Dataset

GROUP = "fruits"
OWNERS = ["team:data-engineering"]


class ForceConfig(dg.Config):
    """Config that every asset has."""

    force: bool = Field(
        default=False,
        description="Compute again even if the lake already holds this very version.",
    )


def materialized(
    dataset: Dataset, metadata: Mapping[str, Any], *, asset_key: str | None = None
) -> dg.MaterializeResult[Dataset]:
    """A dataset as an asset returns it: its version in the lake is Dagster's data version."""
    return dg.MaterializeResult(
        asset_key=asset_key,
        value=dataset,
        data_version=dg.DataVersion(dataset.version),
        metadata=dict(metadata),
    )
