"""One asset check for each promise made about the data."""

import functools
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from fruits_assets.spark.target import SparkTarget
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms import pca as pca_transforms
from fruits_assets.transforms.changes import CLASSES
from fruits_assets.transforms.featurize import read_unreadable
from fruits_assets.transforms.measures import MISSING, inspect_features, recognize
from fruits_assets.transforms.oddities import (
    COPIES,
    INVENTED,
    LOST,
    ODDITIES,
    PAIRS,
    REPEATED,
    SHOWN,
    UNLABELLED,
    inspect_images,
    read_examples,
)
from fruits_assets.transforms.transform import Transform

CODE_VERSION = "2"
"""Changes whenever a check would say something else of the same data."""
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
            of = _versions(**given)
            return _said_before(context.instance, key, of) or _said(check(context, **given), of)

        return dg.asset_check(asset=asset, **declared)(promise)

    return declare


def _versions(**given: Any) -> str:
    """The versions that a check is computed of, as its result names them."""
    versions = {name: it.version for name, it in given.items() if isinstance(it, Snapshot)}
    return json.dumps([CODE_VERSION, versions], sort_keys=True)


def _said(found: dg.AssetCheckResult, of: str) -> dg.AssetCheckResult:
    """A result that names the versions that it is of."""
    return found._replace(metadata={**(found.metadata or {}), OF: of})


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


@dataclass(frozen=True)
class _Images:
    """Facts about the photos of a source, measured only where a check needs them.

    Attributes:
        images: a version of `raw_images`.
        measure: gives what `inspect_images` has found of it.
    """

    images: Snapshot
    measure: Callable[[], Snapshot]

    @cached_property
    def classes(self) -> Mapping[str, set[str]]:
        """Split -> the labels of its photos."""
        rows = self._counts
        return oddities.classes_of((row["split"], row["label"]) for row in rows)

    @cached_property
    def labels(self) -> set[str]:
        """All of them, of photos without a split, too."""
        return {row["label"] for row in self._counts if row["label"]}

    @cached_property
    def _counts(self) -> list[dict[str, Any]]:
        return self.images.siblings[CLASSES].arrow(["label", "split"]).to_pylist()

    @property
    def figures(self) -> Mapping[str, Any]:
        """Counts of what is odd."""
        return self._measured.figures

    def examples(self, kind: str) -> list[tuple[list[str], int]]:
        """Paths and photos of the first of a kind."""
        return read_examples(self._measured.siblings[ODDITIES], kind)

    @cached_property
    def _measured(self) -> Snapshot:
        return self.measure()


def every_file_accounted_for(it: _Images) -> dg.AssetCheckResult:
    """Every file found in the source is in exactly one of raw_images and rejected_images."""
    found = it.figures
    problems = [found[kind] for kind in (LOST, INVENTED, REPEATED)]
    return dg.AssetCheckResult(
        passed=not any(problems),
        description="{} files found: {} accepted, {} rejected, {} lost, {} not from the source, "
        "{} twice.".format(
            *(found[name] for name in ("files_found", "accepted", "rejected")), *problems
        ),
        metadata={
            **{name: found[name] for name in ("files_found", "accepted", "rejected")},
            **_shown(
                **{kind: [paths[0] for paths, _ in it.examples(kind)] for kind in (LOST, INVENTED)}
            ),
        },
    )


def no_image_in_both_splits(it: _Images) -> dg.AssetCheckResult:
    """No content is in more than one split: a model would be tested on what it was fitted to."""
    contents, count = it.figures["contents"], it.figures["in_more_than_one"]
    return dg.AssetCheckResult(
        passed=not count,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{count} image(s) are in more than one split, by content.",
        metadata={
            "contents": contents,
            "in_more_than_one": count,
            **_shown(pairs=[paths for paths, _ in it.examples(PAIRS)]),
        },
    )


def labels_present(it: _Images) -> dg.AssetCheckResult:
    """Every photo has a label: it lies in a folder that names its class."""
    photos, without = it.images.rows, it.figures["without_label"]
    return dg.AssetCheckResult(
        passed=not without,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{without} of {photos} photos have no label. Put photos in a "
        "folder named after their class, inside the source or inside a split's folder."
        if without
        else f"all {photos} photos have a label.",
        metadata={
            "photos": photos,
            "without_label": without,
            **_shown(unlabelled=[paths[0] for paths, _ in it.examples(UNLABELLED)]),
        },
    )


