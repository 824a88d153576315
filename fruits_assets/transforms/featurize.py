"""`raw_images` and a model -> `features`."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Self

import numpy as np
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as PySpark's own documentation writes it

from fruits_assets.core.decoder import SECONDS, shared
from fruits_assets.core.errors import DatasetError
from fruits_assets.core.images import RejectedImage
from fruits_assets.core.mobilenet import (
    DESCRIPTION,
    MODEL,
    FeatureExtractor,
    ModelDescription,
)
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import (
    VECTOR,
    File,
    Origin,
    address_of,
    finished_part,
    part_once,
    vectors_array,
    write_part,
)
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.changes import CLASSES
from fruits_assets.transforms.increment import Merging, PartSize, Takeover, takeover
from fruits_assets.transforms.spread import (
    Done,
    Log,
    broadcast,
    for_each_group,
    kept,
    light_rows,
    rows_of,
    with_tasks,
)
from fruits_assets.transforms.transform import transform

FEATURES_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("label", pa.string()),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("features", VECTOR, nullable=False),
    ]
)
IDENTITY = ("path", "split", "label", "sha256")
Identity = tuple[str, str | None, str | None, str]
Unreadable = list[str | None]
"""A row of `UNREADABLE_SCHEMA`, and the split of the photo."""

BATCH_ROWS = 64
"""Photos held as Python objects at a time."""
SHARD_SECONDS = 30.0
"""A worker keeps what it has finished that often: so much is lost with it, at most."""
TASKS_PER_CORE = 8
"""Enough of them to even out the cores' loads."""
BLOCK_ROWS = 256
"""Fewer photos of a part are not shared out: each task reads the whole part, to verify it."""
PART = PartSize(rows=8192, bytes=48 * 2**20)
"""What small parts are merged into."""
PLAIN = ("features",)
"""Columns that do not compress."""
UNREADABLE = "unreadable_photos"
UNREADABLE_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)
"""Photos that killed their decoder, or took longer than they may: they have no features."""
TABLES = {"features": FEATURES_SCHEMA, UNREADABLE: UNREADABLE_SCHEMA}
"""What is written: name -> schema."""

_extractors: dict[ModelDescription, FeatureExtractor] = {}
"""One model per worker process: Spark reuses the processes between tasks."""


@transform(code_version="3", outputs=TABLES, grows_with="images")
def featurize(
    spark: SparkSession,
    *,
    images: Snapshot,
    model: Snapshot,
    features: Folder,
    unreadable_photos: Folder,
    reduced_decoding: bool,
    max_seconds: float = SECONDS,
    earlier: Snapshot | None = None,
    question: str,
    log: Log,
) -> dict[str, Output]:
    """Runs the model once on every distinct content that no earlier version has features of.

    The model is broadcast: graph and weights in one flatbuffer, so that a worker neither builds
    nor downloads anything.

    Args:
        spark: where to run.
        images: a version of `raw_images`.
        model: a version of `model_weights`.
        features: folder to write the features to.
        unreadable_photos: folder to write the photos without features to.
        reduced_decoding: decode large JPEGs at a smaller scale, faster and less exactly.
        max_seconds: that the decoding of one photo may take.
        earlier: an earlier version of the features with its siblings, made with the same weights,
            if there is one.
        question: see `Transform`.
        log: told the progress.
    """
    started = time.monotonic()
    description = ModelDescription.from_json(model.read(DESCRIPTION))
    before = _Earlier.of(earlier)
    count = spark.sparkContext.defaultParallelism * TASKS_PER_CORE
    block = max(BLOCK_ROWS, math.ceil(images.rows / count))
    with (
        _changed(spark, images, before, block) as changed,
        broadcast(spark, model.read(MODEL)) as flatbuffer,
    ):
        plan = _Plan.of(changed, images, before)
        if before.dataset:
            log(f"features: {plan.new} contents of {images.rows} images are new")
        eyes = _Eyes(
            images.only(()),
            features,
            description,
            flatbuffer,
            max_seconds,
            SHARD_SECONDS,
            question,
            reduced=reduced_decoding,
        )
        tasks = plan.tasks(features, count)

        def work(task: _Planned, rows: pa.Table) -> Done:
            if isinstance(task.what, _Inference):
                return task.what.run(rows, eyes)
            return task.what.run(rows)

        rows = with_tasks(changed, ["kind", "part", "block"], [task.gets for task in tasks])
        done = for_each_group(spark, tasks, rows, work, doing="features", total=plan.new, log=log)
    files = (*plan.takeover.kept, *(File(**file) for one in done for file in one["files"]))
    unreadable = [*plan.unreadable, *(row for one in done for row in one.get("unreadable", ()))]
    inferences = sum(one.get("inferences", 0) for one in done)
    seconds = time.monotonic() - started
    figures = {
        "images": images.rows - len(unreadable),
        "inferences": inferences,
        "unreadable": len(unreadable),
        "features_per_image": description.features,
        "images_per_second": round(inferences / seconds, 1),
        "splits": _splits(images, unreadable),
    }
    return {
        "features": Output(files, figures),
        UNREADABLE: Output(write_unreadable(unreadable_photos, [row[:3] for row in unreadable])),
    }


