"""MobileNetV2 as LiteRT runs it: pixels in, features out, on one core."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
from ai_edge_litert.interpreter import Interpreter

MODEL = "model.tflite"
DESCRIPTION = "model.json"
PROBE = "probe.npz"
"""Photos and the features that Keras gave them when the model was converted."""


@dataclass(frozen=True)
class ModelDescription:
    """What `model.json` says.

    Attributes:
        architecture: always `MobileNetV2`.
        alpha: width multiplier.
        image_size: height and width of the input in pixels.
        features: length of the output vector.
        origin: where the weights came from.
        fingerprint: SHA-256 over the weights, hexadecimal.
        relative_error: L2 distance to Keras's features over their L2 norm, on the probe photos.
        tensorflow: version that converted.
    """

    architecture: str
    alpha: float
    image_size: int
    features: int
    origin: str
    fingerprint: str
    relative_error: float
    tensorflow: str

    def to_json(self) -> bytes:
        """As `model.json` holds it."""
        return json.dumps(asdict(self), indent=2).encode()

    @classmethod
    def from_json(cls, content: bytes) -> ModelDescription:
        """Reads `model.json`."""
        return cls(**json.loads(content))


class FeatureExtractor:
    """A LiteRT interpreter over a float32 MobileNetV2 without its top.

    The graph takes 8-bit pixels and scales them to [-1, 1] itself, as Keras's
    `mobilenet_v2.preprocess_input` does. It runs one image at a time on one thread: batches and
    threads are slower per core (docs/performance.md).
    """

    def __init__(self, model: bytes) -> None:
        self._interpreter = Interpreter(model_content=model, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        output = self._interpreter.get_output_details()[0]
        self._output = output["index"]
        self.features = int(output["shape"][-1])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(size, size, 3) uint8 RGB -> (features,) float32."""
        self._interpreter.set_tensor(self._input, pixels[np.newaxis])
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)[0]


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """L2 norm of the difference over the L2 norm of what is expected."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
