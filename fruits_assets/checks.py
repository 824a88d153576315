"""One asset check for each promise made about the data."""

import functools
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import numpy as np
from pydantic import Field

from fruits_assets.core.mobilenet import DESCRIPTION as MODEL_DESCRIPTION
from fruits_assets.core.mobilenet import (
    MODEL,
    PROBE,
    FeatureExtractor,
    ModelDescription,
    relative_error,
)
from fruits_assets.core.pca import PcaModel
from fruits_assets.core.weights import MAX_RELATIVE_ERROR
from fruits_assets.sources import oddities
from fruits_assets.sources.layout import TRAINING
from fruits_assets.sources.listing import LISTING
from fruits_assets.spark.target import SparkTarget
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms import pca as pca_transforms
from fruits_assets.transforms.featurize import read_unreadable
from fruits_assets.transforms.measures import inspect_features, recognize
from fruits_assets.transforms.transform import Transform

CODE_VERSION = "1"
"""Changes whenever a check would say something else of the same data."""
SHOWN = 20
"""Offending items that a result lists."""
OF = "of_versions"
"""Metadata of a result: the versions that it is of."""
COPIES_TOLD = 3
"""Folders that are there twice, in the sentence of a result."""
LAST = 5
"""Records of a check that are looked at: the latest may be of a run that was interrupted."""


def _promise(
    asset: str, **declared: Any
) -> Callable[[Callable[..., dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """Declares a check that is not computed again of versions that it was computed of before.

    A version never changes, so neither does what is said of it. What was said is remembered by
    Dagster's instance; without one, or when these checks change, it is computed again.
    """

    def declare(check: Callable[..., dg.AssetCheckResult]) -> dg.AssetChecksDefinition:
        key = dg.AssetCheckKey(dg.AssetKey(asset), check.__name__)

        @functools.wraps(check)
        def promise(context: dg.AssetCheckExecutionContext, **given: Any) -> dg.AssetCheckResult:
            versions = {name: it.version for name, it in given.items() if isinstance(it, Snapshot)}
            of = json.dumps([CODE_VERSION, versions], sort_keys=True)
            if before := _said_before(context.instance, key, of):
                return before
            found = check(context, **given)
            return found._replace(metadata={**(found.metadata or {}), OF: of})

        return dg.asset_check(asset=asset, **declared)(promise)

    return declare


def _said_before(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey, of: str
) -> dg.AssetCheckResult | None:
    """The last result of a check, if it was of these versions."""
    for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=LAST):
        event = record.event.dagster_event if record.event else None
        found = event.event_specific_data if event else None
        if isinstance(found, dg.AssetCheckEvaluation):
            shown = found.metadata.get(OF)
            if shown is None or shown.value != of:
                return None
            return dg.AssetCheckResult(
                passed=found.passed,
                severity=found.severity,
                description=found.description,
                metadata=dict(found.metadata),
            )
    return None


@_promise("raw_images", additional_ins={"rejected_images": dg.AssetIn()})
def every_file_accounted_for(
    context: dg.AssetCheckExecutionContext,  # noqa: ARG001 - of `_promise`
    raw_images: Snapshot,
    rejected_images: Snapshot,
) -> dg.AssetCheckResult:
    """Every file found in the source is in exactly one of raw_images and rejected_images."""
    listed = set(raw_images.siblings[LISTING].arrow(["path"])["path"].to_pylist())
    accepted = raw_images.arrow(["path"])["path"].to_pylist()
    rejected = rejected_images.arrow(["path"])["path"].to_pylist()
    tables = accepted + rejected
    lost = sorted(listed - set(tables))
    invented = sorted(set(tables) - listed)
    repeated = len(tables) - len(set(tables))
    return dg.AssetCheckResult(
        passed=not (lost or invented or repeated),
        description=f"{len(listed)} files found: {len(accepted)} accepted, {len(rejected)} "
        f"rejected, {len(lost)} lost, {len(invented)} not from the source, {repeated} twice.",
        metadata={
            "files_found": len(listed),
            "accepted": len(accepted),
            "rejected": len(rejected),
            **_shown(lost=lost, not_from_the_source=invented),
        },
    )


@_promise("raw_images")
def no_image_in_both_splits(
    context: dg.AssetCheckExecutionContext,  # noqa: ARG001 - of `_promise`
    raw_images: Snapshot,
) -> dg.AssetCheckResult:
    """No content is in more than one split: a model would be tested on what it was fitted to."""
    splits: dict[str, dict[str, str]] = {}
    for row in raw_images.arrow(["path", "split", "sha256"]).to_pylist():
        if row["split"]:
            splits.setdefault(row["sha256"], {}).setdefault(row["split"], row["path"])
    pairs = sorted(sorted(paths.values()) for paths in splits.values() if len(paths) > 1)
    return dg.AssetCheckResult(
        passed=not pairs,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(pairs)} image(s) are in more than one split, by content.",
        metadata={"contents": len(splits), "in_more_than_one": len(pairs), **_shown(pairs=pairs)},
    )


@_promise("raw_images")
def labels_present(
    context: dg.AssetCheckExecutionContext,  # noqa: ARG001 - of `_promise`
    raw_images: Snapshot,
) -> dg.AssetCheckResult:
    """Every photo has a label: it lies in a folder that names its class."""
    rows = raw_images.arrow(["path", "label"]).to_pylist()
    unlabelled = sorted(row["path"] for row in rows if row["label"] is None)
    return dg.AssetCheckResult(
        passed=not unlabelled,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(unlabelled)} of {len(rows)} photos have no label. Put photos in a "
        "folder named after their class, inside the source or inside a split's folder."
        if unlabelled
        else f"all {len(rows)} photos have a label.",
        metadata={
            "photos": len(rows),
            "without_label": len(unlabelled),
            **_shown(unlabelled=unlabelled),
        },
    )