def write_unreadable(folder: Folder, rows: Sequence[Sequence[str | None]]) -> tuple[File, ...]:
    """Writes the photos that have no features, as rows of `UNREADABLE_SCHEMA`."""
    if not rows:
        return ()
    table = pa.Table.from_pylist(
        [dict(zip(UNREADABLE_SCHEMA.names, row, strict=True)) for row in rows], UNREADABLE_SCHEMA
    )
    return (write_part(folder, Origin(address_of(rows), 0, len(rows)), table),)


def read_unreadable(features: Snapshot) -> list[list[str]]:
    """`path`, `sha256` and `detail` of the photos that have no features. Raises DatasetError."""
    rows = features.siblings[UNREADABLE].arrow(UNREADABLE_SCHEMA.names).to_pylist()
    return [[row[name] for name in UNREADABLE_SCHEMA.names] for row in rows]


@dataclass(frozen=True)
class _Earlier:
    """What an earlier version of the features has.

    Attributes:
        dataset: the version, or what is whole of it; None where there is none.
        unreadable: rows of `UNREADABLE_SCHEMA`.
    """

    dataset: Snapshot | None
    unreadable: list[list[str]]

    @classmethod
    def of(cls, earlier: Snapshot | None) -> Self:
        if earlier is None:
            return cls(None, [])
        try:
            unreadable = read_unreadable(earlier)
        except DatasetError:  # it is damaged: these photos are tried again
            unreadable = []
        return cls(earlier.alone(), unreadable)


GONE, COPY, NEW, STILL = range(4)
"""Kinds of changes: a row of the earlier version does not hold any more; an image has the content
of one of its rows; the model must see a content; a photo is unreadable still."""
IMAGE, SEEN = range(2)
"""Kinds of rows that meet: images, and rows of the earlier version."""
CHANGES = f"""
    concat(
        transform(gone, row -> named_struct(
            'kind', {GONE}, 'part', row.part, 'path', row.path, 'split', CAST(NULL AS STRING),
            'label', CAST(NULL AS STRING), 'position', 0L, 'copies', slice(images, 1, 0))),
        transform(still, row -> named_struct(
            'kind', {STILL}, 'part', '', 'path', row.path,
            'split', element_at(filter(images, image -> image.path = row.path), 1).split,
            'label', CAST(NULL AS STRING), 'position', 0L, 'copies', slice(images, 1, 0))),
        transform(IF(seen_in IS NULL, slice(new, 1, 1), new), row -> named_struct(
            'kind', IF(seen_in IS NULL, {NEW}, {COPY}), 'part', coalesce(seen_in, row.part),
            'path', row.path, 'split', row.split, 'label', row.label, 'position', row.position,
            'copies', IF(seen_in IS NULL, slice(new, 2, size(new)), slice(images, 1, 0))))
    )
"""
"""Changes that follow from all rows with one content. Of images that no row has the content of, the
first by path is seen by the model, for itself and for the others."""


