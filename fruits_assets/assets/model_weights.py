"""`model_weights`: the network that computes the features, ready to be broadcast."""

import io
from collections.abc import Mapping

import dagster as dg
import numpy as np
from pydantic import Field

from fruits_assets.assets.common import FRESHNESS, GROUP, OWNERS, ForceConfig, materialized
from fruits_assets.assets.places import WeightsOrigin
from fruits_assets.core import weights as core
from fruits_assets.core.dataset import Dataset, Output, write_file
from fruits_assets.core.mobilenet import DESCRIPTION, MODEL, PROBE
from fruits_assets.core.weights import Weights
from fruits_assets.lake.lake import Recipe
from fruits_assets.lake.resource import LakeResource, told
from fruits_assets.sample.drawing import CLASSES, draw_fruit

CODE_VERSION = "1"


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
) -> dg.MaterializeResult[Dataset]:
    """MobileNetV2 without its top, as LiteRT.

    Converted once, in float32: graph and weights are one file that Spark broadcasts, and workers
    need no TensorFlow.
    """
    with told():
        weights.connect(weights.place)
        chosen = Weights.of(weights.place, alpha=config.alpha, image_size=config.image_size)
        recipe = Recipe.of(
            "convert",
            CODE_VERSION,
            [chosen],
            params={"alpha": chosen.alpha, "image_size": chosen.image_size},
            salt=context.run.run_id if config.force else "",
        )

    def make(folders: Mapping[str, str]) -> dict[str, Output]:
        return {"model_weights": _convert(chosen, folders["model_weights"])}

    (dataset,) = lake.produce(context, recipe, ["model_weights"], make)
    return materialized(context, dataset, lambda: dataset.manifest.figures)


def _convert(weights: Weights, folder: str) -> Output:
    probe = probe_photos(weights.image_size)
    model = core.convert(weights, probe)
    evidence = io.BytesIO()
    np.savez_compressed(evidence, photos=probe, features=model.expected)
    files = (
        write_file(folder, MODEL, model.tflite),
        write_file(folder, DESCRIPTION, model.description.to_json()),
        write_file(folder, PROBE, evidence.getvalue()),
    )
    return Output(files, vars(model.description))


def probe_photos(size: int) -> np.ndarray:
    """(n, size, size, 3) uint8: drawn fruits on which LiteRT and Keras must agree."""
    rng = np.random.default_rng(0)
    return np.stack([draw_fruit(label, rng, size=size) for label in CLASSES[:8]])
