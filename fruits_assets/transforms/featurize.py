"""`raw_images` and a model -> `features`."""

from __future__ import annotations

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import methodcaller
from typing import Self

import numpy as np
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import SparkSession

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
from fruits_assets.transforms.increment import Merging, PartSize, Takeover, takeover
from fruits_assets.transforms.spread import Done, Log, Task, broadcast, for_each
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

BATCH_ROWS = 64
"""Photos held as Python objects at a time."""
SHARD_SECONDS = 30.0
"""A worker keeps what it has finished that often: so much is lost with it, at most."""
TASKS_PER_CORE = 8
"""Enough of them to even out the cores' loads."""
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
    source = images.alone()
    description = ModelDescription.from_json(model.read(DESCRIPTION))
    plan = _Plan.of(source, _Earlier.of(earlier))
    cores = spark.sparkContext.defaultParallelism
    if plan.carried:
        log(f"features: {plan.new} contents of {source.rows} images are new")
    with (
        broadcast(spark, model.read(MODEL)) as flatbuffer,
        broadcast(spark, plan.copies) as copies,
    ):
        eyes = _Eyes(
            source,
            features,
            description,
            flatbuffer,
            copies,
            max_seconds,
            SHARD_SECONDS,
            reduced=reduced_decoding,
        )
        tasks: list[Task] = [
            *plan.merges(features),
            *plan.duplicates(features),
            *(_Inference(eyes, *task) for task in plan.tasks(cores * TASKS_PER_CORE, question)),
        ]
        run = methodcaller("run")
        done = for_each(spark, tasks, run, doing="features", total=plan.new, log=log)
    files = (*plan.takeover.kept, *(File(**file) for one in done for file in one["files"]))
    unreadable = [*plan.unreadable, *(row for one in done for row in one.get("unreadable", ()))]
    inferences = sum(one.get("inferences", 0) for one in done)
    seconds = time.monotonic() - started
    figures = {
        "images": source.rows - len(unreadable),
        "inferences": inferences,
        "unreadable": len(unreadable),
        "features_per_image": description.features,
        "images_per_second": round(inferences / seconds, 1),
        "splits": plan.splits(unreadable),
    }
    return {
        "features": Output(files, figures),
        UNREADABLE: Output(write_unreadable(unreadable_photos, unreadable)),
    }


def write_unreadable(folder: Folder, rows: Sequence[Sequence[str]]) -> tuple[File, ...]:
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
class Copies:
    """Images whose content another image, the first by path, has too.

    Attributes:
        of_first: path of the first -> the identities of its copies.
    """

    of_first: Mapping[str, Sequence[Identity]]

    def of(self, identity: Identity) -> list[Identity]:
        """All images with the content of the first of them."""
        return [identity, *self.of_first.get(identity[0], ())]


@dataclass(frozen=True)
class _Earlier:
    """What an earlier version of the features has.

    Attributes:
        dataset: the version, or what is whole of it; None where there is none.
        rows: `path`, `sha256` and `part` of all its features.
        unreadable: rows of `UNREADABLE_SCHEMA`.
    """

    dataset: Snapshot | None
    rows: pa.Table
    unreadable: list[list[str]]

    @classmethod
    def of(cls, earlier: Snapshot | None) -> Self:
        if earlier is None:
            return cls(None, pa.table({name: [] for name in ("path", "sha256", "part")}), [])
        try:
            unreadable = read_unreadable(earlier)
        except DatasetError:  # it is damaged: these photos are tried again
            unreadable = []
        earlier = earlier.alone()
        return cls(earlier, earlier.arrow_with_parts(["path", "sha256"]), unreadable)


Rows = tuple[str, np.ndarray]
"""A part of the images, and positions (int32) in it of photos to run the model on."""