@contextlib.contextmanager
def _changed(
    spark: SparkSession, images: Snapshot, earlier: _Earlier, block: int
) -> Iterator[DataFrame]:
    """Changes since an earlier version, found by one query, kept by Spark while open.

    Rows of images and of the earlier version meet by their content.

    Returns:
        `kind`, one of the kinds above; `part`, name of the part that it concerns: of the earlier
        version, or of the images for new contents; `path`, `split`, `label`, `sha256`; `position`
        in the part, and `block`, the number of so many consecutive rows that it lies in, for new
        contents; and `copies` (`path`, `split`, `label`), the other images with such a content.
    """
    rows = light_rows(spark, images, IDENTITY).withColumn("kind", F.lit(IMAGE))
    if earlier.dataset:
        seen = light_rows(spark, earlier.dataset, ["path", "sha256"]).drop("position")
        rows = rows.unionByName(seen.withColumn("kind", F.lit(SEEN)), allowMissingColumns=True)
    if earlier.unreadable:
        unread = rows_of(
            spark,
            [(path, sha256) for path, sha256, _ in earlier.unreadable],
            "path string, sha256 string",
        )
        rows = rows.unionByName(unread.withColumn("kind", F.lit(SEEN)), allowMissingColumns=True)
    image = F.struct("path", "split", "label", "part", "position")
    meeting = rows.groupBy("sha256").agg(
        F.array_sort(F.collect_list(F.when(F.col("kind") == IMAGE, image))).alias("images"),
        F.collect_list(F.when(F.col("kind") == SEEN, F.struct("path", "part"))).alias("seen"),
    )
    compared = (
        meeting.withColumn("added", F.expr("array_except(images.path, seen.path)"))
        .withColumn("lost", F.expr("array_except(seen.path, images.path)"))
        .withColumn("unread", F.expr("filter(seen, row -> row.part IS NULL)"))
        .where("size(added) > 0 OR size(lost) > 0 OR size(unread) > 0")
        # Nearly always, all images of a content are new, or none is.
        .withColumn(
            "new",
            F.expr(
                "IF(size(added) = size(images), images, "
                "filter(images, row -> array_contains(added, row.path)))"
            ),
        )
        .withColumn(
            "gone",
            F.expr("filter(seen, row -> row.part IS NOT NULL AND array_contains(lost, row.path))"),
        )
        .withColumn("still", F.expr("filter(unread, row -> NOT array_contains(lost, row.path))"))
        .withColumn("seen_in", F.expr("array_max(seen.part)"))
    )
    changed = compared.select("sha256", F.inline(F.expr(CHANGES)))
    blocks = F.expr(f"IF(kind = {NEW}, position DIV {block}, 0L)")
    with kept(changed.withColumn("block", blocks)) as changed:
        yield changed


@dataclass(frozen=True)
class _Planned:
    """A task, and which changes it gets.

    Attributes:
        gets: kind, part and block of the changes.
        what: to do.
    """

    gets: tuple[tuple[int, str, int], ...]
    what: Merging | _Duplication | _Inference


@dataclass(frozen=True)
class _Plan:
    """How many changes of which kind concern which part.

    Attributes:
        images: they are, or are not, in.
        earlier: what there is already.
        counts: kind -> name of the part and block -> how many.
        unreadable: rows of the earlier version that still hold, each with its split.
    """

    images: Snapshot
    earlier: _Earlier
    counts: Mapping[int, Mapping[tuple[str, int], int]]
    unreadable: list[Unreadable]

    @classmethod
    def of(cls, changed: DataFrame, images: Snapshot, earlier: _Earlier) -> Self:
        """Counts the changes."""
        counts: dict[int, dict[tuple[str, int], int]] = defaultdict(dict)
        for kind, part, block, count in changed.groupBy("kind", "part", "block").count().collect():
            counts[kind][part, block] = count
        still: dict[str, str | None] = {}
        if counts[STILL]:
            rows = changed.where(F.col("kind") == STILL).select("path", "split").collect()
            still = dict(map(tuple, rows))
        unreadable = [[*row, still[row[0]]] for row in earlier.unreadable if row[0] in still]
        return cls(images, earlier, counts, unreadable)

    @property
    def new(self) -> int:
        """How many contents the model must see."""
        return sum(self.counts[NEW].values())

    @cached_property
    def takeover(self) -> Takeover:
        """What becomes of the parts of the earlier version."""
        earlier = self.earlier.dataset
        gone = {part: count for (part, _), count in self.counts[GONE].items()}
        return takeover(earlier, gone, PART) if earlier else Takeover()

    def tasks(self, folder: Folder, inferences: int) -> list[_Planned]:
        """All tasks, about so many of which are for the model, each of whole blocks."""
        return [*self._rewrites(folder), *self._inferences(math.ceil(self.new / inferences))]

    def _rewrites(self, folder: Folder) -> Iterator[_Planned]:
        earlier = self.earlier.dataset
        if earlier is None:
            return
        handle = earlier.only(())
        for group in self.takeover.merges:
            gets = tuple((GONE, file.name, 0) for file in group)
            yield _Planned(gets, Merging("files", handle, group, folder, PLAIN))
        for part, _ in self.counts[COPY]:
            known = _Duplication(handle, earlier.by_name[part], folder)
            yield _Planned(((COPY, part, 0),), known)

    def _inferences(self, enough: int) -> Iterator[_Planned]:
        group: list[tuple[str, int]] = []
        photos = 0
        counts = self.counts[NEW]
        blocks = sorted(counts)
        for block in blocks:
            group.append(block)
            photos += counts[block]
            if photos >= enough or block is blocks[-1]:
                files = dict.fromkeys(self.images.by_name[part] for part, _ in group)
                yield _Planned(tuple((NEW, *one) for one in group), _Inference(tuple(files)))
                group, photos = [], 0


