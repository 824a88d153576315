"""Every check passes on a whole run (test_assets.py) and fails here, on data that break it."""

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from fruits_assets.checks import CHECKS
from fruits_assets.core.mobilenet import PROBE
from fruits_assets.core.pca import PcaModel
from fruits_assets.definitions import ASSETS
from fruits_assets.lake.lake import Lake
from fruits_assets.storage.parquet import File, Origin, vectors_array, write_files, write_part
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms import oddities
from fruits_assets.transforms.ingest import CLASSES
from fruits_assets.transforms.oddities import ODDITIES
from fruits_assets_tests.conftest import Pipeline

BROKEN = "bad0000000000000"
"""A version."""


@pytest.fixture
def broken(finished, tmp_path: Path) -> Pipeline:
    """A copy of a finished lake, to be broken."""
    pipeline, _ = finished
    base = tmp_path / "lake"
    shutil.copytree(pipeline.lake.base, base)
    return Pipeline(Lake.at(str(base)), pipeline.source)


def evaluate(
    pipeline: Pipeline, name: str, instance: dg.DagsterInstance | None = None, **config
) -> dg.AssetCheckEvaluation:
    """Runs one check alone, on what the lake holds."""
    (key,) = [key for check in CHECKS for key in check.check_keys if key.name == name]
    op = f"{key.asset_key.to_user_string()}_{name}"
    result = dg.materialize(
        [*ASSETS, *CHECKS],
        selection=dg.AssetSelection.checks(key),
        resources=pipeline.resources,
        run_config={"ops": {op: {"config": config}}} if config else {},
        instance=instance,
    )
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def republish(
    pipeline: Pipeline, name: str, change: Callable[[pa.Table], pa.Table], **figures
) -> None:
    """Publishes a version of a table whose rows were changed."""
    snapshot = pipeline.lake.current(name)
    columns = [column for column in snapshot.schema.names if column != "content"]
    table = change(snapshot.arrow(columns))
    file = write_part(snapshot.folder, Origin(BROKEN, 0, table.num_rows), table)
    _publish(pipeline.lake, snapshot, file, table, **figures)


def republish_file(pipeline: Pipeline, name: str, file_name: str, content: bytes) -> None:
    """Publishes a version of a table of files with one file replaced."""
    snapshot = pipeline.lake.current(name)
    contents = {file: snapshot.read(file) for file in snapshot.names()} | {file_name: content}
    file = write_files(snapshot.folder, BROKEN, contents)
    _publish(pipeline.lake, snapshot, file, snapshot.schema.empty_table())


def _publish(lake: Lake, snapshot: Snapshot, file: File, table: pa.Table, **figures: Any) -> None:
    commit = replace(snapshot.commit, recipe=BROKEN, figures={**snapshot.figures, **figures})
    numbers = {name: lake.table(name).latest() for name in (snapshot.name, *snapshot.siblings)}
    siblings = {
        name: replace(it, follows=numbers[name], commit=replace(it.commit, recipe=BROKEN))
        for name, it in snapshot.siblings.items()
    }
    if CLASSES in siblings:
        siblings[CLASSES] = replace(siblings[CLASSES], files=(_counted(siblings[CLASSES], table),))
    lake.publish(
        replace(
            snapshot,
            commit=commit,
            files=(file,),
            schema=table.schema,
            siblings=siblings,
            follows=numbers[snapshot.name],
        )
    )


def _counted(classes: Snapshot, rows: pa.Table) -> File:
    """The counts by class and split of the photos of a table."""
    counts = rows.group_by(["label", "split"]).aggregate([([], "count_all")])
    table = counts.rename_columns(classes.schema.names).cast(classes.schema)
    return write_part(classes.folder, Origin(BROKEN, 0, table.num_rows), table)


def _set(table: pa.Table, column: str, change: Callable[[list], list]) -> pa.Table:
    index = table.schema.get_field_index(column)
    values = pa.array(change(table[column].to_pylist()), table.schema.field(column).type)
    return table.set_column(index, table.schema.field(column), values)


