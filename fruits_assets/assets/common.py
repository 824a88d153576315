"""What all assets share."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from fruits_assets.lake.io_manager import snapshot_metadata
from fruits_assets.storage.snapshot import Snapshot

GROUP = "fruits"
DELIVERABLES = "deliverables"
"""Group of what is made to be shown."""
DATA_VERSION_TAG = "dagster/data_version"
OWNERS = ["team:data-engineering"]
FRESHNESS = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=30), fail_window=timedelta(hours=54)
)
"""One night missed is a warning, two are a failure; a run that finds nothing new counts, too."""

_Condition = dg.AutomationCondition
_HANDLED = (
    _Condition.newly_requested()
    | _Condition.newly_updated()
    | _Condition.initial_evaluation()
    # Planned by a run that failed, it is for people to start again.
    | _Condition.execution_failed().newly_true()
)
_NEW_VERSION = _Condition.data_version_changed() & ~_Condition.executed_with_root_target()
FOLLOWS_UPSTREAMS = (
    _Condition.eager()
    .replace("newly_updated_without_root", _NEW_VERSION)
    .replace("handled", _HANDLED)
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
    context: dg.AssetExecutionContext,
    snapshot: Snapshot,
    show: Callable[[], Mapping[str, Any]],
) -> dg.MaterializeResult[Snapshot]:
    """A snapshot as an asset returns it: its recipe hash is Dagster's data version.

    Args:
        context: of the asset.
        snapshot: named as the asset.
        show: gives the metadata. Pictures take seconds: of a version that has been shown before,
            they are those shown then.
    """
    before = _shown_before(context.instance, snapshot)
    return dg.MaterializeResult(
        asset_key=snapshot.name,
        value=snapshot,
        data_version=dg.DataVersion(snapshot.version),
        metadata=before if before is not None else dict(show()),
    )


def _shown_before(instance: dg.DagsterInstance, snapshot: Snapshot) -> dict[str, Any] | None:
    event = instance.get_latest_materialization_event(dg.AssetKey(snapshot.name))
    shown = event and event.asset_materialization
    if not shown or (shown.tags or {}).get(DATA_VERSION_TAG) != snapshot.version:
        return None
    of_the_lake = snapshot_metadata(snapshot)  # the IO manager shows it
    return {name: value for name, value in shown.metadata.items() if name not in of_the_lake}
