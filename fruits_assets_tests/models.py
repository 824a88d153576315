"""Conversions that are kept between runs of the tests: TensorFlow takes seconds to import."""

import contextlib
import hashlib
import importlib.metadata
import io
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fruits_assets import core
from fruits_assets.core.mobilenet import ModelDescription
from fruits_assets.core.weights import ConvertedModel, Weights

Convert = Callable[[Weights, np.ndarray], ConvertedModel]


@dataclass(frozen=True)
class Conversions:
    """Converts once, and then reads what was converted: `core/test_weights.py` proves conversions.

    A file is named by the hash of all that it depends on: the weights and their shape, the probe
    photos, the code of `core`, Python, the machine, and every package that is installed.

    Attributes:
        folder: that keeps them. Only the one that was made last stays.
        convert: does it.
        code: folder of the code of `core`.
    """

    folder: Path
    convert: Convert
    code: Path = Path(core.__path__[0])

    def __call__(self, weights: Weights, probe: np.ndarray) -> ConvertedModel:
        """As `fruits_assets.core.weights.convert`."""
        file = self.folder / f"{self._name(weights, probe)}.npz"
        with contextlib.suppress(FileNotFoundError):
            return _read(file.read_bytes())
        model = self.convert(weights, probe)
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(_written(model))
        for old in self.folder.glob("*.npz"):
            old.unlink(missing_ok=True)
        unfinished.rename(file)
        return model

    def _name(self, weights: Weights, probe: np.ndarray) -> str:
        digest = hashlib.sha256()
        for part in self._depends_on(weights, probe):
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()

    def _depends_on(self, weights: Weights, probe: np.ndarray) -> Iterator[bytes]:
        with weights.file() as path:
            yield path.read_bytes()
        yield repr(weights).encode()
        yield repr((probe.shape, probe.dtype)).encode()
        yield probe.tobytes()
        for file in sorted(self.code.rglob("*.py")):
            yield file.read_bytes()
        yield repr((platform.python_version(), platform.machine())).encode()
        packages = {(one.name, one.version) for one in importlib.metadata.distributions()}
        yield repr(sorted(packages)).encode()


def _written(model: ConvertedModel) -> bytes:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        tflite=np.frombuffer(model.tflite, np.uint8),
        description=np.frombuffer(model.description.to_json(), np.uint8),
        expected=model.expected,
    )
    return buffer.getvalue()


def _read(content: bytes) -> ConvertedModel:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        description = ModelDescription.from_json(arrays["description"].tobytes())
        return ConvertedModel(arrays["tflite"].tobytes(), description, arrays["expected"])
