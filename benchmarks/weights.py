"""Weights of the full-size network: how fast it runs does not depend on what it learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def random_weights(work: Path) -> Path:
    """A Keras weights file of MobileNetV2 (alpha 1.0, 224 pixels), drawn once into a folder."""
    path = work / "random.weights.h5"
    if not path.exists():
        import keras  # noqa: PLC0415 - seconds that other runs need not spend

        keras.utils.set_random_seed(0)
        nothing: Any = None  # Keras leaves out that None is a choice
        keras.applications.MobileNetV2(
            include_top=False, pooling="avg", weights=nothing, input_shape=(224, 224, 3)
        ).save_weights(path)
    return path