def _splits(images: Snapshot, unreadable: Sequence[Unreadable]) -> list[list[str | int | None]]:
    """[split, how many images of it have features], in order."""
    counts: Counter[str | None] = Counter()
    for row in images.siblings[CLASSES].arrow(["split", "images"]).to_pylist():
        counts[row["split"]] += row["images"]
    counts.subtract(split for *_, split in unreadable)
    return [[split, count] for split, count in sorted(counts.items(), key=str) if count]


@dataclass(frozen=True)
class _Duplication:
    """Images that have the content of a row of an earlier version, and so its features."""

    earlier: Snapshot
    part: File
    folder: Folder

    def run(self, rows: pa.Table) -> Done:
        """Copies the features.

        Args:
            rows: `IDENTITY` of the images.
        """
        to = rows.select(IDENTITY).sort_by("path")
        origin = Origin(address_of(self.part.name, to.to_pylist()), 0, to.num_rows)
        file, _ = part_once(self.folder, origin, lambda: self._table(to), incompressible=PLAIN)
        return Done(0, {"files": [vars(file)]})

    def _table(self, to: pa.Table) -> pa.Table:
        table = self.earlier.table(self.part)
        row_of = {sha256: row for row, sha256 in enumerate(table["sha256"].to_pylist())}
        rows = table.take(pa.array([row_of[sha256] for sha256 in to["sha256"].to_pylist()]))
        return to.append_column("features", rows["features"]).cast(FEATURES_SCHEMA)


@dataclass(frozen=True)
class _Eyes:
    """What sees photos: the same for all tasks."""

    images: Snapshot
    folder: Folder
    description: ModelDescription
    flatbuffer: Broadcast[bytes]
    max_seconds: float
    shard_seconds: float
    question: str
    reduced: bool

    def extractor(self) -> FeatureExtractor:
        """The model of this process."""
        if self.description not in _extractors:
            _extractors.clear()
            _extractors[self.description] = FeatureExtractor(self.flatbuffer.value)
        return _extractors[self.description]

    def pixels(self) -> Callable[..., np.ndarray]:
        """Decodes a photo, in a process of its own that may die of it."""
        decoder = shared(seconds=self.max_seconds)
        return partial(decoder.pixels, size=self.description.image_size, reduced=self.reduced)


@dataclass
class _Shard:
    """What a worker has seen since it last kept something.

    Attributes:
        identities: per vector.
        vectors: (features,) float32 each.
        unreadable: photos without features.
        rows: photos looked at.
    """

    identities: list[Identity] = field(default_factory=list)
    vectors: list[np.ndarray] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    rows: int = 0

    def table(self) -> pa.Table:
        """As Parquet keeps it; what has no features is among the metadata."""
        metadata = {UNREADABLE: json.dumps(self.unreadable)}
        if not self.vectors:
            return FEATURES_SCHEMA.empty_table().replace_schema_metadata(metadata)
        columns = [pa.array(column, pa.string()) for column in zip(*self.identities, strict=True)]
        vectors = vectors_array(np.stack(self.vectors))
        table = pa.Table.from_arrays([*columns, vectors], schema=FEATURES_SCHEMA)
        return table.replace_schema_metadata(metadata)