@_promise("raw_images")
def splits_share_classes(
    context: dg.AssetCheckExecutionContext,  # noqa: ARG001 - of `_promise`
    raw_images: Snapshot,
) -> dg.AssetCheckResult:
    """Test and Validation share classes with Training: else no photo could be recognised."""
    classes = _classes(raw_images)
    apart = oddities.strangers(classes)
    paths = raw_images.arrow(["path"])["path"].to_pylist() if apart else []
    advice = {it: oddities.shared_under(paths, it) for it in apart}
    told = [
        f"{split} shares no class with Training ({len(classes[split])} and "
        f"{len(classes[TRAINING])} classes), so that 0.0% of its photos can be recognised. "
        + (
            "With another `labels` in the config of `ingest`, they share classes: "
            + ", ".join(f"{rule} ({count})" for rule, count in shared.items())
            if shared
            else "Name the folders of its classes as those of Training are"
        )
        for split, shared in advice.items()
    ]
    return dg.AssetCheckResult(
        passed=not apart,
        severity=dg.AssetCheckSeverity.WARN,
        description=". ".join(told) + "."
        if told
        else "the splits share classes, or there is one at most.",
        metadata={
            "classes": {split: len(labels) for split, labels in classes.items()},
            **_shown(**{split: sorted(classes[split]) for split in (*apart, TRAINING) if apart}),
        },
    )


@_promise("raw_images")
def classes_in_all_splits(
    context: dg.AssetCheckExecutionContext,  # noqa: ARG001 - of `_promise`
    raw_images: Snapshot,
) -> dg.AssetCheckResult:
    """No class is in one split only: it could not be tested, or not be recognised."""
    classes = _classes(raw_images)
    alone = oddities.in_one_split(classes)
    told = "; ".join(f"{len(labels)} only in {split}" for split, labels in alone.items())
    return dg.AssetCheckResult(
        passed=not alone,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"of {len(set().union(*classes.values()))} classes, "
        + (f"some are in one split only: {told}." if alone else "none is in one split only."),
        metadata=_shown(**alone),
    )


