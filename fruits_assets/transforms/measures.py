"""What the asset checks need to know of data that are too large for the Dagster host.

A measure is a transform whose results are figures, kept in the lake so that they are computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from fruits_assets.sources.layout import TEST, TRAINING
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import (
    VECTOR,
    File,
    Origin,
    address_of,
    part_once,
    vectors_matrix,
    write_part,
)
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.featurize import UNREADABLE, read_unreadable
from fruits_assets.transforms.oddities import (
    LOST,
    ODDITIES_SCHEMA,
    REPEATED,
    TALLY_SCHEMA,
    Kind,
    Tally,
    compare_paths,
    each_part,
    sum_of,
    write_examples,
)
from fruits_assets.transforms.spread import Done, Log, for_each
from fruits_assets.transforms.transform import FIGURES_SCHEMA, transform, write_figures

INSPECTION = "_inspection"
INSPECTION_SCHEMA = pa.schema(
    [
        *TALLY_SCHEMA,
        pa.field("widths", pa.list_(pa.field("element", pa.int64())), nullable=False),
        pa.field("not_finite", pa.int64(), nullable=False),
        pa.field("constant", pa.int64(), nullable=False),
    ]
)
"""Tally of each part, and counts of features that are not as they should be."""
MISSING = "_missing"
"""Table of examples of photos without features."""

MAX_TRAINING = 20_000
MAX_TEST = 5_000
"""There are training x test distances: larger splits are sampled, evenly by content."""
SAMPLES = "_samples"
SAMPLES_SCHEMA = pa.schema(
    [
        pa.field("column", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("vector", VECTOR, nullable=False),
    ]
)
"""Vectors of the photos that are compared: a part for each part that they are taken from."""
COMPARED_ROWS = 4096
"""Training photos that a worker holds at a time: 21 MB of features."""


@transform(
    code_version="4",
    outputs={INSPECTION: INSPECTION_SCHEMA, MISSING: ODDITIES_SCHEMA},
    grows_with=("features", "images"),
)
def inspect_features(
    spark: SparkSession,
    *,
    features: Snapshot,
    images: Snapshot,
    _inspection: Folder,
    _missing: Folder,
    earlier: Snapshot | None = None,
    question: str,
    log: Log,
) -> dict[str, Output]:
    """Reads every feature vector back, once, and counts what should not be there.

    Args:
        spark: where to run.
        features: a version of `features` with its siblings.
        images: a version of `raw_images`, whose photos should each have features.
        _inspection: folder to write what was found in each part to.
        _missing: folder to write examples of photos without features to.
        earlier: an earlier version, whose parts are not read again, if there is one.
        question: see `Transform`.
        log: told the progress.
    """
    tables = {one.name: one for one in (images, features, features.siblings[UNREADABLE])}
    rows = _inspected(spark, tables, features.name, earlier, log=log)
    vectors = [row for row in rows if row["table"] == features.name]
    missing = _without_features(spark, rows, images, features, log=log)
    figures = {
        "rows": sum(row["rows"] for row in vectors),
        "missing": missing[LOST].total,
        "repeated": missing[REPEATED].total,
        "widths": sorted({width for row in vectors for width in row["widths"]}),
        "not_finite": sum(row["not_finite"] for row in vectors),
        "constant": sum(row["constant"] for row in vectors),
    }
    table = pa.Table.from_pylist(rows, INSPECTION_SCHEMA)
    file = write_part(_inspection, Origin(question, 0, len(rows)), table)
    return {
        INSPECTION: Output((file,), figures),
        MISSING: Output(write_examples(_missing, {LOST: missing[LOST]})),
    }


def _inspected(
    spark: SparkSession,
    tables: Mapping[str, Snapshot],
    of_vectors: str,
    earlier: Snapshot | None,
    *,
    log: Log,
) -> list[dict[str, Any]]:
    """A row of `INSPECTION_SCHEMA` for each part of some tables; only parts without one are read.

    Args:
        spark: where to run.
        tables: by name.
        of_vectors: name of the table that holds the features.
        earlier: an earlier version of the inspection, if there is one.
        log: told the progress.
    """
    rows = earlier.arrow(INSPECTION_SCHEMA.names).to_pylist() if earlier else []
    seen = {(row["table"], row["part"]): row for row in rows}
    handles = {name: one.only(()) for name, one in tables.items()}
    parts = [(name, file) for name, one in tables.items() for file in one.files]

    def work(task: tuple[str, File]) -> dict[str, Any]:
        name, file = task
        if name == of_vectors:
            found = _vectors_of(handles[name].batches(file, ["path", "features"]))
        else:
            paths = handles[name].only((file,)).arrow(["path"])["path"].to_pylist()
            found = {"paths": sum_of(paths), "widths": [], "not_finite": 0, "constant": 0}
        return {"table": name, "part": file.name, "rows": file.rows, **found}

    new = [(name, file) for name, file in parts if (name, file.name) not in seen]
    for row in each_part(spark, new, work, doing="features inspected", log=log):
        seen[row["table"], row["part"]] = row
    return [seen[name, file.name] for name, file in parts]


def _vectors_of(batches: Iterable[pa.RecordBatch]) -> dict[str, Any]:
    """What a part of the features holds."""
    paths: list[str] = []
    widths: set[int] = set()
    not_finite = constant = 0
    for batch in batches:
        paths += batch.column("path").to_pylist()
        widths.update(batch.column("features").value_lengths().unique().to_pylist())
        for vector in batch.column("features"):
            values = vector.values.to_numpy(zero_copy_only=False)
            not_finite += not np.isfinite(values).all()
            constant += bool(np.ptp(values) == 0) if len(values) else True
    return {
        "paths": sum_of(paths),
        "widths": sorted(widths),
        "not_finite": int(not_finite),
        "constant": int(constant),
    }


def _without_features(
    spark: SparkSession,
    rows: Sequence[Mapping[str, Any]],
    images: Snapshot,
    features: Snapshot,
    *,
    log: Log,
) -> Mapping[str, Kind]:
    """`LOST`, the photos without features, and `REPEATED`, those that have them twice.

    Args:
        spark: where to run.
        rows: of `INSPECTION_SCHEMA`.
        images: the photos.
        features: of them, with its siblings.
        log: told the progress.
    """
    photos, held, unreadable = (
        Tally.of(row for row in rows if row["table"] == name)
        for name in (images.name, features.name, UNREADABLE)
    )
    if photos == held + unreadable:
        lost = Kind()
        for path, *_ in read_unreadable(features) if unreadable.rows else ():
            lost.add(path)
        return {LOST: lost, REPEATED: Kind()}
    return compare_paths(spark, [images], [features], log=log)


@transform(
    code_version="3",
    outputs={"recognition": FIGURES_SCHEMA, SAMPLES: SAMPLES_SCHEMA},
    grows_with=("features", "pca_features"),
)
def recognize(
    spark: SparkSession,
    *,
    features: Snapshot,
    pca_features: Snapshot,
    recognition: Folder,
    _samples: Folder,
    earlier: Snapshot | None = None,
    question: str,
    log: Log,
) -> dict[str, Output]:
    """Gives every Test photo the label of its nearest Training photo (Euclidean distance).

    Done on all features and on the components: the difference is what the reduction costs. Of large
    splits, a sample is compared, which is kept: only new parts are read.

    Args:
        spark: where to run.
        features: a version of `features`.
        pca_features: the version of `pca_features` made from it.
        recognition: folder to write the figures to.
        _samples: folder to write the photos that are compared to.
        earlier: an earlier version, whose samples are taken over, if there is one.
        question: see `Transform`.
        log: told the progress.
    """
    sources = {"features": features.alone(), "components": pca_features.alone()}
    splits = dict(features.figures["splits"])
    draw = Draw.of(splits)
    before = _Samples.of(earlier, draw)
    samples: dict[str, list[File]] = {column: [] for column in sources}
    if splits.get(TEST):
        samples = _sampled(spark, sources, before, _samples, question, log=log)
    figures = _compared(spark, samples, _samples, draw, log=log)
    files = tuple(file for files in samples.values() for file in files)
    draws = [[draw.training, draw.test] for draw in before.draws]
    return {
        "recognition": Output((write_figures(recognition, question, figures),), figures),
        SAMPLES: Output(files, {"draws": draws}),
    }


@dataclass(frozen=True)
class Draw:
    """Which photos are compared: by the beginning of their hash, as many as are bounded.

    The share of a split is a power of two, so that a sample still holds when photos are added, but
    for its half where their number has doubled.

    Attributes:
        training: how often the share of the Training photos is halved.
        test: the same of the Test photos.
    """

    training: int
    test: int

    @classmethod
    def of(cls, splits: Mapping[str | None, int]) -> Self:
        """The largest shares of which no more photos are expected than may be compared.

        Args:
            splits: split -> its photos.
        """
        training, test = splits.get(TRAINING, 0), splits.get(TEST, 0)
        return cls(_halvings(training, MAX_TRAINING), _halvings(test, MAX_TEST))

    def has(self, split: str | None, label: str | None, sha256: str) -> bool:
        """Whether a photo is compared: a labelled one of these splits."""
        halvings = {TRAINING: self.training, TEST: self.test}.get(split or "")
        return (
            label is not None and halvings is not None and int(sha256[:8], 16) < 2**32 >> halvings
        )

    def covers(self, other: Draw) -> bool:
        """Whether it has all photos that another one has."""
        return self.training <= other.training and self.test <= other.test


def _halvings(photos: int, most: int) -> int:
    return next(count for count in range(64) if photos <= most << count)


@dataclass(frozen=True)
class _Samples:
    """The samples of an earlier version that can be taken over.

    Attributes:
        draws: the one that is asked for, and those of samples that hold all that it has.
        parts: by what they were made from.
    """

    draws: Sequence[Draw]
    parts: Mapping[Origin | None, File]

    @classmethod
    def of(cls, earlier: Snapshot | None, draw: Draw) -> Self:
        """From the earlier version, or from what is whole of it."""
        if earlier is None:
            return cls([draw], {})
        samples = earlier.siblings[SAMPLES]
        draws = [Draw(*one) for one in samples.figures["draws"]]
        larger = [one for one in draws if one != draw and one.covers(draw)]
        return cls([draw, *larger], {file.origin: file for file in samples.files})


def _sampled(
    spark: SparkSession,
    sources: Mapping[str, Snapshot],
    before: _Samples,
    folder: Folder,
    question: str,
    *,
    log: Log,
) -> dict[str, list[File]]:
    """Column -> samples of the parts of its table, in order; only new parts are read."""
    handles = {column: one.only(()) for column, one in sources.items()}
    parts = [(column, file) for column, one in sources.items() for file in one.files]
    draw = before.draws[0]

    def origin(column: str, file: File, of: Draw) -> Origin:
        made_from = address_of(question, column, file.name, of.training, of.test)
        return Origin(made_from, 0, file.rows)

    def work(part: tuple[str, File]) -> dict[str, Any]:
        column, file = part

        def sample() -> pa.Table:
            batches = handles[column].batches(file, ["split", "label", "sha256", column])
            drawn = [_drawn(batch, column, draw) for batch in batches]
            return pa.Table.from_batches(drawn, SAMPLES_SCHEMA)

        written, _ = part_once(folder, origin(*part, draw), sample, incompressible=["vector"])
        return {"of": [column, file.name], "file": vars(written)}

    found = {
        part: before.parts[made]
        for part in parts
        for one in reversed(before.draws)
        if (made := origin(*part, one)) in before.parts
    }
    new = [part for part in parts if part not in found]
    for one in each_part(spark, new, work, doing="recognition: sampled", log=log):
        column, name = one["of"]
        found[column, sources[column].by_name[name]] = File(**one["file"])
    return {name: [found[part] for part in parts if part[0] == name] for name in sources}


def _drawn(batch: pa.RecordBatch, column: str, draw: Draw) -> pa.RecordBatch:
    """The photos of a batch that are compared, as rows of `SAMPLES_SCHEMA`."""
    identity = batch.select(["split", "label", "sha256"])
    chosen = [draw.has(**row) for row in identity.to_pylist()]
    kept = batch.filter(pa.array(chosen, pa.bool_()))
    columns = [kept.column(name) for name in ("split", "label", "sha256", column)]
    named = pa.array([column] * kept.num_rows, pa.string())
    return pa.RecordBatch.from_arrays([named, *columns], schema=SAMPLES_SCHEMA)


def _compared(
    spark: SparkSession,
    samples: Mapping[str, Sequence[File]],
    folder: Folder,
    draw: Draw,
    *,
    log: Log,
) -> dict[str, Any]:
    """The figures: each core compares a share of the Test photos with all Training photos."""
    handle = Snapshot.unpublished(folder, SAMPLES, SAMPLES_SCHEMA, ())
    held = {column: [file for file in files if file.rows] for column, files in samples.items()}
    cores = spark.sparkContext.defaultParallelism

    def work(task: tuple[str, Sequence[File]]) -> Done:
        column, files = task
        queries = _Photos.joined(_read(handle, files, TEST, draw))
        known = _read(handle, held[column], TRAINING, draw)
        right, compared = _recognized(queries, known) if len(queries.labels) else (0, 0)
        return Done(sum(file.rows for file in files), [right, len(queries.labels), compared])

    tasks = [
        (column, files[i::cores])
        for column, files in held.items()
        for i in range(min(cores, len(files)))
    ]
    total = sum(file.rows for files in held.values() for file in files)
    done = for_each(spark, tasks, work, doing="recognition", total=total, log=log)
    figures: dict[str, Any] = {}
    for column in samples:
        own = [one for (name, _), one in zip(tasks, done, strict=True) if name == column]
        figures["test"] = sum(one[1] for one in own)
        figures["training"] = max((one[2] for one in own), default=0)
        figures[f"accuracy_{column}"] = sum(one[0] for one in own) / max(1, figures["test"])
    return figures


@dataclass(frozen=True)
class _Photos:
    """Labelled photos of one split: n labels, and (n, d) float32 vectors."""

    labels: np.ndarray
    vectors: np.ndarray

    @classmethod
    def joined(cls, some: Iterable[_Photos]) -> Self:
        """All of some photos; none of none."""
        there = [one for one in some if len(one.labels)]
        if not there:
            return cls(np.empty(0, object), np.empty((0, 0), np.float32))
        labels = np.concatenate([one.labels for one in there])
        return cls(labels, np.concatenate([one.vectors for one in there]))


def _read(handle: Snapshot, files: Iterable[File], split: str, draw: Draw) -> Iterator[_Photos]:
    """The photos of one split in some samples, a few parts at a time.

    Samples that were drawn when there were fewer photos hold more than are compared.
    """
    chunk: list[File] = []
    for file in [*files, None]:
        if chunk and (not file or sum(it.rows for it in chunk) + file.rows > COMPARED_ROWS):
            table = handle.only(chunk).arrow(SAMPLES_SCHEMA.names)
            for batch in table.combine_chunks().to_batches():
                identity = batch.select(["split", "label", "sha256"]).to_pylist()
                chosen = [row["split"] == split and draw.has(**row) for row in identity]
                labels = batch.column("label").to_numpy(zero_copy_only=False)
                yield _Photos(labels[chosen], vectors_matrix(batch, "vector")[chosen])
            chunk = []
        chunk += [file] if file else []


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