def splits_share_classes(it: _Images) -> dg.AssetCheckResult:
    """Test and Validation share classes with Training: else no photo could be recognised."""
    classes = it.classes
    apart = oddities.strangers(classes)
    advice = it.figures["shared"] if apart else {}
    told = [
        f"{split} shares no class with Training ({len(classes[split])} and "
        f"{len(classes[TRAINING])} classes), so that 0.0% of its photos can be recognised. "
        + (
            "With another `labels` in the config of `ingest`, they share classes: "
            + ", ".join(f"{rule} ({count})" for rule, count in advice[split].items())
            if advice[split]
            else "Name the folders of its classes as those of Training are"
        )
        for split in apart
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


def classes_in_all_splits(it: _Images) -> dg.AssetCheckResult:
    """No class is in one split only: it could not be tested, or not be recognised."""
    alone = oddities.in_one_split(it.classes)
    told = "; ".join(f"{len(labels)} only in {split}" for split, labels in alone.items())
    return dg.AssetCheckResult(
        passed=not alone,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"of {len(set().union(*it.classes.values()))} classes, "
        + (f"some are in one split only: {told}." if alone else "none is in one split only."),
        metadata=_shown(**alone),
    )


def class_names_differ(it: _Images) -> dg.AssetCheckResult:
    """No two classes have names that differ in case, accents, `_`, `-` or spaces only."""
    groups = oddities.near_equal(it.labels)
    return dg.AssetCheckResult(
        passed=not groups,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(groups)} group(s) of classes have nearly the same name. If they mean "
        "the same fruit, give their folders one name."
        if groups
        else f"the names of {len(it.labels)} classes differ.",
        metadata=_shown(nearly_equal=groups),
    )


def no_folder_twice(it: _Images) -> dg.AssetCheckResult:
    """No folder of the source is a copy of another, as where a source is nested in itself."""
    found = [
        oddities.Copy(folder, other, photos) for (folder, other), photos in it.examples(COPIES)
    ]
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{'; '.join(map(str, found[:COPIES_TOLD]))}. Remove one of them from the "
        "source, or point FRUITS_SOURCE at one."
        if found
        else f"none of the folders of {it.images.rows} photos is a copy of another.",
        metadata=_shown(copies=[[copy.folder, copy.other, copy.photos] for copy in found]),
    )


OF_IMAGES: Mapping[str, Callable[[_Images], dg.AssetCheckResult]] = {
    check.__name__: check
    for check in (
        every_file_accounted_for,
        no_image_in_both_splits,
        labels_present,
        splits_share_classes,
        classes_in_all_splits,
        class_names_differ,
        no_folder_twice,
    )
}
"""Checks of `raw_images`: one op, so that where each op is a process, one of them measures."""


@dg.multi_asset_check(
    name="raw_images_checks",
    specs=[
        dg.AssetCheckSpec(name, asset="raw_images", description=check.__doc__)
        for name, check in OF_IMAGES.items()
    ],
    can_subset=True,
    ins={"raw_images": dg.AssetIn("raw_images")},
)
def raw_images_checks(
    context: dg.AssetCheckExecutionContext, spark: SparkTarget, raw_images: Snapshot
) -> Iterator[dg.AssetCheckResult]:
    """Checks the photos of the source, those of the checks that were asked for."""
    it = _Images(raw_images, lambda: _measure(context, spark, inspect_images, images=raw_images))
    of = _versions(raw_images=raw_images)
    for key in sorted(context.selected_asset_check_keys):
        found = _said_before(context.instance, key, of) or _said(OF_IMAGES[key.name](it), of)
        yield found._replace(asset_key=key.asset_key, check_name=key.name)


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
    measured = _measure(context, spark, inspect_features, features=features, images=raw_images)
    found = measured.figures
    missing = [paths[0] for paths, _ in read_examples(measured.siblings[MISSING], LOST)]
    unreadable = read_unreadable(features)[:SHOWN]
    problems = {
        f"{found['missing']} photo(s) without features": found["missing"],
        f"{found['repeated']} photo(s) twice": found["repeated"],
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
    measured = _measure(context, spark, recognize, features=features, pca_features=pca_features)
    found = measured.figures
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
    raw_images_checks,
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
) -> Snapshot:
    """What a measure has found, kept in the lake so that it is computed once."""
    dataset = spark.run(context, measure, **inputs)
    spark.lake.open().publish(dataset)
    return dataset