@_promise("raw_images")
def class_names_differ(
    context: dg.AssetCheckExecutionContext,  # noqa: ARG001 - of `_promise`
    raw_images: Snapshot,
) -> dg.AssetCheckResult:
    """No two classes have names that differ in case, accents, `_`, `-` or spaces only."""
    labels = {it for it in raw_images.arrow(["label"])["label"].unique().to_pylist() if it}
    groups = oddities.near_equal(labels)
    return dg.AssetCheckResult(
        passed=not groups,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(groups)} group(s) of classes have nearly the same name. If they mean "
        "the same fruit, give their folders one name."
        if groups
        else f"the names of {len(labels)} classes differ.",
        metadata=_shown(nearly_equal=groups),
    )


@_promise("raw_images")
def no_folder_twice(
    context: dg.AssetCheckExecutionContext,  # noqa: ARG001 - of `_promise`
    raw_images: Snapshot,
) -> dg.AssetCheckResult:
    """No folder of the source is a copy of another, as where a source is nested in itself."""
    rows = raw_images.arrow(["path", "sha256"])
    found = oddities.copies(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{'; '.join(map(str, found[:COPIES_TOLD]))}. Remove one of them from the "
        "source, or point FRUITS_SOURCE at one."
        if found
        else f"none of the folders of {rows.num_rows} photos is a copy of another.",
        metadata=_shown(copies=[[it.folder, it.other, it.photos] for it in found]),
    )


def _classes(raw_images: Snapshot) -> Mapping[str, set[str]]:
    """Split -> the labels of its photos."""
    rows = raw_images.arrow(["split", "label"])
    return oddities.classes_of(
        zip(rows["split"].to_pylist(), rows["label"].to_pylist(), strict=True)
    )


@_promise("model_weights")
def model_parity(
    context: dg.AssetCheckExecutionContext,  # noqa: ARG001 - of `_promise`
    model_weights: Snapshot,
) -> dg.AssetCheckResult:
    """The published model gives, on this machine, the features that Keras gave."""
    description = ModelDescription.from_json(model_weights.read(MODEL_DESCRIPTION))
    with np.load(io.BytesIO(model_weights.read(PROBE)), allow_pickle=False) as probe:
        photos, expected = probe["photos"], probe["features"]
    extract = FeatureExtractor(model_weights.read(MODEL))
    error = relative_error(np.stack([extract(photo) for photo in photos]), expected)
    return dg.AssetCheckResult(
        passed=error <= MAX_RELATIVE_ERROR,
        description=f"features of {len(photos)} photos differ from Keras's by {error:.1e} "
        f"(relative L2); at most {MAX_RELATIVE_ERROR:.0e} is accepted.",
        metadata={"relative_error": error, "weights": description.origin},
    )


@_promise(
    "features",
    additional_ins={"raw_images": dg.AssetIn(), "model_weights": dg.AssetIn()},
)
def features_complete(
    context: dg.AssetCheckExecutionContext,
    spark: SparkTarget,
    features: Snapshot,
    raw_images: Snapshot,
    model_weights: Snapshot,
) -> dg.AssetCheckResult:
    """Every photo has its features: of the right width, finite and not all equal."""
    width = ModelDescription.from_json(model_weights.read(MODEL_DESCRIPTION)).features
    found = _measure(context, spark, inspect_features, features=features)
    have = features.arrow(["path"])["path"].to_pylist()
    missing = sorted(set(raw_images.arrow(["path"])["path"].to_pylist()) - set(have))
    unreadable = read_unreadable(features)[:SHOWN]
    problems = {
        f"{len(missing)} photo(s) without features": len(missing),
        f"{len(have) - len(set(have))} photo(s) twice": len(have) - len(set(have)),
        f"widths {found['widths']} instead of {width}": found["widths"] != [width],
        f"{found['not_finite']} vector(s) with NaN or infinity": found["not_finite"],
        f"{found['constant']} constant vector(s)": found["constant"],
    }
    told = [problem for problem, present in problems.items() if present]
    return dg.AssetCheckResult(
        passed=not told,
        description="; ".join(told) or f"{found['rows']} photos have {width} finite features.",
        metadata={"rows": found["rows"], **_shown(missing=missing, unreadable=unreadable)},
    )


