"""What the asset checks need to know of data that are too large for the Dagster host.

A measure is a transform whose results are figures, kept in the lake so that they are computed once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from fruits_assets.sources.layout import TEST, TRAINING
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import File, Origin, vectors_matrix, write_part
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.spread import Done, Log, for_each
from fruits_assets.transforms.transform import FIGURES_SCHEMA, transform, write_figures

INSPECTION = "_inspection"
INSPECTION_SCHEMA = pa.schema(
    [
        pa.field("part", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("widths", pa.list_(pa.field("element", pa.int64())), nullable=False),
        pa.field("not_finite", pa.int64(), nullable=False),
        pa.field("constant", pa.int64(), nullable=False),
    ]
)
"""What each part of the features holds that it should not hold."""

MAX_TRAINING = 20_000
MAX_TEST = 5_000
"""There are training x test distances: larger splits are sampled, evenly by content."""


@transform(code_version="3", outputs={INSPECTION: INSPECTION_SCHEMA}, grows_with="features")
def inspect_features(
    spark: SparkSession,
    *,
    features: Snapshot,
    _inspection: Folder,
    earlier: Snapshot | None = None,
    question: str,
    log: Log,
) -> dict[str, Output]:
    """Reads every feature vector back, once, and counts what should not be there.

    Args:
        spark: where to run.
        features: a version of `features`.
        _inspection: folder to write what was found to.
        earlier: an earlier version, whose parts are not read again, if there is one.
        question: see `Transform`.
        log: told the progress.
    """
    source = features.alone()
    seen = {row["part"]: row for row in _inspected(earlier)}

    def work(file: File) -> Done:
        widths: set[int] = set()
        not_finite = constant = 0
        for batch in source.batches(file, ["features"]):
            lengths = batch.column("features").value_lengths()
            widths.update(lengths.unique().to_pylist())
            for vector in batch.column("features"):
                values = vector.values.to_numpy(zero_copy_only=False)
                not_finite += not np.isfinite(values).all()
                constant += bool(np.ptp(values) == 0) if len(values) else True
        counts = [file.rows, sorted(widths), int(not_finite), int(constant)]
        return Done(
            file.rows, dict(zip(INSPECTION_SCHEMA.names, [file.name, *counts], strict=True))
        )

    new = [file for file in source.files if file.name not in seen]
    total = sum(file.rows for file in new)
    done = for_each(spark, new, work, doing="features inspected", total=total, log=log)
    seen.update({row["part"]: row for row in done})
    rows = [seen[file.name] for file in source.files]
    figures = {
        "rows": sum(row["rows"] for row in rows),
        "widths": sorted({width for row in rows for width in row["widths"]}),
        "not_finite": sum(row["not_finite"] for row in rows),
        "constant": sum(row["constant"] for row in rows),
    }
    table = pa.Table.from_pylist(rows, INSPECTION_SCHEMA)
    file = write_part(_inspection, Origin(question, 0, len(rows)), table)
    return {INSPECTION: Output((file,), figures)}


def _inspected(earlier: Snapshot | None) -> list[dict[str, Any]]:
    return earlier.arrow(INSPECTION_SCHEMA.names).to_pylist() if earlier else []


@transform(code_version="2", outputs={"recognition": FIGURES_SCHEMA})
def recognize(
    spark: SparkSession,
    *,
    features: Snapshot,
    pca_features: Snapshot,
    recognition: Folder,
    question: str,
    log: Log,
) -> dict[str, Output]:
    """Gives every Test photo the label of its nearest Training photo (Euclidean distance).

    Done on all features and on the components: the difference is what the reduction costs.

    Args:
        spark: where to run.
        features: a version of `features`.
        pca_features: the version of `pca_features` made from it.
        recognition: folder to write the figures to.
        question: see `Transform`.
        log: told the progress.
    """
    sources = {"features": features.alone(), "components": pca_features.alone()}
    splits = dict(features.figures["splits"])
    shares = {
        TRAINING: min(1.0, MAX_TRAINING / splits.get(TRAINING, 1)),
        TEST: min(1.0, MAX_TEST / splits.get(TEST, 1)),
    }

    def work(task: tuple[str, File]) -> Done:
        column, part = task
        queries = _Photos.read(sources[column], part, column, TEST, shares[TEST])
        training = (
            _Photos.read(sources[column], file, column, TRAINING, shares[TRAINING])
            for file in sources[column].files
        )
        recognized, compared = _recognized(queries, training) if len(queries.labels) else (0, 0)
        return Done(len(queries.labels), [recognized, len(queries.labels), compared])

    tasks = [(column, file) for column, snapshot in sources.items() for file in snapshot.files]
    total = int(2 * splits.get(TEST, 0) * shares[TEST])
    done = for_each(spark, tasks, work, doing="recognition", total=total, log=log)
    figures: dict[str, Any] = {}
    for column in sources:
        own = [one for (name, _), one in zip(tasks, done, strict=True) if name == column]
        figures["test"] = sum(one[1] for one in own)
        figures["training"] = max(one[2] for one in own)
        figures[f"accuracy_{column}"] = sum(one[0] for one in own) / max(1, figures["test"])
    return {"recognition": Output((write_figures(recognition, question, figures),), figures)}


@dataclass(frozen=True)
class _Photos:
    """Labelled photos of one split: n labels, and (n, d) float32 vectors."""

    labels: np.ndarray
    vectors: np.ndarray

    @classmethod
    def read(cls, source: Snapshot, part: File, column: str, split: str, share: float) -> _Photos:
        """A share of the split's labelled photos in one part, chosen by their content."""
        labels, vectors = [], []
        for batch in source.batches(part, ["label", "split", "sha256", column]):
            frame = batch.select(["label", "split", "sha256"]).to_pandas()
            lottery = frame["sha256"].str[:8].map(lambda digits: int(digits, 16) / 2**32)
            chosen = frame["label"].notna() & (frame["split"] == split) & (lottery < share)
            labels.append(frame["label"][chosen].to_numpy())
            vectors.append(vectors_matrix(batch, column)[chosen.to_numpy()])
        return cls(np.concatenate(labels), np.concatenate(vectors))


def _recognized(queries: _Photos, training: Iterable[_Photos]) -> tuple[int, int]:
    """How many queries have the label of their nearest training photo, and of how many."""
    best = np.full(len(queries.labels), np.inf)
    nearest = np.full(len(queries.labels), None, object)
    compared = 0
    for known in training:
        if not len(known.labels):
            continue
        compared += len(known.labels)
        distances = _squared_distances(queries.vectors, known.vectors)
        closest = distances.min(axis=1)
        better = closest < best
        nearest[better] = known.labels[distances.argmin(axis=1)[better]]
        best[better] = closest[better]
    return int((nearest == queries.labels).sum()), compared


def _squared_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n, d), (m, d) -> (n, m) squared Euclidean distances."""
    return (left**2).sum(axis=1)[:, np.newaxis] - 2 * left @ right.T + (right**2).sum(axis=1)