@dataclass(frozen=True)
class _Plan:
    """What is taken over, what is copied, and what the model must see.

    Attributes:
        images: identity and `part` of all images.
        earlier: what there is already.
        takeover: what becomes of its parts.
        gone: paths of its rows that do not hold any more.
        unreadable: rows of it that still hold.
        known: part of it -> the images that have the content of one of its rows, but not its path.
        first: path of each new content's first image -> the other images with that content.
    """

    images: pa.Table
    earlier: _Earlier
    takeover: Takeover
    gone: frozenset[str]
    unreadable: list[list[str]]
    known: Mapping[str, list[Identity]]
    first: Mapping[str, list[Identity]]

    @classmethod
    def of(cls, source: Snapshot, earlier: _Earlier) -> Self:
        """Compares the images with what an earlier version has seen."""
        images = source.arrow_with_parts(IDENTITY)
        identities = list(zip(*(images[name].to_pylist() for name in IDENTITY), strict=True))
        content = {identity[0]: identity[3] for identity in identities}
        keys = list(zip(*(earlier.rows[name].to_pylist() for name in PATH_KEY), strict=True))
        gone = frozenset(path for path, sha256, _ in keys if content.get(path) != sha256)
        unreadable = [row for row in earlier.unreadable if content.get(row[0]) == row[1]]
        done = {path for path, *_ in keys} - gone | {row[0] for row in unreadable}
        part_of = {sha256: part for _, sha256, part in keys}
        known, by_content = defaultdict(list), defaultdict(list)
        for identity in sorted(one for one in identities if one[0] not in done):
            if part := part_of.get(identity[3]):
                known[part].append(identity)
            else:
                by_content[identity[3]].append(identity)
        first = {same[0][0]: same[1:] for same in by_content.values()}
        taken = Takeover()
        if earlier.dataset:
            taken = takeover(earlier.dataset, earlier.rows, gone, PART)
        return cls(images, earlier, taken, gone, unreadable, known, first)

    @property
    def carried(self) -> bool:
        """Whether anything is taken over."""
        return self.earlier.dataset is not None

    @property
    def new(self) -> int:
        """How many contents the model must see."""
        return len(self.first)

    @property
    def copies(self) -> Copies:
        """Of new contents."""
        return Copies({path: others for path, others in self.first.items() if others})

    def splits(self, unreadable: Collection[Sequence[str]]) -> list[list[str | int | None]]:
        """[split, how many images of it have features], in order."""
        missing = {row[0] for row in unreadable}
        pairs = zip(self.images["path"].to_pylist(), self.images["split"].to_pylist(), strict=True)
        counts = Counter(split for path, split in pairs if path not in missing)
        return [[split, count] for split, count in sorted(counts.items(), key=str)]

    def tasks(self, count: int, question: str) -> Iterator[tuple[str, tuple[Rows, ...]]]:
        """Address and photos of about so many tasks for the model, each of whole parts."""
        positions: dict[str, list[int]] = defaultdict(list)
        copies: dict[str, list[list[Identity]]] = defaultdict(list)
        seen: Counter[str] = Counter()
        pairs = zip(self.images["path"].to_pylist(), self.images["part"].to_pylist(), strict=True)
        for path, part in pairs:
            if path in self.first:
                positions[part].append(seen[part])
                copies[part].append(self.first[path])
            seen[part] += 1
        enough = math.ceil(self.new / count)
        groups: list[list[str]] = []
        for part in positions:
            if not groups or sum(len(positions[one]) for one in groups[-1]) >= enough:
                groups.append([])
            groups[-1].append(part)
        for group in groups:
            address = address_of(question, [(one, positions[one], copies[one]) for one in group])
            yield address, tuple((one, np.array(positions[one], np.int32)) for one in group)

    def merges(self, folder: Folder) -> list[Merging]:
        """Parts of the earlier version that are rewritten."""
        dataset = self.earlier.dataset
        if dataset is None:
            return []
        return [
            Merging("files", dataset, merge, self.gone, folder, PLAIN)
            for merge in self.takeover.merges
        ]

    def duplicates(self, folder: Folder) -> list[_Duplication]:
        """Images whose content has been seen under another path."""
        dataset = self.earlier.dataset
        if dataset is None:
            return []
        part_of = dataset.by_name
        return [
            _Duplication(dataset, part_of[part], tuple(to), folder)
            for part, to in self.known.items()
        ]


PATH_KEY = ("path", "sha256", "part")


