"""`pca_model` and `pca_features`: the features, reduced to what varies."""

import dagster as dg
from pydantic import Field

from fruits_assets.assets.common import GROUP, OWNERS, ForceConfig, materialized
from fruits_assets.assets.previews import pca_features_metadata, pca_model_metadata
from fruits_assets.core.dataset import Dataset
from fruits_assets.spark.target import SparkTarget
from fruits_assets.transforms.pca import AUTO, apply_pca, fit_pca


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


class PcaFeaturesConfig(ForceConfig):
    """In which forms the components are written."""

    csv: bool = Field(
        default=False, description="Write pca_features.csv too: path, label, pc_1 ... pc_k."
    )


@dg.asset(
    group_name=GROUP,
    kinds={"pyspark", "numpy"},
    owners=OWNERS,
    code_version=fit_pca.code_version,
)
def pca_model(
    context: dg.AssetExecutionContext, spark: SparkTarget, features: Dataset, config: PcaConfig
) -> dg.MaterializeResult[Dataset]:
    """Mean and principal components of the features, fitted in one distributed pass."""
    params = config.model_dump(exclude={"force"})
    dataset = spark.run(context, fit_pca, features=features, params=params, force=config.force)
    return materialized(dataset, pca_model_metadata(dataset))


@dg.asset(
    group_name=GROUP,
    kinds={"pyspark", "parquet"},
    owners=OWNERS,
    code_version=apply_pca.code_version,
)
def pca_features(
    context: dg.AssetExecutionContext,
    spark: SparkTarget,
    features: Dataset,
    pca_model: Dataset,
    config: PcaFeaturesConfig,
) -> dg.MaterializeResult[Dataset]:
    """Every image as its principal components: the compact features that the product uses."""
    dataset = spark.run(
        context,
        apply_pca,
        features=features,
        model=pca_model,
        params={"csv": config.csv},
        force=config.force,
    )
    return materialized(dataset, pca_features_metadata(dataset, pca_model))
