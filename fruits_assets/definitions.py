"""Composition only: settings -> resources, assets, checks, jobs and what starts them."""

from collections.abc import Callable, Mapping, Sequence

import dagster as dg

from fruits_assets import automation
from fruits_assets.assets.authorship import Authorship
from fruits_assets.assets.deliverables import deliverables
from fruits_assets.assets.features import features
from fruits_assets.assets.gallery import gallery
from fruits_assets.assets.model_weights import model_weights
from fruits_assets.assets.notebook import notebook
from fruits_assets.assets.pca import pca_features, pca_model
from fruits_assets.assets.places import Source, WeightsOrigin
from fruits_assets.assets.presentation import presentation
from fruits_assets.assets.raw_images import ingest_images
from fruits_assets.automation import Batch
from fruits_assets.checks import CHECKS
from fruits_assets.erasure.job import gdpr_erasure
from fruits_assets.lake.io_manager import LakeIOManager
from fruits_assets.lake.resource import LakeResource
from fruits_assets.settings import Settings
from fruits_assets.spark.local import LocalSpark
from fruits_assets.spark.target import SparkTarget

ASSETS = (ingest_images, model_weights, features, pca_model, pca_features)
"""The pipeline, group `fruits`."""
DELIVERABLES: Sequence[dg.AssetsDefinition] = (notebook, presentation, gallery, deliverables)
"""What is made of it to be shown, group `deliverables`."""


def compose(settings: Settings) -> dg.Definitions:
    """Everything that Dagster serves, for given settings."""
    place = settings.bucket_access()
    lake = LakeResource(base=settings.lake, **place)
    spark = TARGETS[settings.spark](settings, lake)
    own = dg.Definitions(
        assets=[*ASSETS, *DELIVERABLES],
        asset_checks=CHECKS,
        jobs=[gdpr_erasure],
        resources={
            "authorship": Authorship(),
            "io_manager": LakeIOManager(lake=lake),
            "lake": lake,
            "spark": spark,
            "source": Source(
                place=settings.source,
                lake=settings.lake,
                follow_links=settings.follow_links,
                requester_pays=settings.requester_pays,
                inventory=settings.inventory or "",
                **place,
            ),
            "weights": WeightsOrigin(place=settings.weights_origin, **place),
        },
    )
    return dg.Definitions.merge(own, spark.definitions(), _automation(settings))


def _automation(settings: Settings) -> dg.Definitions:
    file = settings.run_config
    return automation.definitions(
        Batch(settings.batch_photos, settings.batch_minutes),
        dg.config_from_files([str(file)]) if file else {},
    )


def _emr(settings: Settings, lake: LakeResource) -> SparkTarget:
    from fruits_assets.spark.emr import EmrSpark  # noqa: PLC0415 - only EMR waits for its libraries

    emr = settings.emr()
    return EmrSpark(
        lake=lake,
        account=emr.account,
        limits=emr.limits,
        **settings.bucket_access(),
    )


def _master(settings: Settings, lake: LakeResource) -> SparkTarget:
    from fruits_assets.spark.master import MasterSpark  # noqa: PLC0415 - as above

    return MasterSpark(lake=lake, cluster=settings.master(), **settings.bucket_access())


def _serverless(settings: Settings, lake: LakeResource) -> SparkTarget:
    from fruits_assets.spark.serverless import EmrServerlessSpark  # noqa: PLC0415 - as above

    serverless = settings.serverless()
    return EmrServerlessSpark(
        lake=lake,
        account=serverless.account,
        limits=serverless.limits,
        **settings.bucket_access(),
    )


TARGETS: Mapping[str, Callable[[Settings, LakeResource], SparkTarget]] = {
    "local": lambda _, lake: LocalSpark(lake=lake),
    "emr": _emr,
    "spark": _master,
    "emr-serverless": _serverless,
}
"""By the value of FRUITS_SPARK."""


@dg.definitions
def defs() -> dg.Definitions:
    """Reads the environment only when Dagster loads the definitions."""
    return compose(Settings())
