"""The distributed PCA against scikit-learn's, on the features of the drawn photos."""

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from fruits_assets.core.dataset import Dataset
from fruits_assets.core.pca import PcaModel
from fruits_assets_tests.conftest import Pipeline, failure


def matrix(dataset: Dataset, column: str) -> np.ndarray:
    return np.array(dataset.arrow([column])[column].to_pylist(), np.float64)


def fitted(pipeline: Pipeline) -> PcaModel:
    return PcaModel.from_npz(pipeline.lake.current("pca_model").read("pca.npz"))


def test_it_equals_scikit_learn(finished):
    pipeline, _ = finished
    features = pipeline.lake.current("features")
    rows = matrix(features, "features")
    training = np.array(features.arrow(["split"])["split"].to_pylist()) == "Training"
    assert 0 < training.sum() < len(rows)
    reference = PCA(n_components=0.95, svd_solver="full").fit(rows[training])
    model = fitted(pipeline)
    signs = np.sign((model.components * reference.components_).sum(axis=1))[:, np.newaxis]
    np.testing.assert_allclose(model.components, signs * reference.components_, atol=1e-5)
    np.testing.assert_allclose(model.explained_variance, reference.explained_variance_, rtol=1e-5)
    projected = reference.transform(rows) * signs.ravel()
    found = matrix(pipeline.lake.current("pca_features"), "components")
    assert np.linalg.norm(found - projected) <= 1e-5 * np.linalg.norm(projected)


@pytest.mark.parametrize(("fit_split", "images"), [("all", 90), ("Training", 60), ("Test", 30)])
def test_the_split_to_fit_on_can_be_chosen(
    finished, tmp_path: Path, pipeline: Pipeline, fit_split: str, images: int
):
    pipeline.run("raw_images", "rejected_images", "features")
    config = {"pca_model": {"fit_split": fit_split, "standardize": True}}
    assert pipeline.run("pca_model", config=config).success
    figures = pipeline.lake.current("pca_model").manifest.figures
    assert (figures["fitted_on"], figures["images"]) == (fit_split, images)
    features = pipeline.lake.current("features")
    rows = matrix(features, "features")
    if fit_split != "all":
        rows = rows[np.array(features.arrow(["split"])["split"].to_pylist()) == fit_split]
    deviation = rows.std(axis=0, ddof=1)
    scaled = (rows - rows.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    reference = PCA(n_components=0.95, svd_solver="full").fit(scaled)
    model = fitted(pipeline)
    np.testing.assert_allclose(model.explained_variance, reference.explained_variance_, rtol=1e-5)


def test_an_unknown_split_is_told(finished):
    result = finished[0].run("pca_model", config={"pca_model": {"fit_split": "Validation"}})
    assert "fit_split is 'Validation'" in failure(result)
    assert "splits found: Test, Training" in failure(result)


def test_damage_that_only_workers_see_is_told(pipeline: Pipeline):
    assert pipeline.run("raw_images", "rejected_images", "features").success
    features = pipeline.lake.current("features")
    part = Path(features.uri, features.parts[-1].name)
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 0xFF
    part.write_bytes(content)
    told = failure(pipeline.run("pca_model"))
    assert f"features, version {features.version}" in told
    assert "make repair" in told
    assert "Py4J" not in told


def test_the_csv_holds_the_same_numbers(finished):
    pipeline, _ = finished
    dataset = pipeline.lake.current("pca_features")
    rows = list(csv.reader(dataset.read("pca_features.csv").decode().splitlines()))
    table = dataset.arrow(["path", "label", "components"])
    count = dataset.manifest.figures["components"]
    assert rows[0] == ["path", "label", *(f"pc_{i + 1}" for i in range(count))]
    assert [row[0] for row in rows[1:]] == table["path"].to_pylist()
    assert [row[1] for row in rows[1:]] == table["label"].to_pylist()
    numbers = np.array([row[2:] for row in rows[1:]], np.float32)
    np.testing.assert_allclose(numbers, matrix(dataset, "components"), rtol=1e-6)


def test_without_csv_there_is_none(pipeline: Pipeline):
    assert pipeline.run().success
    dataset = pipeline.lake.current("pca_features")
    assert "pca_features.csv" not in [file.name for file in dataset.manifest.files]
    assert not Path(dataset.uri, "pca_features.csv").exists()


def test_recognition_equals_scikit_learn(finished):
    from sklearn.neighbors import KNeighborsClassifier

    pipeline, _ = finished
    figures = pipeline.lake.current("recognition").manifest.figures
    for asset, column in (("features", "features"), ("pca_features", "components")):
        dataset = pipeline.lake.current(asset)
        rows = matrix(dataset, column)
        frame = dataset.pandas(["split", "label"])
        training = (frame["split"] == "Training").to_numpy()
        classifier = KNeighborsClassifier(1).fit(rows[training], frame["label"][training])
        accuracy = classifier.score(rows[~training], frame["label"][~training])
        assert figures[f"accuracy_{column}"] == pytest.approx(accuracy)
    assert (figures["training"], figures["test"]) == (60, 30)
