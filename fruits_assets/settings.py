"""Where things are: the only reader of the environment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

SAMPLE = "sample"


class Settings(BaseSettings):
    """Read from `FRUITS_*` variables, or from a `.env` file in the working directory."""

    model_config = SettingsConfigDict(
        env_prefix="FRUITS_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )

    source: str = Field(
        default=SAMPLE, description="Folder of photos, or `sample` for the embedded sample."
    )
    lake: str = Field(default="lake", description="Folder that everything is published to.")
    weights: str | None = Field(
        default=None,
        description="`imagenet`, `sample`, or the path of a Keras weights file; by default `sample`"
        " for the embedded sample and `imagenet` for a source of your own.",
    )
    spark: Literal["local"] = Field(default="local", description="Where Spark runs.")

    @property
    def weights_origin(self) -> str:
        """The weights to use."""
        return self.weights or (SAMPLE if self.source == SAMPLE else "imagenet")
