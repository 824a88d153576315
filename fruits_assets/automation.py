"""Jobs."""

from __future__ import annotations

import dagster as dg

fruits_job = dg.define_asset_job(
    "fruits_job",
    selection=dg.AssetSelection.all(),
    description="From the photos of the source to their principal components.",
)
