"""Runs every transform, as a cluster does: without Dagster, TensorFlow and Delta.

    python -m fruits_assets_tests.transforms.every_transform MODEL FOLDER PHOTOS

MODEL is a JSON file with a version of `model_weights`, as `Snapshot.to_dict` describes it; the
tables are written below FOLDER. Prints, as JSON, Spark's version, the kind of error that a damaged
file gives, and what was written, by transform and table.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from benchmarks import tables
from fruits_assets.core.errors import FruitsError
from fruits_assets.sources.listing import Listing
from fruits_assets.sources.places import photos_at
from fruits_assets.storage.base import Folder
from fruits_assets.storage.places import folder_at, folder_from
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.featurize import featurize
from fruits_assets.transforms.gallery import draw_gallery
from fruits_assets.transforms.ingest import ingest
from fruits_assets.transforms.measures import inspect_features, recognize
from fruits_assets.transforms.oddities import inspect_images
from fruits_assets.transforms.pca import apply_pca, fit_pca, measure_drift, refit_pca
from fruits_assets.transforms.transform import Transform

LIMITS = {"max_pixels": 10**8, "max_bytes": 10**8}
DECODING = {"reduced_decoding": False}
PCA = {"n_components": 0.95, "standardize": False, "fit_split": "auto"}
EVERY = (
    ingest,
    featurize,
    fit_pca,
    refit_pca,
    apply_pca,
    inspect_images,
    inspect_features,
    measure_drift,
    recognize,
    draw_gallery,
)


def run(spark: SparkSession, folder: Folder, photos: str, model: Snapshot) -> dict[str, Snapshot]:
    """Every transform of `EVERY` on a folder of photos, and then again without the first photo.

    Returns:
        `<turn> <transform>: <table>` -> what was written.
    """
    made: dict[str, Snapshot] = {}

    def make(
        turn: str, transform: Transform, params: Mapping[str, Any], **inputs: Snapshot | Listing
    ) -> Snapshot:
        lead = tables.run(spark, transform, folder, params=params, **inputs)
        for one in (lead, *lead.siblings.values()):
            made[f"{turn} {transform.name}: {one.name}"] = one
        return lead

    store = photos_at(folder_at(photos))
    listing = store.list(recursive=True)
    limits = {**LIMITS, "photos": store.folder}
    images = make("first", ingest, limits, source=listing)
    features = make("first", featurize, DECODING, images=images, model=model)
    fitted = make("first", fit_pca, PCA, features=features)
    projected = make("first", apply_pca, {}, features=features, model=fitted)
    make("first", inspect_images, {}, images=images)
    inspected = make("first", inspect_features, {}, features=features, images=images)
    measured = make("first", recognize, {}, features=features, pca_features=projected)
    shown = {"images": images, "pca_features": projected, "model": fitted}
    make("first", draw_gallery, {"max_photos": 10}, **shown)

    rest = Listing(listing.root, listing.files.slice(1), listing.hidden)
    fewer = make("again", ingest, {**limits, "earlier": images}, source=rest)
    known = {**DECODING, "earlier": features}
    left = make("again", featurize, known, images=fewer, model=model)
    make("again", measure_drift, {}, features=left, model=fitted, fitted=features)
    make("again", inspect_features, {"earlier": inspected}, features=left, images=images)
    make("again", recognize, {"earlier": measured}, features=left, pca_features=projected)
    make("again", refit_pca, PCA, features=left, model=fitted, fitted=features)
    return made


def error_of_a_worker(spark: SparkSession, features: Snapshot) -> str:
    """The kind of error that a damaged part gives, which only workers read."""
    with tempfile.TemporaryDirectory() as folder:
        damaged = Path(shutil.copytree(features.uri, Path(folder, "damaged")))
        part = damaged / features.files[0].name
        part.write_bytes(bytes(part.stat().st_size))
        try:
            inspect_features.function(
                spark,
                features=replace(features, folder=folder_at(str(damaged))),
                images=features,
                _inspection=folder_at(folder),
                _missing=folder_at(folder),
                question="",
                log=lambda _: None,
            )
        except FruitsError as error:
            return type(error).__name__
    return "none"


def main(model: str, folder: str, photos: str) -> None:
    """Runs on two cores, as the session of the tests does."""
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "8")
        .getOrCreate()
    )
    fields = json.loads(Path(model).read_text())
    weights = Snapshot.from_dict(fields, folder_from(fields["folder"]))
    made = run(spark, folder_at(folder), photos, weights)
    found = {
        "spark": spark.version,
        "error": error_of_a_worker(spark, made["first featurize: features"]),
        "absent": [name for name in ("dagster", "deltalake") if name not in sys.modules],
        "made": {name: snapshot.to_dict() for name, snapshot in made.items()},
    }
    print(json.dumps(found))  # noqa: T201 - what it is run for
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
