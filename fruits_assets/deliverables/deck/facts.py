"""Everything that the deck shows of a run: read from the lake, measured, or planned."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa

from fruits_assets.core.errors import DatasetError
from fruits_assets.core.mobilenet import MODEL
from fruits_assets.core.pca import PcaModel
from fruits_assets.deliverables.deck.benchmark import Benchmark
from fruits_assets.deliverables.photos import Counts, class_counts, thumbnails
from fruits_assets.sample.drawing import CLASSES as DRAWN
from fruits_assets.spark.prices import Prices
from fruits_assets.spark.sizing import Limits, Plan, Work, plan
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.pca import MAP
from fruits_assets.transforms.pca import MODEL as PCA_MODEL

Origin = Literal["drawn", "fruits_360", "own"]
PLAN_REGION = "eu-west-3"
"""Region that clusters are planned for where the lake lies in none."""
PLANNED = (100_000, 1_000_000)
"""Photos, beside those at hand."""
FRUITS_360_NAME = re.compile(r"(r\d*_)?\d+_100\.jpg")
"""Frames of a film of one turning fruit (Mureșan & Oltean)."""
WHITE = 240
"""From here on, of 255, a pixel of the border counts as white."""
SPLITS = ("Training", "Validation", "Test", None)
LIBRARIES = ("dagster", "pyspark", "tensorflow", "ai-edge-litert", "python-pptx")


@dataclass(frozen=True)
class Pipeline:
    """The snapshots that a deck is about, all made from one another."""

    raw: Snapshot
    rejected: Snapshot
    weights: Snapshot
    features: Snapshot
    pca_model: Snapshot
    pca_features: Snapshot

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(vars(self).values())

    def check(self) -> None:
        """Raises DatasetError where one was made from another version than the one that is shown.

        Only the PCA may be older than the features: it stays until they have moved.
        """
        for made, source in (
            (self.features, self.raw),
            (self.features, self.weights),
            (self.pca_features, self.features),
            (self.pca_features, self.pca_model),
        ):
            found = made.commit.inputs.get(source.name)
            if found != source.version:
                raise DatasetError(
                    f"{made.name} was made from version {found} of {source.name}, but version "
                    f"{source.version} is current: the deck would mix figures of both. "
                    f"Materialise {made.name} again first (make run)."
                )


@dataclass(frozen=True)
class Place:
    """Where the lake lies.

    Attributes:
        in_bucket: whether it is a bucket, rather than a folder.
        region: of the bucket.
    """

    in_bucket: bool
    region: str | None

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """Where the lake lies that holds a snapshot."""
        region = snapshot.folder.storage.described().get("region")
        return cls(region is not None, region)


@dataclass(frozen=True)
class Rejected:
    """Files that are no usable photos: how many by reason, and the paths of a few."""

    total: int
    reasons: Mapping[str, int]
    examples: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Recognition:
    """Nearest neighbours: of so many Test photos, the shares that were recognised."""

    test: int
    training: int
    components: float
    features: float
    version: str
    name: str = "recognition"

    @classmethod
    def of(cls, snapshot: Snapshot | None, made_from: Sequence[Snapshot]) -> Self | None:
        """None where nothing was compared, or not on these very snapshots."""
        if snapshot is None:
            return None
        if dict(snapshot.commit.inputs) != {one.name: one.version for one in made_from}:
            return None
        found = snapshot.figures
        if not (found["test"] and found["training"]):
            return None
        accuracies = found["accuracy_components"], found["accuracy_features"]
        return cls(found["test"], found["training"], *accuracies, snapshot.version)


@dataclass
class _Photos:
    """What is known of all photos: counts, which take the same room however many there are.

    Attributes:
        bytes: of the files as found, in all.
        widths: pixels -> photos of that width.
        heights: pixels -> photos of that height.
        of_fruits_360: photos that are named as those of Fruits-360 are.
    """

    bytes: int = 0
    widths: Counter[int] = field(default_factory=Counter)
    heights: Counter[int] = field(default_factory=Counter)
    of_fruits_360: int = 0

    def add(self, part: pa.Table) -> None:
        """Counts the photos of a part: `path`, `width`, `height`, `bytes`."""
        self.bytes += int(part["bytes"].to_numpy().sum())
        self.widths.update(part["width"].to_pylist())
        self.heights.update(part["height"].to_pylist())
        names = (path.rpartition("/")[2] for path in part["path"].to_pylist())
        self.of_fruits_360 += sum(bool(FRUITS_360_NAME.fullmatch(name)) for name in names)


def _median(counts: Mapping[int, int]) -> int:
    """The lower median of numbers that are counted."""
    numbers = sorted(counts)
    below = np.cumsum([counts[number] for number in numbers])
    return numbers[int(np.searchsorted(below, (below[-1] + 1) // 2))]


@dataclass(frozen=True)
class Facts:
    """The facts that slides are made of.

    Attributes:
        pipeline: the snapshots.
        recognition: None where it was not measured.
        benchmark: None where it was not run.
        bill_eur: what clusters cost that made these snapshots, as far as Dagster knows.
    """

    pipeline: Pipeline
    recognition: Recognition | None
    benchmark: Benchmark | None
    bill_eur: float | None

    @cached_property
    def place(self) -> Place:
        """Where the lake lies."""
        return Place.of(self.pipeline.raw)

    @property
    def images(self) -> int:
        """Usable photos."""
        return self.pipeline.raw.figures["images"]

    @property
    def files_found(self) -> int:
        """In the source."""
        return self.pipeline.raw.figures["files_found"]

    @cached_property
    def counts(self) -> Counts:
        """Photos by label and split."""
        return class_counts(self.pipeline.raw)

    @property
    def classes(self) -> int:
        """Labels there are."""
        return len(self.counts.keys() - {None})

    @property
    def unlabelled(self) -> int:
        """Photos without a label."""
        return sum(self.counts.get(None, {}).values())

    @cached_property
    def splits(self) -> dict[str | None, int]:
        """Photos by split, in the order of `SPLITS`."""
        found: Counter[str | None] = Counter()
        for splits in self.counts.values():
            found.update(splits)
        return {split: found[split] for split in SPLITS if split in found}

    @cached_property
    def rejected(self) -> Rejected:
        """Files that are no usable photos."""
        found = self.pipeline.rejected.figures
        rows = self.pipeline.rejected.head(["path", "reason"], 3).to_pylist()
        reasons = dict(sorted(found["reasons"].items(), key=lambda one: (-one[1], one[0])))
        return Rejected(found["rejected"], reasons, [(one["path"], one["reason"]) for one in rows])

    @cached_property
    def _photos(self) -> _Photos:
        found = _Photos()
        for _, part in self.pipeline.raw.pieces(["path", "width", "height", "bytes"]):
            found.add(part)
        return found

    @cached_property
    def megabytes(self) -> float:
        """Size of all usable photos, as found."""
        return self._photos.bytes / 1e6

    @cached_property
    def size(self) -> tuple[int, int, bool]:
        """Median width and height in pixels, and whether all photos have that very size."""
        widths, heights = self._photos.widths, self._photos.heights
        return _median(widths), _median(heights), len(widths) == len(heights) == 1

    @cached_property
    def duplicates(self) -> int:
        """Contents that are in more than one split."""
        splits: list[str] = []
        found: list[np.ndarray] = [np.empty((0, 2), np.int64)]
        for _, part in self.pipeline.raw.pieces(["sha256", "split"]):
            rows = [row for row in part.to_pylist() if row["split"]]
            splits += sorted({row["split"] for row in rows}.difference(splits))
            pairs = [(hash(row["sha256"]), splits.index(row["split"])) for row in rows]
            found.append(np.array(pairs, np.int64).reshape(-1, 2))
        # 16 bytes of each photo: 64 bits tell contents apart.
        contents = np.unique(np.concatenate(found), axis=0)[:, 0]
        return int(np.count_nonzero(np.unique_counts(contents).counts > 1))

    @cached_property
    def origin(self) -> Origin:
        """Where the photos come from, as their labels and names tell."""
        if self.counts.keys() == set(DRAWN):
            return "drawn"
        return "fruits_360" if self._photos.of_fruits_360 > 0.9 * self.images else "own"

    @cached_property
    def thumbnails(self) -> list[tuple[np.ndarray, str | None]]:
        """(h, w, 3) uint8 and label of a sample of the photos, of as many classes as may be."""
        found = thumbnails(self.pipeline.raw)
        seen: Counter[str | None] = Counter()
        rounds = []
        for _, label in found:
            rounds.append(seen[label])
            seen[label] += 1
        order = sorted(range(len(found)), key=lambda index: (rounds[index], index))
        return [found[index] for index in order]

    @cached_property
    def on_white(self) -> float:
        """Share of the thumbnails whose border is white."""
        white = [
            np.mean(np.concatenate([one[0], one[-1], one[:, 0], one[:, -1]]) >= WHITE) > 0.9
            for one, _ in self.thumbnails
        ]
        return sum(white) / max(1, len(white))

    @property
    def model(self) -> Mapping[str, Any]:
        """Description of the network."""
        return self.pipeline.weights.figures

    @cached_property
    def model_bytes(self) -> int:
        """Size of the model that is broadcast."""
        return len(self.pipeline.weights.read(MODEL))

    @property
    def inference(self) -> Mapping[str, Any]:
        """Figures of the features."""
        return self.pipeline.features.figures

    @property
    def pca(self) -> Mapping[str, Any]:
        """Figures of the principal components."""
        return self.pipeline.pca_model.figures

    @cached_property
    def components(self) -> PcaModel:
        """The PCA itself."""
        return PcaModel.from_npz(self.pipeline.pca_model.read(PCA_MODEL))

    @cached_property
    def points(self) -> tuple[np.ndarray, list[str | None]]:
        """(n, 2) first components of a sample of the photos, and their labels."""
        points = self.pipeline.pca_features.siblings[MAP]
        table = points.arrow(["pc_1", "pc_2", "label"]).to_pydict()
        return np.column_stack([table["pc_1"], table["pc_2"]]), table["label"]

    @cached_property
    def plans(self) -> tuple[Plan, ...]:
        """Clusters for the photos at hand and for many more such photos, the fewest first."""
        region, prices, limits = self.place.region or PLAN_REGION, Prices.load(), Limits()
        sizes = sorted({self.images, *(one for one in PLANNED if one > self.images)})
        each = self.megabytes / self.images
        works = [Work(images, images * each) for images in sizes]
        # The region with the fewest machines has none of some Graviton, but all have some.
        return tuple(plan(work, limits, prices, region, "arm64") for work in works)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the figures that there are not."""
        there = {
            "recognition": self.recognition,
            "benchmark": self.benchmark,
            "bill": self.bill_eur,
        }
        return tuple(name for name, value in there.items() if value is None)

    def shown(self) -> dict[str, Any]:
        """The headline figures of the deck, JSON values; None where one is missing."""
        recognition, benchmark = self.recognition, self.benchmark
        return {
            "images": self.images,
            "classes": self.classes,
            "files_found": self.files_found,
            "rejected": self.rejected.total,
            "reasons": dict(self.rejected.reasons),
            "features_per_image": self.inference["features_per_image"],
            "inferences": self.inference["inferences"],
            "images_per_second": self.inference["images_per_second"],
            "model_bytes": self.model_bytes,
            "components": self.pca["components"],
            "explained_variance": self.pca["explained_variance"],
            "accuracy_components": recognition and recognition.components,
            "accuracy_features": recognition and recognition.features,
            "benchmark_photos": benchmark and benchmark.size,
            "times_the_notebook": benchmark and round(benchmark.times, 3),
            "planned_eur": {str(one.work.images): round(one.expected_eur, 4) for one in self.plans},
            "bill_eur": self.bill_eur,
        }


def libraries() -> dict[str, str]:
    """Versions of what the pipeline stands on."""
    return {name: version(name) for name in LIBRARIES}


def price_table() -> str:
    """All that plans are computed from, to tell when it changes."""
    from fruits_assets.spark import prices, work  # noqa: PLC0415 - their tables

    texts = [json.loads(path.read_text()) for path in (prices.TABLE, work.RATES)]
    return json.dumps(texts, sort_keys=True)
