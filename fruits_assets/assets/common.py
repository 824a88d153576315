"""What all assets share."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from fruits_assets.core.dataset import Dataset

GROUP = "fruits"
OWNERS = ["team:data-engineering"]
FRESHNESS = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=30), fail_window=timedelta(hours=54)
)
"""One night missed is a warning, two are a failure; a run that finds nothing new counts, too."""

_NEW_VERSION = dg.AutomationCondition.data_version_changed()
_BY_ANOTHER_RUN = ~dg.AutomationCondition.executed_with_root_target()
FOLLOWS_UPSTREAMS = (
    dg.AutomationCondition.eager()
    .replace("newly_updated_without_root", _NEW_VERSION & _BY_ANOTHER_RUN)
    .with_label("follows_upstreams")
)
"""`eager`, but a run that found nothing new upstream starts nothing downstream."""


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
