"""`notebook`: the walk through the whole chain, executed on what the lake holds."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from fruits_assets.assets.authorship import Authorship
from fruits_assets.assets.common import DELIVERABLES, OWNERS, ForceConfig, materialized
from fruits_assets.assets.places import Source
from fruits_assets.core.weights import MAX_RELATIVE_ERROR
from fruits_assets.deliverables import notebook as deliverable
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets.lake.resource import LakeResource, told
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import FILES_SCHEMA, write_files
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.measures import recognize

CODE_VERSION = "3"
REPRODUCED = dg.AssetCheckSpec(
    "live_equals_lake",
    asset="notebook",
    description="Features and components that the notebook computes again are those of the lake.",
)


class NotebookConfig(ForceConfig):
    """How much of it is live."""

    max_photos: int = Field(
        default=300,
        ge=2,
        description="Number of photos that the notebook processes again, evenly over the source.",
    )
    cell_minutes: float = Field(
        default=30.0, gt=0, description="Minutes that a cell may take before the notebook fails."
    )


@dg.asset(
    group_name=DELIVERABLES,
    kinds={"jupyter", "pyspark"},
    owners=OWNERS,
    code_version=CODE_VERSION,
    dagster_type=Snapshot,  # type: ignore[arg-type] - a Python type will do, as in dg.AssetOut
    check_specs=[REPRODUCED],
)
def notebook(  # noqa: PLR0917 - Dagster passes inputs and resources by name
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    source: Source,
    authorship: Authorship,
    raw_images: Snapshot,
    rejected_images: Snapshot,
    model_weights: Snapshot,
    features: Snapshot,
    pca_model: Snapshot,
    pca_features: Snapshot,
    config: NotebookConfig,
) -> dg.MaterializeResult:
    """The chain as a PySpark notebook.

    In French: all of it on a sample, explained, and what the run gave. It is published executed, as
    `.ipynb` and as a page of HTML that loads nothing.
    """
    inputs = [raw_images, rejected_images, model_weights, features, pca_model, pca_features]
    names = {kind: authorship.file_name("1_notebook", kind) for kind in ("ipynb", "html")}
    with told():
        measured = _recognition(lake.open(), features, pca_features)
        recipe = Recipe.of(
            "notebook",
            CODE_VERSION,
            [*inputs, *measured],
            params={
                "notebook": deliverable.digest(deliverable.source()),
                "max_photos": config.max_photos,
                "files": authorship.digest("1_notebook"),
            },
            salt=context.run.run_id if config.force else "",
        )

    def make(folders: Mapping[str, Folder]) -> dict[str, Output]:
        executed = deliverable.execute(
            deliverable.source(),
            _parameters(lake, source, max_photos=config.max_photos),
            cell_minutes=config.cell_minutes,
            log=context.log.error,
        )
        contents = {names["ipynb"]: executed.ipynb, names["html"]: executed.page}
        file = write_files(folders["notebook"], recipe.question(), contents)
        return {"notebook": Output((file,), {"cells": executed.cells, **executed.figures})}

    made = lake.produce(context, recipe, {"notebook": FILES_SCHEMA}, make)
    result = materialized(context, made, lambda: _metadata(made, names["html"]))
    return result._replace(check_results=[_reproduced(made.figures["live"])])


def _parameters(lake: LakeResource, source: Source, *, max_photos: int) -> dict[str, Any]:
    """Those by which the notebook reaches what the run reaches."""
    return {
        "source": source.photos().root,
        "lake": lake.open().base,
        "region": lake.region or source.region,
        "kms_key": lake.kms_key,
        "bucket_owner": lake.bucket_owner,
        "follow_links": source.follow_links,
        "requester_pays": source.requester_pays,
        "max_photos": max_photos,
    }


def _recognition(lake: Lake, features: Snapshot, pca_features: Snapshot) -> list[Snapshot]:
    """The measure of these features that the check has made, if any: the notebook shows it, too."""
    question = Recipe.of(recognize.name, recognize.code_version, [features, pca_features])
    found = lake.answers(question, "recognition")
    return [found] if found else []


def _metadata(made: Snapshot, page: str) -> dict[str, Any]:
    """Results, and the file of the deliverables to open."""
    figures = made.figures
    live, recognition = figures["live"], figures["recognition"]
    lines = [
        f"- {figures['images']} photos in {figures['classes']} classes; {figures['rejected']} of "
        f"{figures['files_found']} files rejected",
        f"- {figures['components']} components explain {figures['explained_variance']:.1%}",
        f"- {live['features_compared']} photos computed again: features differ by at most "
        f"{live['features_difference']:.1e}, components by {live['components_difference']:.1e}",
    ]
    if recognition and recognition["test"]:
        share = recognition["accuracy_components"]
        lines.append(f"- {share:.1%} of {recognition['test']} Test photos recognised")
    return {
        "summary": dg.MetadataValue.md("\n".join(lines)),
        "cells": figures["cells"],
        "page": page,
    }


def _reproduced(live: Mapping[str, Any]) -> dg.AssetCheckResult:
    largest = max(live["features_difference"], live["components_difference"])
    compared = live["features_compared"]
    return dg.AssetCheckResult(
        check_name=REPRODUCED.name,
        passed=largest <= MAX_RELATIVE_ERROR,
        description=f"{compared} photos were computed again; what differs most differs by "
        f"{largest:.1e} (relative L2); at most {MAX_RELATIVE_ERROR:.0e} is accepted."
        if compared
        else "skipped: no photo of the sample is in the lake any more.",
        metadata={"photos": compared, "largest_difference": largest},
    )
