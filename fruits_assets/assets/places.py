"""The places outside the lake that assets start from."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from fruits_assets.core.source import Listing, list_folder
from fruits_assets.sample.drawing import write_sample
from fruits_assets.settings import SAMPLE

SAMPLE_FOLDER = "sample_photos"


class Source(dg.ConfigurableResource):
    """Where the photos come from."""

    place: str = Field(
        default=SAMPLE,
        description="A folder of photos, or `sample`: the embedded sample, drawn on first use into "
        f"`{SAMPLE_FOLDER}` in the working directory.",
    )

    def listing(self, *, recursive: bool) -> Listing:
        """Every file of the source. Raises SourceError."""
        if self.place == SAMPLE:
            write_sample(Path(SAMPLE_FOLDER))
            return list_folder(SAMPLE_FOLDER, recursive=recursive)
        return list_folder(self.place, recursive=recursive)


class WeightsOrigin(dg.ConfigurableResource):
    """Which weights the features are computed with."""

    place: str = Field(
        default=SAMPLE,
        description="`imagenet` (downloaded and cached by Keras), `sample` (embedded), or the path "
        "of a Keras weights file of MobileNetV2 without its top.",
    )
