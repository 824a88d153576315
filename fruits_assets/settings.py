"""Where things are: the only reader of the environment."""

from __future__ import annotations

from typing import Literal, Self, TypedDict, TypeVar

from pydantic import Field, FilePath, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fruits_assets.core.errors import SparkError
from fruits_assets.spark.account import (
    Architecture,
    EmrAccount,
    EmrLimits,
    Release,
    ServerlessAccount,
    SparkMaster,
)
from fruits_assets.storage.base import S3
from fruits_assets.storage.endpoints import split
from fruits_assets.storage.region import check_owner, check_region

SAMPLE = "sample"


DEPLOY = "`make deploy` prints lines with all of them for .env (docs/emr.md)."
EMR = SettingsConfigDict(
    env_prefix="FRUITS_EMR_", env_file=".env", env_ignore_empty=True, extra="ignore"
)


class EmrSettings(  # pyright: ignore[reportIncompatibleVariableOverride]
    BaseSettings, EmrAccount, EmrLimits
):
    """Read from `FRUITS_EMR_*` variables, the outputs of the stack, and only with `spark=emr`."""

    model_config = EMR

    @property
    def account(self) -> EmrAccount:
        """What clusters use."""
        return EmrAccount(**self.model_dump(include=set(EmrAccount.model_fields)))

    @property
    def limits(self) -> EmrLimits:
        """How much of it a run may take."""
        return EmrLimits(**self.model_dump(include=set(EmrLimits.model_fields)))


class ServerlessSettings(  # pyright: ignore[reportIncompatibleVariableOverride]
    BaseSettings, ServerlessAccount, EmrLimits
):
    """Read from the same variables, and only with `spark=emr-serverless`."""

    model_config = EMR

    @property
    def account(self) -> ServerlessAccount:
        """Application, role and places that jobs use."""
        return ServerlessAccount(**self.model_dump(include=set(ServerlessAccount.model_fields)))

    @property
    def limits(self) -> EmrLimits:
        """How much of it a job may take."""
        return EmrLimits(**self.model_dump(include=set(EmrLimits.model_fields)))


class ForecastSettings(  # pyright: ignore[reportIncompatibleVariableOverride]
    BaseSettings, EmrLimits
):
    """Those of `FRUITS_EMR_*` that a price depends on: they are there before a stack is."""

    model_config = EMR

    release: Release = EmrAccount.model_fields["release"].default
    architecture: Architecture = EmrAccount.model_fields["architecture"].default


class MasterSettings(  # pyright: ignore[reportIncompatibleVariableOverride]
    BaseSettings, SparkMaster
):
    """Read from `FRUITS_SPARK_*` variables, and only with `spark=spark`."""

    model_config = SettingsConfigDict(
        env_prefix="FRUITS_SPARK_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )


_Read = TypeVar("_Read", bound=BaseSettings)


class BucketAccess(TypedDict):
    """How buckets are reached, by the names that `Place` and `Lake.at` take."""

    region: str | None
    kms_key: str | None
    bucket_owner: str | None


class Settings(BaseSettings):
    """Read from `FRUITS_*` variables, or from a `.env` file in the working directory."""

    model_config = SettingsConfigDict(
        env_prefix="FRUITS_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )

    source: str = Field(
        default=SAMPLE,
        description="Folder of photos, s3://bucket/prefix, archive (.zip, .tar, .tar.gz) or table "
        "(.csv, .jsonl) of photos, or `sample` for the embedded sample.",
    )
    follow_links: bool = Field(
        default=False,
        description="Whether symbolic links in a source folder may lead out of it.",
    )
    requester_pays: bool = Field(
        default=False,
        description="Whether this account pays for requests to the bucket of the source, where its "
        "owner asks for that (Requester Pays).",
    )
    inventory: str | None = Field(
        default=None,
        description="S3 Inventory to take the listing of a source in a bucket from: s3:// URI of "
        "its manifest.json, or of the folder of its configuration, whose newest one is taken.",
    )
    lake: str = Field(
        default="lake", description="Folder, or s3://bucket/prefix, that is published to."
    )
    weights: str | None = Field(
        default=None,
        description="`imagenet`, `sample`, or the path or s3:// URI of a Keras weights file; by "
        "default `sample` for the embedded sample and `imagenet` for a source of your own.",
    )
    region: str | None = Field(
        default=None, description="Region of all buckets: one of AWS's regions in the EU."
    )
    kms_key: str | None = Field(
        default=None, description="KMS key that encrypts what is written; S3's own key without."
    )
    bucket_owner: str | None = Field(
        default=None,
        description="Id of the AWS account that owns all buckets (12 digits); any may without.",
    )
    spark: Literal["local", "emr", "emr-serverless", "spark"] = Field(
        default="local",
        description="Where Spark runs: `local` is this machine, `emr` a cluster of AWS EMR per "
        "run, `emr-serverless` EMR Serverless, and `spark` the cluster that FRUITS_SPARK_MASTER "
        "names.",
    )
    batch_photos: int = Field(
        default=100, ge=1, description="New photos that the sensor starts a run for."
    )
    batch_minutes: float = Field(
        default=60.0,
        ge=0,
        allow_inf_nan=False,
        description="Fewer start one once the first of them has waited so long.",
    )
    run_config: FilePath | None = Field(
        default=None, description="YAML file: run config of runs that start by themselves."
    )

    @model_validator(mode="after")
    def _in_the_eu(self) -> Self:
        """Raises FruitsErrors, whose texts are meant for people, before anything is built.

        Nor is anything recorded by then: a URI may hold a password, where it should not.
        """
        buckets = [it for it in (self.source, self.lake, self.weights_origin) if it.startswith(S3)]
        for uri in buckets:
            split(uri)
        if self.region or buckets:
            check_region(self.region)
        check_owner(self.bucket_owner)
        return self

    def bucket_access(self) -> BucketAccess:
        """The same for all buckets."""
        return {
            "region": self.region,
            "kms_key": self.kms_key,
            "bucket_owner": self.bucket_owner,
        }

    def emr(self) -> EmrSettings:
        """What clusters use, and how much. Raises SparkError where a part is not set."""
        return _read(EmrSettings, "emr", DEPLOY)

    def serverless(self) -> ServerlessSettings:
        """Account and limits of EMR Serverless. Raises SparkError where a setting is missing."""
        return _read(ServerlessSettings, "emr-serverless", DEPLOY)

    def forecast(self) -> ForecastSettings:
        """Settings that a price depends on. Raises SparkError where one of them cannot be used."""
        return _read(ForecastSettings, "emr", "See .env.example.")

    def master(self) -> SparkMaster:
        """The cluster to submit to. Raises SparkError where a part is not set."""
        hint = "docs/clusters.md shows an example for each kind of cluster."
        read = _read(MasterSettings, "spark", hint)
        return SparkMaster(**read.model_dump())

    @property
    def weights_origin(self) -> str:
        """The weights to use."""
        return self.weights or (SAMPLE if self.source == SAMPLE else "imagenet")


def _read(kind: type[_Read], value: str, hint: str) -> _Read:
    """Settings that only some values of FRUITS_SPARK need. Raises SparkError."""
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        wrong = ", ".join(
            f"{prefix}{str(one['loc'][0]).upper()} ({one['msg'].lower()})" for one in error.errors()
        )
        raise SparkError(
            f"these settings are not as they must be for FRUITS_SPARK={value}: {wrong}. {hint}"
        ) from error
