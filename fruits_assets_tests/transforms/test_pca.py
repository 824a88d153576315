"""The distributed PCA against scikit-learn's, on the features of the drawn photos."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from sklearn.decomposition import PCA

from fruits_assets.core.pca import Moments, PcaModel
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import Origin, vectors_array, write_part
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms import pca
from fruits_assets.transforms.featurize import FEATURES_SCHEMA
from fruits_assets_tests.conftest import Pipeline, failure


def matrix(snapshot: Snapshot, column: str) -> np.ndarray:
    """(n, d) float64, in the order of the paths: parts are in the order of their digests."""
    table = snapshot.arrow(["path", column]).sort_by("path")
    return np.array(table[column].to_pylist(), np.float64)


def split_of(snapshot: Snapshot) -> np.ndarray:
    """(n,) the split of each row, in the same order."""
    return np.array(snapshot.arrow(["path", "split"]).sort_by("path")["split"].to_pylist())


def fitted(pipeline: Pipeline) -> PcaModel:
    return PcaModel.from_npz(pipeline.lake.current("pca_model").read("pca.npz"))


def test_it_equals_scikit_learn(finished):
    pipeline, _ = finished
    features = pipeline.lake.current("features")
    rows = matrix(features, "features")
    training = split_of(features) == "Training"
    assert 0 < training.sum() < len(rows)
    reference = PCA(n_components=0.95, svd_solver="full").fit(rows[training])
    model = fitted(pipeline)
    signs = np.sign((model.components * reference.components_).sum(axis=1))[:, np.newaxis]
    np.testing.assert_allclose(model.components, signs * reference.components_, atol=1e-5)
    np.testing.assert_allclose(model.explained_variance, reference.explained_variance_, rtol=1e-5)
    projected = reference.transform(rows) * signs.ravel()
    found = matrix(pipeline.lake.current("pca_features"), "components")
    assert np.linalg.norm(found - projected) <= 1e-5 * np.linalg.norm(projected)


def test_an_unknown_split_is_told(finished):
    result = finished[0].run("pca_model", config={"pca_model": {"fit_split": "Validation"}})
    assert "fit_split is 'Validation'" in failure(result)
    assert "splits found: Test, Training" in failure(result)


def test_damage_that_only_workers_see_is_told(own: Pipeline):
    features = own.lake.current("features")
    part = Path(features.uri, features.files[-1].name)
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 0xFF
    part.write_bytes(content)
    told = failure(own.run("pca_model", config={"pca_model": {"standardize": True}}))
    assert f"features, version {features.version}" in told
    assert "make repair" in told
    assert "Py4J" not in told


def test_the_moments_are_kept_with_the_model(finished):
    """From them an erasure subtracts; nobody else needs them."""
    pipeline, _ = finished
    model = pipeline.lake.current("pca_model")
    moments, pivot = Moments.from_npz(model.siblings[pca.MOMENTS].read(pca.MOMENTS_FILE))
    features = pipeline.lake.current("features")
    rows = matrix(features, "features")[split_of(features) == "Training"]
    direct = Moments.of(rows, pivot)
    assert moments.rows == direct.rows == 60
    np.testing.assert_allclose(moments.gram, direct.gram, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.mean(pivot), rows.mean(axis=0), rtol=1e-9)
    assert model.names() == [pca.MODEL, pca.DESCRIPTION]


# On a few features


def _small(folder: Folder) -> Snapshot:
    """A version of `features`: 5 parts of 12 photos, every third in Test, of 6 features each."""
    random = np.random.default_rng(0)
    files = []
    for part in range(5):
        rows = [f"{part} {row}.jpg" for row in range(12)]
        columns = [
            pa.array(rows),
            pa.array(["Training", "Training", "Test"] * 4),
            pa.array([None] * 12, pa.string()),
            pa.array(rows),
            vectors_array(random.normal(part, np.geomspace(3, 0.1, 6), (12, 6))),
        ]
        table = pa.Table.from_arrays(columns, schema=FEATURES_SCHEMA)
        files.append(write_part(folder, Origin("0" * 16, 12 * part, 12 * part + 12), table))
    return _with_splits(Snapshot.unpublished(folder, "features", FEATURES_SCHEMA, tuple(files)))


def _with_splits(features: Snapshot) -> Snapshot:
    figures = {"splits": [[one, int((split_of(features) == one).sum())] for one in SPLITS]}
    return replace(features, commit=replace(features.commit, figures=figures))


def _made(outputs: Mapping[str, Output], folders: Mapping[str, Folder]) -> Snapshot:
    """The model of some outputs, with its moments."""
    model, moments = (
        Snapshot.unpublished(folders[name], name, pca.FILES_SCHEMA, outputs[name].files)
        for name in folders
    )
    commit = replace(model.commit, figures=outputs["pca_model"].figures)
    return replace(model, commit=commit, siblings={pca.MOMENTS: moments})


SPLITS = ("Test", "Training")


@pytest.mark.parametrize(("fit_split", "rows"), [("all", 60), ("Training", 40), ("Test", 20)])
def test_the_split_to_fit_on_can_be_chosen(
    session: SparkSession, tmp_path: Path, fit_split: str, rows: int
):
    base = folder_at(str(tmp_path))
    features = _small(base.child("features"))
    folders = {name: base.child(name) for name in ("pca_model", pca.MOMENTS)}
    outputs = pca.fit_pca.function(
        session,
        features=features,
        fit_split=fit_split,
        n_components=0.95,
        standardize=True,
        question="0" * 16,
        log=print,
        **folders,
    )
    found = _made(outputs, folders)
    assert (found.figures["fitted_on"], found.figures["images"]) == (fit_split, rows)
    chosen = matrix(features, "features")
    if fit_split != "all":
        chosen = chosen[split_of(features) == fit_split]
    scaled = (chosen - chosen.mean(axis=0)) / chosen.std(axis=0, ddof=1)
    reference = PCA(n_components=0.95, svd_solver="full").fit(scaled)
    model = PcaModel.from_npz(found.read(pca.MODEL))
    np.testing.assert_allclose(model.explained_variance, reference.explained_variance_, rtol=1e-5)


# Fitted again from the moments


@pytest.mark.parametrize(
    ("fit_split", "earlier", "before", "after", "is_read"),
    [
        ("auto", "auto", (0, 1, 2, 3, 4), (1, 2, 3, 4), {0}),
        ("auto", "auto", (0, 1, 2, 3), (1, 2, 3, 4), {0, 4}),
        ("all", "all", (0, 1, 2), (0, 1, 2, 3), {3}),
        ("auto", "auto", (0, 1, 2, 3, 4), (3, 4), {3, 4}),  # too few are left of those that were
        ("all", "auto", (0, 1, 2, 3), (1, 2, 3), {1, 2, 3}),  # it was fitted on other photos
    ],
)
def test_a_pca_is_fitted_again_from_its_moments(
    session: SparkSession,
    tmp_path: Path,
    *,
    fit_split: str,
    earlier: str,
    before: Sequence[int],
    after: Sequence[int],
    is_read: set[int],
):
    """The result is that of all photos there are now; only parts that came or went are read."""
    base = folder_at(str(tmp_path))
    features = _small(base.child("features"))
    then, now = (
        _with_splits(replace(features, files=tuple(features.files[part] for part in parts)))
        for parts in (before, after)
    )
    options = {"n_components": 4, "standardize": True, "question": "0" * 16, "log": print}

    def fitted(name: str, *, again: bool, **inputs: Any) -> Snapshot:
        folders = {one: base.child(name).child(one) for one in ("pca_model", pca.MOMENTS)}
        function = (pca.refit_pca if again else pca.fit_pca).function
        return _made(function(session, **inputs, **options, **folders), folders)

    model = fitted("model", again=False, features=then, fit_split=earlier)
    expected = fitted("expected", again=False, features=now, fit_split=fit_split)
    pivot_part = {after[0]}
    for part in {*before, *after} - is_read - pivot_part:
        Path(features.uri, features.files[part].name).unlink()
    inputs = {"features": now, "fitted": then, "model": model, "fit_split": fit_split}
    found = fitted("found", again=True, **inputs)
    assert found.figures == pytest.approx(expected.figures)
    one, other = (PcaModel.from_npz(it.read(pca.MODEL)) for it in (found, expected))
    for name, values in vars(other).items():
        np.testing.assert_allclose(getattr(one, name), values, rtol=1e-8, atol=1e-8)
    sums, pivot = Moments.from_npz(found.siblings[pca.MOMENTS].read(pca.MOMENTS_FILE))
    direct, own = Moments.from_npz(expected.siblings[pca.MOMENTS].read(pca.MOMENTS_FILE))
    assert sums.rows == direct.rows
    np.testing.assert_array_equal(pivot, own, "the pivot may be a row that is gone")
    np.testing.assert_allclose(sums.gram, direct.gram, rtol=1e-8, atol=1e-8)


def test_recognition_equals_scikit_learn(finished):
    from sklearn.neighbors import KNeighborsClassifier

    pipeline, _ = finished
    figures = pipeline.lake.current("recognition").figures
    for asset, column in (("features", "features"), ("pca_features", "components")):
        snapshot = pipeline.lake.current(asset)
        rows = matrix(snapshot, column)
        frame = snapshot.pandas(["path", "split", "label"]).sort_values("path")
        training = (frame["split"] == "Training").to_numpy()
        classifier = KNeighborsClassifier(1).fit(rows[training], frame["label"][training])
        accuracy = classifier.score(rows[~training], frame["label"][~training])
        assert figures[f"accuracy_{column}"] == pytest.approx(accuracy)
    assert (figures["training"], figures["test"]) == (60, 30)
