"""Deliverables whose making is tested elsewhere, as small files under the names they have."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from fruits_assets.assets.authorship import Authorship
from fruits_assets.assets.common import materialized
from fruits_assets.assets.deliverables import deliverables
from fruits_assets.assets.gallery import gallery
from fruits_assets.definitions import ASSETS
from fruits_assets.lake.recipe import Recipe
from fruits_assets.lake.resource import LakeResource
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import FILES_SCHEMA, write_files
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets_tests.conftest import Pipeline


def _made(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    authorship: Authorship,
    *names: str,
    figures: Mapping[str, Any],
) -> dg.MaterializeResult[Snapshot]:
    (asset,) = context.selected_asset_keys
    name = asset.to_user_string()

    def make(folders: Mapping[str, Folder]) -> dict[str, Output]:
        contents = {file: f"<title>{name}</title>{file}".encode() for file in names}
        file = write_files(folders[name], recipe.question(), contents)
        return {name: Output((file,), dict(figures))}

    recipe = Recipe.of("stand_in", "1", [], params={"of": name, **authorship.params})
    snapshot = lake.produce(context, recipe, {name: FILES_SCHEMA}, make)
    return materialized(context, snapshot, dict)


@dg.asset
def notebook(
    context: dg.AssetExecutionContext, lake: LakeResource, authorship: Authorship
) -> dg.MaterializeResult[Snapshot]:
    """Two files of a line each."""
    names = [authorship.file_name("1_notebook", extension) for extension in ("ipynb", "html")]
    figures = {"cells": 1, "live": {"photos": 0, "features_difference": 0.0}}
    return _made(context, lake, authorship, *names, figures=figures)


@dg.asset
def presentation(
    context: dg.AssetExecutionContext, lake: LakeResource, authorship: Authorship
) -> dg.MaterializeResult[Snapshot]:
    """One file of a line."""
    name = authorship.file_name("3_presentation", "pptx")
    return _made(context, lake, authorship, name, figures={"slides": 1, "minutes": 1})


def hand_over(
    pipeline: Pipeline,
    *selection: str,
    authorship: Authorship | None = None,
    config: Mapping[str, Any] | None = None,
    instance: dg.DagsterInstance | None = None,
) -> dg.ExecuteInProcessResult:
    """Materialises the deliverables of what the pipeline's lake holds.

    Args:
        pipeline: that has been run.
        *selection: some of them; all without any.
        authorship: of the deliverables, where it is not that of the pipeline.
        config: op name -> its config.
        instance: of Dagster; one of its own without.
    """
    own = {"authorship": authorship} if authorship else {}
    return dg.materialize(
        [*ASSETS, notebook, presentation, gallery, deliverables],
        selection=selection or ["notebook", "presentation", "gallery", "deliverables"],
        resources={**pipeline.resources, **own},
        run_config={"ops": {name: {"config": dict(it)} for name, it in (config or {}).items()}},
        instance=instance,
        raise_on_error=False,
    )