def test_what_was_checked_before_is_not_checked_again(
    broken: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    read, arrow = [], Snapshot.arrow
    monkeypatch.setattr(
        Snapshot, "arrow", lambda self, columns: read.append(self.name) or arrow(self, columns)
    )
    with dg.DagsterInstance.ephemeral() as instance:
        first = evaluate(broken, "labels_present", instance=instance)
        assert read == [ODDITIES]
        again = evaluate(broken, "labels_present", instance=instance)
        assert read == [ODDITIES]
        assert (again.passed, again.description) == (first.passed, first.description)
        assert again.metadata == first.metadata
        republish(broken, "raw_images", _with_label(0, None))
        evaluation = evaluate(broken, "labels_present", instance=instance)
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert "1 of 90 photos have no label" in str(evaluation.description)


def _with_label(row: int, label: str | None) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: _set(rows, "label", lambda it: [*it[:row], label, *it[row + 1 :]])


def test_a_file_that_is_lost_invented_or_twice_is_found(broken: Pipeline):
    lost = broken.lake.current("raw_images").arrow(["path"])["path"][:2].to_pylist()
    republish(
        broken,
        "raw_images",
        lambda rows: _set(rows, "path", lambda paths: ["invented", paths[2], *paths[2:]]),
    )
    evaluation = evaluate(broken, "every_file_accounted_for")
    assert not evaluation.passed
    assert "2 lost, 1 not from the source, 1 twice" in str(evaluation.description)
    assert evaluation.metadata["lost"].value == sorted(lost)
    assert evaluation.metadata["not_from_the_source"].value == ["invented"]


def test_photos_that_lie_twice_are_warnings_with_examples(
    broken: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    def leak_and_nest(rows: pa.Table) -> pa.Table:
        splits = rows["split"].to_pylist()
        train, test = splits.index("Training"), splits.index("Test")
        leaked = _set(rows, "sha256", lambda all_: [*all_[:train], all_[test], *all_[train + 1 :]])
        expected.extend(sorted([rows["path"][train].as_py(), rows["path"][test].as_py()]))
        inner = _set(leaked, "path", lambda paths: [f"photos/{path}" for path in paths])
        return pa.concat_tables([leaked, inner])

    monkeypatch.setattr(oddities, "ROWS_PER_PARTITION", 90)  # several workers compare them
    expected: list[str] = []
    republish(broken, "raw_images", leak_and_nest)
    found = evaluate(broken, "no_image_in_both_splits")
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert found.metadata["pairs"].value == [expected]
    assert found.metadata["contents"].value == 89
    found = evaluate(broken, "no_folder_twice")
    assert not found.passed
    assert "90 photos of the source lie in photos too. Remove" in str(found.description)


def test_splits_that_share_no_class_are_a_warning_that_says_what_would_help(broken: Pipeline):
    def nest(rows: pa.Table) -> pa.Table:
        columns = (rows[name].to_pylist() for name in ("path", "split", "label"))
        old = list(zip(*columns, strict=True))
        labels = [f"{label} {3 if split == 'Test' else 1}" for _, split, label in old]
        paths = [
            path.replace(f"/{it}/", f"/{it}/{label}/")
            for (path, _, it), label in zip(old, labels, strict=True)
        ]
        return _set(_set(rows, "label", lambda _: labels), "path", lambda _: paths)

    republish(broken, "raw_images", nest)
    evaluation = evaluate(broken, "splits_share_classes")
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert evaluation.description == (
        "Test shares no class with Training (15 and 15 classes), so that 0.0% of its photos can be "
        "recognised. With another `labels` in the config of `ingest`, they share classes: "
        "first (15)."
    )
    assert "Apple Green 3" in str(evaluation.metadata["Test"].value)


def test_a_class_of_one_split_is_a_warning_with_its_name(broken: Pipeline):
    republish(broken, "raw_images", _renamed("Test", "Banana", "Plantain"))
    evaluation = evaluate(broken, "classes_in_all_splits")
    assert not evaluation.passed
    assert evaluation.description == (
        "of 16 classes, some are in one split only: 1 only in Test; 1 only in Training."
    )
    assert evaluation.metadata["Test"].value == ["Plantain"]
    assert evaluate(broken, "splits_share_classes").passed


@pytest.mark.parametrize("name", ["banana", "Bàna\u0301na", "BANANA", "Banana_"])
def test_classes_of_nearly_the_same_name_are_a_warning(broken: Pipeline, name: str):
    republish(broken, "raw_images", _renamed("Test", "Banana", name))
    evaluation = evaluate(broken, "class_names_differ")
    assert not evaluation.passed
    assert evaluation.metadata["nearly_equal"].value == [sorted(["Banana", name])]


def _renamed(split: str, label: str, name: str) -> Callable[[pa.Table], pa.Table]:
    """Gives the photos of a class in one split another label."""

    def change(rows: pa.Table) -> pa.Table:
        places = zip(rows["split"].to_pylist(), rows["label"].to_pylist(), strict=True)
        new = [name if place == (split, label) else place[1] for place in places]
        return _set(rows, "label", lambda _: new)

    return change


def test_a_model_that_is_not_keras_any_more_is_found(broken: Pipeline):
    model = broken.lake.current("model_weights")
    with np.load(io.BytesIO(model.read(PROBE))) as probe:
        photos, features = probe["photos"], probe["features"]
    changed = io.BytesIO()
    np.savez(changed, photos=photos, features=features * np.float32(1.0001))
    republish_file(broken, "model_weights", PROBE, changed.getvalue())
    evaluation = evaluate(broken, "model_parity")
    assert not evaluation.passed
    assert evaluation.metadata["relative_error"].value == pytest.approx(1e-4, rel=0.01)


def _vectors(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[pa.Table], pa.Table]:
    def apply(rows: pa.Table) -> pa.Table:
        matrix = change(np.array(rows["features"].to_pylist(), np.float32))
        return rows.set_column(
            rows.schema.get_field_index("features"),
            rows.schema.field("features"),
            vectors_array(matrix),
        )

    return apply


def _with(row: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(matrix: np.ndarray) -> np.ndarray:
        matrix[row, 5:] = value
        matrix[row, :5] = value
        return matrix

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_vectors(_with(3, np.nan)), "1 vector(s) with NaN or infinity"),
        (_vectors(_with(3, np.inf)), "1 vector(s) with NaN or infinity"),
        (_vectors(_with(3, 0.0)), "1 constant vector(s)"),
        (_vectors(lambda matrix: matrix[:, :1000]), "widths [1000] instead of 1280"),
        (
            lambda rows: pa.concat_tables([rows[1:], rows[2:4]]),
            "1 photo(s) without features; 2 photo(s) twice",
        ),
    ],
)
def test_incomplete_features_are_found(broken: Pipeline, change, expected: str):
    republish(broken, "features", change)
    evaluation = evaluate(broken, "features_complete")
    assert not evaluation.passed
    assert expected in str(evaluation.description)


