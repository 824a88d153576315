"""The asset: what it writes, what it shows, and when it is made again."""

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pptx import Presentation

from fruits_assets.assets.authorship import Authorship
from fruits_assets.assets.presentation import BILL, presentation
from fruits_assets.definitions import ASSETS
from fruits_assets.lake.lake import Lake
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets_tests.conftest import Pipeline, failure

RESULT = {"executors": 0, "size": 5000, "peaks": {"worker": 2e8}}


@dataclass(frozen=True)
class Stage:
    """A finished lake of the test's own, and a place for the benchmark's file."""

    pipeline: Pipeline
    benchmark: Path

    def present(
        self,
        *,
        authorship: Authorship | None = None,
        instance: dg.DagsterInstance | None = None,
        **config: Any,
    ) -> dg.ExecuteInProcessResult:
        resources = {**self.pipeline.resources}
        if authorship:
            resources["authorship"] = authorship
        asked = {"benchmark": str(self.benchmark), **config}
        return dg.materialize(
            [*ASSETS, presentation],
            selection=["presentation"],
            resources=resources,
            run_config={"ops": {"presentation": {"config": asked}}},
            instance=instance,
            raise_on_error=False,
        )

    def made(self, **asked: Any) -> Snapshot:
        result = self.present(**asked)
        assert result.success
        return self.pipeline.lake.current("presentation")

    def measured(self, seconds: float) -> None:
        results = [
            {**RESULT, "contender": "intern", "median": 100.0},
            {**RESULT, "contender": "project", "median": seconds},
        ]
        self.benchmark.write_text(json.dumps({"results": results}))


@pytest.fixture
def stage(finished, tmp_path: Path) -> Stage:
    pipeline, _ = finished
    base = tmp_path / "lake"
    shutil.copytree(pipeline.lake.base, base)
    return Stage(replace(pipeline, lake=Lake.at(str(base))), tmp_path / "benchmark.json")


def _figures(lake: Lake, name: str) -> Mapping[str, Any]:
    return lake.current(name).figures


def test_it_is_a_deck_with_the_figures_of_the_lake(stage: Stage):
    stage.measured(20.0)
    result = stage.present()
    lake = stage.pipeline.lake
    deck = lake.current("presentation")
    assert deck.names() == ["Nom_Prenom_3_presentation_112026.pptx"]
    slides = Presentation(io.BytesIO(deck.read(*deck.names()))).slides
    figures = deck.figures
    assert len(slides) == figures["slides"] == 16
    assert figures["minutes"] == sum(minutes for _, minutes in figures["titles"]) == 20
    assert figures["language"] == "fr"
    assert [slide.shapes.title.text_frame.text for slide in slides] == [  # type: ignore[union-attr]
        title for title, _ in figures["titles"]
    ]
    shown = figures["shown"]
    assert shown["images"] == _figures(lake, "raw_images")["images"]
    assert shown["files_found"] == _figures(lake, "raw_images")["files_found"]
    assert shown["reasons"] == _figures(lake, "rejected_images")["reasons"]
    assert shown["inferences"] == _figures(lake, "features")["inferences"]
    assert shown["components"] == _figures(lake, "pca_model")["components"]
    assert shown["explained_variance"] == _figures(lake, "pca_model")["explained_variance"]
    for name in ("accuracy_components", "accuracy_features"):
        assert shown[name] == _figures(lake, "recognition")[name]
    assert shown["times_the_notebook"] == 5.0
    assert figures["missing"] == ["bill"]
    (event,) = result.asset_materializations_for_node("presentation")
    assert event.metadata["slides"].value == 16
    assert event.metadata["missing_figures"].value == "bill"
    assert event.metadata["file"].value == "Nom_Prenom_3_presentation_112026.pptx"
    assert "| 16 | Limites, suites et sources | 1 |" in str(event.metadata["titles"].value)
    assert (event.tags or {})["dagster/data_version"] == deck.version


def test_nothing_is_done_twice(stage: Stage):
    first = stage.made()
    assert stage.made() == first
    forced = stage.made(force=True)
    assert forced.version != first.version
    (before,), (after,) = first.files, forced.files
    assert after.digest == before.digest, "the same show is the same file"


@pytest.mark.slow
def test_it_is_made_again_when_something_shown_has_changed(stage: Stage):
    lake = stage.pipeline.lake
    first = stage.made()
    assert first.figures["missing"] == ["benchmark", "bill"]
    stage.measured(20.0)
    second = stage.made()
    stage.measured(10.0)
    third = stage.made()
    assert third.figures["shown"]["times_the_notebook"] == 10.0
    english = stage.made(language="en")
    assert english.figures["language"] == "en"
    other = stage.made(authorship=Authorship(last_name="Ève", month="2026-12", place="Lyon"))
    assert other.names() == ["Eve_Prenom_3_presentation_122026.pptx"]
    shutil.rmtree(Path(lake.base, "recognition"))
    without = stage.made()
    assert without.figures["missing"] == ["recognition", "bill"]
    versions = [one.version for one in (first, second, third, english, other, without)]
    assert len(set(versions)) == len(versions)


def test_what_a_cluster_cost_is_shown_once_its_runs_are_known(stage: Stage):
    lake = stage.pipeline.lake
    run = lake.current("features").commit.run_id
    before = stage.made()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_run(dg.DagsterRun("fruits_job", run_id=run, tags={BILL: "0.4321"}))
        deck = stage.made(instance=instance)
    assert deck.figures["shown"]["bill_eur"] == 0.4321
    assert deck.figures["missing"] == ["benchmark"]
    assert deck.version != before.version


def test_a_file_that_is_not_a_benchmark_is_refused(stage: Stage):
    stage.benchmark.write_text("{}")
    assert "is not what `make bench` writes" in failure(stage.present())


def test_figures_of_different_runs_are_not_mixed(stage: Stage):
    lake = stage.pipeline.lake
    raw = lake.current("raw_images")
    lake.publish(replace(raw, commit=replace(raw.commit, recipe="0" * 16), follows=raw.number))
    text = failure(stage.present())
    assert f"features was made from version {raw.version} of raw_images" in text
    assert "Materialise features again first" in text


def test_without_a_run_it_says_what_to_materialise(stage: Stage):
    shutil.rmtree(Path(stage.pipeline.lake.base, "pca_features"))
    result = stage.present()
    assert not result.success
    assert "has no pca_features yet. Materialise pca_features first" in failure(result)
