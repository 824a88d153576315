"""`features`: what the network sees in each photo."""

import dagster as dg

from fruits_assets.assets.common import GROUP, OWNERS, ForceConfig, materialized
from fruits_assets.core.dataset import Dataset
from fruits_assets.spark.target import SparkTarget
from fruits_assets.transforms.featurize import featurize


@dg.asset(
    group_name=GROUP,
    kinds={"pyspark", "litert", "parquet"},
    owners=OWNERS,
    code_version=featurize.code_version,
)
def features(
    context: dg.AssetExecutionContext,
    spark: SparkTarget,
    raw_images: Dataset,
    model_weights: Dataset,
    config: ForceConfig,
) -> dg.MaterializeResult[Dataset]:
    """1280 MobileNetV2 features for every image, computed once for every distinct content."""
    dataset = spark.run(
        context, featurize, images=raw_images, model=model_weights, force=config.force
    )
    figures = dataset.manifest.figures
    shown = ("images", "inferences", "features_per_image", "images_per_second")
    return materialized(dataset, {name: figures[name] for name in shown})
