"""`deliverables`: everything that is handed over, in one folder that can be zipped and sent."""

import time
from collections.abc import Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from fruits_assets.assets.authorship import Authorship
from fruits_assets.assets.common import DELIVERABLES, OWNERS, ForceConfig
from fruits_assets.core.errors import DatasetError
from fruits_assets.deliverables.escaping import markdown_table
from fruits_assets.deliverables.folder import Published
from fruits_assets.deliverables.gather import Made, Names, Presented, gather
from fruits_assets.deliverables.page import INDEX
from fruits_assets.deliverables.texts import Language
from fruits_assets.lake import lease
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets.lake.resource import LakeResource, told
from fruits_assets.storage.snapshot import Snapshot

CODE_VERSION = "2"


class DeliverablesConfig(ForceConfig):
    """How the page presents what is delivered."""

    language: Language = Field(default="fr", description="Language of the page: fr or en.")
    attribution: str = Field(
        default="",
        description="Whose photos they are, and under which licence: a line at the foot of the "
        "page, left out where empty.",
    )


@dg.asset(
    group_name=DELIVERABLES,
    kinds={"html", "javascript", "csv"},
    owners=OWNERS,
    code_version=CODE_VERSION,
)
def deliverables(  # noqa: PLR0917 - Dagster passes inputs by name
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    authorship: Authorship,
    notebook: Snapshot,
    presentation: Snapshot,
    gallery: Snapshot,
    raw_images: Snapshot,
    rejected_images: Snapshot,
    pca_model: Snapshot,
    pca_features: Snapshot,
    config: DeliverablesConfig,
) -> dg.MaterializeResult:
    """Notebook, data and presentation under their names, the gallery, and a page to open them."""
    names, presented = _names(authorship), _presented(authorship, config)
    with told():
        opened = lake.open()
        made = Made(
            notebook=notebook,
            presentation=presentation,
            gallery=gallery,
            raw_images=raw_images,
            rejected_images=rejected_images,
            pca_model=pca_model,
            pca_features=pca_features,
            recognition=_recognition(opened, pca_features),
        )
        params = {**authorship.params, **config.model_dump(exclude={"force"})}
        recipe = Recipe.of("gather", CODE_VERSION, made.snapshots, params=params).version
        published = Published.read(opened.folder)
        if not config.force and published.answers(recipe):
            context.log.info("gather: reused version %s", recipe)
        else:
            started = time.monotonic()
            with lease.shared(opened.folder, context.run.run_id):
                published = gather(published, made, recipe=recipe, names=names, presented=presented)
            seconds = time.monotonic() - started
            context.log.info("gather: made version %s in %.1f s", recipe, seconds)
        metadata = _metadata(published, names, names.tables(pca_features.rows))
    return dg.MaterializeResult(data_version=dg.DataVersion(recipe), metadata=metadata)


def _recognition(lake: Lake, projected: Snapshot) -> Snapshot | None:
    """How many photos are recognised on these very components, where that has been measured."""
    try:
        found = lake.current("recognition")
    except DatasetError:
        return None
    return found if found.commit.inputs.get(projected.name) == projected.version else None


def _names(authorship: Authorship) -> Names:
    return Names(
        notebook=authorship.file_name("1_notebook", "ipynb"),
        notebook_html=authorship.file_name("1_notebook", "html"),
        images=authorship.file_name("2_images", "csv"),
        presentation=authorship.file_name("3_presentation", "pptx"),
    )


def _presented(authorship: Authorship, config: DeliverablesConfig) -> Presented:
    return Presented(
        author=authorship.author,
        day=authorship.date,
        place=authorship.place,
        language=config.language,
        attribution=config.attribution,
    )


def _metadata(published: Published, names: Names, tables: Sequence[str]) -> dict[str, Any]:
    """Where to begin, and what there is."""
    sizes = published.folder.sizes()
    handed_over = [names.notebook, names.notebook_html, *tables, names.presentation]
    rows = [[name, sizes[name]] for name in handed_over]
    return {
        **published.folder.storage.described(),
        "open": dg.MetadataValue.path(published.folder.at(INDEX)),
        "deliverables": dg.MetadataValue.md(markdown_table(["file", "bytes"], rows)),
        "version": published.recipe,
        "files": len(published.sums),
        "size_bytes": published.bytes,
    }
