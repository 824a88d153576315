"""The lake as a Dagster resource."""

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import dagster as dg
from pydantic import Field

from fruits_assets.core.dataset import Dataset, Output
from fruits_assets.core.errors import FruitsError
from fruits_assets.core.storage import connect
from fruits_assets.lake.lake import Lake, Recipe

Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext | dg.OpExecutionContext


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turns an error meant for people into the failure that Dagster shows them."""
    try:
        yield
    except FruitsError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


class Place(dg.ConfigurableResource, ABC):
    """A folder, or a bucket in the EU: what is said of it once, for all that lies in it."""

    region: str | None = Field(
        default=None, description="Region of the buckets, one in the EU; folders need none."
    )
    kms_key: str | None = Field(
        default=None,
        description="Id or ARN of the KMS key that everything written to a bucket is encrypted "
        "with; S3's own key without.",
    )

    @property
    @abstractmethod
    def uri(self) -> str:
        """What it is the place of."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Refuses a bucket outside the EU before any asset starts. Raises dg.Failure."""
        with told():
            self.connect(self.uri)

    def connect(self, uri: str) -> None:
        """Makes sure that a bucket lies in the EU, before a byte moves. Raises RegionError."""
        connect(uri, region=self.region, kms_key=self.kms_key)


class LakeResource(Place):
    """Where the lake lies."""

    base: str = Field(description="Where the lake lies: a folder, or s3://bucket/prefix.")
    keep_versions: int = Field(default=3, ge=1, description="Versions of an asset to keep.")

    @property
    def uri(self) -> str:  # noqa: D102 - see Place
        return self.base

    def open(self) -> Lake:
        """The lake itself. Raises RegionError, S3Error or LakeError."""
        return Lake.at(
            self.base,
            region=self.region,
            kms_key=self.kms_key,
            keep_versions=self.keep_versions,
        )

    def produce(
        self,
        context: Context,
        recipe: Recipe,
        assets: Sequence[str],
        make: Callable[[Mapping[str, str]], dict[str, Output]],
    ) -> tuple[Dataset, ...]:
        """The version of a recipe, made only if the lake does not hold it already.

        Args:
            context: of the asset, check or op that asks.
            recipe: what it is made of.
            assets: the assets that the recipe makes.
            make: given asset -> URI of the version's folder, writes them all.

        Returns:
            A dataset per asset, ready to be published.

        Raises:
            dg.Failure: a FruitsError; its text is the description.
        """
        with told():
            lake = self.open()
            seen = {asset: lake.pointer(asset) for asset in assets}
            run, known = context.run.run_id, lake.answers(recipe, assets)
            provisional = sum(one.manifest.provisional for one in known or ())
            if known and provisional:  # it stays as it is: what comes of another try lies elsewhere
                recipe = replace(recipe, salt=run)
                context.log.info("%s: tries %d rows again", recipe.transform, provisional)
            started, outputs = time.monotonic(), {}
            if provisional or not known:
                outputs = make({asset: lake.folder(asset, recipe.version) for asset in assets})
            seconds = time.monotonic() - started
        if known and provisional == sum(one.provisional for one in outputs.values()):
            context.log.info("%s: reused version %s", recipe.transform, known[0].version)
            return tuple(replace(one, follows=seen[one.name]) for one in known)
        context.log.info("%s: made version %s in %.1f s", recipe.transform, recipe.version, seconds)
        drafts = (
            lake.draft(asset, recipe, outputs[asset], run=run, seconds=seconds) for asset in assets
        )
        return tuple(replace(draft, follows=seen[draft.name]) for draft in drafts)
