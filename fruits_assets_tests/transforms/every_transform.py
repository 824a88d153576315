"""Runs every transform, as a cluster does: without Dagster and TensorFlow.

    python -m fruits_assets_tests.transforms.every_transform LAKE PHOTOS

The lake must hold a model. Prints, as JSON, Spark's version, the kind of error that a damaged file
gives, and the URIs of what was written, by transform and asset.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from fruits_assets.core.dataset import Dataset
from fruits_assets.core.errors import FruitsError
from fruits_assets.core.source import Listing, photos_at
from fruits_assets.lake.lake import Lake, Recipe
from fruits_assets.transforms.erase import erase_features, erase_images
from fruits_assets.transforms.featurize import featurize
from fruits_assets.transforms.gallery import draw_gallery
from fruits_assets.transforms.ingest import ingest
from fruits_assets.transforms.measures import inspect_features, recognize
from fruits_assets.transforms.pca import apply_pca, fit_pca, measure_drift
from fruits_assets.transforms.transform import Transform

LIMITS = {"max_pixels": 10**8, "max_bytes": 10**8}
PCA = {"n_components": 0.95, "standardize": False, "fit_split": "auto"}
EVERY = (
    ingest,
    featurize,
    fit_pca,
    apply_pca,
    inspect_features,
    measure_drift,
    recognize,
    draw_gallery,
    erase_images,
    erase_features,
)


def run(spark: SparkSession, lake: Lake, photos: str) -> dict[str, Dataset]:
    """Every transform of `EVERY` on a folder of photos; the erasure is of the first photo."""
    listing = photos_at(photos).list(recursive=True)
    made: dict[str, Dataset] = {"model": lake.current("model_weights")}

    def make(
        transform: Transform, params: Mapping[str, Any] | None = None, **inputs: Dataset | Listing
    ) -> None:
        recipe = Recipe.of(transform.name, transform.code_version, inputs.values(), params=params)
        folders = {asset: lake.folder(asset, recipe.version) for asset in transform.outputs}
        first = folders[transform.outputs[0]]
        uris = {name: value.stage(first) for name, value in inputs.items()}
        outputs = transform.function(spark, log=lambda _: None, **uris, **folders, **recipe.params)
        for asset, output in outputs.items():
            draft = lake.draft(asset, recipe, output, run="test", seconds=0.0)
            lake.publish(draft)
            made[f"{transform.name}: {asset}"] = Dataset.open(draft.uri)

    make(ingest, LIMITS, source=listing)
    images, rejected = made["ingest: raw_images"], made["ingest: rejected_images"]
    make(featurize, {"reduced_decoding": False}, images=images, model=made.pop("model"))
    features = made["featurize: features"]
    make(fit_pca, PCA, features=features)
    model = made["fit_pca: pca_model"]
    make(apply_pca, {"csv": True}, features=features, model=model)
    make(measure_drift, features=features, model=model, fitted=features)
    make(inspect_features, features=features)
    make(recognize, features=features, pca_features=made["apply_pca: pca_features"])
    projected = made["apply_pca: pca_features"]
    make(draw_gallery, {"max_photos": 10}, images=images, pca_features=projected, model=model)
    rest = Listing(listing.root, listing.files.slice(1), listing.hidden)
    make(erase_images, source=rest, images=images, rejected=rejected)
    make(erase_features, images=made["erase_images: raw_images"], old=features)
    return made


def error_of_a_worker(spark: SparkSession, features: Dataset) -> str:
    """The kind of error that a damaged part gives, which only workers read."""
    with tempfile.TemporaryDirectory() as folder:
        damaged = Path(shutil.copytree(features.uri, Path(folder, "damaged")))
        part = damaged / features.parts[0].name
        part.write_bytes(bytes(part.stat().st_size))
        try:
            inspect_features.function(
                spark, features=str(damaged), features_inspection="", log=lambda _: None
            )
        except FruitsError as error:
            return type(error).__name__
    return "none"


def main(base: str, photos: str) -> None:
    """Runs on two cores, as the session of the tests does."""
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "8")
        .getOrCreate()
    )
    made = run(spark, Lake.at(base), photos)
    found = {
        "spark": spark.version,
        "error": error_of_a_worker(spark, made["featurize: features"]),
        "made": {name: dataset.uri for name, dataset in made.items()},
    }
    print(json.dumps(found))  # noqa: T201 - what it is run for
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
