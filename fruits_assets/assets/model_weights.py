"""`model_weights`: the network that computes the features, ready to be broadcast."""

import io
from collections.abc import Mapping

import dagster as dg
import numpy as np
from pydantic import Field

from fruits_assets.assets.common import FRESHNESS, GROUP, OWNERS, ForceConfig, materialized
from fruits_assets.assets.places import WeightsOrigin
from fruits_assets.core import weights as core
from fruits_assets.core.mobilenet import DESCRIPTION, MODEL, PROBE
from fruits_assets.core.weights import Weights
from fruits_assets.lake.recipe import Recipe
from fruits_assets.lake.resource import LakeResource, told
from fruits_assets.sample.drawing import CLASSES, draw_fruit
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import FILES_SCHEMA, write_files
from fruits_assets.storage.snapshot import Output, Snapshot

CODE_VERSION = "2"


class WeightsConfig(ForceConfig):
    """The shape of the network; by default the one that the weights were trained with."""

    alpha: float | None = Field(
        default=None,
        description="Width multiplier: 0.35, 0.5, 0.75, 1.0, 1.3 or 1.4. By default 1.0, and 0.35 "
        "for the embedded `sample` weights.",
    )
    image_size: int | None = Field(
        default=None,
        description="Height and width that photos are resized to, in pixels: 96, 128, 160, 192 or "
        "224. By default 224, and 96 for the embedded `sample` weights.",
    )


@dg.asset(
    group_name=GROUP,
    kinds={"tensorflow", "litert"},
    owners=OWNERS,
    code_version=CODE_VERSION,
    freshness_policy=FRESHNESS,
)
def model_weights(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    weights: WeightsOrigin,
    config: WeightsConfig,
) -> dg.MaterializeResult[Snapshot]:
    """MobileNetV2 without its top, as LiteRT.

    Converted once, in float32: graph and weights are one file that Spark broadcasts, and workers
    need no TensorFlow.
    """
    with told():
        bucket = weights.bucket()
        chosen = Weights.of(
            weights.place, alpha=config.alpha, image_size=config.image_size, bucket=bucket
        )
        recipe = Recipe.of(
            "convert",
            CODE_VERSION,
            [chosen],
            params={"alpha": chosen.alpha, "image_size": chosen.image_size},
            salt=context.run.run_id if config.force else "",
        )

    def make(folders: Mapping[str, Folder]) -> dict[str, Output]:
        output = _convert(chosen, folders["model_weights"], recipe.question())
        return {"model_weights": output}

    model = lake.produce(context, recipe, {"model_weights": FILES_SCHEMA}, make)
    return materialized(context, model, lambda: model.figures)


def _convert(weights: Weights, folder: Folder, question: str) -> Output:
    probe = probe_photos(weights.image_size)
    model = core.convert(weights, probe)
    evidence = io.BytesIO()
    np.savez_compressed(evidence, photos=probe, features=model.expected)
    contents = {
        MODEL: model.tflite,
        DESCRIPTION: model.description.to_json(),
        PROBE: evidence.getvalue(),
    }
    return Output((write_files(folder, question, contents),), vars(model.description))


def probe_photos(size: int) -> np.ndarray:
    """(n, size, size, 3) uint8: drawn fruits on which LiteRT and Keras must agree."""
    rng = np.random.default_rng(0)
    return np.stack([draw_fruit(label, rng, size=size) for label in CLASSES[:8]])