@dataclass(frozen=True)
class _Duplication:
    """Images that have the content of a row of an earlier version, and so its features."""

    earlier: Snapshot
    part: File
    to: tuple[Identity, ...]
    folder: Folder

    def run(self) -> Done:
        origin = Origin(address_of(self.part.name, self.to), 0, len(self.to))
        file, _ = part_once(self.folder, origin, self._table, incompressible=PLAIN)
        return Done(0, {"files": [vars(file)]})

    def _table(self) -> pa.Table:
        table = self.earlier.table(self.part)
        row_of = {sha256: row for row, sha256 in enumerate(table["sha256"].to_pylist())}
        rows = table.take(pa.array([row_of[identity[3]] for identity in self.to]))
        vectors = rows["features"].combine_chunks()
        columns = [pa.array(column, pa.string()) for column in zip(*self.to, strict=True)]
        return pa.Table.from_arrays([*columns, vectors], schema=FEATURES_SCHEMA)


@dataclass(frozen=True)
class _Eyes:
    """What sees photos: the same for all tasks."""

    images: Snapshot
    folder: Folder
    description: ModelDescription
    flatbuffer: Broadcast[bytes]
    copies: Broadcast[Copies]
    max_seconds: float
    shard_seconds: float
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
        unreadable: rows of `UNREADABLE_SCHEMA`.
        rows: photos looked at.
    """

    identities: list[Identity] = field(default_factory=list)
    vectors: list[np.ndarray] = field(default_factory=list)
    unreadable: list[list[str]] = field(default_factory=list)
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
class _Inference:
    """Photos for the model, of one or more parts of the images.

    What it finishes is kept in shards that are cut by time; a run that was interrupted finds them
    by the positions in their names, and goes on after the last.
    """

    eyes: _Eyes
    address: str
    parts: tuple[Rows, ...]

    def run(self) -> Done:
        total = sum(len(rows) for _, rows in self.parts)
        folder = self.eyes.folder
        found = _shards(folder, self.address)
        files: list[File] = []
        unreadable: list[list[str]] = []
        position = inferences = 0
        while position < total:
            origin = found.get(position)
            finished = origin and finished_part(folder, origin)
            if not (origin and finished):
                shard = self._see(position)
                origin = Origin(self.address, position, position + shard.rows)
                table = shard.table()
                finished = write_part(folder, origin, table, incompressible=PLAIN), table
                inferences += shard.rows
            file, table = finished
            files.append(file)
            unreadable += json.loads((table.schema.metadata or {})[UNREADABLE.encode()])
            position = origin.stop
        kept = [vars(file) for file in files if file.rows]
        return Done(total, {"files": kept, "unreadable": unreadable, "inferences": inferences})

    def _see(self, start: int) -> _Shard:
        """Runs the model on photo after photo, until it is time to keep what there is."""
        shard, until = _Shard(), time.monotonic() + self.eyes.shard_seconds
        extract, see, copies = self.eyes.extractor(), self.eyes.pixels(), self.eyes.copies.value
        for row in self._photos(start):
            same = copies.of(tuple(row[name] for name in IDENTITY))
            try:
                vector = extract(see(row["content"], orientation=row["orientation"]))
            except RejectedImage as error:
                shard.unreadable += [[path, sha256, error.detail] for path, *_, sha256 in same]
            else:
                shard.identities += same
                shard.vectors += [vector] * len(same)
            shard.rows += 1
            if time.monotonic() > until:
                break
        return shard

    def _photos(self, start: int) -> Iterator[dict]:
        """Rows of the images, from a position in this task on."""
        columns, part_of = [*IDENTITY, "content", "orientation"], self.eyes.images.by_name
        for part, positions in self.parts:
            wanted = positions[start:]
            start = max(0, start - len(positions))
            row = 0
            for batch in self.eyes.images.batches(part_of[part], columns, rows=BATCH_ROWS):
                here = wanted[(wanted >= row) & (wanted < row + batch.num_rows)] - row
                row += batch.num_rows
                if len(here):
                    yield from batch.take(pa.array(here)).to_pylist()


def _shards(folder: Folder, address: str) -> dict[int, Origin]:
    """Position of the first photo -> origin of the shard, of one task's finished shards."""
    found = (Origin.of(name) for name in folder.sizes(prefix=f"part-{address}-"))
    return {one.start: one for one in found if one}
