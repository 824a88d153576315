"""The job that erases: from the lake first, from Dagster's records, and from the source last."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

import dagster as dg
import pyarrow.compute as pc
from pydantic import Field

from fruits_assets.assets.places import Source
from fruits_assets.core.errors import PcaError
from fruits_assets.deliverables.folder import Published
from fruits_assets.erasure import plan as plans
from fruits_assets.erasure.matching import is_in, texts
from fruits_assets.erasure.plan import Asked, Plan
from fruits_assets.erasure.proof import Search
from fruits_assets.lake import lease, retention
from fruits_assets.lake.io_manager import snapshot_metadata
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe, Versioned
from fruits_assets.lake.resource import told
from fruits_assets.sources.listing import LISTING, Listing
from fruits_assets.sources.store import PhotoStore
from fruits_assets.spark.target import Input, SparkTarget
from fruits_assets.storage.base import Folder, is_name, join
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.featurize import featurize
from fruits_assets.transforms.ingest import ingest
from fruits_assets.transforms.pca import apply_pca, refit_pca
from fruits_assets.transforms.transform import Transform

NOT_FROM_IMAGES = ("model_weights",)
"""Everything else in the lake is made from images, and goes unless it is made without them."""
ASSETS = ("raw_images", "rejected_images", "features", "pca_model", "pca_features")
"""Tables that are assets in Dagster and are made again."""
MAX_RUNS = 10_000
"""Of each asset, that are looked for in Dagster's storage."""


class ErasureConfig(dg.Config):
    """Which images to erase. Every file that shows the same picture is erased too."""

    paths: list[str] = Field(default=[], description="Paths, as `raw_images` has them.")
    sha256: list[str] = Field(default=[], description="SHA-256 of the files, hexadecimal.")
    labels: list[str] = Field(default=[], description="Labels: all images of a class.")
    keep_source: bool = Field(
        default=False,
        description="Leave the files in the source. The next run will take them in again.",
    )


@dataclass(frozen=True)
class _Before:
    """What the lake holds before the erasure; None for what it does not hold."""

    raw: Snapshot
    features: Snapshot | None
    model: Snapshot | None
    projected: Snapshot | None

    @classmethod
    def read(cls, lake: Lake) -> Self | None:
        """None where there are no images."""
        raw = lake.find("raw_images")
        if raw is None:
            return None
        features = _made_from(lake, "features", raw)
        # Whatever it was fitted on: it is fitted again.
        model = _made_from(lake, "pca_model") if features else None
        projected = _made_from(lake, "pca_features", features, model)
        return cls(raw, features, model, projected)

    @property
    def tables(self) -> list[Snapshot]:
        """All of them, with what was made with them."""
        found = [one for one in (self.raw, self.features, self.model, self.projected) if one]
        return [table for one in found for table in (one, *one.siblings.values())]


def _made_from(lake: Lake, name: str, *inputs: Snapshot | None) -> Snapshot | None:
    """What is current, if it was made from these: of other images it would not be whole."""
    found = lake.find(name)
    if found is None:
        return None
    made_from = found.commit.inputs
    fits = all(one and made_from.get(one.name) == one.version for one in inputs)
    return found if fits else None


@dg.op
def erase(
    context: dg.OpExecutionContext, config: ErasureConfig, spark: SparkTarget, source: Source
) -> None:
    """Erases images from the source and from the lake, with everything that was made from them."""
    with told():
        lake, photos = spark.lake.open(), source.photos()
        asked = Asked.of(config.paths, config.sha256, config.labels)
        with lease.alone(lake.folder, context.run.run_id) as held:
            plan = plans.make(lake, photos, asked, keep_source=config.keep_source)
            context.log.info("erasure: %s", json.dumps(planned(lake, plan)))
            plans.write(lake, plan)
            figures = _Erasure(context, spark, lake, photos, plan, held).run()
            figures |= {"asked_for": asked.counts()}
            _record(context, lake, figures)
            plans.forget(lake)
    context.log.info("erasure: %s", json.dumps(figures))
    context.add_output_metadata(figures)


@dg.job(executor_def=dg.in_process_executor)
def gdpr_erasure() -> None:
    """Erases images and everything made from them, from every version, for good.

    Run config: `ops: {erase: {config: {paths: [...], sha256: [...], labels: [...]}}}`; without
    names, it finishes an erasure that was interrupted. See docs/gdpr.md.
    """
    erase()


def planned(lake: Lake, plan: Plan) -> dict[str, Any]:
    """What a plan will do, in counts: names do not belong into a log."""
    return {
        "rows_of_the_lake": len(plan.paths),
        "files_of_the_source": len(plan.source),
        "tables": [name for name in lake.tables() if name not in NOT_FROM_IMAGES],
    }


