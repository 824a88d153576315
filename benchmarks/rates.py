"""`python -m benchmarks.rates`: CPU time of each stage, per image and per megabyte of photos.

These are the figures that `fruits_assets/spark/rates.json` holds, and that the size of a cluster
is computed from. Every stage runs on one core, with as few and as many photos, of 100 x 100 pixels
and of 12 megapixels: two slopes, in which the fixed costs of a stage cancel, give the two rates.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pyspark.sql import SparkSession

from benchmarks import photos, tables
from benchmarks.core_seconds import CoreSeconds
from benchmarks.weights import random_weights
from fruits_assets.core.mobilenet import DESCRIPTION, MODEL
from fruits_assets.core.weights import Weights, convert
from fruits_assets.lake.resource import LakeResource
from fruits_assets.sample.drawing import write_sample
from fruits_assets.sources.listing import Listing
from fruits_assets.sources.places import photos_at
from fruits_assets.spark.local import LocalSpark
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import FILES_SCHEMA, write_files
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.featurize import featurize
from fruits_assets.transforms.ingest import ingest
from fruits_assets.transforms.measures import inspect_features, recognize
from fruits_assets.transforms.oddities import inspect_images
from fruits_assets.transforms.pca import apply_pca, fit_pca
from fruits_assets.transforms.transform import Transform

SMALL, LARGE = (256, 2560), (16, 48)
"""How many photos, few and many, of 100 x 100 pixels and of 12 megapixels."""
PHOTOS_PER_CLASS = (6, 2)
MAX_PIXELS = MAX_BYTES = 100_000_000
"""Of ingest, as by default."""
PCA = {"n_components": 0.95, "standardize": False, "fit_split": "all"}
ON_CORES = ("worker", "jvm")
"""What works on the cores of a cluster; the driver has the primary node to itself."""
Seconds = Mapping[str, float]
"""Stage -> CPU time."""


def main() -> None:
    """Measures, and prints the rates as `rates.json` holds them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rates", description=__doc__)
    parser.add_argument("--small", type=int, nargs=2, default=SMALL, metavar=("FEW", "MANY"))
    parser.add_argument("--large", type=int, nargs=2, default=LARGE, metavar=("FEW", "MANY"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fruits-rates-") as work:
        stages = Stages.started(Path(work))
        small = stages.slope(stages.small, *options.small)
        large = stages.slope(stages.large, *options.large)
    print(f"{'CPU time per image, ms':<24} {small.megabytes:>9.4f} MB {large.megabytes:>8.2f} MB")
    for stage, seconds in small.seconds.items():
        print(f"{stage:<24} {seconds * 1000:>12.3f} {large.seconds[stage] * 1000:>11.2f}")
    print(json.dumps(rates(small, large), indent=2))


@dataclass(frozen=True)
class Slope:
    """What one more photo costs.

    Attributes:
        megabytes: of a photo (10^6 bytes).
        seconds: stage -> CPU time.
    """

    megabytes: float
    seconds: Seconds


def rates(small: Slope, large: Slope) -> dict[str, dict[str, float]]:
    """Stage -> seconds per image and per megabyte: the plane through two kinds of photos.

    Only decoding depends on the bytes; of the other stages, and where noise would make a rate
    negative, the whole is per image.
    """
    found: dict[str, dict[str, float]] = {}
    for stage, seconds in small.seconds.items():
        steepness = (large.seconds[stage] - seconds) / (large.megabytes - small.megabytes)
        per_megabyte = max(0.0, steepness) if stage in ("ingest", "featurize") else 0.0
        per_image = seconds - per_megabyte * small.megabytes
        found[stage] = {
            "seconds_per_image": round(max(0.0, per_image), 6),
            "seconds_per_megabyte": round(per_megabyte, 5),
        }
    return found


class Stages:
    """The stages of the pipeline on one core, without Dagster."""

    def __init__(self, work: Path, spark: SparkSession, model: Snapshot) -> None:
        self._work, self._spark, self._model = work, spark, model

    @classmethod
    def started(cls, work: Path) -> Stages:
        """With a session and the full-size model in a folder for everything that is written."""
        write_sample(work / "drawn", photos_per_class=PHOTOS_PER_CLASS)
        weights = Weights.of(str(random_weights(work)), alpha=1.0, image_size=224)
        # Imported late: it imports TensorFlow's world, and the drawing does not.
        from fruits_assets.assets.model_weights import probe_photos  # noqa: PLC0415

        model = convert(weights, probe_photos(weights.image_size))
        folder = folder_at(str(work / "model"))
        contents = {MODEL: model.tflite, DESCRIPTION: model.description.to_json()}
        files = (write_files(folder, "0" * 16, contents),)
        weights_table = Snapshot.unpublished(folder, "model_weights", FILES_SCHEMA, files)
        target = LocalSpark(lake=LakeResource(base=str(work / "lake")), master="local[1]")
        return cls(work, target.session(), weights_table)

    def small(self, count: int) -> Path:
        """Photos of 100 x 100 pixels."""
        return photos.multiplied(self._work / "drawn", self._work / f"small-{count}", count=count)

    def large(self, count: int) -> Path:
        """Photos of 12 megapixels."""
        few = self._work / "few"
        if not few.exists():
            photos.multiplied(self._work / "drawn", few, count=8)
        return photos.large(few, self._work / f"large-{count}", count=count)

    def slope(self, photos_of: Callable[[int], Path], few: int, many: int) -> Slope:
        """What a photo costs, between few and many; a first round warms everything up."""
        self.seconds(photos_of(few))
        first, second = self.seconds(photos_of(few)), self.seconds(photos_of(many))
        sizes = [path.stat().st_size for path in photos_of(many).rglob("*.jpg")]
        return Slope(
            sum(sizes) / len(sizes) / 1e6,
            {stage: (second[stage] - first[stage]) / (many - few) for stage in first},
        )

    def seconds(self, source: Path) -> Seconds:
        """CPU time of every stage over all photos of a folder."""
        store = photos_at(folder_at(str(source)))
        limits = {"max_pixels": MAX_PIXELS, "max_bytes": MAX_BYTES, "photos": store.folder}
        with tempfile.TemporaryDirectory(dir=self._work) as scratch:
            run = partial(self._run, folder_at(scratch))
            spent: dict[str, float] = {}
            listing = store.list(recursive=True)
            spent["ingest"], images = run(ingest, limits, source=listing)
            decoding = {"reduced_decoding": False}
            spent["featurize"], features = run(
                featurize, decoding, images=images, model=self._model
            )
            spent["fit_pca"], model = run(fit_pca, PCA, features=features)
            spent["apply_pca"], projected = run(apply_pca, {}, features=features, model=model)
            compared, _ = run(inspect_images, {}, images=images)
            inspected, _ = run(inspect_features, {}, features=features, images=images)
            recognized, _ = run(recognize, {}, features=features, pca_features=projected)
            return {**spent, "measures": compared + inspected + recognized}

    def _run(
        self,
        folder: Folder,
        transform: Transform,
        params: Mapping[str, Any],
        **inputs: Snapshot | Listing,
    ) -> tuple[float, Snapshot]:
        """CPU time, and what was written."""
        with CoreSeconds(os.getpid(), MappingProxyType({})) as cpu:
            made = tables.run(self._spark, transform, folder, params=params, **inputs)
        return sum(cpu.spent.get(kind, 0.0) for kind in ON_CORES), made


if __name__ == "__main__":
    main()
