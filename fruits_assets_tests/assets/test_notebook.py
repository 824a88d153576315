"""The asset `notebook`, executed once, on a whole run on drawn photos."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import nbformat
import pytest

from fruits_assets.assets import notebook as asset
from fruits_assets.assets.notebook import NotebookConfig, notebook
from fruits_assets.definitions import ASSETS
from fruits_assets.deliverables.notebook import digest, source
from fruits_assets.lake.lake import Lake
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.ingest import THUMBNAILS
from fruits_assets_tests.conftest import Pipeline, failure
from fruits_assets_tests.deliverables.test_notebook import assert_quiet
from fruits_assets_tests.leaks import leaks

pytestmark = pytest.mark.slow

NAMES = {"Nom_Prenom_1_notebook_112026.ipynb", "Nom_Prenom_1_notebook_112026.html"}


def materialize(pipeline: Pipeline, **config: Any) -> dg.ExecuteInProcessResult:
    """The notebook alone: what it is made from is in the lake already."""
    return dg.materialize(
        [*ASSETS, notebook],
        selection="notebook",
        resources=pipeline.resources,
        run_config={"ops": {"notebook": {"config": config}}},
        raise_on_error=False,
    )


@dataclass(frozen=True)
class Walk:
    """An execution of the notebook.

    Attributes:
        pipeline: that it was executed on.
        result: of the run.
        temporary: the temporary folder of the run, as the run left it.
    """

    pipeline: Pipeline
    result: dg.ExecuteInProcessResult
    temporary: Path

    @property
    def published(self) -> Snapshot:
        """The current version."""
        return self.pipeline.lake.current("notebook")

    @property
    def figures(self) -> Mapping[str, Any]:
        """The figures of its commit."""
        return self.published.figures

    @property
    def page(self) -> str:
        """The HTML."""
        return self.published.read("Nom_Prenom_1_notebook_112026.html").decode()

    @property
    def cells(self) -> list[Any]:
        """The cells of the executed notebook."""
        content = self.published.read("Nom_Prenom_1_notebook_112026.ipynb")
        return nbformat.reads(content.decode(), as_version=4).cells


@pytest.fixture(scope="module")
def walk(
    tmp_path_factory: pytest.TempPathFactory, finished: tuple[Pipeline, dg.ExecuteInProcessResult]
) -> Walk:
    """Source and lake are copied to where their paths would end a string, or begin a tag."""
    done, _ = finished
    base = tmp_path_factory.mktemp('<script>x") é {} ') / "lake"
    source = tmp_path_factory.mktemp('<script>x") \\ é {} ') / "photos"
    shutil.copytree(done.lake.base, base)
    shutil.copytree(done.source, source)
    pipeline = Pipeline(Lake.at(str(base)), source)
    temporary = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr(tempfile, "tempdir", None)
        return Walk(pipeline, materialize(pipeline), temporary)


def test_it_is_published_under_the_names_that_the_brief_asks_for(walk: Walk) -> None:
    assert walk.result.success, failure(walk.result)
    assert set(walk.published.names()) == NAMES


def test_no_cell_complains(walk: Walk) -> None:
    outputs = [out for cell in walk.cells for out in cell.get("outputs", ())]
    assert len(outputs) > 25
    assert {out.output_type for out in outputs} <= {"stream", "display_data", "execute_result"}
    assert [out.text for out in outputs if out.get("name") == "stderr"] == []
    assert not [out for out in outputs if "WARN" in json.dumps(out)]


def test_its_figures_are_those_of_the_lake(walk: Walk) -> None:
    lake, shown = walk.pipeline.lake, walk.figures
    raw, rejected, features, pca = (
        lake.current(name).figures
        for name in ("raw_images", "rejected_images", "features", "pca_model")
    )
    assert shown["images"] == raw["images"] == 90
    assert shown["files_found"] == raw["files_found"]
    assert shown["classes"] == 15
    assert (shown["rejected"], shown["reasons"]) == (rejected["rejected"], rejected["reasons"])
    assert shown["features_per_image"] == features["features_per_image"]
    assert shown["images_per_second"] == features["images_per_second"]
    assert shown["components"] == pca["components"]
    assert shown["explained_variance"] == pca["explained_variance"]
    assert shown["recognition"] == lake.current("recognition").figures
    names = ("raw_images", "model_weights", "features", "pca_model", "pca_features")
    assert shown["versions"] == {name: lake.current(name).version for name in names}


def test_what_it_shows_is_what_it_says_in_figures(walk: Walk) -> None:
    explained = f"{100 * walk.figures['explained_variance']:.1f}".replace(".", ",")
    assert f"qui gardent {explained}\u202f% de la variance" in walk.page
    accuracy = f"{100 * walk.figures['recognition']['accuracy_components']:.1f}".replace(".", ",")
    assert f"<td>{accuracy}\u202f%</td>" in walk.page


def test_what_is_computed_again_is_what_the_lake_holds(walk: Walk) -> None:
    live = walk.figures["live"]
    assert live["photos"] == live["features_compared"] == live["components_compared"] == 90
    assert live["features_difference"] <= 1e-5
    assert live["components_difference"] <= 1e-5
    assert live["svd_difference"] <= 1e-9
    assert live["recognition"] == walk.figures["recognition"]
    (check,) = walk.result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("live_equals_lake", True)


def test_parameters_are_those_of_the_run(walk: Walk) -> None:
    (injected,) = [
        cell for cell in walk.cells if "injected-parameters" in cell.metadata.get("tags", ())
    ]
    given: dict[str, Any] = {}
    exec(injected.source, given)  # noqa: S102 - it is what the notebook did
    del given["__builtins__"]
    assert given == {"region": None, "max_photos": 300}


def test_its_page_loads_nothing_and_neither_file_says_a_place(walk: Walk) -> None:
    assert_quiet(walk.page)
    files = {name: walk.published.read(name) for name in walk.published.names()}
    assert not leaks(files, "script>x", "script&gt;x", str(walk.temporary), tempfile.gettempdir())
    for content in files.values():
        assert not re.search("fruits-notebook-[a-z0-9_]{8}", content.decode())


def test_the_ui_names_the_page(walk: Walk) -> None:
    (one,) = walk.result.asset_materializations_for_node("notebook")
    assert one.metadata["page"].value == "Nom_Prenom_1_notebook_112026.html"
    assert one.metadata["cells"].value == walk.figures["cells"] > 30
    assert "90 photos in 15 classes; 0 of 90 files rejected" in str(one.metadata["summary"].value)


def test_nothing_is_executed_twice(walk: Walk) -> None:
    before = walk.published
    again = materialize(walk.pipeline)
    assert again.success
    assert walk.published == before


def test_its_commit_says_what_it_is_made_of(walk: Walk) -> None:
    lake = walk.pipeline.lake
    inputs = walk.published.commit.inputs
    assert inputs == {name: lake.current(name).version for name in inputs}
    assert walk.published.commit.params["notebook"] == digest(source())
    assert set(inputs) == {
        *("raw_images", "rejected_images", "model_weights", "features"),
        *("pca_model", "pca_features", "recognition"),
    }


def test_nothing_of_the_live_part_is_left(walk: Walk) -> None:
    """An erasure would not find the photos of its scratch lake."""
    assert list(walk.temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("compared", "features", "components", "passed", "said"),
    [
        (90, 0.0, 1e-6, True, "90 photos were computed again"),
        (90, 2e-5, 0.0, False, "differs by 2.0e-05"),
        (90, 0.0, 2e-5, False, "differs by 2.0e-05"),
        (0, 0.0, 0.0, True, "skipped"),
    ],
)
def test_what_differs_fails_the_check(
    compared: int, features: float, components: float, passed: bool, said: str
) -> None:
    live = {
        "features_compared": compared,
        "features_difference": features,
        "components_difference": components,
    }
    result = asset._reproduced(live)
    assert result.passed is passed
    assert said in str(result.description)


def test_it_is_described() -> None:
    (spec,) = notebook.specs
    assert spec.group_name == "deliverables"
    assert spec.description
    assert spec.owners
    assert spec.kinds == {"jupyter", "pyspark"}
    for name, field in NotebookConfig.model_fields.items():
        assert field.description, name


def test_an_empty_lake_fails_with_what_to_do(photos: Path, tmp_path: Path) -> None:
    empty = Pipeline(Lake.at(str(tmp_path / "lake")), photos)
    text = failure(materialize(empty))
    assert "the lake" in text
    assert "Materialise" in text


def test_a_cell_that_fails_is_named(
    finished: tuple[Pipeline, dg.ExecuteInProcessResult], tmp_path: Path
) -> None:
    done, _ = finished
    shutil.copytree(done.lake.base, tmp_path / "lake")
    pipeline = Pipeline(Lake.at(str(tmp_path / "lake")), done.source)
    thumbnails = pipeline.lake.current("raw_images").siblings[THUMBNAILS]
    (part,) = thumbnails.files
    Path(thumbnails.uri, part.name).write_bytes(bytes(part.bytes))
    text = failure(materialize(pipeline))
    assert "the notebook failed in the part 'L’exécution complète : les photos du lac'" in text  # noqa: RUF001 - French
    assert f"{part.name} cannot be read" in text
    assert "notebook" not in pipeline.lake.tables()
