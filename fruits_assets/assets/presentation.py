"""`presentation`: the slides that a run is presented with."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from fruits_assets.assets.authorship import Authorship
from fruits_assets.assets.common import DELIVERABLES, OWNERS, ForceConfig, materialized
from fruits_assets.core.errors import DatasetError
from fruits_assets.deliverables.deck.benchmark import Benchmark
from fruits_assets.deliverables.deck.facts import (
    Facts,
    Pipeline,
    Place,
    Recognition,
    libraries,
    price_table,
)
from fruits_assets.deliverables.escaping import markdown_table
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets.lake.resource import LakeResource, told
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import FILES_SCHEMA, write_files
from fruits_assets.storage.snapshot import Output, Snapshot

CODE_VERSION = "2"
BILL = "fruits/cost_eur"
"""Tag of runs on EMR: what their clusters cost."""


class PresentationConfig(ForceConfig):
    """In which language, and what the throughput is compared with."""

    language: Literal["fr", "en"] = Field(
        default="fr", description="Language of the slides and notes: fr or en."
    )
    benchmark: str = Field(
        default="artifacts/benchmark.json",
        description="File that `make bench` wrote, relative to the working directory: it holds the "
        "comparison with the intern's notebook. Where it is missing, the slide says so.",
    )


@dg.asset(
    group_name=DELIVERABLES,
    kinds={"python", "microsoft"},
    owners=OWNERS,
    code_version=CODE_VERSION,
)
def presentation(  # noqa: PLR0917 - Dagster names its inputs
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    authorship: Authorship,
    raw_images: Snapshot,
    rejected_images: Snapshot,
    model_weights: Snapshot,
    features: Snapshot,
    pca_model: Snapshot,
    pca_features: Snapshot,
    config: PresentationConfig,
) -> dg.MaterializeResult[Snapshot]:
    """16 slides for 20 minutes, with notes.

    Every figure is that of the current run, or is said to be missing.
    """
    pipeline = Pipeline(
        raw_images, rejected_images, model_weights, features, pca_model, pca_features
    )
    with told():
        facts = _facts(lake.open(), pipeline, config, bill_eur=_bill(context.instance, pipeline))
        recipe = _recipe(facts, authorship, config, salt=context.run.run_id if config.force else "")

    def make(folders: Mapping[str, Folder]) -> dict[str, Output]:
        deck, figures = _made(facts, authorship, config)
        name = authorship.file_name("3_presentation", "pptx")
        file = write_files(folders["presentation"], recipe.question(), {name: deck})
        return {"presentation": Output((file,), figures)}

    made = lake.produce(context, recipe, {"presentation": FILES_SCHEMA}, make)
    return materialized(context, made, lambda: _metadata(made))


def _facts(
    lake: Lake, pipeline: Pipeline, config: PresentationConfig, *, bill_eur: float | None
) -> Facts:
    pipeline.check()
    try:
        recognition = lake.current("recognition")
    except DatasetError:  # its check has not run
        recognition = None
    return Facts(
        pipeline,
        Recognition.of(recognition, (pipeline.features, pipeline.pca_features)),
        Benchmark.read(Path(config.benchmark)),
        bill_eur,
    )


def _bill(instance: dg.DagsterInstance, pipeline: Pipeline) -> float | None:
    """The cost of the clusters that made these snapshots; None where no run knows of any."""
    runs = {snapshot.commit.run_id for snapshot in pipeline}
    found = [
        run.tags[BILL]
        for name in runs
        if (run := instance.get_run_by_id(name)) and BILL in run.tags
    ]
    return round(sum(map(float, found)), 4) if found else None


def _recipe(
    facts: Facts, authorship: Authorship, config: PresentationConfig, *, salt: str
) -> Recipe:
    """Everything that the slides show."""
    inputs = [*facts.pipeline, *(one for one in (facts.recognition, facts.benchmark) if one)]
    params = {
        "language": config.language,
        **authorship.params,
        "bill_eur": facts.bill_eur,
        "place": vars(Place.of(facts.pipeline.raw)),
        "libraries": libraries(),
        "prices": hashlib.sha256(price_table().encode()).hexdigest()[:16],
    }
    return Recipe.of("present", CODE_VERSION, inputs, params=params, salt=salt)


def _made(
    facts: Facts, authorship: Authorship, config: PresentationConfig
) -> tuple[bytes, dict[str, Any]]:
    """The deck, and what it shows."""
    from fruits_assets.deliverables.deck.presentation import MINUTES, Show, build  # noqa: PLC0415 - heavy

    show = Show(facts, authorship.author, authorship.place, authorship.date)
    deck = build(show, config.language)
    figures = {
        "slides": len(deck.titles),
        "minutes": MINUTES,
        "language": config.language,
        "titles": [list(one) for one in deck.titles],
        "missing": list(facts.missing),
        "shown": facts.shown(),
    }
    return deck.content, figures


def _metadata(made: Snapshot) -> dict[str, Any]:
    figures = made.figures
    rows = [[number, *title] for number, title in enumerate(figures["titles"], start=1)]
    return {
        "slides": figures["slides"],
        "minutes": figures["minutes"],
        "language": figures["language"],
        "file": ", ".join(made.names()),
        "missing_figures": ", ".join(figures["missing"]) or "none",
        "titles": dg.MetadataValue.md(markdown_table(["", "slide", "minutes"], rows)),
    }
