"""What the asset checks need to know of data that are too large for the Dagster host.

A measure is a transform whose output has figures and no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from fruits_assets.core.dataset import Dataset, Output, vectors_matrix
from fruits_assets.core.source import TEST, TRAINING
from fruits_assets.transforms.transform import Done, Log, for_each, transform

MAX_TRAINING = 20_000
MAX_TEST = 5_000
"""There are training x test distances: larger splits are sampled, evenly by content."""


@transform(code_version="2", outputs=["features_inspection"], grows_with="features")
def inspect_features(
    spark: SparkSession,
    *,
    features: str,
    features_inspection: str,  # noqa: ARG001 - figures only
    earlier: Mapping[str, str] | None = None,
    log: Log,
) -> dict[str, Output]:
    """Reads every feature vector back, once, and counts what should not be there.

    Args:
        spark: where to run.
        features: URI of a version of `features`.
        features_inspection: URI of the version; only figures, no files.
        earlier: URI of an earlier version, whose parts are not read again, if there is one.
        log: told the progress.
    """
    source = Dataset.open(features)
    seen: dict[str, list[Any]] = {}
    if earlier:
        seen = dict(Dataset.open(earlier["features_inspection"]).manifest.figures["parts"])

    def work(name: str) -> Done:
        widths: set[int] = set()
        rows = not_finite = constant = 0
        for batch in source.batches(name, ["features"]):
            lengths = batch.column("features").value_lengths()
            widths.update(lengths.unique().to_pylist())
            rows += batch.num_rows
            for vector in batch.column("features"):
                values = vector.values.to_numpy(zero_copy_only=False)
                not_finite += not np.isfinite(values).all()
                constant += bool(np.ptp(values) == 0) if len(values) else True
        return Done(rows, [rows, sorted(widths), int(not_finite), int(constant)])

    new = [file for file in source.parts if file.sha256 not in seen]
    names, total = [file.name for file in new], sum(file.rows for file in new)
    done = for_each(spark, names, work, doing="features inspected", total=total, log=log)
    seen.update(zip((file.sha256 for file in new), done, strict=True))
    parts = {file.sha256: seen[file.sha256] for file in source.parts}
    figures = {
        "rows": sum(one[0] for one in parts.values()),
        "widths": sorted({width for one in parts.values() for width in one[1]}),
        "not_finite": sum(one[2] for one in parts.values()),
        "constant": sum(one[3] for one in parts.values()),
        "parts": parts,
    }
    return {"features_inspection": Output((), figures)}


@transform(code_version="1", outputs=["recognition"])
def recognize(
    spark: SparkSession,
    *,
    features: str,
    pca_features: str,
    recognition: str,  # noqa: ARG001 - figures only
    log: Log,
) -> dict[str, Output]:
    """Gives every Test photo the label of its nearest Training photo (Euclidean distance).

    Done on all features and on the components: the difference is what the reduction costs.

    Args:
        spark: where to run.
        features: URI of a version of `features`.
        pca_features: URI of the version of `pca_features` made from it.
        recognition: URI of the version; only figures, no files.
        log: told the progress.
    """
    sources = {"features": Dataset.open(features), "components": Dataset.open(pca_features)}
    splits = dict(sources["features"].manifest.figures["splits"])
    shares = {
        TRAINING: min(1.0, MAX_TRAINING / splits.get(TRAINING, 1)),
        TEST: min(1.0, MAX_TEST / splits.get(TEST, 1)),
    }

    def work(task: tuple[str, str]) -> Done:
        column, name = task
        queries = _Photos.read(sources[column], name, column, TEST, shares[TEST])
        training = (
            _Photos.read(sources[column], file.name, column, TRAINING, shares[TRAINING])
            for file in sources[column].parts
        )
        recognized, compared = _recognized(queries, training) if len(queries.labels) else (0, 0)
        return Done(len(queries.labels), [recognized, len(queries.labels), compared])

    tasks = [(column, file.name) for column, dataset in sources.items() for file in dataset.parts]
    total = int(2 * splits.get(TEST, 0) * shares[TEST])
    done = for_each(spark, tasks, work, doing="recognition", total=total, log=log)
    figures: dict[str, Any] = {}
    for column in sources:
        own = [one for (name, _), one in zip(tasks, done, strict=True) if name == column]
        figures["test"] = sum(one[1] for one in own)
        figures["training"] = max(one[2] for one in own)
        figures[f"accuracy_{column}"] = sum(one[0] for one in own) / max(1, figures["test"])
    return {"recognition": Output((), figures)}


@dataclass(frozen=True)
class _Photos:
    """Labelled photos of one split: n labels, and (n, d) float32 vectors."""

    labels: np.ndarray
    vectors: np.ndarray

    @classmethod
    def read(cls, dataset: Dataset, part: str, column: str, split: str, share: float) -> _Photos:
        """A share of the split's labelled photos in one part, chosen by their content."""
        labels, vectors = [], []
        for batch in dataset.batches(part, ["label", "split", "sha256", column]):
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