@dataclass
class _Erasure:
    """An erasure that is being carried out.

    What it does can be repeated: each step finds what is left to do.
    """

    context: dg.OpExecutionContext
    spark: SparkTarget
    lake: Lake
    photos: PhotoStore
    plan: Plan
    held: lease.Lease

    def run(self) -> dict[str, Any]:
        """Does it, and returns counts and seconds."""
        seconds: dict[str, float] = {}
        before = _Before.read(self.lake)
        kept: list[Snapshot] = []
        if before:
            kept = self._kept(before, seconds)
        removed = self._purge(kept) + Published.read(self.lake.folder).remove()
        _forget_runs(self.context, kept)
        self.held.check()
        in_source = self.photos.erase(sorted(self.plan.source)) if self.plan.source else 0
        with _timed(seconds, "proof"):
            searched = Search(self.plan).check(
                self.lake, self.photos, keep_source=not self.plan.source
            )
        return {
            "images_erased": len(self.plan.paths),
            "source_files_erased": in_source,
            "lake_files_removed": removed,
            "files_searched": searched,
            "assets_made_again": sorted({one.name for one in kept if not one.name.startswith("_")}),
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
        }

    def _kept(self, before: _Before, seconds: dict[str, float]) -> list[Snapshot]:
        """Publishes every table as a run would make it had the erased images never been there.

        They are made of the very recipes of such a run: it will find them done. All are made before
        the first is published, so that an erasure that is killed leaves tables that fit together.
        """
        listing = Listing.of(before.raw.siblings[LISTING], self.photos.root)
        remaining = _without(listing, self.plan.paths)
        if remaining.rows == listing.rows:
            return before.tables
        if not remaining.rows:
            return []
        published: dict[str, Snapshot] = {}
        for draft in self._made(before, remaining, seconds):
            self.held.check()
            published[draft.name] = self.lake.publish(draft, made_from=published)
        found = published.values()
        return [table for one in found for table in (one, *one.siblings.values())]

    def _made(
        self, before: _Before, remaining: Listing, seconds: dict[str, float]
    ) -> list[Snapshot]:
        """All tables without the erased images, none of them published."""
        with _timed(seconds, "rewriting"):
            places = {"photos": self.photos.folder}
            raw = self._make(ingest, before.raw, [remaining], places, source=remaining)
            drafts = [raw]
            if before.features is None:
                return drafts
            weights = self.lake.made_from(before.features, "model_weights")
            features = self._make(
                featurize, before.features, [raw, weights], images=raw, model=weights
            )
            drafts.append(features)
            model = self._refitted(before, features)
        if model is None:
            return drafts
        drafts.append(model)
        if before.projected is None:
            return drafts
        with _timed(seconds, "projection"):
            projected = self._make(
                apply_pca, before.projected, [features, model], features=features, model=model
            )
        return [*drafts, projected]

    def _refitted(self, before: _Before, features: Snapshot) -> Snapshot | None:
        """The PCA, fitted again: the erased images had their part in the old one."""
        if before.model is None:
            return None
        fitted = self.lake.made_from(before.model, "features")
        try:
            return self._make(
                refit_pca,
                before.model,
                [features],
                features=features,
                fitted=fitted,
                model=before.model,
            )
        except dg.Failure as error:
            if not isinstance(error.__cause__, PcaError):
                raise
            self.context.log.warning("erasure: %s The PCA is unpublished.", error.description)
            return None

    def _make(
        self,
        transform: Transform,
        old: Snapshot,
        made_from: Iterable[Versioned],
        places: Mapping[str, Folder] | None = None,
        **inputs: Input,
    ) -> Snapshot:
        """The version of a table's own recipe for other inputs."""
        made = old.commit
        recipe = Recipe.of(made.transform, made.code_version, made_from, params=made.params)
        params = {**made.params, **(places or {})}
        return self.spark.make(self.context, recipe, transform, params=params, **inputs)

    def _purge(self, kept: Sequence[Snapshot]) -> int:
        """Removes all that is not known to be free of the erased images, older versions too."""
        needed = {one.name: one.by_name.keys() for one in kept}
        removed = 0
        for name in self.lake.folders():
            if name in NOT_FROM_IMAGES:
                continue
            self.held.check()
            if name not in needed:
                self.lake.withdraw(name, run=self.context.run.run_id)
            table = self.lake.table(name)
            removed += table.folder.remove(
                file
                for file in _names_ever(table.folder)
                if retention.is_ours(file) and file not in needed.get(name, ())
            )
        return removed


def _names_ever(folder: Folder) -> set[str]:
    """Names of the files of a folder, and of those that only older versions are kept of."""
    below = join(folder.uri, "")
    found = (one.uri.removeprefix(below) for one in folder.storage.everything(folder.uri))
    return {name for name in found if is_name(name)}


def _without(listing: Listing, erased: frozenset[str]) -> Listing:
    gone = is_in(listing.files["path"], texts(erased))
    return replace(listing, files=listing.files.filter(pc.invert(gone)))  # type: ignore[attr-defined]


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[what] = time.monotonic() - began


def _forget_runs(context: dg.OpExecutionContext, kept: Sequence[Snapshot]) -> None:
    """Removes what Dagster shows of older runs: previews hold thumbnails, checks name paths."""
    instance = context.instance
    keys = [key for key in instance.get_asset_keys() if key.path[-1] not in NOT_FROM_IMAGES]
    runs = {
        record.run_id
        for key in keys
        for record in instance.fetch_materializations(key, limit=MAX_RUNS).records
    }
    for run in runs - {context.run.run_id}:
        instance.delete_run(run)
    instance.wipe_assets(keys)
    for snapshot in kept:
        if snapshot.name in ASSETS:
            context.log_event(
                dg.AssetMaterialization(
                    snapshot.name,
                    metadata=snapshot_metadata(snapshot),
                    tags={"dagster/data_version": snapshot.version},
                )
            )


def record(lake: Lake, run: str) -> dict[str, Any]:
    """What the erasure of a run has done, in counts. Raises LakeError, or OSError."""
    return json.loads(plans.folder(lake).read(f"{run}.json"))


def _record(context: dg.OpExecutionContext, lake: Lake, figures: Mapping[str, Any]) -> None:
    """Proof of what was done, without a word of what it was done to."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"run_id": context.run.run_id, "erased_at": now, **figures}
    plans.folder(lake).write(f"{context.run.run_id}.json", json.dumps(record, indent=2).encode())