def _model(pipeline: Pipeline, **changes: np.ndarray) -> bytes:
    model = PcaModel.from_npz(pipeline.lake.current("pca_model").read("pca.npz"))
    return replace(model, **changes).to_npz()


def test_components_that_are_not_orthonormal_are_found(broken: Pipeline):
    model = PcaModel.from_npz(broken.lake.current("pca_model").read("pca.npz"))
    skewed = model.components.copy()
    skewed[0] += 0.01 * skewed[1]
    republish_file(broken, "pca_model", "pca.npz", _model(broken, components=skewed))
    evaluation = evaluate(broken, "components_orthonormal")
    assert not evaluation.passed
    assert evaluation.metadata["deviation"].value == pytest.approx(0.01, rel=0.01)


def test_a_missed_variance_target_is_a_warning(broken: Pipeline):
    model = PcaModel.from_npz(broken.lake.current("pca_model").read("pca.npz"))
    ratio = model.explained_variance_ratio[:1]
    republish_file(broken, "pca_model", "pca.npz", _model(broken, explained_variance_ratio=ratio))
    evaluation = evaluate(broken, "variance_target_reached")
    assert not evaluation.passed
    assert "asked: 95.0% of the variance" in str(evaluation.description)


def test_recognition_under_its_floor_is_a_warning(broken: Pipeline):
    republish(broken, "pca_features", lambda rows: _set(rows, "components", _rotated))
    evaluation = evaluate(broken, "recognition")
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert float(str(evaluation.metadata["accuracy_lost"].value)) > 0.5
    assert evaluate(broken, "recognition", min_accuracy=0.0, max_loss=1.0).passed


def _rotated(components: list) -> list:
    """Gives every photo the components of one far away in the table."""
    return components[37:] + components[:37]


def test_recognition_without_splits_is_skipped_and_says_so(broken: Pipeline):
    for asset in ("features", "pca_features"):
        republish(
            broken,
            asset,
            lambda rows: _set(rows, "split", lambda all_: [None] * len(all_)),
            splits=[[None, 90]],
        )
    evaluation = evaluate(broken, "recognition")
    assert evaluation.passed
    assert str(evaluation.description).startswith("skipped")
    assert broken.lake.current("recognition").figures["test"] == 0
