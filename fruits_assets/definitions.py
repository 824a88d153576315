"""Composition only: settings -> resources, assets, checks and jobs."""

import dagster as dg

from fruits_assets.assets.features import features
from fruits_assets.assets.model_weights import model_weights
from fruits_assets.assets.pca import pca_features, pca_model
from fruits_assets.assets.places import Source, WeightsOrigin
from fruits_assets.assets.raw_images import ingest_images
from fruits_assets.automation import fruits_job
from fruits_assets.checks import CHECKS
from fruits_assets.erasure import gdpr_erasure
from fruits_assets.lake.io_manager import LakeIOManager
from fruits_assets.lake.resource import LakeResource
from fruits_assets.settings import Settings
from fruits_assets.spark.local import LocalSpark

ASSETS = (ingest_images, model_weights, features, pca_model, pca_features)


def compose(settings: Settings) -> dg.Definitions:
    """Everything that Dagster serves, for given settings."""
    region, kms_key = settings.region, settings.kms_key
    lake = LakeResource(base=settings.lake, region=region, kms_key=kms_key)
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=CHECKS,
        jobs=[fruits_job, gdpr_erasure],
        # One process per run, so that all of its assets share one Spark session.
        executor=dg.in_process_executor,
        resources={
            "io_manager": LakeIOManager(lake=lake),
            "lake": lake,
            "spark": LocalSpark(lake=lake),
            "source": Source(place=settings.source, region=region, kms_key=kms_key),
            "weights": WeightsOrigin(place=settings.weights_origin, region=region, kms_key=kms_key),
        },
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Reads the environment only when Dagster loads the definitions."""
    return compose(Settings())
