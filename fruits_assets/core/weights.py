"""Keras weights -> a LiteRT model that workers run without TensorFlow.

Runs on the Dagster host only; TensorFlow is imported when a model is really converted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fruits_assets.core.errors import WeightsError
from fruits_assets.core.mobilenet import FeatureExtractor, ModelDescription, relative_error
from fruits_assets.storage.base import Folder

if TYPE_CHECKING:
    import keras

ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
"""Width multipliers that Keras publishes weights for."""
IMAGE_SIZES = (96, 128, 160, 192, 224)
"""Input sizes that Keras publishes weights for, in pixels."""
MAX_RELATIVE_ERROR = 1e-5
DOWNLOAD_TIMEOUT_SECONDS = 60

SAMPLE = "sample"
SAMPLE_ALPHA = 0.35
SAMPLE_IMAGE_SIZE = 96
IMAGENET = "imagenet"


@dataclass(frozen=True)
class Weights:
    """Which weights for which MobileNetV2.

    Attributes:
        origin: `imagenet`, `sample`, or the path or `s3://` URI of a Keras weights file without the
            top.
        alpha: width multiplier, one of `ALPHAS`.
        image_size: one of `IMAGE_SIZES`.
        bucket: that the file lies in, `uri` being that of the file; None where it is a local one.
    """

    origin: str
    alpha: float
    image_size: int
    bucket: Folder | None = None

    @classmethod
    def of(
        cls,
        origin: str,
        *,
        alpha: float | None = None,
        image_size: int | None = None,
        bucket: Folder | None = None,
    ) -> Weights:
        """Fills in the shape that the weights were trained with.

        Raises:
            WeightsError: MobileNetV2 has no such shape.
        """
        own_alpha, own_size = (SAMPLE_ALPHA, SAMPLE_IMAGE_SIZE) if origin == SAMPLE else (1.0, 224)
        weights = cls(
            origin,
            own_alpha if alpha is None else alpha,
            own_size if image_size is None else image_size,
            bucket,
        )
        if weights.alpha not in ALPHAS or weights.image_size not in IMAGE_SIZES:
            raise WeightsError(
                f"alpha is {weights.alpha:g} and image_size {weights.image_size}; expected one of "
                f"{', '.join(f'{alpha:g}' for alpha in ALPHAS)}, and one of "
                f"{', '.join(map(str, IMAGE_SIZES))}."
            )
        return weights

    @property
    def name(self) -> str:
        """Its name among the inputs of a recipe."""
        return "weights"

    @property
    def version(self) -> str:
        """16 hexadecimal digits; changes when the weights file does."""
        if self.origin == IMAGENET:
            return hashlib.sha256(IMAGENET.encode()).hexdigest()[:16]
        with self.file() as path:
            return hashlib.sha256(path.read_bytes()).hexdigest()[:16]

    @contextlib.contextmanager
    def file(self) -> Iterator[Path]:
        """The weights file, on this machine. Raises WeightsError where there is none."""
        if self.origin == SAMPLE:
            folder = resources.files("fruits_assets.sample")
            yield Path(str(folder / "mobilenet_v2_035_96_sample.weights.h5"))
        elif self.bucket is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, Path(self.origin).name)
                try:
                    path.write_bytes(self.bucket.storage.read(self.bucket.uri))
                except FileNotFoundError:
                    raise self._missing() from None
                yield path
        else:
            path = Path(self.origin).expanduser()
            if not path.is_file():
                raise self._missing()
            yield path

    def _missing(self) -> WeightsError:
        return WeightsError(
            f"the weights {self.origin!r} are not a file. Expected `imagenet`, `sample`, or the "
            "path or s3:// URI of a Keras weights file (.weights.h5) of MobileNetV2 without its "
            "top."
        )


@dataclass(frozen=True)
class ConvertedModel:
    """A converted model and what proves that it is faithful.

    Attributes:
        tflite: the flatbuffer: graph and float32 weights.
        description: its `model.json`.
        expected: (n, features) float32, Keras's features of the probe photos.
    """

    tflite: bytes
    description: ModelDescription
    expected: np.ndarray


def convert(weights: Weights, probe: np.ndarray) -> ConvertedModel:
    """Builds MobileNetV2 in Keras, loads the weights and converts it to LiteRT.

    Args:
        weights: which.
        probe: (n, size, size, 3) uint8 photos, on which both models must agree.

    Raises:
        WeightsError: the weights cannot be had or do not fit, or the features of the two models
            differ by more than `MAX_RELATIVE_ERROR`.
    """
    # Before the first import of TensorFlow, whose start-up notes would fill the run's log.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf  # noqa: PLC0415 - 1.8 GB that only a conversion needs

    model = _load(weights)
    tflite = _to_tflite(model, weights.image_size)
    expected = np.asarray(model(probe.astype(np.float32) / 127.5 - 1.0, training=False))
    extract = FeatureExtractor(tflite)
    error = relative_error(np.stack([extract(photo) for photo in probe]), expected)
    if not error <= MAX_RELATIVE_ERROR:
        raise WeightsError(
            f"the converted model's features differ from Keras's by {error:.1e} (relative L2); at "
            f"most {MAX_RELATIVE_ERROR:.0e} is accepted. The weights may hold NaN or overflow."
        )
    description = ModelDescription(
        architecture="MobileNetV2",
        alpha=weights.alpha,
        image_size=weights.image_size,
        features=extract.features,
        origin=weights.origin,
        fingerprint=_fingerprint(model),
        relative_error=error,
        tensorflow=tf.__version__,
    )
    return ConvertedModel(tflite, description, expected)


def _load(weights: Weights) -> keras.Model:
    import keras  # noqa: PLC0415 - see convert

    def build(origin: Any) -> keras.Model:  # Keras leaves out that None is a choice
        return keras.applications.MobileNetV2(
            input_shape=(weights.image_size, weights.image_size, 3),
            alpha=weights.alpha,
            include_top=False,
            pooling="avg",
            weights=origin,
        )

    if weights.origin == IMAGENET:
        try:
            with _socket_timeout(DOWNLOAD_TIMEOUT_SECONDS):
                return build(IMAGENET)
        except Exception as error:
            raise WeightsError(
                f"the ImageNet weights cannot be downloaded ({_first_line(error)}). Give "
                "FRUITS_WEIGHTS the path of a Keras weights file instead, or `sample` for the "
                "small embedded ones."
            ) from error
    with weights.file() as path:
        model = build(None)
        try:
            model.load_weights(path)
        except Exception as error:
            raise WeightsError(
                f"{path.name} does not hold the weights of MobileNetV2 without its top at alpha "
                f"{weights.alpha:g} ({_first_line(error)}). If the file is whole, `alpha` in the "
                "config of model_weights must be the one it was trained with."
            ) from error
    for layer in model.layers:
        if not all(np.isfinite(array).all() for array in layer.get_weights()):
            raise WeightsError(
                f"{path.name} holds NaN or infinite weights (layer {layer.name}): the training "
                "that made it diverged. Point FRUITS_WEIGHTS at another file."
            )
    return model


def _to_tflite(model: keras.Model, image_size: int) -> bytes:
    """Freezes the weights into the graph first: six times faster than `from_keras_model`."""
    import tensorflow as tf  # noqa: PLC0415 - see convert
    from tensorflow.python.framework.convert_to_constants import (  # noqa: PLC0415
        convert_variables_to_constants_v2,
    )

    def from_pixels(pixels: tf.Tensor) -> Any:
        return model(tf.cast(pixels, tf.float32) / 127.5 - 1.0, training=False)

    signature = tf.TensorSpec((1, image_size, image_size, 3), tf.uint8)
    traced = tf.function(from_pixels, autograph=False).get_concrete_function(signature)
    frozen = convert_variables_to_constants_v2(traced)
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module()).convert()


def _fingerprint(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0][:300]
