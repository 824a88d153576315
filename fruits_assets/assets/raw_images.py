"""`raw_images` and `rejected_images`: every file of the source, in one table or the other."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from fruits_assets.assets.common import FRESHNESS, GROUP, OWNERS, ForceConfig, materialized
from fruits_assets.assets.places import Source
from fruits_assets.assets.previews import raw_metadata, rejected_metadata
from fruits_assets.core.decoder import SECONDS
from fruits_assets.lake.resource import told
from fruits_assets.sources.layout import Labels
from fruits_assets.spark.target import SparkTarget
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.ingest import ingest

COMMONEST = 10


class IngestConfig(ForceConfig):
    """What is taken for a photo, and how many files may not be one."""

    recursive: bool = Field(default=True, description="Look into sub-folders, to any depth.")
    labels: Labels = Field(
        default="parent",
        description="Which folder is the label where classes are nested, as in "
        "Training/Fruit/Apple/Golden/1.jpg: the `parent` folder of the photo (Golden), the `first` "
        "one below the split, or below the source without splits (Fruit), or the whole `path` "
        "(Fruit/Apple/Golden). Where folders are not nested, they are the same.",
    )
    max_rejected: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of the files that may be rejected before the run fails.",
    )
    max_megapixels: float = Field(
        default=220.0,
        gt=0,
        description="Pictures of more megapixels (millions of pixels) are rejected before they are "
        "decoded; phones make 200.",
    )
    max_megabytes: float = Field(
        default=100.0, gt=0, description="Larger files are rejected before they are read."
    )
    max_seconds: float = Field(
        default=SECONDS,
        gt=0,
        description="Seconds that decoding a photo may take, at most. A photo that needs "
        "several times the processor time of other photos of its size is rejected earlier.",
    )

    @property
    def limits(self) -> dict[str, Any]:
        """The limits of a file, as parameters of `ingest`."""
        return {
            "max_pixels": int(self.max_megapixels * 1e6),
            "max_bytes": int(self.max_megabytes * 1e6),
            "max_seconds": self.max_seconds,
        }


@dg.multi_asset(
    name="ingest",
    group_name=GROUP,
    outs={
        "rejected_images": dg.AssetOut(
            dagster_type=Snapshot,
            description="Files that are no usable photo, and why.\n\n"
            "With `raw_images`, every file of the source is accounted for.",
            kinds={"pyspark", "parquet"},
            owners=OWNERS,
            code_version=ingest.code_version,
            freshness_policy=FRESHNESS,
        ),
        "raw_images": dg.AssetOut(
            dagster_type=Snapshot,
            description="Every usable photo of the source.\n\n"
            "Examined, its metadata (EXIF, GPS, XMP, comments) removed without touching a pixel.",
            kinds={"pyspark", "parquet"},
            owners=OWNERS,
            code_version=ingest.code_version,
            freshness_policy=FRESHNESS,
        ),
    },
)
def ingest_images(
    context: dg.AssetExecutionContext, spark: SparkTarget, source: Source, config: IngestConfig
) -> Iterator[dg.MaterializeResult[Snapshot]]:
    """Photos of the source -> raw_images and rejected_images."""
    with told():
        photos = source.photos()
        listing = source.list(recursive=config.recursive, labels=config.labels)
    raw = spark.run(
        context,
        ingest,
        params=config.limits,
        places={"photos": photos.folder},
        force=config.force,
        source=listing,
    )
    rejected = raw.siblings["rejected_images"]
    yield materialized(context, rejected, lambda: rejected_metadata(rejected))
    _refuse_too_many(rejected, max_rejected=config.max_rejected)
    yield materialized(context, raw, lambda: raw_metadata(raw))


def _refuse_too_many(rejected: Snapshot, *, max_rejected: float) -> None:
    figures = rejected.figures
    count, found = figures["rejected"], figures["files_found"]
    reasons = list(figures["reasons"].items())[:COMMONEST]
    told = ", ".join(f"{reason} ({number})" for reason, number in reasons)
    if count == found:
        raise dg.Failure(
            f"none of the {found} files of the source is a usable photo: {told}. "
            "The table rejected_images names each file and what is wrong with it.",
            allow_retries=False,
        )
    if count > max_rejected * found:
        raise dg.Failure(
            f"{count} of {found} files were rejected, {count / found:.1%}; max_rejected allows "
            f"{max_rejected:.1%}. Commonest reasons: {told}. The table rejected_images names each "
            "file and what is wrong with it: mend or remove them, or raise max_rejected.",
            allow_retries=False,
        )
