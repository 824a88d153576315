"""Erasure (GDPR, article 17): images, and everything that was made from them, are gone for good."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import dagster as dg
import pyarrow as pa
from pydantic import Field

from fruits_assets.assets.places import Source
from fruits_assets.core.errors import DatasetError, PcaError, SourceError
from fruits_assets.core.source import LISTING, Listing, label_of, photos_at
from fruits_assets.lake.io_manager import snapshot_metadata
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets.lake.resource import told
from fruits_assets.spark.target import SparkTarget
from fruits_assets.storage.base import join
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.erase import erase_features, erase_images
from fruits_assets.transforms.pca import apply_pca, fit_pca

RECORDS = "erasures"
"""Folder of the lake that holds what was done: figures only."""
NOT_FROM_IMAGES = ("model_weights",)
"""Everything else in the lake is made from images, and goes unless it is made anew without them."""
MAX_RUNS = 10_000
"""Of each asset, that are looked for in Dagster's storage."""
AT_WORK = (
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


class ErasureConfig(dg.Config):
    """Which images to erase. What has the same content as one of them is erased too."""

    paths: list[str] = Field(default=[], description="Paths, as `raw_images` has them.")
    sha256: list[str] = Field(default=[], description="SHA-256 of the files, hexadecimal.")
    labels: list[str] = Field(default=[], description="Labels: all images of a class.")
    keep_source: bool = Field(
        default=False,
        description="Leave the files in the source. The next run will take them in again.",
    )


@dataclass(frozen=True)
class _Lake:
    """What the lake holds before the erasure; None for what it does not hold."""

    raw: Snapshot
    rejected: Snapshot
    features: Snapshot | None
    model: Snapshot | None
    projected: Snapshot | None
    listing: Listing

    @classmethod
    def read(cls, lake: Lake) -> Self | None:
        """None where there are no images, or not the whole of a version."""
        if "raw_images" not in lake.assets():
            return None
        raw = lake.current("raw_images")
        rejected = lake.finished("rejected_images", raw.version)
        if rejected is None:
            return None
        features = _made_from(lake, "features", raw)
        # Whatever it was fitted on: it is fitted anew.
        model = _made_from(lake, "pca_model") if features else None
        projected = _made_from(lake, "pca_features", features, model)
        return cls(raw, rejected, features, model, projected, Listing.read(raw.read(LISTING)))


def _made_from(lake: Lake, asset: str, *inputs: Snapshot | None) -> Snapshot | None:
    """What is current, if it was made from these: of other images it would not be whole."""
    try:
        dataset = lake.current(asset)
    except DatasetError:
        return None
    made_from = dataset.commit.inputs
    fits = all(one and made_from.get(one.name) == one.version for one in inputs)
    return dataset if fits else None


@dg.op
def erase(
    context: dg.OpExecutionContext, config: ErasureConfig, spark: SparkTarget, source: Source
) -> None:
    """Erases images from the source and from the lake, with everything that was made from them."""
    _refuse_to_do_nothing(config)
    _refuse_while_others_work(context)
    with told():
        lake = spark.lake.open()
        before = _Lake.read(lake)
        root = before.listing.root if before else source.photos().root
        source.connect(root)
        erased = _selected(before, config) if before else set()
        doomed = erased | _named_in_source(root, config)
        in_source = 0 if config.keep_source else photos_at(root).erase(sorted(doomed))
        rebuilt = _rebuilt(context, spark, before, erased) if before else []
        removed = _purge(lake, rebuilt)
        _forget(context, rebuilt)
        _refuse_while_others_work(context)  # one that began meanwhile may have read what was erased
        figures = {
            "images_erased": len(erased),
            "source_files_erased": in_source,
            "lake_files_removed": removed,
            "assets_made_anew": [dataset.name for dataset in rebuilt],
            "asked_for": {
                "paths": len(config.paths),
                "sha256": len(config.sha256),
                "labels": len(config.labels),
            },
        }
        _record(context, lake, figures)
    context.log.info("erasure: %s", json.dumps(figures))
    context.add_output_metadata(figures)


@dg.job(executor_def=dg.in_process_executor)
def gdpr_erasure() -> None:
    """Erases images and everything made from them, from every version, for good.

    Run config: `ops: {erase: {config: {paths: [...], sha256: [...], labels: [...]}}}`. See
    docs/gdpr.md.
    """
    erase()


def _refuse_to_do_nothing(config: ErasureConfig) -> None:
    if not (config.paths or config.sha256 or config.labels):
        raise dg.Failure(
            "nothing is named to be erased. Give paths, sha256 or labels in the run config: "
            "ops: {erase: {config: {paths: [Apple/1.jpg]}}}.",
            allow_retries=False,
        )


def _refuse_while_others_work(context: dg.OpExecutionContext) -> None:
    """A run under way may hold what is erased, and would publish it again."""
    records = context.instance.get_run_records(dg.RunsFilter(statuses=list(AT_WORK)))
    others = [one.dagster_run.run_id for one in records]
    others = [run for run in others if run != context.run.run_id]
    if others:
        raise dg.Failure(
            f"another run is at work ({others[0]}), and could publish again what is erased. Wait "
            "for its end or cancel it, then run the erasure again.",
            allow_retries=False,
        )


def _selected(before: _Lake, config: ErasureConfig) -> set[str]:
    """Paths of all files that are named, or whose content is that of one that is named."""
    rows = [
        *before.raw.arrow(["path", "sha256"]).to_pylist(),
        *before.rejected.arrow(["path", "sha256"]).to_pylist(),
    ]
    named = [row for row in rows if _is_named(row["path"], config)]
    hashes = {row["sha256"] for row in named if row["sha256"]}
    hashes |= {one.lower() for one in config.sha256}
    return {row["path"] for row in [*named, *(row for row in rows if row["sha256"] in hashes)]}


def _is_named(path: str, config: ErasureConfig) -> bool:
    return path in config.paths or label_of(path) in config.labels


def _named_in_source(root: str, config: ErasureConfig) -> set[str]:
    """Files that the lake may not know yet."""
    try:
        listing = photos_at(root).list(recursive=True)
    except SourceError:  # it is gone, or was emptied by an erasure that was interrupted
        return set()
    return {path for path in listing.files["path"].to_pylist() if _is_named(path, config)}


def _rebuilt(
    context: dg.OpExecutionContext, spark: SparkTarget, before: _Lake, erased: set[str]
) -> list[Snapshot]:
    """Publishes every dataset as a run would make it had the erased images never been there.

    They have the very addresses that such a run would give them: it will find them done.
    """
    if not erased:
        found = (before.raw, before.rejected, before.features, before.model, before.projected)
        return [dataset for dataset in found if dataset]
    if erased.issuperset(before.raw.arrow(["path"])["path"].to_pylist()):
        return []
    lake = spark.lake.open()
    listing = _without(before.listing, erased)
    raw, rejected = spark.make(
        context,
        _recipe(before.raw, {"source": listing.version}),
        erase_images,
        params={},
        source=listing,
        images=before.raw,
        rejected=before.rejected,
    )
    lake.publish(rejected)
    lake.publish(raw)
    if before.features is None:
        return [rejected, raw]
    (features,) = spark.make(
        context,
        _recipe(before.features, {**before.features.commit.inputs, "raw_images": raw.version}),
        erase_features,
        params={},
        images=raw,
        old=before.features,
    )
    lake.publish(features)
    return [rejected, raw, features, *_reduced(context, spark, before, features)]


def _reduced(
    context: dg.OpExecutionContext, spark: SparkTarget, before: _Lake, features: Snapshot
) -> list[Snapshot]:
    """The PCA, fitted anew: the erased images had their part in the old one."""
    lake = spark.lake.open()
    if before.model is None:
        return []
    try:
        params = before.model.commit.params
        model = spark.run(context, fit_pca, features=features, params=params)
    except dg.Failure as error:
        if not isinstance(error.__cause__, PcaError):
            raise
        context.log.warning("erasure: %s The PCA is unpublished.", error.description)
        return []
    lake.publish(model)
    if before.projected is None:
        return [model]
    params = before.projected.commit.params
    projected = spark.run(context, apply_pca, features=features, model=model, params=params)
    lake.publish(projected)
    return [model, projected]


def _recipe(old: Snapshot, inputs: Mapping[str, str]) -> Recipe:
    made = old.manifest
    return Recipe(made.transform, made.code_version, made.params, inputs)


def _without(listing: Listing, erased: set[str]) -> Listing:
    kept = [path not in erased for path in listing.files["path"].to_pylist()]
    return Listing(listing.root, listing.files.filter(pa.array(kept, pa.bool_())), listing.hidden)


def _purge(lake: Lake, rebuilt: Sequence[Snapshot]) -> int:
    """Removes all that is not known to be free of the erased images, older versions included."""
    kept = {file for dataset in rebuilt for file in lake.files(dataset)}
    for asset in (*NOT_FROM_IMAGES, RECORDS):
        kept |= lake.all_files(asset)
    return lake.storage.purge(lake.base, keep=kept)


def _forget(context: dg.OpExecutionContext, rebuilt: Sequence[Snapshot]) -> None:
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
    for dataset in rebuilt:
        context.log_event(
            dg.AssetMaterialization(
                dataset.name,
                metadata=snapshot_metadata(dataset),
                tags={"dagster/data_version": dataset.version},
            )
        )


def _record(context: dg.OpExecutionContext, lake: Lake, figures: Mapping[str, Any]) -> None:
    """Proof of what was done, without a word of what it was done to."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"run_id": context.run.run_id, "erased_at": now, **figures}
    uri = join(lake.base, RECORDS, f"{context.run.run_id}.json")
    lake.storage.write(uri, json.dumps(record, indent=2).encode())
