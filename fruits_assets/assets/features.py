"""`features`: what the network sees in each photo."""

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
from fruits_assets.core.decoder import SECONDS
from fruits_assets.spark.target import SparkTarget
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.featurize import featurize


class FeaturesConfig(ForceConfig):
    """How photos are decoded."""

    reduced_decoding: bool = Field(
        default=False,
        description="Decode large JPEGs at 1/2, 1/4 or 1/8 of their size. Three times as fast at "
        "12 megapixels, but features are off by about 5 % (docs/performance.md): never mix both.",
    )
    max_seconds: float = Field(
        default=SECONDS,
        gt=0,
        description="Seconds that decoding a photo may take, at most. Slower photos get no "
        "features; they are listed in `unreadable_photos`.",
    )


@dg.asset(
    group_name=GROUP,
    kinds={"pyspark", "litert", "parquet"},
    owners=OWNERS,
    code_version=featurize.code_version,
    automation_condition=FOLLOWS_UPSTREAMS,
    freshness_policy=FRESHNESS,
)
def features(
    context: dg.AssetExecutionContext,
    spark: SparkTarget,
    raw_images: Snapshot,
    model_weights: Snapshot,
    config: FeaturesConfig,
) -> dg.MaterializeResult[Snapshot]:
    """1280 MobileNetV2 features of every image.

    Computed once for every distinct content.
    """
    snapshot = spark.run(
        context,
        featurize,
        params=config.model_dump(exclude={"force"}),
        force=config.force,
        images=raw_images,
        model=model_weights,
    )
    figures = snapshot.figures
    shown = ("images", "inferences", "unreadable", "features_per_image", "images_per_second")
    return materialized(context, snapshot, lambda: {name: figures[name] for name in shown})
