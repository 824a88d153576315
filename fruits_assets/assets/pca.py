"""`pca_model` and `pca_features`: the features, reduced to what varies."""

from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from fruits_assets.assets.common import (
    FOLLOWS_UPSTREAMS,
    FRESHNESS,
    GROUP,
    OWNERS,
    ForceConfig,
    materialized,
)
from fruits_assets.assets.previews import pca_features_metadata, pca_model_metadata
from fruits_assets.core.errors import DatasetError
from fruits_assets.core.pca import FeatureSpace
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.resource import told
from fruits_assets.sources.layout import AUTO
from fruits_assets.spark.target import SparkTarget
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.pca import apply_pca, fit_pca, measure_drift

MAX_CHANGED = 0.10
"""Share of the fitted images that may have come, gone or changed before the PCA is fitted anew."""
MAX_MEAN_SHIFT = 0.05
"""Distance that the mean may have moved, in standard deviations of all features together."""


class PcaConfig(ForceConfig):
    """How far the features are reduced."""

    n_components: float = Field(
        default=0.95,
        description="Share of the variance to keep, between 0 and 1, or a number of components "
        "(as in scikit-learn).",
    )
    standardize: bool = Field(
        default=False, description="Divide each feature by its standard deviation first."
    )
    fit_split: str = Field(
        default=AUTO,
        description="Split to fit on: Training, Test or Validation; `all`; or `auto`: Training "
        "where the source has one, else all.",
    )
    refit: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="When photos have come or gone since the PCA was fitted: fit it anew `always`; "
        "`never`, so that components stay comparable; or `auto`, when more than "
        f"{MAX_CHANGED:.0%} of the images changed, or their mean moved by more than "
        f"{MAX_MEAN_SHIFT:g} standard deviations. Other settings or weights are always fitted.",
    )


@dg.asset(
    group_name=GROUP,
    kinds={"pyspark", "numpy"},
    owners=OWNERS,
    code_version=fit_pca.code_version,
    automation_condition=FOLLOWS_UPSTREAMS,
    freshness_policy=FRESHNESS,
)
def pca_model(
    context: dg.AssetExecutionContext, spark: SparkTarget, features: Snapshot, config: PcaConfig
) -> dg.MaterializeResult[Snapshot]:
    """Mean and components of the features.

    Fitted in one distributed pass.
    """
    params = config.model_dump(exclude={"force", "refit"})
    snapshot = None
    if not config.force and config.refit != "always":
        snapshot = _still_good(context, spark, features, params, never=config.refit == "never")
    if snapshot is None:
        snapshot = spark.run(context, fit_pca, features=features, params=params, force=config.force)
    return materialized(context, snapshot, lambda: pca_model_metadata(snapshot))


def _still_good(
    context: dg.AssetExecutionContext,
    spark: SparkTarget,
    features: Snapshot,
    params: Mapping[str, Any],
    *,
    never: bool,
) -> Snapshot | None:
    """The current PCA, where it answers the same question and features have not moved far."""
    with told():
        lake = spark.lake.open()
        model, fitted = _current(lake, features, params)
    if model is None or fitted is None or fitted.version == features.version:
        return None
    if never:
        context.log.info("PCA: version %s is kept (refit: never)", model.version)
        return model
    drift = spark.run(context, measure_drift, features=features, model=model, fitted=fitted)
    with told():
        lake.publish(drift)
    figures = drift.figures
    changed, shift = figures["changed"], figures["mean_shift"]
    refit = changed > MAX_CHANGED or shift > MAX_MEAN_SHIFT
    context.log.info(
        "PCA: %.1f %% of the images changed since it was fitted (at most %.0f %%), and their mean "
        "moved by %.3f standard deviations (at most %.2f): %s",
        100 * changed,
        100 * MAX_CHANGED,
        shift,
        MAX_MEAN_SHIFT,
        "it is fitted anew" if refit else f"version {model.version} is kept",
    )
    return None if refit else model


def _current(
    lake: Lake, features: Snapshot, params: Mapping[str, Any]
) -> tuple[Snapshot | None, Snapshot | None]:
    """The current PCA and what it was fitted on, if only the photos are others since."""
    try:
        model = lake.current("pca_model")
        fitted = lake.made_from(model, "features")
    except DatasetError:
        return None, None
    made = model.commit
    same_question = (made.code_version, made.params) == (fit_pca.code_version, params)
    same_features = FeatureSpace.of(fitted.commit) == FeatureSpace.of(features.commit)
    return (model, fitted) if same_question and same_features else (None, None)


@dg.asset(
    group_name=GROUP,
    kinds={"pyspark", "parquet"},
    owners=OWNERS,
    code_version=apply_pca.code_version,
    automation_condition=FOLLOWS_UPSTREAMS,
    freshness_policy=FRESHNESS,
)
def pca_features(
    context: dg.AssetExecutionContext,
    spark: SparkTarget,
    features: Snapshot,
    pca_model: Snapshot,
    config: ForceConfig,
) -> dg.MaterializeResult[Snapshot]:
    """Every image as its components.

    The compact features that the product uses, and what its photos are recognised by.
    """
    snapshot = spark.run(
        context,
        apply_pca,
        features=features,
        model=pca_model,
        force=config.force,
    )
    return materialized(context, snapshot, lambda: pca_features_metadata(snapshot, pca_model))