@_promise("pca_model")
def components_orthonormal(
    context: dg.AssetCheckExecutionContext,  # noqa: ARG001 - of `_promise`
    pca_model: Snapshot,
) -> dg.AssetCheckResult:
    """Components have length 1 and right angles between them (to 1e-6)."""
    components = _pca(pca_model).components
    deviation = float(np.abs(components @ components.T - np.eye(len(components))).max())
    return dg.AssetCheckResult(
        passed=deviation <= 1e-6,
        description=f"{len(components)} components; largest deviation {deviation:.1e}.",
        metadata={"deviation": deviation},
    )


@_promise("pca_model")
def variance_target_reached(
    context: dg.AssetCheckExecutionContext,  # noqa: ARG001 - of `_promise`
    pca_model: Snapshot,
) -> dg.AssetCheckResult:
    """The components explain the share of variance that was asked for."""
    model = _pca(pca_model)
    explained = float(model.explained_variance_ratio.sum())
    target = pca_model.commit.params["n_components"]
    asked = f"{target:.1%} of the variance" if target < 1 else f"{target:g} components"
    return dg.AssetCheckResult(
        passed=explained >= target - 1e-9 if target < 1 else len(model.components) == target,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(model.components)} components explain {explained:.2%}; asked: {asked}.",
        metadata={"explained_variance": explained, "components": len(model.components)},
    )


class RecognitionConfig(dg.Config):
    """How good is good enough."""

    min_accuracy: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="Nearest-neighbour accuracy on the components below which the check warns.",
    )
    max_loss: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Accuracy that the reduction may cost, against all features.",
    )


# Blocking, so that the deliverables of the same run wait for it: they show what it has measured. As
# a warning, it stops none of them.
@dg.asset_check(asset="pca_features", additional_ins={"features": dg.AssetIn()}, blocking=True)
def recognition(
    context: dg.AssetCheckExecutionContext,
    spark: SparkTarget,
    pca_features: Snapshot,
    features: Snapshot,
    config: RecognitionConfig,
) -> dg.AssetCheckResult:
    """The nearest Training photo has the label of the Test photo, on the components."""
    found = _measure(context, spark, recognize, features=features, pca_features=pca_features)
    if not (found["test"] and found["training"]):
        return dg.AssetCheckResult(
            passed=True,
            severity=dg.AssetCheckSeverity.WARN,
            description="skipped: the source has no labelled Training and Test photos to compare.",
        )
    accuracy, reference = found["accuracy_components"], found["accuracy_features"]
    loss = reference - accuracy
    return dg.AssetCheckResult(
        passed=accuracy >= config.min_accuracy and loss <= config.max_loss,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{accuracy:.1%} of {found['test']} Test photos are nearest to a Training "
        f"photo of their class on the components, {reference:.1%} on all features; expected at "
        f"least {config.min_accuracy:.1%}, and a loss of at most {config.max_loss:.1%}.",
        metadata={
            "accuracy_components": accuracy,
            "accuracy_features": reference,
            "accuracy_lost": loss,
            "test_photos": found["test"],
            "training_photos": found["training"],
        },
    )


CHECKS: Sequence[dg.AssetChecksDefinition] = (
    every_file_accounted_for,
    no_image_in_both_splits,
    labels_present,
    splits_share_classes,
    classes_in_all_splits,
    class_names_differ,
    no_folder_twice,
    model_parity,
    features_complete,
    components_orthonormal,
    variance_target_reached,
    recognition,
)


def _shown(**offending: Sequence[Any]) -> dict[str, Any]:
    """The first offending items of each kind that there is."""
    return {kind: items[:SHOWN] for kind, items in offending.items() if items}


def _pca(pca_model: Snapshot) -> PcaModel:
    return PcaModel.from_npz(pca_model.read(pca_transforms.MODEL))


def _measure(
    context: dg.AssetCheckExecutionContext,
    spark: SparkTarget,
    measure: Transform,
    **inputs: Any,
) -> dict[str, Any]:
    """The figures of a measure, kept in the lake so that they are computed once."""
    dataset = spark.run(context, measure, **inputs)
    spark.lake.open().publish(dataset)
    return dict(dataset.figures)
