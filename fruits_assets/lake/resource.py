"""The lake as a Dagster resource."""

import contextlib
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import dagster as dg
import pyarrow as pa
from pydantic import Field

from fruits_assets.core.errors import FruitsError
from fruits_assets.lake import lease
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets.storage.base import Folder
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.snapshot import Output, Snapshot

Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext | dg.OpExecutionContext


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turns an error meant for people into the failure that Dagster shows them."""
    try:
        yield
    except FruitsError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


class Deployed(dg.ConfigurableResource, ABC):
    """A resource that the environment sets up, and that the config of a run cannot redirect.

    Whoever may launch a run may choose how it computes. Where it reads and writes, and what it runs
    on, is for whoever sets up the environment to say (`Settings`).
    """

    def tunable(self) -> Mapping[str, dg.Field]:
        """The config that a run may have for it, by name of the field; none by default."""
        return {}

    def get_resource_definition(self) -> dg.ResourceDefinition:  # type: ignore[override]
        """This resource as Dagster runs it, with no config but what is tunable."""
        return self._definition

    @functools.cached_property  # Dagster compares definitions by identity
    def _definition(self) -> dg.ResourceDefinition:
        whole = super().get_resource_definition()
        fixed = whole.config_schema.default_value
        return whole.configured(lambda given: {**fixed, **given}, config_schema={**self.tunable()})


class Place(Deployed, ABC):
    """A folder, or a bucket in the EU: what is said of it once, for all that lies in it."""

    region: str | None = Field(
        default=None, description="Region of the buckets, one in the EU; folders need none."
    )
    kms_key: str | None = Field(
        default=None,
        description="Id or ARN of the KMS key that everything written to a bucket is encrypted "
        "with; S3's own key without.",
    )
    bucket_owner: str | None = Field(
        default=None,
        description="Id of the AWS account that owns the buckets (12 digits). S3 refuses every "
        "request for a bucket of another account; without it, any owner is accepted.",
    )

    @property
    @abstractmethod
    def uri(self) -> str:
        """What it is the place of."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Refuses a bucket outside the EU before any asset starts. Raises dg.Failure."""
        with told():
            self.folder(self.uri)

    def folder(self, uri: str) -> Folder:
        """A folder, or a bucket that has been seen to lie in the EU. Raises RegionError."""
        return folder_at(
            uri, region=self.region, kms_key=self.kms_key, bucket_owner=self.bucket_owner
        )


class LakeResource(Place):
    """Where the lake lies."""

    base: str = Field(description="Where the lake lies: a folder, or s3://bucket/prefix.")
    keep_versions: int = Field(
        default=3, ge=1, description="Number of published versions of each table to keep."
    )

    @property
    def uri(self) -> str:  # noqa: D102 - see Place
        return self.base

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuses a lake that cannot be used, before any asset starts. Raises dg.Failure."""
        super().setup_for_execution(context)
        with told():
            Lake.at(
                self.base,
                region=self.region,
                kms_key=self.kms_key,
                bucket_owner=self.bucket_owner,
            )

    def open(self) -> Lake:
        """The lake itself, whose format was checked at the start. Raises RegionError or S3Error."""
        return Lake(self.folder(self.base), self.keep_versions)

    def produce(
        self,
        context: Context,
        recipe: Recipe,
        schemas: Mapping[str, pa.Schema],
        make: Callable[[Mapping[str, Folder]], Mapping[str, Output]],
    ) -> Snapshot:
        """The version of a recipe, made only if the lake does not hold it already.

        Args:
            context: of the asset, check or op that asks.
            recipe: what it is made of.
            schemas: of the tables that the recipe makes, by name; the first leads.
            make: given table -> folder, writes the parts of all of them.

        Returns:
            The first table, ready to be published, with the others as its siblings.

        Raises:
            dg.Failure: a FruitsError; its text is the description.
        """
        lead = next(iter(schemas))
        with told():
            lake = self.open()
            follows = {name: lake.table(name).latest() for name in schemas}
            run, known = context.run.run_id, lake.answers(recipe, lead)
            provisional = known.commit.provisional if known else 0
            if known and provisional:  # it stays as it is: what comes of another try is another
                recipe = replace(recipe, salt=run)
                context.log.info("%s: tries %d rows again", recipe.transform, provisional)
            started = time.monotonic()
            outputs: Mapping[str, Output] = {}
            if provisional or not known:
                with lease.shared(lake.folder, run) as held:
                    outputs = make({name: lake.table(name).folder for name in schemas})
                    held.check()
            seconds = time.monotonic() - started
        if known and provisional == sum(one.provisional for one in outputs.values()):
            context.log.info("%s: reused version %s", recipe.transform, known.version)
            return again(known, recipe, follows)
        context.log.info("%s: made version %s in %.1f s", recipe.transform, recipe.version, seconds)
        return lake.draft(recipe, outputs, schemas, run=run, seconds=seconds, follows=follows)


def again(known: Snapshot, recipe: Recipe, follows: Mapping[str, int]) -> Snapshot:
    """A published version as a draft: it can be published again, in place of a later one.

    Args:
        known: the version, with its siblings.
        recipe: that asked for it: what it was made from may have other numbers by now.
        follows: number of the latest version of each table.
    """
    commit = replace(known.commit, numbers=recipe.numbers, siblings={})
    siblings = {name: again(one, recipe, follows) for name, one in known.siblings.items()}
    return replace(known, commit=commit, siblings=siblings, follows=follows[known.name])
