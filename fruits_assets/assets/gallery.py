"""`gallery`: the photos to look at, where they lie on the first two components."""

import io
from typing import Any

import dagster as dg
from PIL import Image
from pydantic import Field

from fruits_assets.assets.common import DELIVERABLES, OWNERS, ForceConfig, materialized
from fruits_assets.assets.previews import picture
from fruits_assets.core.decoder import SECONDS
from fruits_assets.spark.target import SparkTarget
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.gallery import MAX_PHOTOS, MOST_PHOTOS, draw_gallery


class GalleryConfig(ForceConfig):
    """How many photos are shown."""

    max_photos: int = Field(
        default=MAX_PHOTOS,
        ge=1,
        le=MOST_PHOTOS,
        description="Photos that are shown at most; of more, a sample in proportion to classes and "
        "splits.",
    )
    max_seconds: float = Field(
        default=SECONDS,
        gt=0,
        description="Seconds that decoding may take: slower photos get a blank thumbnail.",
    )


@dg.asset(
    group_name=DELIVERABLES,
    kinds={"pyspark", "javascript"},
    owners=OWNERS,
    code_version=draw_gallery.code_version,
)
def gallery(  # noqa: PLR0917 - Dagster passes inputs by name
    context: dg.AssetExecutionContext,
    spark: SparkTarget,
    raw_images: Snapshot,
    pca_features: Snapshot,
    pca_model: Snapshot,
    config: GalleryConfig,
) -> dg.MaterializeResult[Snapshot]:
    """Thumbnails of the photos, their place on the first two components, and which are alike."""
    snapshot = spark.run(
        context,
        draw_gallery,
        params=config.model_dump(exclude={"force"}),
        force=config.force,
        images=raw_images,
        pca_features=pca_features,
        model=pca_model,
    )
    return materialized(context, snapshot, lambda: _metadata(snapshot))


def _metadata(snapshot: Snapshot) -> dict[str, Any]:
    """Counts, and the first sheet of thumbnails."""
    figures = snapshot.figures
    sheet = next(name for name in snapshot.names() if name.endswith(".jpg"))
    buffer = io.BytesIO()
    Image.open(io.BytesIO(snapshot.read(sheet))).save(buffer, "PNG")
    shown = ("photos", "of", "classes", "sheets", "without_thumbnail")
    return {**{name: figures[name] for name in shown}, "thumbnails": picture(buffer.getvalue())}