@dataclass(frozen=True)
class _Contents:
    """New contents in some parts of the images.

    Attributes:
        parts: each with the positions in it, in order, (n,) int64.
        copies: path of the first image with a content -> the identities of the others.
    """

    parts: tuple[tuple[File, np.ndarray], ...]
    copies: Mapping[str, Sequence[Identity]]

    @classmethod
    def of(cls, parts: Sequence[File], rows: pa.Table) -> Self:
        """From the rows of `_changed`."""
        positions: dict[str, list[int]] = defaultdict(list)
        copies: dict[str, list[Identity]] = {}
        for row in rows.to_pylist():
            positions[row["part"]].append(row["position"])
            if row["copies"]:
                copies[row["path"]] = [
                    (it["path"], it["split"], it["label"], row["sha256"]) for it in row["copies"]
                ]
        return cls(tuple((it, np.sort(positions[it.name])) for it in parts), copies)

    @property
    def total(self) -> int:
        """How many."""
        return sum(len(positions) for _, positions in self.parts)

    def address(self, question: str) -> str:
        """Names what their features are made from."""
        parts = [(file.name, positions.tolist()) for file, positions in self.parts]
        return address_of(question, parts, sorted(self.copies.items()))

    def all_with(self, identity: Identity) -> list[Identity]:
        """All images with the content of the first of them."""
        return [identity, *self.copies.get(identity[0], ())]

    def photos(self, images: Snapshot, start: int) -> Iterator[dict]:
        """Rows of the images, from the `start`-th of these contents on."""
        columns = [*IDENTITY, "content", "orientation"]
        for file, positions in self.parts:
            wanted = positions[start:]
            start = max(0, start - len(positions))
            row = 0
            for batch in images.batches(file, columns, rows=BATCH_ROWS) if len(wanted) else ():
                here = wanted[(wanted >= row) & (wanted < row + batch.num_rows)] - row
                row += batch.num_rows
                if len(here):
                    yield from batch.take(pa.array(here)).to_pylist()


@dataclass(frozen=True)
class _Inference:
    """Photos for the model, of one or more parts of the images.

    What it finishes is kept in shards that are cut by time; a run that was interrupted finds them
    by the positions in their names, and goes on after the last.
    """

    parts: tuple[File, ...]

    def run(self, rows: pa.Table, eyes: _Eyes) -> Done:
        """Computes the features of the contents that `rows` of `_changed` name."""
        contents = _Contents.of(self.parts, rows)
        total, address = contents.total, contents.address(eyes.question)
        found = _shards(eyes.folder, address)
        files: list[File] = []
        unreadable: list[Unreadable] = []
        position = inferences = 0
        while position < total:
            origin = found.get(position)
            finished = origin and finished_part(eyes.folder, origin)
            if not (origin and finished):
                shard = _see(contents, position, eyes)
                origin = Origin(address, position, position + shard.rows)
                table = shard.table()
                finished = write_part(eyes.folder, origin, table, incompressible=PLAIN), table
                inferences += shard.rows
            file, table = finished
            files.append(file)
            unreadable += json.loads((table.schema.metadata or {})[UNREADABLE.encode()])
            position = origin.stop
        kept = [vars(file) for file in files if file.rows]
        return Done(total, {"files": kept, "unreadable": unreadable, "inferences": inferences})


def _see(contents: _Contents, start: int, eyes: _Eyes) -> _Shard:
    """Runs the model on photo after photo, until it is time to keep what there is."""
    shard, until = _Shard(), time.monotonic() + eyes.shard_seconds
    extract, see = eyes.extractor(), eyes.pixels()
    for row in contents.photos(eyes.images, start):
        same = contents.all_with(tuple(row[name] for name in IDENTITY))
        try:
            vector = extract(see(row["content"], orientation=row["orientation"]))
        except RejectedImage as error:
            shard.unreadable += [
                [path, sha256, error.detail, split] for path, split, _, sha256 in same
            ]
        else:
            shard.identities += same
            shard.vectors += [vector] * len(same)
        shard.rows += 1
        if time.monotonic() > until:
            break
    return shard


def _shards(folder: Folder, address: str) -> dict[int, Origin]:
    """Position of the first photo -> origin of the shard, of one task's finished shards."""
    found = (Origin.of(name) for name in folder.sizes(prefix=f"part-{address}-"))
    return {one.start: one for one in found if one}
